"""The levels of the standard library's logging, as people write them."""

from __future__ import annotations

import logging
from typing import Final

from mtaio._internal import checks

_DIGITS: Final = 9
"""More than any level has, and few enough for a C int."""


def level_number(name: str, value: object) -> int:
    """Return the number of a level, given as one, as digits, or by its name in any case."""
    if isinstance(value, str):
        known = logging.getLevelNamesMapping()
        text = value.strip()
        if text in known:
            return known[text]
        for each, number in known.items():
            if each.upper() == text.upper():
                return number
        if not (text.isascii() and text.isdecimal()) or len(text) > _DIGITS:
            reason = f"{name}={value!r} is not a level"
            raise checks.refusal(
                ValueError, reason, f"Pass one of {', '.join(known)}, or a number."
            )
        return int(text)
    return checks.count(name, value, least=0, way_out="Pass a level of logging, or its name.")
