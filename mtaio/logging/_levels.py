"""
Levels as people write them.

Promise: a level is accepted as a number, as digits, or by its name in any case; anything else is
refused by name. What is counted by level is shown by its name.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from mtaio._internal import checks

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["by_name", "level_number"]

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
        if not text.isdecimal() or len(text) > _DIGITS:
            msg = f"{name}={value!r} is no level. Pass one of {', '.join(known)}, or a number."
            raise ValueError(msg)
        return int(text)
    return checks.count(name, value, least=0, way_out="Pass a level of logging, or its name.")


def by_name(counts: Mapping[int, int]) -> dict[str, int]:
    """Return the counts of levels by their names, which several levels may share."""
    named: dict[str, int] = {}
    for level, number in counts.items():
        name = logging.getLevelName(level)
        named[name] = named.get(name, 0) + number
    return named
