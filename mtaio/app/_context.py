"""
What a log record keeps of an error's context.

Promise: plain values that any formatter takes, no more than a record should hold, even of a context
that contains itself, is huge, or cannot be printed. Nothing is raised, and the caller's objects are
not changed.
Cost: each value that is kept is visited once. What is neither a container nor a number is printed.
"""

from __future__ import annotations

import math
import reprlib
from collections import deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any, Final, cast

__all__ = ["brief", "cut", "plain", "printed"]

_MOST_VALUES: Final = 500
"""Values that are kept of a context, those within others included."""

_DEEPEST: Final = 8
"""Values within values: what is deeper is not kept."""

_LONGEST: Final = 2_000
"""Characters that are kept of a text."""

_MOST_TEXT: Final = 20_000
"""Characters that are kept of all texts of a context together, more or less."""

_TO_MASK: Final = 4 * _LONGEST
"""Characters to be searched for secrets, so that one at the end of what is kept is seen whole."""

_MOST_BITS: Final = 1024
"""Bits of an int that is kept as a number."""

_CUT: Final = "..."
"""Stands for what is not kept."""

_BRIEF: Final = reprlib.Repr()
_BRIEF.maxlevel = 3
_BRIEF.maxdict = _BRIEF.maxlist = 10
_BRIEF.maxstring = 100
_MOST_NAMES: Final = 20
"""Names that a message has of a context."""
_BRIEFEST: Final = 1_000
"""Characters that a message has of a context."""


def plain(value: object) -> object:
    """Return what is kept of ``value``, its texts longer than `cut` leaves them."""
    return _Plain().of(value, 0)


def printed(value: object) -> str:
    """Return the text of ``value``, long enough to be searched for secrets."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - a report is worth more than one value
        return f"<{type(value).__name__} that cannot be printed>"
    return text if len(text) <= _TO_MASK else text[:_TO_MASK]


def cut(value: object) -> Any:
    """Return what `plain` or `printed` returned, with each text as short as a record keeps it."""
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else value[:_LONGEST] + _CUT
    if isinstance(value, dict):
        return {cut(key): cut(each) for key, each in cast("dict[object, object]", value).items()}
    if isinstance(value, list):
        return [cut(each) for each in cast("list[object]", value)]
    return value


def brief(context: object) -> str:
    """Return a few words about what `cut` returned, for a message."""
    if not isinstance(context, dict):
        return _BRIEF.repr(context)
    items = cast("dict[str, object]", context).items()
    text = ", ".join(f"{name}={_BRIEF.repr(value)}" for name, value in islice(items, _MOST_NAMES))
    return text if len(text) <= _BRIEFEST and len(items) <= _MOST_NAMES else text[:_BRIEFEST] + _CUT


class _Plain:
    """Goes through one context."""

    __slots__ = ("_above", "_left", "_text_left")

    def __init__(self) -> None:
        self._above: list[object] = []
        """The containers that the value at hand is in."""
        self._left = _MOST_VALUES
        self._text_left = _MOST_TEXT

    def of(self, value: object, depth: int) -> object:
        """Return what is kept of ``value``."""
        self._left -= 1
        kind = type(value)
        if value is None or kind is bool or (kind is float and math.isfinite(cast("float", value))):
            return value
        if kind is int and cast("int", value).bit_length() <= _MOST_BITS:
            return value
        try:
            parts = _parts(value)
        except Exception:  # noqa: BLE001 - a container with its own idea of what it holds
            return f"<{kind.__name__} that cannot be printed>"
        if parts is None:
            return self._text(value)
        if depth >= _DEEPEST or any(each is value for each in self._above):
            return _CUT
        self._above.append(value)
        try:
            return self._inside(parts, depth + 1)
        finally:
            self._above.pop()

    def _text(self, value: object) -> str:
        """Return the text of a value, or of a name."""
        if self._text_left <= 0:
            return _CUT
        text = printed(value)
        self._text_left -= min(len(text), _LONGEST)
        return text

    def _inside(self, parts: list[object] | dict[object, object], depth: int) -> object:
        """Return what is kept of a container that holds ``parts``."""
        if isinstance(parts, list):
            kept: list[object] = []
            for part in parts:
                if self._left <= 0:
                    kept.append(_CUT)
                    break
                kept.append(self.of(part, depth))
            return kept
        named: dict[str, object] = {}
        for name, part in parts.items():
            if self._left <= 0:
                named[_CUT] = _CUT
                break
            key = self._text(name)
            named[key] = self.of(part, depth)
        return named


def _parts(value: Any) -> list[object] | dict[object, object] | None:
    """Return what a container holds, or as much as may be kept; None if it is no container."""
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return dict(islice(items, _MOST_VALUES + 1))
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name, None) for each in fields(value) if each.repr}
    if isinstance(value, tuple) and hasattr(cast("object", value), "_fields"):
        return cast("dict[object, object]", cast("Any", value)._asdict())
    if isinstance(value, list | tuple | AbstractSet | deque):
        return list(islice(cast("list[object]", value), _MOST_VALUES + 1))
    return None
