"""What is counted of timeouts. A module of its own: most objects have none, and it takes time."""

from __future__ import annotations

from dataclasses import dataclass, field

from mtaio._internal.statistics import COUNTER, LIMIT, SECONDS

__all__ = ["TimeoutStatistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutStatistics:
    """What a timeout has done so far: a `TimeoutManager`, or a `Timeout` of a pipeline."""

    default_timeout: float | None = field(metadata=LIMIT | SECONDS)
    """Seconds allowed where none are given; None for no limit."""
    entered: int = field(metadata=COUNTER)
    """Blocks entered, including calls run and shielded clean-ups."""
    timed_out: int = field(metadata=COUNTER)
    """How many of them ended in `mtaio.exceptions.TimeoutError`."""
