"""The programs of the guide that need a cluster or a pool of others."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.pages import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = sorted((EXAMPLES / "pools").glob("*.py"))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_program_prints_what_the_guide_says(program: Path, backend: str) -> None:
    """Run as a reader runs it, on either backend."""
    start = (
        "import runpy, sys, anyio; real = anyio.run; "
        f"anyio.run = lambda main: real(main, backend={backend!r}); "
        "runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    answer = subprocess.run(  # noqa: S603 - a program of ours
        [sys.executable, "-c", start, str(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    expected = EXAMPLES / "pools" / f"{program.stem}.out"
    assert answer.stdout == expected.read_text(encoding="utf-8")
