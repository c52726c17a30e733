"""The programs of the docs, run as a reader runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = sorted((Path(__file__).parents[2] / "docs" / "examples").glob("*.py"))


def without_times(text: str) -> str:
    """Blank out decimal numbers: real time never repeats itself to the digit."""
    return re.sub(r"\d+\.\d+", "#", text)


def printed_by(program: Path) -> str:
    """Return what the program prints; it must end well and warn of nothing."""
    done = subprocess.run(  # noqa: S603 - this very Python, with a program of the docs
        [sys.executable, "-W", "error", str(program)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return without_times(done.stdout)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_program_runs_as_a_file(program: Path) -> None:
    """``python program.py`` prints what the page shows, save for the times, and no warning."""
    expected = without_times(program.with_suffix(".out").read_text(encoding="utf-8"))
    # What a program prints may depend on its times, and a machine that stands still for the tenth
    # part of a second changes them. To the letter is what test_docs.py asks, on the virtual clock.
    for _ in range(2):
        if printed_by(program) == expected:
            return
    assert printed_by(program) == expected
