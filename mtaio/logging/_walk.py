"""
The way through the values of a record, in search of secrets.

Promise: what holds no secret comes back as it is, the very object; what does, as a copy; whatever
cannot be searched is not shown, and nothing is raised.
Cost: each value is looked at once for each record, 32 levels deep at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from operator import is_
from typing import TYPE_CHECKING, Any, Final, cast

from mtaio.logging._formatters import as_text

if TYPE_CHECKING:
    from mtaio.logging._secrets import Secrets

__all__ = ["Walk"]

_DEEPEST: Final = 32
"""Values within values within values: what is deeper is not searched, and not shown."""

_CUT: Final = "..."
"""Stands where a value holds itself, and where it is too deep."""

_NAMES: Final = ("name", "key")
"""Keys under which the name of what stands under ``"value"`` may be."""

_WALKED: Final = frozenset({dict, list, tuple})
"""Types that print what they hold, and nothing else."""


class Walk:
    """One record's values, each looked at once."""

    __slots__ = ("_done", "secrets")

    def __init__(self, secrets: Secrets) -> None:
        self.secrets: Final = secrets
        # By identity, with what they are, so that no other takes that identity meanwhile.
        self._done: dict[int, tuple[object, object]] = {}

    def under(self, name: object, value: object) -> object:
        """Return ``value``, which stands under ``name``, with its secrets masked."""
        try:
            return self._under(name, value, 0) if name else self._value(value, 0)
        except Exception:  # noqa: BLE001 - what cannot be searched is not shown
            return f"<{type(value).__name__} that cannot be searched>"

    def _under(self, name: object, value: object, depth: int) -> object:
        return self.secrets.mask if self._named(name) else self._value(value, depth)

    def _named(self, name: object) -> bool:
        if isinstance(name, bytes):
            name = name.decode(errors="replace")
        return isinstance(name, str) and self.secrets.named(name)

    def _value(self, value: object, depth: int) -> object:
        kind = type(value)
        if kind is str:
            return self.secrets.masked(cast("str", value))
        if value is None or kind is bool:
            return value
        if kind is int or kind is float:
            return self._shown(value) if self.secrets.own_patterns else value
        known = self._done.get(id(value))
        if known is not None:
            return known[1]
        self._done[id(value)] = value, _CUT
        result = value
        if depth < _DEEPEST:
            result = self._inside(value, depth + 1)
        elif kind in _WALKED:
            result = _CUT
        if result is value and kind not in _WALKED:
            result = self._shown(value)
        self._done[id(value)] = value, result
        return result

    def _inside(self, value: Any, depth: int) -> object:
        """Return what ``value`` holds with its secrets masked, itself if there are none."""
        if isinstance(value, Mapping):
            return self._mapping(cast("Mapping[object, object]", value), depth)
        if isinstance(value, list | tuple | set | frozenset | deque):
            return self._sequence(value, depth)
        if isinstance(value, bytes | bytearray):
            return self._bytes(value)
        if is_dataclass(value) and not isinstance(value, type):
            return self._dataclass(value, depth)
        return value

    def _mapping(self, mapping: Mapping[object, object], depth: int) -> object:
        changed = False
        result: dict[object, object] = {}
        valued = any(self._named(mapping.get(each)) for each in _NAMES)
        for key, value in mapping.items():
            name = self._key(key)
            secret = valued and isinstance(key, str) and key == "value"
            masked = self.secrets.mask if secret else self._under(key, value, depth)
            changed = changed or name is not key or masked is not value
            result[name] = masked
        return result if changed else mapping

    def _key(self, key: object) -> object:
        if isinstance(key, str):
            return self.secrets.masked(key)
        if isinstance(key, bytes):
            return self._bytes(key)
        if key is None or isinstance(key, int | float):
            return key
        return self._shown(key)

    def _sequence(self, sequence: Any, depth: int) -> object:
        each: list[object] = list(sequence)
        names: tuple[object, ...] = ()
        if isinstance(sequence, tuple):
            names = getattr(cast("object", sequence), "_fields", ())
        if len(names) != len(each):
            names = ("",) * len(each)
            if not isinstance(sequence, set | frozenset):
                names = tuple(self._behind(each, place) for place in range(len(each)))
        parts = [self._under(name, value, depth) for name, value in zip(names, each, strict=True)]
        if all(map(is_, parts, each)):
            return cast("object", sequence)
        return tuple(parts) if isinstance(sequence, tuple) else parts

    @staticmethod
    def _behind(values: list[object], place: int) -> object:
        """Return what names the value at ``place``: the first of a pair, or an option."""
        before = values[place - 1] if place else ""
        is_option = isinstance(before, str) and before.startswith("-")
        return before if is_option or len(values) == 2 else ""  # noqa: PLR2004 - a pair

    def _bytes(self, value: bytes | bytearray) -> bytes | bytearray:
        text = value.decode(errors="surrogateescape")
        masked = self.secrets.masked(text)
        return value if masked == text else masked.encode(errors="surrogateescape")

    def _dataclass(self, value: Any, depth: int) -> object:
        changed = False
        parts: list[str] = []
        for field in fields(value):
            if field.repr and hasattr(value, field.name):
                before = getattr(value, field.name)
                part = self._under(field.name, before, depth)
                changed = changed or part is not before
                parts.append(f"{field.name}={part!r}")
        if not changed:
            return cast("object", value)
        return self.secrets.masked(f"{type(value).__qualname__}({', '.join(parts)})")

    def _shown(self, value: object) -> object:
        """Return the masked text of ``value`` if there is a secret in it, else itself."""
        try:
            shown = str(value)
            inner = shown if type(value).__str__ is object.__str__ else repr(value)
        except Exception:  # noqa: BLE001 - what cannot be printed cannot be searched
            return as_text(value)
        plain = (str.__str__(value),) if isinstance(value, str) else ()
        for text in (*plain, shown, inner):
            masked = self.secrets.masked(text)
            if masked != text:
                return masked
        return value
