"""
How long things take: waits, which are always summed up, and histograms, which are kept on request.

Promise: until the method ``record_durations()`` of an object is called, it records nothing, and its
paths pay for a look at one attribute, or for nothing. After that it goes on for good: what is
recorded is counted by the object, not by those who watch it, of whom there may be several.

What counts: a wait, if it counts in ``wait_seconds`` too; of what runs, each end, whether with a
result, an error, a timeout or a cancellation, since the time was spent. What a finished event loop
left behind has no end, and its times are of a clock that is gone: it is not counted.
Cost: 0.2 µs for an observation, and 0.15 µs for the two looks at the clock where there were none; a
call that is timed from outside has a coroutine more, and takes 0.5 µs in all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from mtaio._internal import clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mtaio._internal.histogram import Histogram, HistogramStatistics

__all__ = ["WaitTimes", "record_durations_of", "recorded", "timed", "took"]

R = TypeVar("R")


class WaitTimes:
    """
    How long tasks waited: in all, at most, and, once `record` was called, how many for how long.

    A part of an object that has waiters, whose statistics have fields of these names.
    """

    __slots__ = ("max_wait_seconds", "wait_duration", "wait_seconds")

    def __init__(self) -> None:
        self.wait_seconds: float = 0.0
        self.max_wait_seconds: float = 0.0
        self.wait_duration: Histogram | None = None

    def count(self, seconds: float) -> None:
        """Count a wait."""
        self.wait_seconds += seconds
        self.max_wait_seconds = max(self.max_wait_seconds, seconds)
        if self.wait_duration is not None:
            self.wait_duration.observe(seconds)

    def record(self) -> None:
        """Keep a histogram from now on."""
        from mtaio._internal.histogram import Histogram  # noqa: PLC0415 - not all programs ask

        if self.wait_duration is None:
            self.wait_duration = Histogram()


def recorded(durations: Histogram | None) -> HistogramStatistics | None:
    """Return what a histogram has, if there is one."""
    return None if durations is None else durations.snapshot()


def record_durations_of(part: object) -> None:
    """Have a part of an object record durations too, if it does that; it may be anybody's."""
    record = getattr(part, "record_durations", None)
    if callable(record):
        record()


def took(durations: Histogram, began: float, error: BaseException | None = None) -> None:
    """Record how long something took that has ended, with an error or without."""
    if type(error) is not GeneratorExit:  # closed, after its loop: it has no end
        durations.observe(clock.now() - began)


async def timed(
    durations: Histogram,
    call: Callable[..., Awaitable[R]],
    *args: Any,
    began: float | None = None,
) -> R:
    """Make a call, and record how long it took since it ``began``, which by default is now."""
    reader = clock.reader
    if began is None:
        began = reader()()
    try:
        result = await call(*args)
    except BaseException as error:
        took(durations, began, error)
        raise
    durations.observe(reader()() - began)
    return result
