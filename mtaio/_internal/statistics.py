"""
The statistics of mtaio's objects: the kinds of their numbers, and how a snapshot is taken.

Promise: each field of a statistics class says with ``field(metadata=COUNTER)``, ``GAUGE`` or
``LIMIT`` how its number moves, so that a monitor can export it without knowing the class. What its
name does not say is added: ``field(metadata=GAUGE | BYTES)``, and ``COUNTER | {"label": "level"}``
for a mapping by level. A field may be a whole histogram, ``field(default=None, metadata=HISTOGRAM |
SECONDS)``, None as long as it is not recorded. A mapping whose keys are tuples has several labels,
``COUNTER | labels("method", "status")``; its owner bounds how many keys there are.

An object counts in plain attributes, which costs its paths nothing. Where they are called as the
fields are, `snapshot` reads them by their names; only what has to be computed is passed.

The same words everywhere: ``acquired``, ``rejected`` (at once), ``timed_out`` (its own timeout),
``cancelled``, ``waiting``, ``in_use`` (slots), ``in_flight`` (calls), ``peak``, ``dropped`` (thrown
away), and names that end in ``_seconds`` for durations. What shows an argument has its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from inspect import isdatadescriptor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mtaio._internal.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "BYTES",
    "CORES",
    "COUNTER",
    "GAUGE",
    "HISTOGRAM",
    "INFO",
    "LIMIT",
    "PARTS",
    "SECONDS",
    "add_counts",
    "labels",
    "snapshot",
    "total",
]

S = TypeVar("S")

_ADDED: Final = ("counter", "histogram")
"""The kinds of what is added up over several objects."""

COUNTER: Final[MappingProxyType[str, str]] = MappingProxyType({"kind": "counter"})
"""A number that only grows: how often something has happened, or for how many seconds."""

GAUGE: Final[MappingProxyType[str, str]] = MappingProxyType({"kind": "gauge"})
"""A number that goes up and down: how things stand now."""

LIMIT: Final[MappingProxyType[str, str]] = MappingProxyType({"kind": "limit"})
"""A number that was configured: what a gauge is measured against. None for no limit."""

HISTOGRAM: Final[MappingProxyType[str, str]] = MappingProxyType({"kind": "histogram"})
"""A `HistogramStatistics`: how often a value fell into which range. None if it is not recorded."""

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


def labels(*names: str) -> dict[str, tuple[str, ...]]:
    """
    Return what a field says whose value is a mapping with tuples as keys: a label for each item.

    Each key is exported as a series, so whoever has the mapping bounds how many there are.
    """
    return {"labels": names}


def snapshot(cls: Callable[..., S], *parts: object, **given: object) -> S:
    """
    Return the statistics of an object.

    A field that is not given is read from the one part that has an attribute for it. That is the
    private one, `_name`, of the object itself, which is the part with a method `statistics`: so a
    subclass may use the name for something else. Of any other part it is the public one, `name`.
    Attributes are slots and properties of the part's class; its methods are none. Of a `Histogram`
    the snapshot is taken.

    A field that several parts have, or none, must be given: the class of the statistics itself
    refuses to be made without it.

    Args:
        cls: The class of the statistics, a dataclass.
        parts: The object, or those in which it counts.
        given: The fields that are computed.
    """
    for name, part, attribute in _sources(cls, tuple([type(part) for part in parts])):
        if name not in given:
            value = getattr(parts[part], attribute)
            given[name] = value.snapshot() if type(value) is Histogram else value
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


def total(snapshots: Sequence[S], past: Mapping[str, Any]) -> S:
    """
    Return the statistics of several objects of one kind together.

    Counts and histograms are added up, and so are gauges that are ints, but for those that are the
    most of something. Of other gauges and of limits it is the greatest, and of what is no number
    the last.

    Args:
        snapshots: Those of each, one at least.
        past: What objects have counted that are no more: see `add_counts`.
    """
    cls: Any = type(snapshots[0])
    values: dict[str, Any] = {}
    for each in fields(cls):
        given = [getattr(one, each.name) for one in snapshots]
        kind = each.metadata.get("kind")
        known = [value for value in given if isinstance(value, int | float)]
        if kind in _ADDED:
            counted: dict[str, Any] = {each.name: past[each.name]} if each.name in past else {}
            for value in given:
                _add(counted, each.name, value)
            values[each.name] = counted[each.name]
        elif kind not in {"gauge", "limit"} or len(known) < len(given):
            values[each.name] = given[-1]
        elif (
            kind == "gauge"
            and all(isinstance(value, int) for value in known)
            and each.name != "peak"
        ):
            values[each.name] = sum(known)
        else:
            values[each.name] = max(known)
    made: S = cls(**values)
    return made


def add_counts(past: dict[str, Any], statistics: object) -> None:
    """Add to ``past`` what an object has counted that will be no more."""
    if is_dataclass(statistics):
        for each in fields(statistics):
            if each.metadata.get("kind") in _ADDED:
                _add(past, each.name, getattr(statistics, each.name))


def _add(counted: dict[Any, Any], name: Any, value: Any) -> None:
    """Add a count or a histogram, or each of a mapping of them; None is added to nothing."""
    before = counted.get(name)
    if before is None or value is None:
        counted[name] = before if value is None else value
    elif isinstance(value, Mapping):
        sums: dict[Any, Any] = dict(before)
        for key, one in value.items():  # pyright: ignore[reportUnknownVariableType] - of any type
            _add(sums, key, one)
        counted[name] = sums
    else:
        counted[name] = before + value


def _attribute(part: type, name: str) -> str:
    """Return what the attribute for a field is called, if the objects of the class have it."""
    return f"_{name}" if hasattr(part, "statistics") else name
