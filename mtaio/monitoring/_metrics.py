"""
Turns the statistics of any object into named numbers, and these into text for Prometheus.

Promise: `metrics` gives what Prometheus and OpenTelemetry show, `flat` the names for thresholds and
the history. Neither knows any class: each field of a statistics class says what it is, with
``field(metadata=...)``, and a field without metadata is a gauge. Prometheus can read what
`to_prometheus` returns, whatever the names and values: one family after another, each with its help
and its type.

Cost: a class and its fields are looked at once; then it is one ``getattr`` for each number, and
about a microsecond for each line of text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from itertools import accumulate
from numbers import Real
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, cast, final, get_args

from mtaio._internal.histogram import Histogram, HistogramStatistics, together

if TYPE_CHECKING:
    from collections.abc import Callable

    Recent: TypeAlias = Callable[[str, HistogramStatistics], HistogramStatistics | None]
    """Returns the recent part of a histogram of a dotted name; None if there is nothing in it."""

__all__ = [
    "CONTENT_TYPE",
    "Kind",
    "Metric",
    "Number",
    "Source",
    "flat",
    "kind_of",
    "kinds",
    "metrics",
    "to_prometheus",
    "upto_each",
]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""What the text for Prometheus is, for the header of an HTTP response."""

Kind: TypeAlias = Literal["counter", "gauge", "limit", "info", "parts", "histogram"]
Number: TypeAlias = int | float

_TYPES: Final[dict[Kind, Literal["counter", "histogram"]]] = {
    "counter": "counter",
    "histogram": "histogram",
}
"""What is no gauge to Prometheus."""

_KINDS: Final[dict[str, Kind]] = {kind: kind for kind in get_args(Kind)}
_NUMBERS: Final = (int, float, Real)
"""Those that nearly all are come first: a check against the abstract class takes longer."""

_NOTHING: Final = Histogram().snapshot()
"""What there is of a histogram by labels before the first value."""

_QUANTILES: Final = {"p50": 0.5, "p99": 0.99}
"""What thresholds and the history know of a histogram, besides its ``count``."""

_MAX_INT: Final = 2**63
"""Beyond, an int is exported as a float, because not every reader takes more than 64 bits."""

_CUSTOM: Final = "value"
"""The family of the custom gauges: by convention, no name says of what type it is."""

_UNITS: Final = ("seconds", "bytes", "percent", "ratio")
"""What a field's name may end in, as its unit."""

_RESERVED: Final = ("_total", "_count", "_sum", "_bucket", "_created", "_info")
"""Endings that mean something else to Prometheus than a gauge."""

_WORDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_PLAIN: Final = re.compile(r"[^a-z0-9_]")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An object with statistics that a monitor watches."""

    kind: str
    """
    What it is, as `kind_of` says it; ``""`` for the monitor's own figures, ``"gauge"`` for a custom
    gauge.
    """
    name: str | None
    """Its name among those of the same kind."""
    statistics: object
    """A dataclass, a named tuple, a mapping of numbers, or one number."""
    mappings: bool = False
    """Whether fields that are mappings give a metric for each key."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number or a histogram, with its name, kind, labels and unit."""

    name: str
    """Its name in Prometheus, as in ``mtaio_rate_limiter_waiting``."""
    kind: Literal["counter", "gauge", "histogram"]
    """``"counter"`` if it only grows, ``"gauge"`` if it goes up and down, ``"histogram"`` for
    values by range."""
    labels: Mapping[str, str]
    """The labels that distinguish it from metrics of the same name."""
    value: float | HistogramStatistics
    """An int of 64 bits, a float (also infinity and NaN), or a whole histogram."""
    help: str
    """What it is."""
    unit: str = ""
    """``"seconds"``, ``"bytes"``, ``"percent"``, ``"ratio"``, ``"cores"``, or nothing."""
    dotted: str = ""
    """Its name in OpenTelemetry, as in ``mtaio.rate_limiter.waiting``."""


class _Row(NamedTuple):
    """What is known of a number before its value is."""

    field: str
    kind: Kind
    label: str
    """The label for the keys of a mapping, or for an info's own text."""
    labels: tuple[str, ...]
    """The labels for each item of keys that are tuples, if they are."""
    name: str
    help: str
    unit: str
    dotted: str


Value: TypeAlias = Number | HistogramStatistics
_Found: TypeAlias = tuple[_Row, str, Mapping[str, str], Value]
"""A value in a source's statistics: what is known of it, its dotted name, its labels, and it."""


class _Place(NamedTuple):
    """Where in a source the walk is."""

    found: list[_Found]
    path: tuple[str, ...]
    """The kind, and the fields down to here."""
    head: str
    """What the dotted names begin with."""
    labels: Mapping[str, str]
    mappings: bool
    """Whether mappings are wanted: a series for each of their keys."""
    labelled: bool
    """Whether those mappings are whose fields name ``labels``."""

    def wants(self, row: _Row) -> bool:
        """Return whether each key of a mapping is wanted, or what they add up to."""
        return self.labelled if row.labels else self.mappings


def metrics(sources: Iterable[Source]) -> Iterator[Metric]:
    """
    Yield the metrics of sources.

    Each number in the statistics is a metric; True counts as 1, and other values are left out. The
    name of a nested dataclass's field becomes part of the name. If ``mappings`` of the source is
    true, or if the field declares ``labels``, a mapping gives a metric for each key, with a label.
    Otherwise a counter that is a mapping is added up, and other mappings are left out. If several
    numbers have the same name and labels, the first is kept.

    Raises:
        TypeError: The statistics of a source cannot be read.
    """
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for source in sources:
        labels = {} if source.name is None else {"name": _text(source.name)}
        shared = tuple(labels.values())
        for row, _, own, value in _walk(source, labels, labelled=True):
            series = row.name, shared if own is labels else (*own, *own.values())
            if series in seen:
                continue
            seen.add(series)
            yield Metric(
                name=row.name,
                kind=_TYPES.get(row.kind, "gauge"),
                labels=own,
                value=value,
                help=row.help,
                unit=row.unit,
                dotted=row.dotted,
            )


def flat(source: Source, recent: Recent | None = None) -> dict[str, float]:
    """
    Return the numbers of a source by their dotted names, such as ``rate_limiter.api.waiting``.

    Unless the source wants its mappings, a counter or histogram that is one is added up, and others
    are left out. A histogram has its ``count``, and where there are values quantiles such as
    ``run_seconds.p99``.

    Args:
        source: What to read.
        recent: Returns the part of a histogram that its quantiles are of; by default all of it.

    Raises:
        TypeError: The statistics are of no form that can be read.
    """
    found: dict[str, float] = {}
    for row, key, _, value in _walk(source, {}, labelled=source.mappings):
        if isinstance(value, HistogramStatistics):
            found[f"{key}.count"] = count = value.count
            part = value if recent is None else recent(key, value)
            if count and part is not None:  # there are values, so there are quantiles
                for name, share in _QUANTILES.items():
                    found[f"{key}.{name}"] = cast("float", part.quantile(share))
        elif row.kind != "info":
            found[key] = value
    return found


def kinds(source: Source) -> dict[str, str]:
    """
    Return whether each number is a "counter", a "gauge" or a "limit", by its name in `flat`.

    Quantiles are among them whether or not there are values.
    """
    found: dict[str, str] = {}
    for row, key, _, value in _walk(source, {}, labelled=source.mappings):
        if isinstance(value, HistogramStatistics):
            found[f"{key}.count"] = "counter"
            found.update(dict.fromkeys([f"{key}.{name}" for name in _QUANTILES], "gauge"))
        elif row.kind != "info":
            found[key] = row.kind
    return found


def kind_of(cls: type) -> str:
    """Return how an object of ``cls`` is called in the names of metrics: ``rate_limiter``."""
    return _snake(cls.__name__)


def _walk(source: Source, labels: Mapping[str, str], *, labelled: bool) -> list[_Found]:
    """Return the numbers of a source, whatever form its statistics have."""
    kind, name, statistics = source.kind, source.name, source.statistics
    cls: Any = type(statistics)
    head = "".join([f"{part}." for part in (kind, name) if part])
    place = _Place([], (kind,), head, labels, source.mappings, labelled)
    if _has_fields(cls):
        _walk_fields(statistics, cls, place)
    elif isinstance(statistics, Mapping):
        for key, item in cast("Mapping[Any, object]", statistics).items():
            if isinstance(item, _NUMBERS):
                row = _loose((kind, str(key)))
                place.found.append((row, f"{head}{key}", labels, _number(item)))
    elif isinstance(statistics, _NUMBERS):
        if kind == "gauge" and name is not None:
            place.found.append((_loose((_CUSTOM,)), name, labels, _number(statistics)))
        else:
            place.found.append((_loose((kind,)), head[:-1], labels, _number(statistics)))
    else:
        who = kind if name is None else f"{kind} {name!r}"
        msg = (
            f"cannot read the statistics of {who}: {statistics!r} is neither a dataclass nor a "
            f"named tuple, a mapping or a number. Return one of these from statistics()."
        )
        raise TypeError(msg)
    return place.found


def _walk_fields(value: object, cls: Any, place: _Place) -> None:
    """Find the numbers of a dataclass or named tuple, and of those in it."""
    found, path, head, labels = place[:4]
    infos: dict[str, str] = {}
    for row in _rows(cls, path):
        field = row.field
        item: object = getattr(value, field)
        if row.kind == "histogram":
            _walk_histogram(item, row, place)
        elif type(item) is float:
            found.append((row, head + field, labels, item))
        elif item is None:
            continue
        elif row.kind == "info":
            infos[row.label] = _text(str(item))
        elif isinstance(item, _NUMBERS):
            found.append((row, head + field, labels, _number(item)))
        elif _has_fields(inner_cls := cast("Any", type(item))):
            inner = place._replace(path=(*path, field), head=f"{head}{field}.")
            _walk_fields(item, inner_cls, inner)
        elif isinstance(item, Mapping):
            _walk_mapping(cast("Mapping[Any, object]", item), row, place)
    if infos:
        row = _loose((*path, "info"), "info")
        found.append((row, f"{head}info", {**infos, **labels}, 1))


def _walk_mapping(value: Mapping[Any, object], row: _Row, place: _Place) -> None:
    """Find the numbers of a field that is a mapping: one for each key, or what they add up to."""
    found = place.found
    if row.kind == "parts":
        for name, part in value.items():
            if _has_fields(own := cast("Any", type(part))):
                head = f"{place.head}{name}."
                _walk_fields(part, own, place._replace(path=(*place.path, name), head=head))
        return
    key = place.head + row.field
    if not place.wants(row):
        if row.kind == "counter" and all(isinstance(item, _NUMBERS) for item in value.values()):
            total = sum(cast("Mapping[Any, Any]", value).values())
            found.append((row, key, place.labels, _number(total)))
        return
    path = (*place.path, row.field)
    for name, item in value.items():
        cls: Any = type(item)
        shown, own = _of_key(name, row)
        labels = {**place.labels, **own}
        if isinstance(item, _NUMBERS):
            found.append((row, f"{key}.{shown}", labels, _number(item)))
        elif _has_fields(cls):
            # A mapping within a mapping would need a label of its own, and is left out.
            inner = _Place(found, path, f"{key}.{shown}.", labels, mappings=False, labelled=False)
            _walk_fields(item, cls, inner)


def _walk_histogram(item: object, row: _Row, place: _Place) -> None:
    """Find a histogram, or those of a mapping: one for each key, or all of them together."""
    key = place.head + row.field
    if isinstance(item, Mapping):
        by_key = cast("Mapping[Any, object]", item).items()
        parts = [(name, each) for name, each in by_key if isinstance(each, HistogramStatistics)]
        if place.wants(row):
            for name, each in parts:
                shown, own = _of_key(name, row)
                place.found.append((row, f"{key}.{shown}", {**place.labels, **own}, each))
            return
        item = together([each for _, each in parts]) if parts else _NOTHING
    if isinstance(item, HistogramStatistics):
        place.found.append((row, key, place.labels, item))


def _of_key(key: tuple[object, ...] | str, row: _Row) -> tuple[str, dict[str, str]]:
    """Return what a key of a mapping adds to the dotted name, and its labels."""
    if not row.labels:
        return str(key), {row.label: _text(str(key))}
    items = [str(item) for item in (key if isinstance(key, tuple) else (key,))]
    return ".".join(items), dict(zip(row.labels, map(_text, items), strict=False))


def _number(value: Any) -> Number:
    """Return ``value`` as an int of 64 bits or a float."""
    if isinstance(value, int) and -_MAX_INT <= value < _MAX_INT:
        return value if type(value) is int else int(value)
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


@lru_cache(maxsize=1024)
def _has_fields(cls: Any) -> bool:
    """Return whether it is a dataclass or a named tuple."""
    return is_dataclass(cls) or (hasattr(cls, "_fields") and issubclass(cls, tuple))


@lru_cache(maxsize=1024)
def _rows(cls: Any, path: tuple[str, ...]) -> tuple[_Row, ...]:
    """Return what the fields of ``cls`` say; ``path`` is the kind, and the fields above."""
    owner: str = cls.__name__
    said: dict[str, Mapping[str, Any]]
    if is_dataclass(cls):
        said = {each.name: each.metadata for each in fields(cls)}
    else:
        said = {name: {} for name in cls._fields}
    return tuple(_row((*path, name), metadata, owner) for name, metadata in said.items())


@lru_cache(maxsize=1024)
def _loose(path: tuple[str, ...], kind: Kind = "gauge") -> _Row:
    """Return what is known of a number that is the field of no class."""
    return _row(path, {"kind": kind}, "")


def _row(path: tuple[str, ...], metadata: Mapping[str, Any], owner: str) -> _Row:
    """
    Return what is known of a number.

    Args:
        path: The kind, and the fields down to this one.
        metadata: What the field says: ``kind``, ``unit``, ``label``, ``labels``, ``help``.
        owner: The class whose field it is, where one can read what the number means.
    """
    field = path[-1]
    kind = _KINDS.get(metadata.get("kind", ""), "gauge")
    given = metadata.get("unit")
    unit = _snake(str(given)) if given else next((u for u in _UNITS if field.endswith(u)), "")
    parts = ["mtaio", *[_snake(part) for part in path if part]]
    described = f"{owner}.{field}" if owner else field
    return _Row(
        field=field,
        kind=kind,
        label=_label(metadata.get("label") or (field if kind == "info" else "key")),
        labels=tuple(map(_label, metadata.get("labels", ()))),
        name=_family("_".join(parts), kind, unit),
        help=_text(metadata.get("help") or (f"{described}, in {unit}" if unit else described)),
        unit=unit,
        dotted=".".join(parts),
    )


def _family(name: str, kind: Kind, unit: str) -> str:
    """Return ``name`` as Prometheus has it: its unit last, but for ``_total`` after a counter's."""
    if unit and not name.endswith((f"_{unit}", f"_{unit}_total")):
        name = f"{name}_{unit}"
    if kind == "counter":
        return name if name.endswith("_total") else f"{name}_total"
    return f"{name}_value" if kind != "info" and name.endswith(_RESERVED) else name


def _label(text: str) -> str:
    """Return the name of a label, which begins with no digit, and is none that has a meaning."""
    name = _snake(text)
    return f"_{name}" if name[0].isdigit() or name in {"name", "le"} else name


def _text(text: str) -> str:
    """Return ``text`` such that it can be encoded as UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _snake(text: str) -> str:
    """Return ``text`` in lower case, with underscores, in ASCII letters and digits alone."""
    words = _WORDS.sub("_", text).lower()
    return _NOT_PLAIN.sub(_spell, words).strip("_") or "unnamed"


def _spell(found: re.Match[str]) -> str:
    """Return what stands for a character that a name cannot hold; letters stay different."""
    return "_" if found[0].isascii() else f"u{ord(found[0]):x}"


# ---- as text for Prometheus ----------------------------------------------------------------------


def to_prometheus(metrics: Iterable[Metric]) -> str:
    """
    Return metrics in the text format of Prometheus, version 0.0.4.

    Args:
        metrics: Metrics from `metrics`, in any order.
    """
    families: dict[str, list[str]] = {}
    labels: Mapping[str, str] | None = None
    shown = ""
    for metric in metrics:
        if metric.labels is not labels:  # those of one source mostly share them
            labels = metric.labels
            shown = _braces(labels)
        lines = families.get(metric.name)
        if lines is None:
            lines = families[metric.name] = [
                f"# HELP {metric.name} {_escape(metric.help)}\n",
                f"# TYPE {metric.name} {metric.kind}\n",
            ]
        if isinstance(metric.value, HistogramStatistics):
            lines += _histogram(metric.name, shown, metric.value)
        else:
            lines.append(f"{metric.name}{shown} {_written(metric.value)}\n")
    return "".join(line for lines in families.values() for line in lines)


def _histogram(name: str, shown: str, value: HistogramStatistics) -> list[str]:
    """Return the lines of one histogram: how many values are up to each bound, sum and count."""
    before = f"{name}_bucket{shown[:-1]}{',' if shown else '{'}le="
    return [
        *[f'{before}"{bound}"}} {upto}\n' for bound, upto in upto_each(value)],
        f"{name}_sum{shown} {_written(value.sum)}\n",
        f"{name}_count{shown} {value.count}\n",
    ]


def upto_each(value: HistogramStatistics) -> Iterator[tuple[str, int]]:
    """Yield each bound as Prometheus has it, the infinite one last, and how many are up to it."""
    return zip(
        (*map(repr, map(float, value.bounds)), "+Inf"), accumulate(value.counts), strict=True
    )


def _braces(labels: Mapping[str, str]) -> str:
    """Return labels between their braces, or nothing."""
    if not labels:
        return ""
    quoted = {name: _escape(value).replace('"', r"\"") for name, value in labels.items()}
    pairs = [f'{name}="{value}"' for name, value in quoted.items()]
    return "{" + ",".join(pairs) + "}"


def _escape(text: str) -> str:
    """Return ``text`` on one line."""
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _written(value: float) -> str:
    """Return a number as Prometheus writes it."""
    if isinstance(value, int) or math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
