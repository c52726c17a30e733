"""The program that merges files and writes what it makes of their lines in batches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.programs import ROOT
from tests.service.harness import PATIENCE, wait_until

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = ROOT / "docs" / "examples" / "workers" / "etl.py"
NOT_COMPLETE = 75
LINES = 60


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Return two files of orders."""
    files = [tmp_path / "north.jsonl", tmp_path / "south.jsonl"]
    for each in files:
        orders = [{"item": each.stem, "amount": amount} for amount in range(LINES)]
        each.write_text("".join(f"{json.dumps(order)}\n" for order in orders), "utf-8")
    return files


def start(files: list[Path], rows: Path, loop: str) -> subprocess.Popen[str]:
    """Start the program."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROGRAM.parent),
        "MTAIO_HEALTH_BIND": "127.0.0.1:0",
        "MTAIO_LOG_LEVEL": "ERROR",
        "PYTHONUNBUFFERED": "1",
    }
    program = f"import etl; etl.app.run({loop!r})"
    command = [sys.executable, "-c", program, *map(str, files), str(rows)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this Python


def written(rows: Path) -> list[tuple[str, int]]:
    """Return which orders were written, each with its price."""
    found: list[dict[str, Any]] = [
        json.loads(line) for line in rows.read_text("utf-8").splitlines()
    ]
    assert all(each["price"] == each["amount"] * len(each["item"]) for each in found)
    return sorted((each["item"], each["amount"]) for each in found)


def test_to_the_end(tmp_path: Path, loop: str, files: list[Path]) -> None:
    """Each order is written once, and the program prints what the page says."""
    rows = tmp_path / "priced.jsonl"
    process = start(files, rows, loop)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert printed == PROGRAM.with_suffix(".out").read_text("utf-8")
    assert written(rows) == [(each.stem, amount) for each in files for amount in range(LINES)]


def test_told_to_stop(tmp_path: Path, loop: str, files: list[Path]) -> None:
    """What was read is written, without a gap in any file, and the exit code says there is more."""
    rows = tmp_path / "priced.jsonl"
    process = start(files, rows, loop)
    wait_until(rows.exists)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == NOT_COMPLETE
    there = written(rows)
    assert 50 <= len(there) < 2 * LINES
    for each in files:
        amounts = [amount for item, amount in there if item == each.stem]
        assert amounts == list(range(len(amounts)))
