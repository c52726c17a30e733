"""
Notes on errors: where one arose, and why it was the last.

Promise: an error that cannot take a note is raised without. One error object may be raised again
and again, as a cache does that keeps it: it carries the latest of our notes, and all of the user's.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

__all__ = ["note"]

_MOST: Final = 16
"""Our notes on one error: more than the levels at which calls are nested, few enough to be read."""

_OURS: Final = (
    "in item ",
    "in call ",
    "gave up after ",
    "not tried again: ",
    "the other attempts of the hedged call: ",
)
"""How the notes begin that the same object may get many times."""


def note(error: BaseException, text: str) -> None:
    """Add a note to ``error``, if it can take one; of many notes of ours the oldest goes."""
    with suppress(Exception):  # an immutable error (a frozen dataclass) goes without
        notes: list[str] = getattr(error, "__notes__", [])
        if len(notes) >= _MOST:
            ours = [number for number, each in enumerate(notes) if each.startswith(_OURS)]
            if len(ours) >= _MOST:
                del notes[ours[0]]
        error.add_note(text)
