"""The programs of the docs, run as a reader runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = sorted((Path(__file__).parents[2] / "docs" / "examples").glob("*.py"))


def without_times(text: str) -> str:
    """Blank out decimal numbers: real time never repeats itself to the digit."""
    return re.sub(r"\d+\.\d+", "#", text)


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
    return Outcome(done.returncode, done.stderr, without_times(done.stdout))


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[dict[Path, Future[Outcome]]]:
    """Run the programs of the tests, four at a time: most of them wait for most of their time."""
    asked = {item.name for item in request.session.items}
    programs = [each for each in PROGRAMS if f"test_program_runs_as_a_file[{each.stem}]" in asked]
    pool = ThreadPoolExecutor(4)
    yield {program: pool.submit(run, program) for program in programs}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_program_runs_as_a_file(program: Path, runs: dict[Path, Future[Outcome]]) -> None:
    """``python program.py`` prints what the page shows, save for the times, and no warning."""
    expected = (0, "", without_times(program.with_suffix(".out").read_text(encoding="utf-8")))
    outcome = runs[program].result()
    # What a program prints may depend on its times, and a machine that stands still for the tenth
    # part of a second changes them. To the letter is what test_docs.py asks, on the virtual clock.
    for _ in range(4):
        if outcome == expected:
            return
        wait(runs.values())
        outcome = run(program)
    assert outcome == expected
