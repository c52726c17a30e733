"""The command line run inside the test, and what a folder can hold."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mtaio.app._cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# FIFOs, permissions and signals as they are there are a matter of POSIX alone.
collect_ignore_glob = ["*_posix.py"] if sys.platform == "win32" else []


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what in the environment would change how rich and argument parsing look."""
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def demo(
    backend: str, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs ``mtaio demo`` with some arguments, on the backend."""

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        arguments = ["demo", *map(str, args)]
        if "--backend" not in arguments:
            arguments += ["--backend", backend]
        code = main(arguments)
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, printed.out, printed.err)

    return run
