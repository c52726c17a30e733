"""The design note says which test holds which promise; those tests are there."""

from __future__ import annotations

import re

import pytest

from tests.programs import ROOT

TESTS = {
    name
    for pattern in ("events/*.py", "explored/test_events_*.py", "test_contracts.py")
    for file in (ROOT / "tests").glob(pattern)
    for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_note_names_tests_that_are_there(language: str) -> None:
    """A test that is renamed is renamed in the note."""
    note = (ROOT / "docs" / language / "design" / "events.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", note))
    assert len(named) > 50
    assert named <= TESTS
