"""The programs of the guide that need a cluster or a pool of others."""

from __future__ import annotations

import runpy
import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import pytest

from tests.pages import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

RAY = EXAMPLES / "pools" / "ray_pool.py"
PROGRAMS = sorted({*(EXAMPLES / "pools").glob("*.py")} - {RAY})


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


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_program_on_the_cluster_that_is_there(
    backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What Ray takes half a minute to start for is run here."""
    anyio.run(runpy.run_path(str(RAY))["main"], backend=backend)
    assert capsys.readouterr().out == RAY.with_suffix(".out").read_text(encoding="utf-8")
