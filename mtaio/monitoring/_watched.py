"""
The objects and functions that a monitor reads, besides the process.

Promise: they are read in the event loop, so that none is seen in the middle of a change. If reading
one raises, that is logged once and counted, and it has no figures until it works again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from operator import gt
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mtaio._internal import checks, clock
from mtaio._internal.callables import close_unstarted, is_async
from mtaio._internal.durations import record_durations_of
from mtaio._internal.signature import check_takes
from mtaio.monitoring._delivery import logger
from mtaio.monitoring._metrics import Source, flat, kind_of, kinds
from mtaio.monitoring._stalls import WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from mtaio._internal.histogram import HistogramStatistics

__all__ = ["HasStatistics", "Watched"]


class HasStatistics(Protocol):
    """The protocol of what `ResourceMonitor.watch` accepts: mtaio's primitives, or your classes."""

    def statistics(self) -> object:
        """Return a dataclass with numbers."""


@dataclass(slots=True)
class _Entry:
    """One that is watched, and how reading it went."""

    kind: str
    name: str | None
    read: Callable[[], object]
    mappings: bool
    obj: object
    first: Collection[str] = ()
    """Its metrics, as they were when it was added."""
    latest: Collection[str] = ()
    """Its metrics at the last reading."""
    failing: bool = False

    def source(self) -> Source:
        """Read it."""
        return Source(
            kind=self.kind, name=self.name, statistics=self.read(), mappings=self.mappings
        )


class Reading(NamedTuple):
    """What was read at one time."""

    sources: tuple[Source, ...] = ()
    values: dict[str, float] = {}  # noqa: RUF012 - never changed


class _Recent:
    """
    What histograms have counted of late, by their dotted names.

    Of at least the last ``WINDOW`` seconds and at most twice that, or of the last two readings
    where these are further apart. As for the delays of the event loop, the older half is forgotten
    at once.
    """

    __slots__ = ("_latest", "_middle", "_old", "_opened", "timed_by")

    def __init__(self) -> None:
        self._old: dict[str, HistogramStatistics] = {}
        """As they were when the older half began; ``_middle`` when it ended."""
        self._middle: dict[str, HistogramStatistics] = {}
        self._latest: dict[str, HistogramStatistics] = {}
        self._opened = -math.inf
        """When the newer half began."""
        self.timed_by: clock.Tells = clock.REAL
        """The clock of that moment."""

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        self._opened += seconds

    def begin(self) -> None:
        """Begin a reading."""
        now = clock.catch_up(self)
        if now - self._opened >= WINDOW:
            self._old, self._middle, self._opened = self._middle, self._latest, now
        self._latest = {}

    def part(self, name: str, whole: HistogramStatistics) -> HistogramStatistics | None:
        """Take note of a histogram in this reading, and return what of it is recent, if any is."""
        self._latest[name] = whole
        old = self._old.get(name)
        if old is not None and old.counts == whole.counts:
            return None
        # One that counts less than before, or by other ranges, is another of the same name.
        if old is None or old.bounds != whole.bounds or any(map(gt, old.counts, whole.counts)):
            return whole
        return whole - old


class Watched:
    """
    What is watched, by its place in the names of metrics.

    It may be changed and read in any thread, also while it is read.

    Invariant: ``_entries`` is changed in place, one key at a time, and read as a copy.
    """

    __slots__ = ("_entries", "_recent", "failed", "last")

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._recent = _Recent()
        self.failed: int = 0
        """How often reading one of them has raised."""
        self.last: Reading = Reading()

    def __len__(self) -> int:
        return len(self._entries)

    def add(
        self, obj: HasStatistics, name: str | None, taken: Collection[str], *, mappings: bool
    ) -> None:
        """Watch an object; raise ``ValueError`` or ``TypeError`` if that cannot be."""
        if isinstance(obj, type):
            msg = f"cannot watch {obj!r}: it is a class. Pass an instance of it."
            raise TypeError(msg)
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
        record_durations_of(obj)  # before it is read, so that these have names for thresholds
        entry = _Entry(kind, label, obj.statistics, mappings, obj)
        entry.first = tuple(kinds(entry.source()))  # raises for what cannot be read
        for metric in entry.first:  # a gauge's place is its name
            if metric in taken or (metric in self._entries and metric != prefix):
                msg = (
                    f"cannot watch {obj!r} as {prefix!r}: there is a metric {metric!r} already. "
                    f"Give it another name: watch(obj, name=...)."
                )
                raise ValueError(msg)
        there = self._entries.setdefault(prefix, entry)
        if there.obj is not obj:
            msg = (
                f"cannot watch {obj!r} as {prefix!r}: {there.obj!r} is watched under that name. "
                f"Give each a name of its own: watch(obj, name=...)."
            )
            raise ValueError(msg)
        self._entries[prefix] = entry

    def add_gauge(self, name: str, fn: Callable[[], float], taken: Collection[str]) -> None:
        """Watch a number; raise ``ValueError`` or ``TypeError`` if that cannot be."""
        checks.callable_("fn", fn, way_out="Pass a function that returns a number.")
        if is_async(fn):
            msg = (
                f"fn={fn!r} is async, and a gauge is read without waiting. Pass a plain function, "
                f"such as one that returns what a task measured last."
            )
            raise TypeError(msg)
        check_takes("fn", fn, way_out="Pass a function of no arguments that returns a number.")
        name = _checked("name", name)
        if name in taken or self._has_metric(name):
            msg = f"cannot add the gauge {name!r}: there is a metric of that name. Choose another."
            raise ValueError(msg)
        entry = _Entry("gauge", name, _number(name, fn), mappings=False, obj=fn, first=(name,))
        self._entries[name] = entry

    def remove(self, obj: object) -> None:
        """Watch an object, or a gauge by its function or name, no longer; if it is watched."""
        for key, entry in self._entries.copy().items():
            # Each access to a method makes a new object; only gauges are functions.
            if entry.obj is obj or (entry.kind == "gauge" and obj in (entry.obj, key)):
                self._entries.pop(key, None)

    def _has_metric(self, name: str) -> bool:
        """Return whether a metric of what is watched has that name, which begins with its place."""
        places = accumulate(name.split("."), "{}.{}".format)
        entries = map(self._entries.get, places)
        return any(each is not None and name in (*each.first, *each.latest) for each in entries)

    def names(self) -> list[str]:
        """Return the names of their metrics, known without reading them."""
        found: dict[str, None] = {}
        for entry in self._entries.copy().values():
            found.update(dict.fromkeys((*entry.first, *entry.latest)))
        return list(found)

    def read(self) -> Reading:
        """Read all of them: in the event loop."""
        sources: list[Source] = []
        values: dict[str, float] = {}
        self._recent.begin()
        for key, entry in self._entries.copy().items():
            try:
                source = entry.source()
                numbers = flat(source, self._recent.part)
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001 - a gauge is user code, and may exit or be cancelled
                self.failed += 1
                if not entry.failing:
                    entry.failing = True
                    logger.exception(
                        "cannot read %s; there are no figures from it until that works", key
                    )
            else:
                entry.failing = False
                entry.latest = numbers
                sources.append(source)
                values.update(numbers)
        self.last = Reading(tuple(sources), values)
        return self.last


def _number(name: str, fn: Callable[[], float]) -> Callable[[], float]:
    """Return a function that returns what ``fn`` does if that is a number."""

    def read() -> float:
        value = fn()
        close_unstarted(value)  # of an async function in a lambda: Python would warn each time
        return float(checks.number(name, value, way_out="A gauge returns an int or a float."))

    return read


def _checked(what: str, name: object) -> str:
    """Return ``name`` if it can be part of a metric's name."""
    if not isinstance(name, str):
        msg = f"{what}={name!r} is {checks.type_of(name)}, not a str. Pass a short name."
        raise TypeError(msg)
    if not name.strip():
        msg = f"{what}={name!r} is empty. Pass a short name."
        raise ValueError(msg)
    return name
