"""Numbers with names, out of the statistics of anything."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from mtaio._internal.statistics import BYTES, COUNTER, GAUGE, HISTOGRAM, INFO, LIMIT
from mtaio.monitoring import Metric, Source, metrics
from mtaio.monitoring._metrics import flat, kind_of, kinds
from mtaio.statistics import HistogramStatistics
from tests.monitoring.watched import Objects, Timed, numbers, objects, sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@pytest.fixture
def each(tmp_path: Path) -> Iterator[Objects]:
    """Return one of each of mtaio's objects."""
    yield from objects(tmp_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    done: int = field(metadata=COUNTER)
    held: float = field(metadata=GAUGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    most: int | None = field(default=9, metadata=LIMIT)
    size: int = field(default=5, metadata=GAUGE | BYTES)
    wait_seconds: float = field(default=0.5, metadata=COUNTER)
    part: Part | None = None
    by_level: Mapping[str, object] = field(
        default_factory=dict, metadata=COUNTER | {"label": "level"}
    )
    free: Mapping[object, object] = field(default_factory=dict)
    mode: str = field(default="fast", metadata=INFO)


def one(statistics: object, name: str | None = "api", **options: Any) -> list[Metric]:
    """Return the metrics of one source."""
    return list(metrics([Source(kind="pool", name=name, statistics=statistics, **options)]))


def series(found: list[Metric]) -> dict[tuple[str, ...], Any]:
    """Return values by name and labels."""
    return {(each.name, *each.labels.values()): each.value for each in found}


def test_fields_say_what_they_are() -> None:
    """A counter, a gauge, a limit and a text each become what Prometheus knows, with their unit."""
    found = {each.name: each for each in one(Whole())}
    assert found == {
        "mtaio_pool_most": Metric(
            name="mtaio_pool_most",
            kind="gauge",
            labels={"name": "api"},
            value=9,
            help="Whole.most",
            dotted="mtaio.pool.most",
        ),
        "mtaio_pool_size_bytes": Metric(
            name="mtaio_pool_size_bytes",
            kind="gauge",
            labels={"name": "api"},
            value=5,
            help="Whole.size, in bytes",
            unit="bytes",
            dotted="mtaio.pool.size",
        ),
        "mtaio_pool_wait_seconds_total": Metric(
            name="mtaio_pool_wait_seconds_total",
            kind="counter",
            labels={"name": "api"},
            value=0.5,
            help="Whole.wait_seconds, in seconds",
            unit="seconds",
            dotted="mtaio.pool.wait_seconds",
        ),
        "mtaio_pool_by_level_total": Metric(
            name="mtaio_pool_by_level_total",
            kind="counter",
            labels={"name": "api"},
            value=0,
            help="Whole.by_level",
            dotted="mtaio.pool.by_level",
        ),
        "mtaio_pool_info": Metric(
            name="mtaio_pool_info",
            kind="gauge",
            labels={"mode": "fast", "name": "api"},
            value=1,
            help="info",
            dotted="mtaio.pool.info",
        ),
    }


def test_what_a_field_lacks_is_left_out() -> None:
    """None, and what is no number, gives no metric."""

    @dataclass
    class Odd:
        nothing: None = None
        text: str = "x"
        parts: list[int] = field(default_factory=list)
        exact: Decimal = Decimal(1)
        kept: int = 1

    assert series(one(Odd())) == {("mtaio_pool_kept", "api"): 1}
    assert flat(Source(kind="pool", name=None, statistics=Odd())) == {"pool.kept": 1}


def test_fields_without_metadata_are_gauges() -> None:
    """A dataclass that knows nothing of mtaio is exported all the same."""

    @dataclass
    class Plain:
        open: bool = True
        ratio: Fraction = Fraction(1, 4)
        idleTime: float = 2.0  # noqa: N815 - names of others are like this

    found = one(Plain(), None)
    assert [(each.name, each.kind, each.value) for each in found] == [
        ("mtaio_pool_open", "gauge", 1),
        ("mtaio_pool_ratio", "gauge", 0.25),
        ("mtaio_pool_idle_time", "gauge", 2.0),
    ]
    assert [type(each.value) for each in found] == [int, float, float]
    assert flat(Source(kind="pool", name=None, statistics=Plain())) == {
        "pool.open": 1,
        "pool.ratio": 0.25,
        "pool.idleTime": 2.0,
    }


def test_metadata_of_others_is_no_kind() -> None:
    """Metadata that another library reads does no harm, and ``help`` is shown."""

    @dataclass
    class Mixed:
        a: int = field(default=1, metadata={"kind": "summary", "x": 5})
        b: int = field(default=2, metadata={"help": "What b is."})

    assert [(each.kind, each.help) for each in one(Mixed())] == [
        ("gauge", "Mixed.a"),
        ("gauge", "What b is."),
    ]


def test_nested_statistics_add_their_name() -> None:
    """What is in a dataclass in a field is named after the field."""
    source = Source(kind="pool", name="api", statistics=Whole(part=Part(done=3, held=1.5)))
    assert series(list(metrics([source])))["mtaio_pool_part_done_total", "api"] == 3
    assert flat(source)["pool.api.part.held"] == 1.5
    assert kinds(source)["pool.api.part.done"] == "counter"


def test_mappings_are_off() -> None:
    """Unless they are wanted, a counter that is a mapping is added up, and the rest left out."""
    statistics = Whole(by_level={"INFO": 3, "ERROR": 4}, free={"a": 1})
    source = Source(kind="pool", name="api", statistics=statistics)
    found = series(list(metrics([source])))
    assert found["mtaio_pool_by_level_total", "api"] == 7
    assert not [name for name, *_ in found if "free" in name]
    assert flat(source)["pool.api.by_level"] == 7
    parts = Whole(by_level={"INFO": Part(done=1, held=2)})
    assert not [name for name, *_ in series(one(parts)) if "by_level" in name]


def test_mappings_that_are_wanted_have_a_label() -> None:
    """Each key has a series of its own, under the label that the field names, or ``key``."""
    statistics = Whole(
        by_level={"INFO": 3, "ERROR": Part(done=1, held=2), "none": None},
        free={("a", 1): 2},
    )
    found = one(statistics, mappings=True)
    labels = {each.name: dict(each.labels) for each in found if each.name != "mtaio_pool_info"}
    assert labels["mtaio_pool_by_level_total"] == {"name": "api", "level": "INFO"}
    assert labels["mtaio_pool_by_level_done_total"] == {"name": "api", "level": "ERROR"}
    assert labels["mtaio_pool_free"] == {"name": "api", "key": "('a', 1)"}
    source = Source(kind="pool", name="api", statistics=statistics, mappings=True)
    wanted = flat(source)
    assert wanted["pool.api.by_level.INFO"] == 3
    assert wanted["pool.api.by_level.ERROR.done"] == 1
    assert kinds(source)["pool.api.by_level.ERROR.done"] == "counter"


FAST = HistogramStatistics(bounds=(0.1, 1.0), counts=(10, 0, 0), sum=0.5)
SLOW = HistogramStatistics(bounds=(0.1, 1.0), counts=(0, 10, 0), sum=5.0)


def test_histograms_have_quantiles() -> None:
    """A histogram is one metric; thresholds know its count and two of its quantiles."""
    (found,) = one(Timed(run_seconds=FAST + SLOW))
    assert found == Metric(
        name="mtaio_pool_run_seconds",
        kind="histogram",
        labels={"name": "api"},
        value=FAST + SLOW,
        help="Timed.run_seconds, in seconds",
        unit="seconds",
        dotted="mtaio.pool.run_seconds",
    )
    source = Source(kind="pool", name=None, statistics=Timed(run_seconds=FAST + SLOW))
    whole = flat(source)
    assert {name: value for name, value in whole.items() if "run" in name} == {
        "pool.run_seconds.count": 20,
        "pool.run_seconds.p50": pytest.approx(0.1),
        "pool.run_seconds.p99": pytest.approx(0.982),
    }
    recent = {"pool.run_seconds": FAST}
    assert flat(source, recent.get)["pool.run_seconds.p99"] == pytest.approx(0.099)
    assert {name: kind for name, kind in kinds(source).items() if "run" in name} == {
        "pool.run_seconds.count": "counter",
        "pool.run_seconds.p50": "gauge",
        "pool.run_seconds.p99": "gauge",
    }
    assert not one(Timed())  # not recorded


def test_series_by_several_labels() -> None:
    """Prometheus has each of them always, thresholds all together unless mappings are wanted."""
    statistics = Timed(
        by_route={("GET", "/a"): FAST, ("PUT", "/b"): SLOW},
        requests={("GET", "200"): 9, ("GET", "503"): 1},
    )
    found = {(each.name, *each.labels.values()): each.value for each in one(statistics)}
    assert found == {
        ("mtaio_pool_by_route_seconds", "api", "GET", "/a"): FAST,
        ("mtaio_pool_by_route_seconds", "api", "PUT", "/b"): SLOW,
        ("mtaio_pool_requests_total", "api", "GET", "200"): 9,
        ("mtaio_pool_requests_total", "api", "GET", "503"): 1,
    }
    assert set(one(statistics)[0].labels) == {"name", "method", "route"}
    source = Source(kind="pool", name=None, statistics=statistics)
    together = flat(source)
    assert together["pool.requests"] == 10
    assert together["pool.by_route.count"] == 20
    assert together["pool.by_route.p99"] == pytest.approx(0.982)
    wanted = flat(dataclasses.replace(source, mappings=True))
    assert wanted["pool.by_route.PUT./b.p99"] > 0.9 > wanted["pool.by_route.GET./a.p99"]
    assert wanted["pool.requests.GET.503"] == 1
    assert "pool.by_route.count" not in wanted


def test_series_before_the_first_value() -> None:
    """A histogram by labels has its names for thresholds at once, and no quantiles yet."""
    source = Source(kind="pool", name=None, statistics=Timed())
    assert flat(source) == {"pool.by_route.count": 0, "pool.requests": 0}
    assert "pool.by_route.p99" in kinds(source)
    assert list(metrics([source])) == []


def test_what_fits_no_field() -> None:
    """A number among histograms is left out, and so is a key that has too many labels or few."""
    odd: Any = Timed(
        run_seconds=5,  # type: ignore[arg-type] # the mistake itself
        by_route={("GET", "/a"): 7, "PUT": FAST},  # type: ignore[dict-item] # the mistake itself
        requests={("GET", "200", "more"): 1},
    )
    assert {(each.name, *each.labels.values()) for each in one(odd)} == {
        ("mtaio_pool_by_route_seconds", "api", "PUT"),
        ("mtaio_pool_requests_total", "api", "GET", "200"),
    }


def test_bound_is_no_label_of_a_field() -> None:
    """``le`` is Prometheus' own label of a histogram."""

    @dataclass
    class Sizes:
        sizes: Mapping[str, HistogramStatistics] = field(
            default_factory=lambda: {"a": FAST}, metadata=HISTOGRAM | {"label": "le"}
        )

    assert one(Sizes(), mappings=True)[0].labels == {"name": "api", "_le": "a"}
    assert one(Sizes())[0].labels == {"name": "api"}


def test_mapping_in_a_mapping_is_left_out() -> None:
    """There is one label for keys, so what is in a mapping in a mapping has none."""
    inner = Whole(by_level={"INFO": 3}, free={"a": 1})
    found = series(one(Whole(free={"k": inner}), mappings=True))
    assert found["mtaio_pool_free_by_level_total", "api", "k"] == 3
    assert not [name for name, *_ in found if "free_free" in name]


class Few(NamedTuple):
    used: int
    idle: int | None
    who: str


@pytest.mark.parametrize(
    "statistics",
    [{"used": 3, "idle": None, "who": "x"}, Few(3, None, "x")],
    ids=["mapping", "namedtuple"],
)
def test_statistics_need_no_dataclass(statistics: object) -> None:
    """A mapping of numbers, or a named tuple, does as well; its numbers are gauges."""
    assert series(one(statistics)) == {("mtaio_pool_used", "api"): 3}
    assert flat(Source(kind="pool", name="api", statistics=statistics)) == {"pool.api.used": 3}


def test_named_tuples_nest() -> None:
    """A named tuple may hold a dataclass, and the other way round."""

    class Outer(NamedTuple):
        part: Part
        held: int

    found = series(one(Outer(Part(done=1, held=2), 3)))
    assert found["mtaio_pool_part_done_total", "api"] == 1
    assert (
        flat(Source(kind="pool", name=None, statistics=Whole(part=Outer(Part(done=1, held=2), 3))))[  # type: ignore[arg-type] # not what the class declares
            "pool.part.part.held"
        ]
        == 2
    )


def test_number_is_a_gauge() -> None:
    """A custom gauge is its name alone; another number is what it is the number of."""
    custom = Source(kind="gauge", name="queue_depth", statistics=3.0)
    assert series(list(metrics([custom]))) == {("mtaio_value", "queue_depth"): 3.0}
    assert flat(custom) == {"queue_depth": 3.0}
    assert flat(Source(kind="backlog", name="mail", statistics=5)) == {"backlog.mail": 5}
    assert series(list(metrics([Source(kind="backlog", name="mail", statistics=True)]))) == {
        ("mtaio_backlog", "mail"): 1
    }
    assert flat(Source(kind="gauge", name=None, statistics=1)) == {"gauge": 1}


@pytest.mark.parametrize("statistics", [None, "text", [1, 2], (1, 2), object, Whole])
def test_other_statistics_are_refused(statistics: object) -> None:
    """What cannot be read is named, with what could be."""
    with pytest.raises(
        TypeError, match=r"^cannot read the statistics of pool 'api': .* is neither"
    ):
        list(metrics([Source(kind="pool", name="api", statistics=statistics)]))
    with pytest.raises(TypeError, match=r"^cannot read the statistics of pool: "):
        flat(Source(kind="pool", name=None, statistics=statistics))


@pytest.mark.parametrize(
    ("value", "exported"),
    [
        (2**63 - 1, 2**63 - 1),
        (2**63, float(2**63)),
        (-(2**63), -(2**63)),
        (10**400, math.inf),
        (-(10**400), -math.inf),
        (math.inf, math.inf),
    ],
)
def test_large_numbers(value: float, exported: float) -> None:
    """An int of more than 64 bits becomes a float, and infinite if it must."""
    (found,) = one({"used": value})
    assert found.value == exported
    assert type(found.value) is type(exported)


def test_nan_passes() -> None:
    """NaN is a value: whoever shows it decides what to do with it."""
    (found,) = one({"used": math.nan})
    assert isinstance(found.value, float)
    assert math.isnan(found.value)


def test_equal_series_come_once() -> None:
    """Two numbers that come to one name and the same labels are not both exported."""
    assert series(one({"a b": 1, "a_b": 2})) == {("mtaio_pool_a_b", "api"): 1}
    twins = [
        Source(kind="pool", name=None, statistics={"a": 1}),
        Source(kind="pool", name=None, statistics={"a": 2}),
    ]
    assert [each.value for each in metrics(twins)] == [1]


@pytest.mark.parametrize(
    ("cls", "kind"),
    [
        ("RateLimiter", "rate_limiter"),
        ("TTLCache", "ttl_cache"),
        ("HTTP2Pool", "http2_pool"),
        ("AsyncIO", "async_io"),
        ("pool", "pool"),
        ("_Pool", "pool"),
        ("_", "unnamed"),
        ("Größe", "gruf6udfe"),
        ("プール", "u30d7u30fcu30eb"),
    ],
)
def test_kind_is_the_class_in_snake_case(cls: str, kind: str) -> None:
    """The kind is the name of the class, in letters that every name may hold."""
    assert kind_of(type(cls, (), {})) == kind


@pytest.mark.parametrize(
    ("name", "kind", "family"),
    [
        ("count", "gauge", "mtaio_pool_count_value"),
        ("total", "gauge", "mtaio_pool_total_value"),
        ("sum", "limit", "mtaio_pool_sum_value"),
        ("info", "gauge", "mtaio_pool_info_value"),
        ("total", "counter", "mtaio_pool_total"),
        ("requests_total", "counter", "mtaio_pool_requests_total"),
        ("seconds_total", "counter", "mtaio_pool_seconds_total"),
        ("count", "counter", "mtaio_pool_count_total"),
        ("read_bytes", "counter", "mtaio_pool_read_bytes_total"),
        ("usage_percent", "gauge", "mtaio_pool_usage_percent"),
    ],
)
def test_families_keep_the_conventions(name: str, kind: str, family: str) -> None:
    """Counters, and no gauges, end in ``_total``; no gauge has the ending of a histogram."""
    cls = dataclasses.make_dataclass("Pool", [(name, int, field(metadata={"kind": kind}))])
    (found,) = one(cls(1))
    assert found.name == family


def test_unit_of_any_characters() -> None:
    """A unit becomes a part of the name, which has letters, digits and underscores alone."""

    @dataclass(frozen=True)
    class Traffic:
        sent: int = field(default=1, metadata=COUNTER | {"unit": "bit/s"})
        lost: int = field(default=2, metadata={"unit": "packets\n"})

    names = [each.name for each in one(Traffic())]
    assert names == ["mtaio_pool_sent_bit_s_total", "mtaio_pool_lost_packets"]


def test_label_called_name() -> None:
    """A key's label that is called like the one of the object's name takes nothing from it."""

    @dataclass(frozen=True)
    class Shop:
        sold: Mapping[str, int] = field(
            default_factory=lambda: {"tea": 1}, metadata=COUNTER | {"label": "name"}
        )

    sources = [
        Source(kind="shop", name=name, statistics=Shop(), mappings=True) for name in ("a", "b")
    ]
    assert [each.labels for each in metrics(sources)] == [
        {"name": "a", "_name": "tea"},
        {"name": "b", "_name": "tea"},
    ]


def test_unit_before_total() -> None:
    """A counter's unit stands before ``_total``, where its name has it already and where not."""

    @dataclass
    class Sent:
        data: int = field(default=1, metadata=COUNTER | BYTES)
        bytes_total: int = field(default=1, metadata=COUNTER | BYTES)

    assert [each.name for each in one(Sent())] == [
        "mtaio_pool_data_bytes_total",
        "mtaio_pool_bytes_total",
    ]


def test_label_is_a_name() -> None:
    """A label that a field names is made one that Prometheus takes."""

    @dataclass
    class Codes:
        codes: Mapping[int, int] = field(default_factory=dict, metadata={"label": "4xx code"})

    (found,) = one(Codes({404: 2}), mappings=True)
    assert dict(found.labels) == {"name": "api", "_4xx_code": "404"}


def test_monitors_own_figures() -> None:
    """What a monitor measures has no kind before its names, and says what it is of."""
    source = Source(kind="", name=None, statistics=sample())
    found = series(list(metrics([source])))
    assert found["mtaio_cpu_usage_percent",] == 41.5
    assert found["mtaio_cpu_count_cores",] == 4
    assert found["mtaio_memory_total_bytes",] == 2**31
    assert found["mtaio_memory_info", "cgroup"] == 1
    assert found["mtaio_cpu_info", "host"] == 1
    assert found["mtaio_io_read_bytes_total",] == 4096
    assert found["mtaio_loop_blocked_seconds_total",] == 1.5
    assert found["mtaio_uptime_seconds",] == 12.5
    assert found["mtaio_timestamp_seconds",] == 1_700_000_000.25
    assert ("mtaio_cpu_limit_cores",) not in found
    dotted = flat(source)
    assert dotted["cpu.usage_percent"] == 41.5
    assert dotted["uptime"] == 12.5
    assert not [name for name in dotted if "source" in name or "info" in name]
    assert kinds(source)["memory.total"] == "limit"


async def test_every_object_has_metrics(each: Objects) -> None:
    """Each number in the statistics of each of mtaio's objects has a metric and a dotted name."""
    await each.use()
    values = {key: value for source in each.sources() for key, value in flat(source).items()}
    assert values["task_executor.executor.succeeded"] == 5
    assert values["rate_limiter.rate.acquired"] == 1
    assert values["keyed_rate_limiter.keyed.keys"] == 1
    assert values["concurrency_limiter.concurrency.acquired"] == 5
    assert values["resource_limiter.combined.rate.acquired"] == 5
    assert values["timeout_manager.timeouts.entered"] == 5
    assert values["ttl_cache.cache.hits"] == 3
    assert values["event_emitter.emitter.emitted"] == 3
    assert values["event_emitter.emitter.other.emitted"] == 0
    assert values["async_file_handler.log.written"] == 2
    found = [value for each in metrics(each.sources()) for value in numbers(each).values()]
    assert len(found) == len(values)
    assert sorted(found) == sorted(values.values())
    assert {
        key: kind for source in each.sources() for key, kind in kinds(source).items()
    }.keys() == (values.keys())


async def test_event_names_are_shown_when_wanted(each: Objects) -> None:
    """The counters of each event have the label ``event``, and dropped records ``level``."""
    await each.use()
    found = series(list(metrics(each.sources(mappings=True))))
    assert found["mtaio_event_emitter_names_emitted_total", "emitter", "order.sent"] == 2
    assert not [name for name, *_ in found if name == "mtaio_async_file_handler_dropped_total"]
