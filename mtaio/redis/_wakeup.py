"""
A task that sleeps until a moment, or until another task wakes it.

Promise: waking a task that is not asleep does nothing, so the task has to look at what has changed
before it sleeps, with no checkpoint between the two.
Cost: one event for each sleep.
"""

from __future__ import annotations

import anyio

from mtaio._internal import clock

__all__ = ["Wakeup"]


class Wakeup:
    """Where one task sleeps, and others wake it."""

    __slots__ = ("_woken",)

    def __init__(self) -> None:
        self._woken: anyio.Event | None = None

    def wake(self) -> None:
        """Wake the task if it sleeps."""
        if self._woken is not None:
            self._woken.set()

    async def sleep(self, until: float) -> None:
        """Sleep until ``until``, a moment of `clock.now`, or until woken."""
        self._woken = woken = anyio.Event()
        with anyio.CancelScope(deadline=clock.loop_deadline(until)):
            await woken.wait()
