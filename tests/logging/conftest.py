"""What the tests of logging share: loggers that nobody else has, and sinks that can stand still."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest

from tests.logging.tools import Logbook

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


@pytest.fixture(autouse=True)
def no_handler_left() -> Iterator[None]:
    """See that logging itself is as it was before the test."""
    before = logging.root.handlers[:], logging.root.level, logging.raiseExceptions
    yield
    assert (logging.root.handlers, logging.root.level, logging.raiseExceptions) == before
