"""
What takes samples in time: a thread, or in virtual time, which a thread would not follow, a task.

Promise: a sample every ``interval`` seconds, until it is stopped or its event loop ends; no error
of a sample ends it. The thread takes samples also while the event loop is blocked, and calls the
loop every ``loop_interval`` seconds.
"""

from __future__ import annotations

import contextvars
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio

from mtaio._internal import clock, loops

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.monitoring._stalls import LoopWatch
    from mtaio.monitoring._stats import Stall

__all__ = ["FIRST", "Sampler", "SamplingTask"]

FIRST: Final = 0.1
"""Seconds after the start at which the first sample is taken, if the interval is not shorter."""


class Sampler:
    """
    A thread that takes samples in real time, from `start` to `stop`.

    Args:
        watch: The calls into the loop.
        interval: Seconds from one sample to the next.
        loop_interval: Seconds from one call into the loop to the next.
        read: What the loop shall call shortly before a sample.
        sample: What takes a sample; raises nothing.
        stalled: What is called with a stall noticed, and a stall that has ended.
        name: The name of the thread.
    """

    __slots__ = (
        "_due",
        "_interval",
        "_loop_interval",
        "_read",
        "_running",
        "_sample",
        "_stalled",
        "_thread",
        "_watch",
    )

    def __init__(
        self,
        watch: LoopWatch,
        *,
        interval: float,
        loop_interval: float,
        read: Callable[[], object],
        sample: Callable[[], object],
        stalled: Callable[[Stall | None, Stall | None], object],
        name: str,
    ) -> None:
        self._watch = watch
        self._interval = interval
        self._loop_interval = loop_interval
        self._read = read
        self._sample = sample
        self._stalled = stalled
        # Held while the thread should run. Waiting for an Event takes longer, and before it returns
        # the loop's thread has left the place where it was stopped.
        self._running = threading.Lock()
        self._running.acquire()
        self._due = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._due = clock.read() + min(FIRST, self._interval)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it, which takes no longer than one sample."""
        with suppress(RuntimeError):  # it was stopped before
            self._running.release()
        self._thread.join()

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        rest = self._beat()
        while not self._watch.over and not self._running.acquire(timeout=rest):
            rest = self._beat()
        self._report(*self._watch.end())

    def _beat(self) -> float:
        """Do what is due, and return for how many seconds to rest."""
        self._report(*self._watch.look())
        now = clock.read()
        late = now - self._due
        due = late >= 0
        if due:  # samples that were missed are not made up for
            self._due = now + self._interval - (late if late < self._interval else 0.0)
        soon = now + 1.5 * self._loop_interval >= self._due
        self._watch.call(self._read if soon else None)
        if due:
            self._sample()
        return max(0.0, self._watch.due - clock.read())

    def _report(self, noticed: Stall | None, ended: Stall | None) -> None:
        if noticed is not None or ended is not None:
            self._stalled(noticed, ended)


class SamplingTask:
    """
    A task that takes samples in virtual time, from `start` to `stop`.

    It is made and used in its event loop.

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
