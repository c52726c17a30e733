"""What a run shows: the table, the JSON, and paths."""

from __future__ import annotations

import io
import json
import math
import os
from typing import Any

import pytest
from rich.console import Console

from mtaio.app._demo import Failed, Hashed, HasherStatistics, Skipped
from mtaio.app._demo_command import (
    MOST_FAILURES,
    Options,
    Tally,
    figures_of,
    printable,
    table_of,
)

STATISTICS = HasherStatistics(
    in_flight_peak=3, slot_waits=1234, slot_wait_seconds=5.678, timed_out=1
)


def figures(tally: Tally, *, seconds: float = 2.0, **options: Any) -> dict[str, Any]:
    """Return the figures of what was counted."""
    return figures_of("some/where", Options(**options), tally, STATISTICS, seconds)


def shown(figures: dict[str, Any]) -> list[str]:
    """Return the lines of the table on a screen 80 columns wide."""
    screen = io.StringIO()
    Console(file=screen, width=80).print(table_of(figures))
    return screen.getvalue().splitlines()


def test_table_has_every_figure() -> None:
    """The table says what was done, how fast, and what was waited for."""
    tally = Tally()
    for number in range(1500):
        tally.add(Hashed(str(number), 1000, "0" * 64))
    for kind in ("symbolic link", "FIFO", "symbolic link"):
        tally.add(Skipped("x", kind))
    tally.add(Failed("y", "Permission denied"))
    assert shown(figures(tally)) == [
        "files       1,500",
        "bytes       1,500,000 (1.5 MB)",
        "failures    1",
        "skipped     2 symbolic links, 1 FIFO",
        "seconds     2.00, on asyncio",
        "throughput  750 files/s, 750.0 kB/s",
        "in flight   3 at the peak, 8 allowed",
        "waits       for a slot 1,234 (5.68 s)",
    ]


def test_table_of_nothing() -> None:
    """A run in which nothing was done, in no time, does not divide by zero."""
    lines = shown(figures(Tally(), seconds=0.0))
    assert lines[0] == "files       0"
    assert lines[3] == "skipped     0"
    assert lines[5] == "throughput  0 files/s, 0 bytes/s"


def test_json_has_every_figure() -> None:
    """All of the table, the options and the failures by name are there for programs to read."""
    tally = Tally()
    tally.add(Hashed("a", 1000, "0" * 64))
    tally.add(Skipped("x", "FIFO"))
    tally.add(Failed("y", "Permission denied"))
    options: dict[str, Any] = {
        "backend": "trio",
        "limit": 3,
        "rate": 2.5,
        "timeout": math.inf,
    }
    assert json.loads(json.dumps(figures(tally, **options))) == {
        "path": "some/where",
        "backend": "trio",
        "limit": 3,
        "rate": 2.5,
        "timeout": None,
        "files": 1,
        "bytes": 1000,
        "failed": 1,
        "skipped": {"FIFO": 1},
        "seconds": 2.0,
        "files_per_second": 0.5,
        "bytes_per_second": 500.0,
        "in_flight_peak": 3,
        "slot_waits": 1234,
        "slot_wait_seconds": 5.678,
        "timed_out": 1,
        "failures": [{"path": "y", "reason": "Permission denied"}],
    }


def test_json_keeps_names_that_are_no_text() -> None:
    """The bytes of a path survive the JSON, which is ASCII alone."""
    path = os.fsdecode("né/".encode() + (b"caf\xe9" if os.name == "posix" else b"cafe"))
    tally = Tally()
    tally.add(Failed(path, "gone"))
    text = json.dumps(figures(tally))
    assert text.isascii()
    assert json.loads(text)["failures"] == [{"path": path, "reason": "gone"}]


def test_failures_kept_by_name_are_bounded() -> None:
    """However much fails, memory holds the first thousand; all are counted."""
    tally = Tally()
    for number in range(MOST_FAILURES + 5):
        tally.add(Failed(str(number), "gone"))
    assert tally.failed == MOST_FAILURES + 5
    assert [failure.path for failure in tally.failures] == [
        str(number) for number in range(MOST_FAILURES)
    ]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("plain/été 🐍", "plain/été 🐍"),
        ("new\nline\ttab", r"new\nline\ttab"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("right\u202eleft", r"right\u202eleft"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
    ],
)
def test_printable_is_one_harmless_line(path: str, shown: str) -> None:
    """What a terminal would act upon, and bytes that are no text, are escaped; text is kept."""
    assert printable(path) == shown
