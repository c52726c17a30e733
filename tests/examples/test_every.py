"""The guide's periodic work, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio.testing import run
from tests.programs import ROOT, load

if TYPE_CHECKING:
    import pytest

PROGRAM = ROOT / "docs" / "examples" / "workers" / "every.py"


def test_prints_what_the_guide_says(
    backend: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Each run begins when it is due, and the one that fails is logged."""
    program = load(PROGRAM, f"example_every_{backend}")
    run(program.main, backend=backend)
    assert capsys.readouterr().out == PROGRAM.with_suffix(".out").read_text(encoding="utf-8")
    assert [each.message for each in caplog.records] == ["refresh failed, and will run again"]
