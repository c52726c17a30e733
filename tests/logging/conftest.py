"""What the tests of logging share: loggers of their own, and a disk that can be full or stop."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest

from tests.logging.tools import Disk, Logbook, Wall

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

collect_ignore_glob = ["*_posix.py"] if sys.platform == "win32" else []


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Logbook]:
    """Return a logger of the test's own, whose handlers are closed afterwards."""
    book = Logbook(tmp_path)
    yield book
    book.close()


@pytest.fixture
def disk(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:  # noqa: ARG001 - to be closed after this
    """Return what stands between the book's handlers and the disk."""
    disk = Disk(monkeypatch)
    yield disk
    disk.full = 0
    disk.go()


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """Return the clock of the log."""
    return Wall(monkeypatch)


@pytest.fixture(autouse=True)
def no_handler_left() -> Iterator[None]:
    """See that logging itself is as it was before the test."""
    before = logging.root.handlers[:], logging.root.level, logging.raiseExceptions
    yield
    assert (logging.root.handlers, logging.root.level, logging.raiseExceptions) == before
