"""Schedules that Hypothesis draws: imports Hypothesis, which is the user's to install."""

from __future__ import annotations

from mtaio._internal import checks
from mtaio.testing._schedule import Schedule

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy
except ModuleNotFoundError as error:
    msg = "schedules() needs hypothesis. Install it with: pip install hypothesis"
    raise ImportError(msg, name=error.name) from error

__all__ = ["schedules"]


def schedules(
    max_delays: int = 4, *, horizon: int = 64, candidates: int = 6
) -> SearchStrategy[Schedule]:
    """
    Return a Hypothesis strategy for schedules with tapes.

    Use it in a synchronous test that calls `run` once for each example. Examples shrink towards the
    oldest candidate. The schedules are not ``strict``.

    Args:
        max_delays: How many times a tape may pass over the oldest candidate.
        horizon: The number of the last choice at which it may.
        candidates: The number of candidates to choose from.

    Raises:
        TypeError: An argument is not an int.
        ValueError: An argument is out of range.
    """
    way_out = "Pass a whole number in range."
    checks.count("max_delays", max_delays, least=0, way_out=way_out)
    checks.count("horizon", horizon, least=0, way_out=way_out)
    checks.count("candidates", candidates, least=2, way_out=way_out)
    tapes = st.dictionaries(
        st.integers(0, horizon), st.integers(1, candidates - 1), max_size=max_delays
    )
    return tapes.map(lambda tape: Schedule(tape=tape, strict=False))
