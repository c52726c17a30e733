"""One log file, written to from many threads."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from functools import partial
from pathlib import Path

from mtaio.logging import AsyncFileHandler
from tests.hammer.hammer import at_once, rounds

THREADS = 4
RECORDS = 200


def test_each_record_is_written_once_and_in_order(tmp_path: Path) -> None:
    """The records of a thread are in the files in their order, also those of the last rotation."""
    path = tmp_path / "app.log"
    handler = AsyncFileHandler(path, max_bytes=100_000, backup_count=99, max_pending=None)
    logger = logging.Logger("hammer")
    logger.addHandler(handler)
    done = threading.Event()

    def log(thread: int, turn: int) -> None:
        for number in range(RECORDS):
            logger.info("%d %d", thread, turn * RECORDS + number)
            if number % 50 == 0:
                assert handler.flush()

    def look() -> None:
        written = 0
        while not done.wait(1e-4):
            now = handler.statistics()
            assert written <= now.written
            assert now.pending >= 0
            assert not now.lost
            written = now.written

    def run() -> None:
        try:
            for turn in rounds(2):
                at_once(partial(log, thread, turn) for thread in range(THREADS))
                assert handler.flush()
                assert handler.statistics().written == THREADS * RECORDS * (turn + 1)
        finally:
            done.set()

    at_once([run, look])
    handler.close()
    found: defaultdict[str, list[int]] = defaultdict(list)
    for number in range(handler.statistics().rotations, -1, -1):
        file = Path(f"{path}.{number}") if number else path
        for line in file.read_text(encoding="utf-8").splitlines():
            thread, _, record = line.partition(" ")
            found[thread].append(int(record))
    assert len(found) == THREADS
    for records in found.values():
        assert records == list(range(RECORDS * len(rounds(2))))
