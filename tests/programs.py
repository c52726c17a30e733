"""The programs of the docs, as the tests import them and as a reader runs pytest on them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[1]


def load(source: Path, name: str) -> ModuleType:
    """Import a program as a module called ``name``, which nothing else may bear."""
    spec = spec_from_file_location(name, source)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


def pytest(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run pytest as a reader does, in a process of its own, but with no deadline of Hypothesis'."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("PYTEST_") and key not in {"CI", "BUILD_NUMBER"}  # which lengthen it
    }
    return subprocess.run(  # noqa: S603 - this very Python, with a program of the docs
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
            *("--hypothesis-profile", "ci", *arguments),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=100,
        cwd=ROOT,
        env=environment,
    )
