"""The library of the guide, whose own tests are run as its author runs them."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.programs import ROOT

LIBRARY = ROOT / "docs" / "examples" / "programs" / "library"


@pytest.mark.heavy
def test_its_own_tests_pass() -> None:
    """On both backends, and none is imported."""
    both = () if find_spec("trio") else ("-k", "not trio")
    done = subprocess.run(  # noqa: S603 - this very Python, with the tests of the library
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *both],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=LIBRARY,
    )
    assert done.returncode == 0, done.stdout + done.stderr
