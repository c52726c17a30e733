"""
The statistics of mtaio's objects: the kinds of their numbers, and how a snapshot is taken.

Promise: each field of a statistics class says with ``field(metadata=COUNTER)``, ``GAUGE`` or
``LIMIT`` how its number moves, so that a monitor can export it without knowing the class. What its
name does not say is added: ``field(metadata=GAUGE | BYTES)``, and ``COUNTER | {"label": "level"}``
for a mapping by level.

An object counts in plain attributes, which costs its paths nothing. Where they are called as the
fields are, `snapshot` reads them by their names; only what has to be computed is passed.

The same words everywhere: ``acquired``, ``rejected`` (at once), ``timed_out`` (its own timeout),
``cancelled``, ``waiting``, ``in_use`` (slots), ``in_flight`` (calls), ``peak``, ``dropped`` (thrown
away), and names that end in ``_seconds`` for durations. What shows an argument has its name.
"""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from inspect import isdatadescriptor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BYTES",
    "CORES",
    "COUNTER",
    "GAUGE",
    "INFO",
    "LIMIT",
    "PARTS",
    "SECONDS",
    "snapshot",
]

S = TypeVar("S")

COUNTER: Final[MappingProxyType[str, str]] = MappingProxyType({"kind": "counter"})
"""A number that only grows: how often something has happened, or for how many seconds."""

GAUGE: Final[MappingProxyType[str, str]] = MappingProxyType({"kind": "gauge"})
"""A number that goes up and down: how things stand now."""

LIMIT: Final[MappingProxyType[str, str]] = MappingProxyType({"kind": "limit"})
"""A number that was configured: what a gauge is measured against. None for no limit."""

INFO: Final[MappingProxyType[str, str]] = MappingProxyType({"kind": "info"})
"""A text with few values that says what the numbers beside it are of."""

PARTS: Final[MappingProxyType[str, str]] = MappingProxyType({"kind": "parts"})
"""A mapping of other statistics by a few fixed names, which become part of their metrics' names."""

BYTES: Final[MappingProxyType[str, str]] = MappingProxyType({"unit": "bytes"})
"""A size whose name does not end in ``_bytes``."""

SECONDS: Final[MappingProxyType[str, str]] = MappingProxyType({"unit": "seconds"})
"""A duration, or a time since the epoch, whose name does not end in ``_seconds``."""

CORES: Final[MappingProxyType[str, str]] = MappingProxyType({"unit": "cores"})
"""A number of processors."""


def snapshot(cls: Callable[..., S], *parts: object, **given: object) -> S:
    """
    Return the statistics of an object.

    A field that is not given is read from the one part that has an attribute for it. That is the
    private one, `_name`, of the object itself, which is the part with a method `statistics`: so a
    subclass may use the name for something else. Of any other part it is the public one, `name`.
    Attributes are slots and properties of the part's class; its methods are none.

    A field that several parts have, or none, must be given: the class of the statistics itself
    refuses to be made without it.

    Args:
        cls: The class of the statistics, a dataclass.
        parts: The object, or those in which it counts.
        given: The fields that are computed.
    """
    for name, part, attribute in _sources(cls, tuple([type(part) for part in parts])):
        if name not in given:
            given[name] = getattr(parts[part], attribute)
    return cls(**given)


@lru_cache(maxsize=256)
def _sources(cls: Any, parts: tuple[type, ...]) -> tuple[tuple[str, int, str], ...]:
    """Return for each field that one part has its name, the part's index, and its attribute."""
    found: list[tuple[str, int, str]] = []
    for name in [each.name for each in fields(cls)]:
        having = [
            (name, index, attribute)
            for index, part in enumerate(parts)
            if isdatadescriptor(getattr(part, attribute := _attribute(part, name), None))
        ]
        if len(having) == 1:
            found += having
    return tuple(found)


def _attribute(part: type, name: str) -> str:
    """Return what the attribute for a field is called, if the objects of the class have it."""
    return f"_{name}" if hasattr(part, "statistics") else name
