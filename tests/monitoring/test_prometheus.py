"""The text that Prometheus reads, as another library's parser understands it."""

from __future__ import annotations

import math
from dataclasses import field, make_dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from mtaio.monitoring import Metric, Source, metrics, to_prometheus
from mtaio.statistics import HistogramStatistics
from tests.monitoring.watched import Objects, Timed, numbers, objects, sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@pytest.fixture
def each(tmp_path: Path) -> Iterator[Objects]:
    """Return one of each of mtaio's objects."""
    yield from objects(tmp_path)


def parsed(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return what prometheus_client reads: values by name and labels, none of them twice."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            key = each.name, frozenset(each.labels.items())
            assert key not in found
            found[key] = each.value
    return found


def same(found: float, given: float) -> bool:
    """Return whether two numbers are the same float."""
    return float(found) == float(given) or (math.isnan(found) and math.isnan(given))


def check(sources: Iterable[Source]) -> None:
    """Compare what the parser reads with what was written."""
    written = list(metrics(sources))
    found = parsed(to_prometheus(written))
    expected = {key: value for metric in written for key, value in numbers(metric).items()}
    assert found.keys() == expected.keys()
    assert all(same(value, expected[key]) for key, value in found.items())


def test_text() -> None:
    """Each family is told its help and type, then come its samples, one a line."""
    text = to_prometheus(
        [
            Metric(
                name="mtaio_pool_open",
                kind="gauge",
                labels={"name": "a"},
                value=3,
                help="Pool.open",
            ),
            Metric(
                name="mtaio_pool_done_total",
                kind="counter",
                labels={},
                value=0.5,
                help="Done,\nin \\parts",
            ),
            Metric(
                name="mtaio_pool_open",
                kind="gauge",
                labels={"name": 'b"\\\n'},
                value=math.inf,
                help="Another help",
            ),
        ]
    )
    assert text == (
        "# HELP mtaio_pool_open Pool.open\n"
        "# TYPE mtaio_pool_open gauge\n"
        'mtaio_pool_open{name="a"} 3\n'
        'mtaio_pool_open{name="b\\"\\\\\\n"} +Inf\n'
        "# HELP mtaio_pool_done_total Done,\\nin \\\\parts\n"
        "# TYPE mtaio_pool_done_total counter\n"
        "mtaio_pool_done_total 0.5\n"
    )


def test_histogram() -> None:
    """A histogram has a line for each bound, which counts what is up to it, its sum and count."""
    whole = HistogramStatistics(bounds=(0.25, 1), counts=(2, 0, 1), sum=3.5)
    head = Metric(name="mtaio_run_seconds", kind="histogram", labels={}, value=whole, help="Run")
    text = to_prometheus([head, replace(head, labels={"name": "a"})])
    assert text == (
        "# HELP mtaio_run_seconds Run\n"
        "# TYPE mtaio_run_seconds histogram\n"
        'mtaio_run_seconds_bucket{le="0.25"} 2\n'
        'mtaio_run_seconds_bucket{le="1.0"} 2\n'
        'mtaio_run_seconds_bucket{le="+Inf"} 3\n'
        "mtaio_run_seconds_sum 3.5\n"
        "mtaio_run_seconds_count 3\n"
        'mtaio_run_seconds_bucket{name="a",le="0.25"} 2\n'
        'mtaio_run_seconds_bucket{name="a",le="1.0"} 2\n'
        'mtaio_run_seconds_bucket{name="a",le="+Inf"} 3\n'
        'mtaio_run_seconds_sum{name="a"} 3.5\n'
        'mtaio_run_seconds_count{name="a"} 3\n'
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN"), (1e300, "1e+300"), (7, "7")],
)
def test_numbers(value: float, text: str) -> None:
    """Numbers are written as Prometheus reads them."""
    line = to_prometheus(
        [Metric(name="mtaio_x", kind="gauge", labels={}, value=value, help="X")]
    ).splitlines()[-1]
    assert line == f"mtaio_x {text}"


def test_nothing() -> None:
    """With nothing to show the text is empty, which Prometheus takes too."""
    assert to_prometheus([]) == ""


@pytest.mark.parametrize("mappings", [False, True], ids=["", "mappings"])
async def test_every_object_is_read_back(each: Objects, *, mappings: bool) -> None:
    """The parser reads the very values of all of mtaio's objects, and of the monitor's figures."""
    await each.use()
    check(
        [
            Source(kind="", name=None, statistics=sample()),
            *each.sources(mappings=mappings),
            Source(kind="gauge", name="queue_depth", statistics=3.0),
        ]
    )


async def test_families_are_whole(each: Objects) -> None:
    """The samples of one family stand together, however its objects are ordered."""
    await each.use()
    sources = [*each.sources(), *each.sources(mappings=True)]
    text = to_prometheus(
        metrics(replace(source, name=f"{number}") for number, source in enumerate(sources))
    )
    lines = text.splitlines()
    names = [line.split("{")[0] for line in lines if not line.startswith("#")]
    runs = [name for name, _ in groupby(names)]
    assert len(runs) == len(set(runs))
    types = [line.split()[2:] for line in lines if line.startswith("# TYPE")]
    assert [name for name, _ in types] == runs
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in types)


NUMBERS = st.one_of(st.floats(), st.integers(), st.booleans(), st.fractions(), st.none())
TEXTS = st.one_of(
    st.text(st.characters()),  # surrogates included
    st.text('ab_.- "\\\n\r\t{}=,#\x00\x7f\u2028é日'),
)
SOURCES = st.lists(
    st.builds(
        Source,
        kind=TEXTS,
        name=st.none() | TEXTS,
        statistics=st.one_of(
            NUMBERS.filter(lambda number: number is not None), st.dictionaries(TEXTS, NUMBERS)
        ),
    ),
    max_size=5,
)


@given(SOURCES)
def test_hostile_names_are_read_back(sources: list[Source]) -> None:
    """Whatever things and keys are called, the parser reads what was written, as UTF-8."""
    check(sources)
    to_prometheus(metrics(sources)).encode()


@given(st.dictionaries(TEXTS, NUMBERS), st.sampled_from([{}, {"kind": "counter"}]), TEXTS)
def test_hostile_keys_are_read_back(
    keys: dict[str, Any], metadata: dict[str, str], name: str
) -> None:
    """The keys of a mapping are labels, whatever they hold."""
    cls = make_dataclass("Pool", [("by_key", dict, field(metadata=metadata))])
    check([Source(kind="pool", name=name, statistics=cls(keys), mappings=True)])
    check([Source(kind="pool", name=name, statistics=cls(keys))])


HISTOGRAMS = st.integers(1, 5).flatmap(
    lambda bounds: st.builds(
        HistogramStatistics,
        bounds=st.just(tuple(map(float, range(bounds)))),
        counts=st.tuples(*[st.integers(0, 2**60)] * (bounds + 1)),
        sum=st.floats(),
    )
)


@given(st.dictionaries(st.tuples(TEXTS, TEXTS), HISTOGRAMS), TEXTS)
def test_hostile_labels_of_histograms(
    by_route: dict[tuple[str, ...], HistogramStatistics], name: str
) -> None:
    """A histogram by labels is read back, whatever these are."""
    check([Source(kind="pool", name=name, statistics=Timed(by_route=by_route))])
