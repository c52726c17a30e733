"""The public API, which is written down."""

from __future__ import annotations

from tests import api


def test_api_is_written_down() -> None:
    """A change of the API is a change of tests/api.txt: ``python -m tests.api`` writes it."""
    written = api.FILE.read_text(encoding="utf-8").splitlines()
    assert api.text().splitlines() == written
