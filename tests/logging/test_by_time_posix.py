"""Rotation by time where several processes write one file."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from mtaio._internal import file_locks
from tests.logging.storms import check
from tests.logging.test_by_time import DAY, make, unexpected, write, written
from tests.logging.test_rotators import move_it
from tests.logging.tools import run

if TYPE_CHECKING:
    import pytest

    from tests.logging.tools import Logbook, Wall

assert sys.platform != "win32"

RECORDS = 600

# The pauses are for the periods, of a second each, to pass; each process logs all the time.
STORM = f"""
import logging, os, sys, time, warnings

from mtaio.logging import AsyncFileHandler

warnings.simplefilter("ignore", DeprecationWarning)  # a fork with threads
handler = AsyncFileHandler("app.log", when="S", utc=True)
logger = logging.getLogger("app")
logger.setLevel(logging.INFO)
logger.addHandler(handler)
logger.info("early 0")
handler.flush()
children = []
for name in ("a", "b"):
    pid = os.fork()
    if not pid:
        children.clear()
        break
    children.append(pid)
else:
    name = "c"
for number in range({RECORDS}):
    logger.info("%s %d", name, number)
    time.sleep(0.004)
handler.close()
print(handler.statistics().rotations, handler.statistics().write_errors, flush=True)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_processes_share_a_file(book: Logbook) -> None:
    """For each period that is over one of them rotates; nothing is lost, doubled or torn."""
    done = run(STORM, book.folder, measured=False)
    assert (done.returncode, done.stderr) == (0, "")
    figures = [line.split() for line in done.stdout.splitlines()]
    older = sorted(book.folder.glob("app.log.*"))
    assert all(len(path.suffixes) == 2 for path in older)  # none has a number: one for each period
    assert len(older) == sum(int(rotations) for rotations, _ in figures) >= 2
    assert [errors for _, errors in figures] == ["0"] * 3
    lines = [line for path in [*older, book.path] for line in book.lines(path)]
    assert lines[0] == "early 0"
    check(lines[1:], ["a", "b", "c"], RECORDS)


def test_fifo_is_never_rotated(tmp_path: Path, wall: Wall) -> None:
    """What is not a regular file is written as it is, whatever the clock says."""
    os.mkfifo(tmp_path / "app.log")
    reader = os.open(tmp_path / "app.log", os.O_RDONLY | os.O_NONBLOCK)
    file = make(tmp_path, unexpected)
    write(file, "a")
    wall.now += DAY
    write(file, "b")
    file.close()
    assert os.read(reader, 1000) == b"a\nb\n"
    os.close(reader)
    assert [path.name for path in tmp_path.iterdir()] == ["app.log"]


def test_only_one_process_moves_a_file(tmp_path: Path, wall: Wall) -> None:
    """While another has it locked, to move it, records go into it as it is, for that long."""
    file = make(tmp_path, unexpected)
    write(file, "a")
    wall.now += DAY
    other = os.open(tmp_path / "app.log", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    write(file, "b")
    (tmp_path / "app.log").rename(tmp_path / "app.log.2026-03-01")
    os.close(other)
    write(file, "c")
    file.close()
    assert written(tmp_path) == {"app.log.2026-03-01": "a b ", "app.log": "c "}
    assert file.rotations == 0


def test_rotator_of_another_process_is_waited_for(
    tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have copied the file already: what was added then would be lost."""
    file = make(tmp_path, unexpected)
    file.rotator = move_it
    write(file, "a")
    wall.now += DAY
    other = os.open(tmp_path / "app.log", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    waits = threading.Event()
    real = file_locks.lock

    def lock(fd: int, *, wait: bool) -> bool:
        waits.set()
        return real(fd, wait=wait)

    monkeypatch.setattr(file_locks, "lock", lock)
    thread = threading.Thread(target=write, args=(file, "b"))
    thread.start()
    assert waits.wait(20)
    (tmp_path / "app.log").rename(tmp_path / "copied")
    assert (tmp_path / "copied").read_text() == "a\n"
    os.close(other)
    thread.join()
    file.close()
    assert written(tmp_path) == {"copied": "a ", "app.log": "b "}
