"""The tests that the guide to mtaio.testing shows, run by pytest as a reader runs them."""

from __future__ import annotations

import re

from tests.backends import BACKENDS
from tests.programs import ROOT, pytest

HOME = ROOT / "docs" / "examples" / "testing"


def test_tests_of_the_guide_pass() -> None:
    """All of them pass, on each backend that is here, and none is skipped."""
    here = ["-k", "not trio"] if "trio" not in BACKENDS else []
    done = pytest(HOME, *here)
    assert done.returncode == 0, done.stdout + done.stderr
    # What follows "in" is not read: from a minute on, pytest writes "75.20s (0:01:15)".
    assert re.search(r"^=+ \d+ passed(, \d+ deselected)? in ", done.stdout, re.MULTILINE)
