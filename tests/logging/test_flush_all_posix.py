"""Flushing all handlers while a sink stands still."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtaio.logging import AsyncFileHandler, _shutdown, flush_all
from tests.logging.tools import until
from tests.logging.tools_posix import BIG, Fifo

assert sys.platform != "win32"

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.logging.tools import Logbook

SHORT = 0.05


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    """Return a pipe that is not read before the end."""
    fifo = Fifo(tmp_path / "fifo")
    yield fifo
    fifo.close()


@pytest.mark.parametrize("kind", [logging.FileHandler, AsyncFileHandler])
def test_pipe_that_is_not_read(book: Logbook, fifo: Fifo, kind: type[logging.Handler]) -> None:
    """A handler that stands still on a pipe is not waited for longer, and holds up no other."""
    book.open()
    stuck = kind(fifo.path)  # type: ignore[arg-type]  # both take a path
    logger = logging.Logger("stuck")  # noqa: LOG001 - no other test is to meet it
    logger.addHandler(stuck)
    thread = threading.Thread(target=logger.warning, args=[BIG])
    thread.start()
    first = b""
    while not first:  # it writes
        first = fifo.read()
    book.logger.info("line")
    assert not flush_all(SHORT)
    until(lambda: book.lines() == ["line"])
    fifo.read_until(lambda: not thread.is_alive() and flush_all(SHORT))
    stuck.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device")
def test_full_device(
    book: Logbook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Handlers of a device that is full say that they could not write, and hold up no other."""
    monkeypatch.setattr(_shutdown, "PATIENCE", 0.05)
    full = book.open(filename="/dev/full", on_error=lambda _: None)
    buffered = logging.FileHandler("/dev/full")
    book.logger.addHandler(buffered)
    book.open()
    book.logger.info("line")
    assert "No space left on device" in capsys.readouterr().err
    assert not flush_all(SHORT)
    until(lambda: book.lines() == ["line"])
    full.close()
    book.logger.removeHandler(full)
    assert not flush_all(60)  # now for the other's sake
    with pytest.raises(OSError, match="No space left on device"):
        buffered.close()
