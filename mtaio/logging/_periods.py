"""
The periods of a log that is rotated by time, and the names that its older files get from them.

Promise: all processes divide time alike, whenever they were started: a period follows from the
clock and the time zone alone. Each moment belongs to one period, whatever the time zone does to the
length of a day.
Cost: a few µs, when a file is opened and when its period is over.
Why the clock, and not the start of the program, divides time: docs/en/design/logging.md.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from typing import Final

from mtaio._internal import checks

__all__ = ["STAMP", "Periods"]

STAMP: Final = re.compile(
    r"(?<![0-9])([0-9]{4}-[0-9]{2}-[0-9]{2}(?:_[0-9]{2}(?:-[0-9]{2}){0,2})?)"
    r"(?:[^0-9]([0-9]+))?(?![0-9])"
)
"""The start of a period in the name of a file, and the file's number, if it has one."""

_DAY_STAMP: Final = "%Y-%m-%d"
_PARTS_OF_A_DAY: Final = {
    "h": (3600, "%Y-%m-%d_%H"),
    "m": (60, "%Y-%m-%d_%H-%M"),
    "s": (1, "%Y-%m-%d_%H-%M-%S"),
}
"""For each ``when`` below a day: its seconds, and how the start of a period is written."""

_DAY: Final = 86400
_LONGEST: Final = 366
"""The most days or weeks in a period."""


class Periods:
    """
    Time, divided into periods.

    Days and weeks are counted from a date that is the same in every process, and begin at a time of
    day. Seconds, minutes and hours are counted from midnight; the last period of a day is cut off
    by the next midnight.

    Args:
        when: ``midnight``, ``D``, ``H``, ``M``, ``S``, or ``W0`` (Monday) to ``W6``, in any case.
        interval: How many of these units a period has.
        utc: Whether to count in UTC, not in local time.
        at_time: When days and weeks begin; None for midnight.
    """

    __slots__ = ("_at_time", "_days", "_origin", "_seconds", "_stamp", "_zone")

    def __init__(
        self, when: str, interval: int = 1, *, utc: bool = False, at_time: time | None = None
    ) -> None:
        kind = checks.when("when", when)
        unit, self._stamp = _PARTS_OF_A_DAY.get(kind, (_DAY, _DAY_STAMP))
        longest = _LONGEST if unit == _DAY else _DAY // unit
        checks.count("interval", interval, way_out=f"Pass 1 to {longest}.")
        if interval > longest:
            msg = f"interval={interval!r} is too long for when={when!r}. Pass 1 to {longest}."
            raise ValueError(msg)
        self._zone = UTC if checks.flag("utc", utc) else None
        if at_time is not None:
            _check_time_of_day(at_time, when, whole_days=unit == _DAY)
        self._at_time = at_time or time()
        weekly = kind[0] == "w"
        self._days = 7 * interval if weekly else interval if unit == _DAY else 1
        # The first day of the calendar was a Monday.
        self._origin = 1 + (int(kind[1]) if weekly else 0)
        self._seconds = unit * interval if unit < _DAY else 0

    def of(self, moment: float) -> tuple[float, float]:
        """Return when the period began that a time of ``time.time`` is in, and when it ends."""
        day = datetime.fromtimestamp(moment, self._zone).toordinal()
        day -= (day - self._origin) % self._days
        # The time of day is later than the moment's, or is skipped, or comes twice, that day.
        while self._start_of(day) > moment:
            day -= self._days
        while self._start_of(day + self._days) <= moment:
            day += self._days
        start, end = self._start_of(day), self._start_of(day + self._days)
        if self._seconds:
            start += (moment - start) // self._seconds * self._seconds
            end = min(start + self._seconds, end)
        return start, end

    def stamp(self, start: float) -> str:
        """Return the start of a period as names have it; these texts sort as the times do."""
        return datetime.fromtimestamp(start, self._zone).strftime(self._stamp)

    def _start_of(self, day: int) -> float:
        return datetime.combine(date.fromordinal(day), self._at_time, self._zone).timestamp()


def _check_time_of_day(at_time: time, when: str, *, whole_days: bool) -> None:
    if not isinstance(at_time, time):  # pyright: ignore[reportUnnecessaryIsInstance] - a user may pass anything
        msg = f"at_time={at_time!r} is {checks.type_of(at_time)}. Pass a datetime.time, or None."
        raise TypeError(msg)
    if at_time.tzinfo is not None:
        msg = f"at_time={at_time!r} has a time zone. Pass one without; utc=True makes it UTC."
        raise ValueError(msg)
    if not whole_days:
        msg = (
            f"at_time={at_time!r} has no meaning with when={when!r}, whose periods begin at "
            f"midnight. Pass when='midnight', or None."
        )
        raise ValueError(msg)
