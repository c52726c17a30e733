"""
Notes on errors: what mtaio knows of them and the user does not.

Promise: the error itself stays as it is, whatever it is.
"""

from __future__ import annotations

from contextlib import suppress


def note(error: BaseException, text: str) -> None:
    """Add a note to ``error``, if it can take one."""
    with suppress(Exception):  # an immutable error (a frozen dataclass) goes without
        error.add_note(text)
