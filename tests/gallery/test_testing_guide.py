"""The tests that the guide to mtaio.testing shows, run by pytest as a reader runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.backends import BACKENDS

ROOT = Path(__file__).parents[2]
HOME = ROOT / "docs" / "examples" / "testing"


def test_tests_of_the_guide_pass() -> None:
    """All of them pass, on each backend that is here, and none is skipped."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    here = ["-k", "not trio"] if "trio" not in BACKENDS else []
    done = subprocess.run(  # noqa: S603 - this very Python, with the tests of the docs
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", HOME, *here],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=100,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (outcomes,) = re.findall(r"^=+ (.*) in .*s =+$", done.stdout, re.MULTILINE)
    assert re.fullmatch(r"\d+ passed(, \d+ deselected)?", outcomes)
