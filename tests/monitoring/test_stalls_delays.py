"""The histogram of the loop's delays against the sorted truth."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mtaio.monitoring._stalls import WINDOW, Delays

SECONDS = st.floats(1e-6, 3500)


def truth(delays: list[float], share: float) -> float:
    """Return the quantile by its definition."""
    return sorted(delays)[math.ceil(share * len(delays)) - 1]


@given(st.lists(SECONDS, min_size=1, max_size=200))
def test_quantiles_are_at_most_a_fifth_above(delays: list[float]) -> None:
    """Half of the delays are at most p50, 99 in 100 at most p99, and neither says much more."""
    kept = Delays(0.0)
    for delay in delays:
        kept.add(delay, 1.0)
    p50, p99, longest = kept.read()
    assert longest == max(delays)
    for found, share in ((p50, 0.5), (p99, 0.99)):
        expected = truth(delays, share)
        assert expected * (1 - 1e-9) <= found <= expected * 1.2


def test_nothing_is_zero() -> None:
    """Before the first delay there is none."""
    assert Delays(5.0).read() == (0.0, 0.0, 0.0)


def test_extremes_are_kept() -> None:
    """A delay of nothing and one of more than an hour are counted as well."""
    kept = Delays(0.0)
    kept.add(0.0, 0.0)
    assert kept.read() == (0.0, 0.0, 0.0)
    kept.add(1e9, 0.0)
    kept.add(1e9, 0.0)
    p50, _, longest = kept.read()
    assert longest == 1e9
    assert p50 > 3500


def test_old_delays_are_forgotten() -> None:
    """A delay is forgotten after one window at the earliest, after two at the latest."""
    kept = Delays(0.0)
    kept.add(1.0, WINDOW - 1)
    kept.add(0.5, WINDOW)
    assert kept.read()[2] == 1.0
    kept.add(0.25, 2 * WINDOW - 1)
    assert kept.read()[2] == 1.0
    kept.add(0.25, 2 * WINDOW)
    assert kept.read()[2] == 0.5
    kept.add(0.1, 4 * WINDOW)
    assert kept.read()[2] == 0.1
