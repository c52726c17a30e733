"""
The original deployment guide, which is no part of this repository.

It is the file that ``DEPLOYMENT_GUIDE`` names, or the one in a folder ``shared/design`` above this
checkout. The variable's name does not begin as those of settings do: these would be warned of.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import pytest

_LIES_AT: Final = Path("shared", "design", "deployment-guide.ja.md")


def _find() -> Path | None:
    named = os.environ.get("DEPLOYMENT_GUIDE")
    if named:
        return Path(named)
    folders = Path(__file__).parents
    return next((guide for each in folders if (guide := each / _LIES_AT).is_file()), None)


_GUIDE: Final = _find()

needs_guide: Final = pytest.mark.skipif(
    _GUIDE is None, reason="the original guide is not here; DEPLOYMENT_GUIDE may say where it is"
)

_BLOCKS: Final = {
    "configuration": "config = {",
    "logging": "async def setup_logging():",
    "resources": "async def configure_resources():",
    "health": "class HealthMonitor:",
    "errors": "class ErrorHandler:",
    "main": "async def main():",
}
"""The guide's programs, in their order, with what only this one has."""


def text() -> str:
    """Return the guide."""
    assert _GUIDE is not None
    return _GUIDE.read_text(encoding="utf-8")


def blocks() -> dict[str, str]:
    """Return the guide's programs by their names."""
    found = re.findall(r"```python\n(.*?)```", text(), re.DOTALL)
    assert len(found) == len(_BLOCKS)
    for (name, mark), block in zip(_BLOCKS.items(), found, strict=True):
        assert mark in block, name
    return dict(zip(_BLOCKS, map(str, found), strict=True))
