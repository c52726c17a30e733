"""
What counts as a failure of a test, when two are of one kind, and what is noted on one.

Promise: what only breaks a test off, such as Ctrl-C or ``pytest.skip``, is none and is left alone.
pytest is not imported.
"""

from __future__ import annotations

import sys
from typing import Any, cast


def is_failure(error: BaseException) -> bool:
    """Tell whether a test that raises ``error`` has failed."""
    if isinstance(error, Exception):
        return True
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return all(map(is_failure, group.exceptions))
    pytest: Any = sys.modules.get("pytest")  # whose fail(), as of pytest.raises(), is no Exception
    return pytest is not None and isinstance(error, pytest.fail.Exception)


def kind_of(error: BaseException) -> object:
    """Return what two failures of one kind have in common."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return frozenset(map(kind_of, group.exceptions))
    return type(error)


def note(error: BaseException, beginning: str, text: str) -> None:
    """Add a note, in place of one with the same beginning that an earlier run has left."""
    notes: list[str] = getattr(error, "__notes__", [])
    notes[:] = [each for each in notes if not each.startswith(beginning)]
    error.add_note(beginning + text)
