"""The program that ingests documents, told to stop and killed at moments of chance."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from textwrap import wrap
from typing import TYPE_CHECKING

import pytest

from tests.programs import ROOT
from tests.service.harness import PATIENCE, wait_until

if TYPE_CHECKING:
    from pathlib import Path

assert sys.platform != "win32"

PROGRAM = ROOT / "docs" / "examples" / "workers" / "ingest.py"
NOT_COMPLETE = 75
IN_FLIGHT = 11 * 100  # five batches that are embedded, five that wait, one that is written


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, str]:
    """Return documents of all lengths, also an empty one, that were written to a directory."""
    chance = random.Random(26)  # noqa: S311 - a test's
    home = tmp_path / "texts"
    home.mkdir()
    texts = {f"{number:02}.txt": "word " * chance.randrange(12_000) for number in range(20)}
    texts["20.txt"] = ""
    for name, text in texts.items():
        (home / name).write_text(text, "utf-8")
    return texts


class Ingest:
    """Run the program, again and again, in a directory."""

    def __init__(self, home: Path, loop: str) -> None:
        self.calls, self.db = home / "calls", home / "vectors.db"
        self.calls.touch()
        self._command = [sys.executable, "-m", "mtaio", "run", "--backend", loop, "ingest:app"]
        self._environment = {
            **os.environ,
            "INGEST_TEXTS": str(home / "texts"),
            "INGEST_DB": str(self.db),
            "INGEST_CALLS": str(self.calls),
            "MTAIO_HEALTH_BIND": "127.0.0.1:0",
            "MTAIO_LOG_LEVEL": "ERROR",
        }

    def start(self) -> subprocess.Popen[bytes]:
        """Start it."""
        return subprocess.Popen(self._command, env=self._environment, cwd=PROGRAM.parent)  # noqa: S603 - this Python

    def paid(self) -> int:
        """Return how many chunks the service was asked for."""
        return sum(map(int, self.calls.read_text("utf-8").split()))

    def rows(self) -> list[tuple[str, int, float]]:
        """Return what is in the table."""
        with closing(sqlite3.connect(self.db)) as db:
            return db.execute("SELECT * FROM vectors ORDER BY file, n").fetchall()


def expected(texts: dict[str, str]) -> list[tuple[str, int, float]]:
    """Return what ought to be in the table at the end."""
    return [
        (name, number, float(len(part)))
        for name, text in sorted(texts.items())
        for number, part in enumerate(wrap(text, width=200))
    ]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop(
    tmp_path: Path, loop: str, texts: dict[str, str], signum: signal.Signals
) -> None:
    """What was begun is finished and kept, the exit code says so, and nothing is paid for twice."""
    ingest = Ingest(tmp_path, loop)
    process = ingest.start()
    wait_until(lambda: ingest.paid() > 0)
    process.send_signal(signum)
    assert process.wait(PATIENCE) == NOT_COMPLETE
    begun = ingest.rows()
    assert 0 < len(begun) == ingest.paid() < len(expected(texts))
    assert ingest.start().wait(PATIENCE) == 0
    assert ingest.rows() == expected(texts)
    assert ingest.paid() == len(expected(texts))


def test_killed_at_any_moment(tmp_path: Path, loop: str, texts: dict[str, str]) -> None:
    """Nothing is missing or doubled; what is paid for twice was in flight when it was killed."""
    chance = random.Random(loop)  # noqa: S311 - a test's
    ingest = Ingest(tmp_path, loop)
    kills = 0
    for signum in [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL]:
        before = ingest.paid()
        process = ingest.start()
        wait_until(lambda: ingest.paid() > before or process.poll() is not None)  # noqa: B023 - at once
        time.sleep(chance.random() * 0.3)
        process.send_signal(signum)
        code = process.wait(PATIENCE)
        assert code in {-signum, NOT_COMPLETE, 0}
        kills += code == -signal.SIGKILL
    assert ingest.start().wait(PATIENCE) == 0
    assert ingest.rows() == expected(texts)
    assert kills > 0
    assert ingest.paid() <= len(expected(texts)) + kills * IN_FLIGHT
