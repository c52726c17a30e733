"""One log file, written to from many threads."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from mtaio.logging import AsyncFileHandler
from tests.hammer.hammer import at_once, rounds, watched
from tests.logging.storms import check

THREADS = 4
RECORDS = 200


def test_each_record_is_written_once_and_in_order(tmp_path: Path) -> None:
    """The records of a thread are in the files in their order, also those of the last rotation."""
    path = tmp_path / "app.log"
    handler = AsyncFileHandler(path, max_bytes=100_000, backup_count=99, max_pending=None)
    logger = logging.getLogger("hammer")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    seen = 0

    def log(thread: int, turn: int) -> None:
        for number in range(RECORDS):
            logger.info("%d %d", thread, turn * RECORDS + number)
            if number % 50 == 0:
                assert handler.flush()

    def look() -> None:
        nonlocal seen
        now = handler.statistics()
        assert seen <= now.written
        assert now.pending >= 0
        assert not now.lost
        seen = now.written

    def work() -> None:
        for turn in rounds(2):
            at_once(partial(log, thread, turn) for thread in range(THREADS))
            assert handler.flush()
            assert handler.statistics().written == THREADS * RECORDS * (turn + 1)

    watched(look, work)
    logger.removeHandler(handler)
    handler.close()
    records = range(RECORDS * len(rounds(2)))
    check(lines_of(path, handler.statistics().rotations), map(str, range(THREADS)), len(records))


def lines_of(path: Path, rotations: int) -> list[str]:
    """Return the lines of a file, those of the older files first."""
    files = [Path(f"{path}.{number}") for number in range(rotations, 0, -1)]
    return "".join(each.read_text(encoding="utf-8") for each in [*files, path]).splitlines()
