"""What type checkers make of breakers and hedges: checked by mypy and pyright, and not run."""

from __future__ import annotations

from typing import assert_type

from mtaio.core import Budget
from mtaio.resilience import (
    Breaker,
    BreakerChange,
    BreakerState,
    Hedge,
    Part,
)
from mtaio.statistics import BreakerStatistics, HedgeStatistics


def on_change(change: BreakerChange) -> None:
    """Any plain function may be told."""
    assert_type(change.state, BreakerState)
    assert_type(change.error, Exception | None)


breaker = Breaker(0.5, on=(ConnectionError, TimeoutError), on_change=on_change)
assert_type(breaker.state, BreakerState)
assert_type(breaker.statistics(), BreakerStatistics)
Breaker(on=lambda error: "reset" in str(error))
Breaker(on=BaseException)  # type: ignore[arg-type] # cancellation is no failure
Breaker(0.5, 20)  # type: ignore[call-arg] # the second number goes by keyword

hedge = Hedge("p95", budget=Budget(0.05))
assert_type(hedge.statistics(), HedgeStatistics)
assert_type(hedge.after, float | str)
Hedge()  # type: ignore[call-arg] # after what?
Hedge(0.1, budget=0.05)  # type: ignore[arg-type] # no Budget

parts: tuple[Part, ...] = (breaker, hedge)
