"""Loggers, files and sinks for the tests of logging."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

from mtaio.logging import AsyncFileHandler

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BIG = "#" * 300_000
"""A message longer than any pipe holds."""


def until(met: Callable[[], object], seconds: float = 20) -> None:
    """Wait for a thread that cannot be waited for otherwise."""
    give_up = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < give_up, "it never came to that"
        time.sleep(0.001)


class Logbook:
    """A logger that only this test knows, with a handler that writes bare messages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "app.log"
        self.logger = logging.Logger("book")  # noqa: LOG001 - no other test is to meet it
        self.handlers: list[AsyncFileHandler] = []

    def open(self, **options: Any) -> AsyncFileHandler:
        """Return a new handler of the logger, by default on ``app.log``."""
        options.setdefault("filename", self.path)
        handler = AsyncFileHandler(**options)
        self.handlers.append(handler)
        self.logger.addHandler(handler)
        return handler

    def lines(self, path: Path | None = None) -> list[str]:
        """Return what is written."""
        return (path or self.path).read_text(encoding="utf-8").splitlines()

    def files(self) -> dict[str, bytes]:
        """Return all files of the folder with what is in them."""
        return contents(self.folder)

    def close(self) -> None:
        """Close the handlers."""
        for handler in self.handlers:
            handler.close()


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder with what is in them."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class Fifo:
    """A sink that takes what a pipe holds, and no more until it is read."""

    def __init__(self, path: Path) -> None:
        assert sys.platform != "win32"
        os.mkfifo(path)
        self.path = path
        self.reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def read(self) -> bytes:
        """Return what is there."""
        try:
            return os.read(self.reader, 1 << 20)
        except BlockingIOError:
            return b""

    def read_until(self, met: Callable[[], object]) -> bytes:
        """Read until a condition holds and nothing is left; return it all."""
        read: list[bytes] = []

        def through() -> bool:
            read.append(self.read())
            return bool(met()) and not read[-1]

        until(through)
        return b"".join(read)

    def close(self) -> None:
        """Close the reading end."""
        os.close(self.reader)


def stall(book: Logbook, handler: AsyncFileHandler) -> None:
    """Have the handler's writer stand still in the middle of a record."""
    book.logger.warning(BIG)
    until(lambda: handler._writer.batch and handler._writer.queue.empty())


def run(program: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own, in ``folder``."""
    script = folder / "program.py"
    script.write_text(textwrap.dedent(program), encoding="utf-8")
    return subprocess.run(  # noqa: S603 - this very Python, with a program of the test's
        [sys.executable, str(script), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=environment(),
    )


def environment() -> dict[str, str]:
    """Return an environment in which a program elsewhere imports the mtaio under test."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path}
