"""A histogram against the list of its values."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import asdict
from itertools import pairwise
from operator import add, sub
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaio._internal.histogram import DURATIONS, SIZES, Histogram
from mtaio._internal.statistics import HISTOGRAM, add_counts, total
from mtaio.statistics import HistogramStatistics
from tests.monitoring.watched import Timed

BOUNDS = st.lists(st.floats(-100, 100), min_size=1, max_size=8, unique=True).map(
    lambda bounds: tuple(sorted(bounds))
)
VALUES = st.lists(st.floats(-120, 120), max_size=50)


def filled(bounds: tuple[float, ...], values: list[float]) -> HistogramStatistics:
    """Return a histogram of values."""
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    return histogram.snapshot()


@given(BOUNDS, VALUES, st.floats(0, 1))
def test_values_are_counted_by_range(
    bounds: tuple[float, ...], values: list[float], share: float
) -> None:
    """A bound belongs to its range, and a quantile lies in the range of the value that it is."""
    taken = filled(bounds, values)
    ends = (-math.inf, *bounds, math.inf)
    assert taken.counts == tuple(
        sum(low < value <= high for value in values) for low, high in pairwise(ends)
    )
    assert taken.count == len(values)
    assert taken.sum == pytest.approx(math.fsum(values), abs=1e-9)
    quantile = taken.quantile(share)
    if not values:
        assert quantile is None
        return
    assert quantile is not None
    exact = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    place = sum(exact > bound for bound in bounds)
    low = bounds[place - 1] if place else min(0.0, bounds[0])
    high = bounds[min(place, len(bounds) - 1)]
    assert min(low, high) - 1e-9 <= quantile <= high + 1e-9


@given(BOUNDS, VALUES, VALUES)
def test_histograms_of_one_form_are_added(
    bounds: tuple[float, ...], early: list[float], late: list[float]
) -> None:
    """Two together are as one of all values, and without the one there is the other."""
    first, both = filled(bounds, early), filled(bounds, early + late)
    assert (first + filled(bounds, late)).counts == both.counts
    assert (both - first).counts == filled(bounds, late).counts
    assert (both - first).sum == pytest.approx(math.fsum(late), abs=1e-9)


def test_histograms_of_two_forms_are_not() -> None:
    """What is counted by other ranges cannot be combined."""
    durations, sizes = Histogram().snapshot(), Histogram(SIZES).snapshot()
    for join in (add, sub):
        with pytest.raises(ValueError, match=r"^histograms with the bounds .* cannot be comb"):
            join(durations, sizes)


def test_snapshot_is_a_statistic_like_others() -> None:
    """It can be pickled, copied and turned into a dictionary."""
    taken = filled(DURATIONS, [0.012, 0.5, 100.0])
    assert pickle.loads(pickle.dumps(taken)) == copy.deepcopy(taken) == taken  # noqa: S301 - ours
    assert set(asdict(taken)) == {"bounds", "counts", "sum"}


@pytest.mark.parametrize(
    ("bounds", "counts"),
    [
        ((), (1,)),
        ((1, 1), (0, 0, 0)),
        ((1, math.inf), (0, 0, 0)),
        ((1,), (0,)),
        ((math.nan,), (0, 0)),
    ],
)
def test_what_is_no_histogram(bounds: tuple[float, ...], counts: tuple[int, ...]) -> None:
    """Bounds are finite and ascending, and there is one count more."""
    with pytest.raises(ValueError, match=r"^bounds=.* and counts=.* do not make a hist"):
        HistogramStatistics(bounds=bounds, counts=counts, sum=0.0)


@pytest.mark.parametrize(
    ("share", "kind", "reason"),
    [
        (1.5, ValueError, "is not between 0 and 1"),
        (99, ValueError, "is not"),
        ("1", TypeError, "is a"),
    ],
)
def test_what_is_no_share(share: Any, kind: type[Exception], reason: str) -> None:
    """A quantile is a share of one, not a percentage."""
    with pytest.raises(kind, match=rf"^share={share!r} {reason}.* Pass a share from 0 to 1"):
        filled(DURATIONS, [1.0]).quantile(share)


def test_statistics_of_several_objects() -> None:
    """Histograms are added up as counts are; one that is not recorded is nothing."""
    one = Timed(
        run_seconds=filled(DURATIONS, [1.0]), by_route={("a", "x"): filled(DURATIONS, [1.0])}
    )
    two = Timed(
        run_seconds=filled(DURATIONS, [2.0]), by_route={("b", "x"): filled(DURATIONS, [2.0])}
    )
    past: dict[str, Any] = {}
    add_counts(past, one)
    add_counts(past, Timed())
    together = total([Timed(), two, one], past)
    assert together.run_seconds is not None
    assert together.run_seconds.sum == 4.0
    assert {key: each.count for key, each in together.by_route.items()} == {
        ("a", "x"): 2,
        ("b", "x"): 1,
    }
    assert total([Timed(), Timed()], {}).run_seconds is None
    assert HISTOGRAM["kind"] == "histogram"
