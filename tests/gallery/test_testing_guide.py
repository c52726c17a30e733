"""The tests that the guide to mtaio.testing shows, run by pytest as a reader runs them."""

from __future__ import annotations

import re
import sys

import pytest

from tests import programs
from tests.backends import BACKENDS
from tests.found.findings import FINDINGS

HOME = programs.ROOT / "docs" / "examples" / "testing"
NETWORK = HOME / "network"


pytestmark = pytest.mark.heavy


def test_tests_of_the_guide_pass() -> None:
    """All of them pass, on each backend that is here, and none is skipped."""
    here = ["-k", "not trio"] if "trio" not in BACKENDS else []
    if sys.platform != "linux":
        here.append(f"--ignore={NETWORK}")
    done = programs.pytest(HOME, *here)
    assert done.returncode == 0, done.stdout + done.stderr
    # What follows "in" is not read: from a minute on, pytest writes "75.20s (0:01:15)".
    assert re.search(r"^=+ \d+ passed(, \d+ deselected)? in ", done.stdout, re.MULTILINE)


def test_what_python_has_mended() -> None:
    """Where Python itself has mended a defect of the guide, its search ends without a failure."""
    for finding in FINDINGS:
        if finding.fixed is not None and not finding.here:
            assert finding.fails() is None
