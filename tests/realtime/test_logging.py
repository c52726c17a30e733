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


async def test_busy_loop_loses_nothing(tmp_path: Path) -> None:
    """A loop that polls and logs, without ever waiting, leaves the log time enough to keep up."""
    handler = AsyncFileHandler(tmp_path / "app.log", max_bytes=1_000_000, backup_count=99)
    logger = logging.Logger("busy")  # noqa: LOG001 - no other test is to meet it
    logger.addHandler(handler)
    for number in range(RECORDS):
        logger.info("record %d", number)
        if number % 20 == 0:
            await checkpoint()
    assert await handler.aflush(60)
    handler.close()
    figures = handler.statistics()
    assert (figures.dropped, figures.written) == ({}, RECORDS)
    assert Logbook(tmp_path).all_lines() == [f"record {number}" for number in range(RECORDS)]
