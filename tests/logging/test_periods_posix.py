"""How time is divided: days of 23 and 25 hours, midnights that do not exist or come twice."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaio.logging._periods import Periods

if TYPE_CHECKING:
    from collections.abc import Iterator

assert sys.platform != "win32"

from time import tzset  # noqa: E402 - which Windows does not have

BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"
SAO_PAULO = "BRT3BRST,M10.3.0/0,M2.3.0/0"  # no midnight in October, two of them in February
HAVANA = "CST5CDT,M3.2.0/0,M11.1.0/1"
ST_JOHNS = "NST3:30NDT,M3.2.0/0:01,M11.1.0/0:01"  # at 0:01 the clock is put back to 23:01
LORD_HOWE = "LHST-10:30LHDT-11,M10.1.0,M4.1.0"
ZONES = [BERLIN, SAO_PAULO, HAVANA, ST_JOHNS, LORD_HOWE, "IST-5:30", "UTC0"]


@contextmanager
def zone(name: str) -> Iterator[None]:
    """Have the process in a time zone, given as POSIX writes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", name)
        tzset()
        yield
    tzset()


EXPECTED: list[tuple[str, str, int, str, str, str, float]] = [
    # zone, when, interval, at_time; a moment; when its period begins; how many hours that lasts
    (BERLIN, "midnight", 1, "", "2026-03-29T12:00", "2026-03-29T00:00", 23),
    (BERLIN, "D", 1, "", "2026-10-25T12:00", "2026-10-25T00:00", 25),
    (BERLIN, "D", 2, "", "2026-12-01T12:00", "2026-12-01T00:00", 48),
    (BERLIN, "D", 1, "04:30", "2026-12-01T04:29", "2026-11-30T04:30", 24),
    (BERLIN, "D", 1, "02:30", "2026-03-29T03:10", "2026-03-28T02:30", 24),  # it is not there yet
    (BERLIN, "D", 1, "02:30", "2026-10-25T02:45", "2026-10-25T02:30", 25),
    (BERLIN, "W0", 1, "", "2026-12-01T12:00", "2026-11-30T00:00", 168),
    (BERLIN, "w6", 1, "", "2026-03-28T12:00", "2026-03-22T00:00", 168),
    (BERLIN, "W6", 1, "", "2026-03-29T00:00", "2026-03-29T00:00", 167),
    (BERLIN, "W0", 2, "", "2026-12-01T12:00", "2026-11-23T00:00", 336),
    (BERLIN, "H", 1, "", "2026-10-25T02:30", "2026-10-25T02:00", 1),
    (BERLIN, "h", 6, "", "2026-12-01T17:59", "2026-12-01T12:00", 6),
    (BERLIN, "H", 5, "", "2026-12-01T23:00", "2026-12-01T20:00", 4),  # which midnight ends
    (BERLIN, "M", 15, "", "2026-12-01T23:59", "2026-12-01T23:45", 0.25),
    (BERLIN, "S", 9, "", "2026-12-01T00:00:08", "2026-12-01T00:00:00", 0.0025),
    (SAO_PAULO, "midnight", 1, "", "2026-10-18T12:00", "2026-10-18T01:00", 23),
    (SAO_PAULO, "midnight", 1, "", "2026-02-14T23:30", "2026-02-14T00:00", 25),
    (HAVANA, "midnight", 1, "", "2026-11-01T00:30", "2026-11-01T00:00", 25),
    (ST_JOHNS, "midnight", 1, "", "2026-10-31T23:30-03:30", "2026-11-01T00:00", 25),
]


@pytest.mark.parametrize(
    ("name", "when", "interval", "at_time", "moment", "start", "hours"),
    EXPECTED,
    ids=range(len(EXPECTED)),
)
def test_when_a_period_begins_and_ends(  # noqa: PLR0917 - a row of the table
    name: str, when: str, interval: int, at_time: str, moment: str, start: str, hours: float
) -> None:
    """What counts is the clock on the wall, whatever that does."""
    with zone(name):
        time_of_day = time.fromisoformat(at_time) if at_time else None
        periods = Periods(when, interval, at_time=time_of_day)
        begins, ends = periods.of(datetime.fromisoformat(moment).timestamp())
        assert begins == datetime.fromisoformat(start).timestamp()
        assert ends - begins == hours * 3600


@pytest.mark.parametrize(
    ("when", "stamp"),
    [
        ("midnight", "2026-03-01"),
        ("W6", "2026-03-01"),
        ("H", "2026-03-01_21"),
        ("M", "2026-03-01_21-30"),
        ("S", "2026-03-01_21-30-09"),
    ],
)
def test_file_is_named_after_the_start(when: str, stamp: str) -> None:
    """As exactly as it takes, in local time or in UTC."""
    moment = datetime(2026, 3, 1, 21, 30, 9, tzinfo=UTC).timestamp()
    with zone("IST-5:30"):
        periods = Periods(when, utc=True)
        assert periods.stamp(periods.of(moment)[0]) == stamp
        local = Periods("S")
        assert local.stamp(local.of(moment)[0]) == "2026-03-02_03-00-09"


def test_hour_that_comes_twice_is_two_periods() -> None:
    """Each has an hour, and a name that they share."""
    with zone(BERLIN):
        periods = Periods("H")
        first = datetime.fromisoformat("2026-10-25T00:30:00Z").timestamp()
        one, other = periods.of(first), periods.of(first + 3600)
    assert one[1] == other[0]
    with zone(BERLIN):
        assert periods.stamp(one[0]) == periods.stamp(other[0]) == "2026-10-25_02"


KINDS = st.one_of(
    st.builds(
        Periods,
        st.sampled_from(["midnight", "D", "W0", "W3", "W6"]),
        st.integers(1, 5),
        utc=st.booleans(),
        at_time=st.none() | st.times(),
    ),
    st.builds(Periods, st.just("H"), st.integers(1, 24), utc=st.booleans()),
    st.builds(Periods, st.just("M"), st.integers(1, 1440), utc=st.booleans()),
)


@given(
    periods=KINDS,
    name=st.sampled_from(ZONES),
    moment=st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001 - Hypothesis wants none
)
def test_each_moment_is_in_one_period(periods: Periods, name: str, moment: datetime) -> None:
    """Whoever asks gets the same, and where one ends the next begins."""
    with zone(name):
        now = moment.replace(tzinfo=UTC).timestamp() // 1
        start, end = periods.of(now)
        assert start <= now < end
        assert periods.of(start) == periods.of(end - 0.001) == (start, end)
        assert periods.of(end)[0] == end
        assert periods.of(start - 0.001)[1] == start
