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

    __slots__ = ("waiters",)

    def __init__(self) -> None:
        self.waiters: OrderedDict[anyio.Event, None] = OrderedDict()

    async def wait(self) -> None:
        """Wait to be woken."""
        event = anyio.Event()
        self.waiters[event] = None
        try:
            await event.wait()
        except BaseException:
            if event.is_set():
                self.ring()
            else:
                self.waiters.pop(event, None)  # its owner may have let go of a loop that is over
            raise

    def ring(self) -> None:
        """Wake one."""
        if self.waiters:
            self.waiters.popitem(last=False)[0].set()

    def ring_all(self) -> None:
        """Wake everybody."""
        while self.waiters:
            self.ring()
