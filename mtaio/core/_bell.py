"""
Wake one of the tasks that wait, and lose no call to a task that was cancelled meanwhile.

Promise: each `Bell.ring` wakes the task that has waited longest, or nobody if none waits; a woken
task that is cancelled before it resumes passes the call on.
"""

from __future__ import annotations

from collections import OrderedDict

import anyio


class Bell:
    """A queue of waiting tasks. Whoever is woken looks for himself whether there is work."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: OrderedDict[anyio.Event, None] = OrderedDict()

    async def wait(self) -> None:
        """Wait to be woken."""
        event = anyio.Event()
        self._waiters[event] = None
        try:
            await event.wait()
        except BaseException:
            if event.is_set():
                self.ring()
            else:
                del self._waiters[event]
            raise

    def ring(self) -> None:
        """Wake one."""
        if self._waiters:
            self._waiters.popitem(last=False)[0].set()

    def ring_all(self) -> None:
        """Wake everybody."""
        while self._waiters:
            self.ring()
