"""Programs that have worker processes, and a look at these, for the tests."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path


def workers() -> list[int]:
    """Return the processes that this one has started and that live."""
    return [each.pid for each in psutil.Process().children()]


def program(folder: Path, text: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program in ``folder``, which is written to program.py."""
    (folder / "program.py").write_text(text)
    return subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-u", *(command or ["program.py"])],  # a fork has no lines to print again
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


CLASSES = """
import anyio
from mtaio.core import TaskExecutor, _processes

_processes._END_SECONDS = 60  # as the process ends, however slowly, it writes its coverage

class Result:
    pass

class OwnError(Exception):
    pass

def work():
    return Result()

def fail():
    raise OwnError("details")

async def main():
    executor = TaskExecutor()
    print(type(await executor.run_in_process(work)) is Result)
    try:
        await executor.run_in_process(fail)
    except OwnError as error:
        print(repr(error))

if __name__ == "__main__":
    anyio.run(main, backend="{backend}")
"""
