"""
The task that takes samples in virtual time, which a thread would not follow.

Promise: a sample every ``interval`` seconds of the event loop's clock, until it is stopped or the
loop ends.
"""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING

import anyio

from mtaio._internal import clock, loops

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SamplingTask"]


class SamplingTask:
    """
    One task, from `start` to `stop`; made and used in its event loop.

    Args:
        loop: The event loop, as `loops.current_loop` returned it.
        interval: Seconds from one sample to the next.
        read: What is called before each sample.
        sample: What takes a sample; raises nothing.
    """

    __slots__ = ("_ended", "_interval", "_loop", "_read", "_sample", "_scope", "_working")

    def __init__(
        self,
        loop: object,
        interval: float,
        *,
        read: Callable[[], object],
        sample: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._interval = interval
        self._read = read
        self._sample = sample
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self._working = False

    def start(self) -> None:
        """Start the task."""
        self._working = True
        loops.start_task(self._loop, self._run, contextvars.copy_context(), self._end)

    def stop(self) -> None:
        """Take no more samples; `wait_ended` waits for the end of the task."""
        self._working = False
        if loops.is_current(self._loop):
            self._scope.cancel()

    async def wait_ended(self) -> None:
        """Wait for the end of the task after `stop`, which is at hand; shielded."""
        with anyio.CancelScope(shield=True):
            await self._ended.wait()

    def is_alive(self) -> bool:
        """Return whether samples are taken."""
        return self._working and not loops.is_over(self._loop)

    async def _run(self) -> None:
        due = clock.now() + self._interval
        with self._scope:
            await anyio.sleep_until(clock.loop_deadline(due))
            while self._working:
                self._read()
                self._sample()
                due += self._interval
                await anyio.sleep_until(clock.loop_deadline(due))

    def _end(self) -> None:
        self._working = False
        self._ended.set()
