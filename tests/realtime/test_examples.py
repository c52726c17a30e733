"""Some programs of the docs, run as a reader runs them; all run on the virtual clock."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PROGRAMS = sorted([*EXAMPLES.glob("*first.py"), *EXAMPLES.glob("tutorial_*.py")])
"""The first that a reader runs."""


def without_times(text: str) -> str:
    """Blank out decimal numbers: real time never repeats itself to the digit."""
    return re.sub(r"\d+\.\d+", "#", text)


LOGGED = re.compile(r"^.*: attempt \d+ ended with .*; the next one is in .* s\n", re.MULTILINE)
"""What a retry logs at WARNING, which is printed where nobody has configured logging."""


class Outcome(NamedTuple):
    """How a program ended, and what it printed, without times."""

    code: int
    error: str
    printed: str


def run(program: Path) -> Outcome:
    """Run a program to its end, with every warning an error."""
    done = subprocess.run(  # noqa: S603 - this very Python, with a program of the docs
        [sys.executable, "-W", "error", str(program)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    return Outcome(done.returncode, LOGGED.sub("", done.stderr), without_times(done.stdout))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_program_runs_as_a_file(program: Path) -> None:
    """``python program.py`` prints what the page shows, save for the times, and no warning."""
    expected = (0, "", without_times(program.with_suffix(".out").read_text(encoding="utf-8")))
    # What a program prints may depend on its times, and a machine that stands still for the tenth
    # part of a second changes them. To the letter is what test_docs.py asks, on the virtual clock.
    assert any(run(program) == expected for _ in range(5))
