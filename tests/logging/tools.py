"""Loggers, files and programs for the tests of logging."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psutil

from mtaio.logging import AsyncFileHandler, _file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def until(met: Callable[[], object], seconds: float = 20) -> None:
    """Wait for a thread that cannot be waited for otherwise."""
    give_up = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < give_up, "it never happened"
        time.sleep(0.001)


def is_open(path: Path) -> bool:
    """Return whether this process has a file open."""
    return str(path) in {each.path for each in psutil.Process().open_files()}


class Disk:
    """What takes the place of ``os.write``: full as often as told, or stopped until it may go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, full: float = 0) -> None:
        self.full = full
        self.tries = 0
        self.write: Callable[[int, bytes], int] = os.write
        self._stopped = threading.Event()
        self._go = threading.Event()
        self._go.set()
        monkeypatch.setattr(os, "write", self)

    def __call__(self, fd: int, data: bytes) -> int:
        """Write, or raise what a full disk raises."""
        self.tries += 1
        if not self._go.is_set():
            self._stopped.set()
            assert self._go.wait(60)
        if self.tries <= self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.write(fd, data)

    def stop(self, book: Logbook) -> None:
        """Have the handlers' threads stop in the middle of writing a record, "stuck"."""
        self._stopped.clear()
        self._go.clear()
        book.logger.warning("stuck")
        assert self._stopped.wait(20)

    def go(self) -> None:
        """Let all go on."""
        self._go.set()


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

    def forget(self) -> None:
        """Drop the handlers without closing them."""
        for handler in self.handlers:
            self.logger.removeHandler(handler)
        self.handlers.clear()

    def lines(self, path: Path | None = None) -> list[str]:
        """Return what is written."""
        return (path or self.path).read_text(encoding="utf-8").splitlines()

    def all_lines(self) -> list[str]:
        """Return what is written in all files, the oldest first."""
        older = sorted(int(path.suffix[1:]) for path in self.folder.glob("app.log.*"))
        paths = [self.path.with_name(f"app.log.{number}") for number in reversed(older)]
        return [line for path in [*paths, self.path] for line in self.lines(path)]

    def files(self) -> dict[str, bytes]:
        """Return all files of the folder with what is in them."""
        return contents(self.folder)

    def threads(self) -> list[threading.Thread]:
        """Return the threads that write to files of this folder."""
        mine = f"mtaio log {self.folder}"
        return [thread for thread in threading.enumerate() if thread.name.startswith(mine)]

    def close(self) -> None:
        """Close the handlers."""
        for handler in self.handlers:
            handler.close()


def at(text: str) -> float:
    """Return the time that a text says, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


class Wall:
    """The clock on the wall, which the log goes by; it stands still until it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = at("2026-03-01T12:00")
        monkeypatch.setattr(_file, "time", lambda: self.now)

    def set(self, text: str) -> None:
        """Set it to a time, in UTC."""
        self.now = at(text)


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder with what is in them."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def run(
    program: str, folder: Path, *arguments: str, measured: bool = True
) -> subprocess.CompletedProcess[str]:
    """
    Run a program in an interpreter of its own, in ``folder``, its coverage measured or not.

    Not if it forks while threads of it run: they take a lock of coverage's with each call, and a
    child that is born with that lock taken waits for it for ever.
    """
    script = folder / "program.py"
    script.write_text(textwrap.dedent(program), encoding="utf-8")
    command = [sys.executable, "-X", "faulthandler", str(script), *arguments]
    with subprocess.Popen(  # noqa: S603 - this very Python, with a program of the test's
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(measured=measured),
        start_new_session=True,
    ) as process:
        try:
            out, printed = process.communicate(timeout=100)
        except subprocess.TimeoutExpired:
            if sys.platform != "win32":
                os.killpg(process.pid, signal.SIGABRT)  # each process says where it stands
            process.kill()
            _, printed = process.communicate()
            raise AssertionError(printed) from None
    return subprocess.CompletedProcess(command, process.returncode, out, printed)


def environment(*, measured: bool = True) -> dict[str, str]:
    """Return an environment in which a program elsewhere imports the mtaio under test."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    made = {**os.environ, "PYTHONPATH": path}
    if not measured:
        made.pop("COVERAGE_PROCESS_CONFIG", None)
    return made
