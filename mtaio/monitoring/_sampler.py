"""
The thread that takes samples, so that they are fresh even while the event loop is blocked.

Promise: it calls the loop every ``loop_interval`` seconds and takes a sample every ``interval``.
It ends when it is told to, or when its loop has ended; no error of a sample ends it.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mtaio._internal import clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.monitoring._stalls import LoopWatch
    from mtaio.monitoring._stats import Stall

__all__ = ["FIRST", "Sampler"]

FIRST: Final = 0.1
"""Seconds after the start at which the first sample is taken, if the interval is not shorter."""


class Sampler:
    """
    One thread, from `start` to `stop`.

    Args:
        watch: The calls into the loop.
        interval: Seconds from one sample to the next.
        loop_interval: Seconds from one call into the loop to the next.
        read: What the loop shall call shortly before a sample.
        sample: What takes a sample; raises nothing.
        stalled: What is told of a stall noticed, and of a stall that has ended.
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
        self._tell(*self._watch.end())

    def _beat(self) -> float:
        """Do what is due, and return for how many seconds to rest."""
        self._tell(*self._watch.look())
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

    def _tell(self, noticed: Stall | None, ended: Stall | None) -> None:
        if noticed is not None or ended is not None:
            self._stalled(noticed, ended)
