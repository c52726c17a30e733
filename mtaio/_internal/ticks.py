"""
When a periodic task is due: multiples of a period, or what a cron expression says.

Promise: a tick follows from the clock and the schedule alone, never from when a run began or ended,
so a schedule does not drift. Each tick is later than the one before, whatever the clock does.
Cost: a period is a division. A cron expression takes some ten microseconds for each tick.

Why cronsim reads the expressions: docs/en/design/executor.md.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Final, Protocol, cast, final
from zoneinfo import ZoneInfo

from mtaio._internal import checks, clock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Cron", "CronTicks", "Interval", "Ticks"]

_MOST_COUNTED: Final = 1000
"""How many ticks that have passed are counted one by one, where there is no other way."""


class Ticks(Protocol):
    """
    The ticks of a schedule, in seconds on a clock of their own.

    Attributes:
        on_wall: Whether that is the time of day, which may be set, and is that of all processes.
    """

    on_wall: bool

    def now(self) -> float:
        """Return the time."""
        ...

    def after(self, moment: float) -> float:
        """Return the first tick after a moment."""
        ...

    def pass_to(self, tick: float, moment: float) -> tuple[float, int]:
        """Return the last tick from ``tick`` to ``moment``, and how many ticks later that is."""
        ...


@final
class Interval:
    """
    Multiples of a period from a moment on.

    Args:
        seconds: The period.
        on_wall: Whether they are counted from 1970 on, by the time of day, as all processes do;
            otherwise from now on, by the event loop's clock.
    """

    __slots__ = ("_read", "_seconds", "_start", "on_wall")

    def __init__(self, seconds: float, *, on_wall: bool) -> None:
        self.on_wall: bool = on_wall
        self._read: Callable[[], float] = clock.wall if on_wall else clock.now
        self._seconds = seconds
        self._start = 0.0 if on_wall else clock.now()

    def now(self) -> float:
        """Return the time."""
        return self._read()

    def _number(self, moment: float) -> int:
        """Return the number of the last tick up to a moment."""
        number = math.floor((moment - self._start) / self._seconds)
        if self._at(number) > moment:  # the division was rounded up
            return number - 1
        return number + (self._at(number + 1) <= moment)  # it may have been rounded down

    def _at(self, number: int) -> float:
        return self._start + number * self._seconds

    def after(self, moment: float) -> float:
        """Return the first tick after a moment."""
        return self._at(self._number(moment) + 1)

    def pass_to(self, tick: float, moment: float) -> tuple[float, int]:
        """Return the last tick from ``tick`` to ``moment``, and how many ticks later that is."""
        number = self._number(moment)
        return self._at(number), max(0, number - self._number(tick))


@final
class Cron:
    """
    A schedule in crontab syntax for `TaskExecutor.every`. Needs the extra ``cron``.

    When daylight saving time begins or ends, it behaves like Debian's cron. A fixed time of day
    that is skipped runs right after the gap, and one that occurs twice runs the first time.
    Schedules that run every hour or every few minutes (whose minute or hour begins with ``*``) keep
    their pace.

    Args:
        expression: Minute, hour, day of the month, month and day of the week; with six fields, the
            first is the second. Supports ``*``, ``1-5``, ``*/10``, ``1,3``, names such as ``MON``
            and ``JAN``, ``L`` for the last day of the month, ``5#2`` for the second Friday, and
            ``5L`` for the last Friday.
        tz: The time zone: an IANA name or a ``tzinfo``.

    Raises:
        ValueError: The expression is invalid or is never due, or the time zone does not exist.
        TypeError: An argument has the wrong type.
        ImportError: cronsim is not installed.

    Example:
        ```python
        from datetime import UTC, datetime

        from mtaio.core import Cron

        workdays = Cron("30 6 * * MON-FRI", tz="Asia/Tokyo")
        print(workdays.after(datetime(2026, 12, 4, tzinfo=UTC)))
        ```
    """

    __slots__ = ("_expression", "_tz")

    def __init__(self, expression: str, *, tz: str | tzinfo = "UTC") -> None:
        way_out = 'Pass a line of a crontab, such as "*/5 * * * *".'
        if not isinstance(cast("object", expression), str):
            msg = f"expression={expression!r} is {checks.type_of(expression)}, not a str. {way_out}"
            raise TypeError(msg)
        self._expression = expression
        self._tz = tz if isinstance(tz, tzinfo) else _zone(tz)
        cron, wrong = _cronsim()
        try:
            found = next(cron(expression, datetime.now(UTC)), None)
        except wrong as error:
            msg = f"expression={expression!r} cannot be read: {error}. {way_out}"
            raise ValueError(msg) from None
        if found is None:
            msg = f"expression={expression!r} is never due. {way_out}"
            raise ValueError(msg)

    def __repr__(self) -> str:
        return f"Cron({self._expression!r}, tz={str(self._tz)!r})"

    def after(self, moment: datetime) -> datetime:
        """
        Return the first tick after a moment, in the time zone of the expression.

        Args:
            moment: A datetime with a time zone.

        Raises:
            ValueError: ``moment`` has no time zone.
        """
        if moment.tzinfo is None:
            msg = f"moment={moment!r} has no time zone. Pass datetime.now(UTC), or the like."
            raise ValueError(msg)
        cron, _ = _cronsim()
        # In the hour that comes twice, what it finds may lie before.
        found = cron(self._expression, moment.astimezone(self._tz))
        return next(each for each in found if each.astimezone(UTC) > moment)


@final
class CronTicks:
    """The ticks of a `Cron`, by the time of day."""

    __slots__ = ("_cron", "on_wall")

    def __init__(self, cron: Cron) -> None:
        self.on_wall: bool = True
        self._cron = cron

    def now(self) -> float:
        """Return the time."""
        return clock.wall()

    def after(self, moment: float) -> float:
        """Return the first tick after a moment."""
        return self._cron.after(datetime.fromtimestamp(moment, UTC)).timestamp()

    def pass_to(self, tick: float, moment: float) -> tuple[float, int]:
        """Return the last tick from ``tick`` to ``moment``, and how many ticks later that is."""
        passed = 0
        while (following := self.after(tick)) <= moment:
            tick, passed = following, passed + 1
            if passed == _MOST_COUNTED:  # the clock was far off: that is no time of ours
                return moment, passed
        return tick, passed


def _zone(name: object) -> tzinfo:
    way_out = 'Pass a name such as "Europe/Berlin", or a tzinfo.'
    if not isinstance(name, str):
        msg = f"tz={name!r} is {checks.type_of(name)}. {way_out}"
        raise TypeError(msg)
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        msg = (
            f"tz={name!r} is not known here. {way_out} If the machine has no time zones, install "
            f"tzdata."
        )
        raise ValueError(msg) from None


def _cronsim() -> tuple[type[CronSim], type[CronSimError]]:
    """Return the class that walks from tick to tick, and that of its errors."""
    try:
        from cronsim import CronSim, CronSimError  # noqa: PLC0415 - an extra
    except ImportError:
        msg = "Cron needs cronsim. Install it with: pip install 'mtaio[cron]'"
        raise ImportError(msg) from None
    return CronSim, CronSimError


if TYPE_CHECKING:
    from cronsim import CronSim, CronSimError
