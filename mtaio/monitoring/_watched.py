"""
The objects and functions whose figures a monitor keeps, besides those of the process.

Promise: they are read in the event loop, so that none is seen in the middle of a change. One that
raises is logged once, counted, and has no figures until it works again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from mtaio._internal import checks
from mtaio.monitoring._delivery import logger
from mtaio.monitoring._metrics import Source, flat, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["HasStatistics", "Watched"]


class HasStatistics(Protocol):
    """What `ResourceMonitor.watch` takes: every primitive of mtaio, and your own classes."""

    def statistics(self) -> object:
        """Return a dataclass with numbers."""


class _Entry(NamedTuple):
    kind: str
    name: str | None
    read: Callable[[], object]
    mappings: bool
    obj: object
    names: tuple[str, ...]
    """Its metrics, as they were when it was added."""


class Reading(NamedTuple):
    """What was read at one time."""

    sources: tuple[Source, ...] = ()
    values: dict[str, float] = {}  # noqa: RUF012 - never changed


class Watched:
    """
    What is watched, by its place in the names of metrics.

    Invariant: ``_entries`` is replaced and never changed, because it is read in another thread.
    """

    __slots__ = ("_entries", "_failing", "_found", "failed", "last")

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._failing: set[str] = set()
        self._found: dict[str, Collection[str]] = {}
        """The metrics of each at the last reading."""
        self.failed: int = 0
        """How often reading one of them has raised."""
        self.last: Reading = Reading()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, obj: HasStatistics, name: str | None, *, mappings: bool) -> None:
        """Watch an object; raise ``ValueError`` or ``TypeError`` if that cannot be."""
        if not callable(getattr(obj, "statistics", None)):
            msg = (
                f"cannot watch {obj!r}: it has no method statistics(). Give it one that returns a "
                f"dataclass with numbers, or register a function with gauge()."
            )
            raise TypeError(msg)
        kind = kind_of(type(obj))
        label = getattr(obj, "name", None) if name is None else name
        if label is not None:
            label = _checked("name", label)
        prefix = kind if label is None else f"{kind}.{label}"
        there = self._entries.get(prefix)
        if there is not None and there.obj is not obj:
            msg = (
                f"cannot watch {obj!r} as {prefix!r}: {there.obj!r} is watched under that name. "
                f"Give each a name of its own: watch(obj, name=...)."
            )
            raise ValueError(msg)
        entry = _Entry(kind, label, obj.statistics, mappings, obj, ())
        names = tuple(flat(_source(entry), mappings=mappings))  # raises for what cannot be read
        entry = entry._replace(names=names)
        self._entries = {**self._entries, prefix: entry}

    def add_gauge(self, name: str, fn: Callable[[], float], taken: Collection[str]) -> None:
        """Watch a number; raise ``ValueError`` or ``TypeError`` if that cannot be."""
        checks.callable_("fn", fn, way_out="Pass a function that returns a number.")
        name = _checked("name", name)
        if name in taken or name in self.names():
            msg = f"cannot add the gauge {name!r}: there is a metric of that name. Choose another."
            raise ValueError(msg)
        entry = _Entry("gauge", name, _number(name, fn), mappings=False, obj=fn, names=(name,))
        self._entries = {**self._entries, name: entry}

    def remove(self, obj: object) -> None:
        """Watch an object, or the gauge of a function, no longer; nothing if it is not watched."""
        # Each look at a method makes another object; only gauges are functions.
        kept = {
            key: each
            for key, each in self._entries.items()
            if each.obj is not obj and not (each.kind == "gauge" and each.obj == obj)
        }
        gone = self._entries.keys() - kept.keys()
        self._entries = kept
        for key in gone:
            self._found.pop(key, None)
            self._failing.discard(key)

    def names(self) -> list[str]:
        """Return the names of their metrics, known without reading them."""
        found: dict[str, None] = {}
        for key, entry in self._entries.items():
            found.update(dict.fromkeys(entry.names))
            found.update(dict.fromkeys(self._found.get(key, ())))
        return list(found)

    def read(self) -> Reading:
        """Read all of them: in the event loop."""
        sources: list[Source] = []
        values: dict[str, float] = {}
        for key, entry in self._entries.items():
            try:
                source = _source(entry)
                numbers = flat(source, mappings=entry.mappings)
            except Exception:  # noqa: BLE001 - a gauge is user code; logged
                self.failed += 1
                if key not in self._failing:
                    self._failing.add(key)
                    logger.exception("cannot read %s; no figures of it until that works", key)
            else:
                self._failing.discard(key)
                sources.append(source)
                values.update(numbers)
                self._found[key] = numbers
        self.last = Reading(tuple(sources), values)
        return self.last


def _source(entry: _Entry) -> Source:
    return Source(entry.kind, entry.name, entry.read(), entry.mappings)


def _number(name: str, fn: Callable[[], float]) -> Callable[[], float]:
    """Return a function that returns what ``fn`` does if that is a number."""

    def read() -> float:
        return float(checks.number(name, fn(), way_out="A gauge returns an int or a float."))

    return read


T = TypeVar("T")


def _checked(what: str, name: object) -> str:
    """Return ``name`` if it can be part of a metric's name."""
    if not isinstance(name, str):
        msg = f"{what}={name!r} is a {type(name).__name__}, not a str. Pass a short name."
        raise TypeError(msg)
    if not name.strip():
        msg = f"{what}={name!r} is empty. Pass a short name."
        raise ValueError(msg)
    return name
