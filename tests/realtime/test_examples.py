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


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_program_runs_as_a_file(program: Path) -> None:
    """``python program.py`` prints what the page shows, save for the times, and no warning."""
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
    expected = program.with_suffix(".out").read_text(encoding="utf-8")
    assert without_times(done.stdout) == without_times(expected)
