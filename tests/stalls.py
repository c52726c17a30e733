"""
Run pytest while all its processes are paused now and then, as on a busy machine.

Promise: what fails here and passes otherwise depends on real time.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from contextlib import suppress
from typing import Final

import psutil

LONGEST: Final = 0.4
"""The seconds that they stand still at most."""

BETWEEN: Final = 2.0
"""The seconds that they run at most, from one time to the next."""


def all_of(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and all that it has started, directly or not."""
    with suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def stand_still(processes: list[psutil.Process], seconds: float) -> None:
    """Stop processes for so long."""
    try:
        for each in processes:
            with suppress(psutil.NoSuchProcess):
                each.suspend()
        time.sleep(seconds)
    finally:
        for each in processes:
            with suppress(psutil.NoSuchProcess):
                each.resume()


def main(*arguments: str) -> int:
    """Run pytest, and return its exit code."""
    with subprocess.Popen([sys.executable, "-m", "pytest", *arguments]) as running:  # noqa: S603 - pytest
        process = psutil.Process(running.pid)
        while running.poll() is None:
            time.sleep(random.uniform(0.0, BETWEEN))  # noqa: S311 - no secret
            stand_still(all_of(process), random.uniform(0.0, LONGEST))  # noqa: S311 - as above
    return running.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
