"""In real time, on every event loop: a log beside a loop that leaves it no time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from mtaio.logging import AsyncFileHandler
from tests.logging.tools import Logbook

if TYPE_CHECKING:
    from pathlib import Path

RECORDS = 100_000


async def dropped_by_a_busy_loop(folder: Path) -> int:
    """Log from a loop that polls, and return how many records found no room."""
    handler = AsyncFileHandler(folder / "app.log", max_bytes=1_000_000, backup_count=99)
    logger = logging.Logger("busy")  # noqa: LOG001 - no other test is to meet it
    logger.addHandler(handler)
    for number in range(RECORDS):
        logger.info("record %d", number)
        if number % 20 == 0:
            await checkpoint()
    assert await handler.aflush(60)
    handler.close()
    figures = handler.statistics()
    dropped = sum(figures.dropped.values())
    if not dropped:
        assert figures.written == RECORDS
        assert Logbook(folder).all_lines() == [f"record {number}" for number in range(RECORDS)]
    return dropped


async def test_busy_loop_loses_nothing(tmp_path: Path) -> None:
    """A loop that polls and logs, without ever waiting, leaves the log time enough to keep up."""
    # A disk or a machine that stands still for the tenth part of a second costs records, whatever
    # the loop does; a loop that leaves no time costs some each time.
    dropped: list[int] = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        dropped.append(await dropped_by_a_busy_loop(folder))
        if not dropped[-1]:
            return
    raise AssertionError(dropped)
