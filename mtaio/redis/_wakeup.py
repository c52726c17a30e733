"""
A task that sleeps until a moment, or until another task wakes it.

Promise: waking a task that is not asleep does nothing, so the task has to look at what has changed
before it sleeps, with no checkpoint between the two.
Cost: one event for each sleep, and a cancel scope for one that may end by itself.
"""

from __future__ import annotations

import math

import anyio

from mtaio._internal import clock

__all__ = ["Wakeup"]


class Wakeup:
    """
    Where one task sleeps, and others wake it.

    Attributes:
        asleep: None unless the task sleeps; only to look at.
    """

    __slots__ = ("asleep",)

    def __init__(self) -> None:
        self.asleep: anyio.Event | None = None

    def wake(self) -> None:
        """Wake the task if it sleeps."""
        if self.asleep is not None:
            self.asleep.set()

    async def sleep(self, until: float) -> None:
        """Sleep until ``until``, a moment of `clock.now`, or until woken."""
        self.asleep = woken = anyio.Event()
        if until == math.inf:
            await woken.wait()
        else:
            with anyio.move_on_after(until - clock.now()):
                await woken.wait()
        self.asleep = None
