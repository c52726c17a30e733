"""A pipeline of all parts, under many schedules, with a caller cancelled everywhere."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from mtaio.core import Budget, Retry
from mtaio.exceptions import BreakerOpenError
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.resilience import (
    AdaptiveLimiter,
    Breaker,
    BreakerState,
    Fallback,
    Hedge,
    Pipeline,
    Timeout,
)
from mtaio.resources import RateLimiter
from mtaio.testing import assert_quiescent, check_limiter
from tests.explored.searches import Task, explored, together

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mtaio.testing import Simulation, Victim


SLOTS = 3


def slots_for_two() -> AdaptiveLimiter:
    """Return a limiter that lets two in, or three when it has seen that they are quick."""
    return AdaptiveLimiter(initial=2, min_limit=2, max_limit=SLOTS, max_waiting=9)


class Slots:
    """An `AdaptiveLimiter` whose limit stands still, entered and left as others are."""

    def __init__(self, slots: int) -> None:
        self._limiter = AdaptiveLimiter(
            initial=slots, min_limit=slots, max_limit=slots, max_waiting=99
        )

    async def __aenter__(self) -> None:
        await self._limiter.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        leave: Any = self._limiter.__aexit__
        await leave(*error)


def test_adaptive_limiter_is_a_good_limiter() -> None:
    """While its limit stands still, it keeps the contract of all limiters."""
    check_limiter(Slots)


class Stage:
    """
    A pipeline, what came of its calls, and what must hold after every step.

    Args:
        sim: Where it is watched.
        pipeline: The pipeline, whose one limiter is ``slots``.
        slots: How many attempts may be under way.
    """

    def __init__(self, sim: Simulation, pipeline: Pipeline, slots: AdaptiveLimiter) -> None:
        self.pipeline = pipeline
        self.slots = slots
        self.inside = 0
        self.ends: dict[str, object] = {}
        sim.always(self.holds)

    def holds(self) -> bool:
        """Return whether every attempt under way has a slot, and every call is counted once."""
        now = self.pipeline.statistics()
        ended = now.succeeded + now.failed + now.cancelled
        return (
            self.inside <= self.slots.statistics().in_use <= SLOTS
            and now.in_flight == now.calls - ended
            and ended >= len(self.ends)
        )

    def attempt(self, body: Task) -> Callable[[], object]:
        """Return a function that notes that an attempt is under way."""

        async def run() -> object:
            self.inside += 1
            try:
                return await body()
            finally:
                self.inside -= 1

        return run

    async def call(self, name: str, body: Task) -> None:
        """Make a call, and note how it ends."""
        fn = self.attempt(body)
        try:
            self.ends[name] = await self.pipeline.run(fn)  # type: ignore[arg-type] # an async one
        except (ConnectionError, BreakerOpenError, MTAIOTimeoutError) as error:
            self.ends[name] = error

    def clear(self) -> None:
        """Make sure that nothing is left."""
        assert self.inside == 0
        assert_quiescent(self.pipeline)


def whole(slots: AdaptiveLimiter, breaker: Breaker, budget: Budget) -> Pipeline:
    """Return a pipeline of all parts."""
    return Pipeline(
        Fallback(lambda _: "fallback", on=MTAIOTimeoutError),
        Timeout(20, total=True),
        Retry(2, wait_initial=1, jitter=0, budget=budget),
        breaker,
        Hedge(2),
        slots,
        Timeout(5),
        name="api",
    )


@explored
async def test_all_parts(victim: Victim, sim: Simulation) -> None:
    """One call is slow and hedged, one fails and is retried, one of them is cancelled: no trace."""
    slots, budget = slots_for_two(), Budget(1, min_per_second=0)
    breaker = Breaker(1, last=4, min_calls=4)
    stage = Stage(sim, whole(slots, breaker, budget), slots)
    slow = iter([3, 1, 0, 0])
    fails = iter([True, False, False, False])

    async def be_slow() -> str:
        await anyio.sleep(next(slow))
        return "slow"

    async def fail_once() -> str:
        await checkpoint()
        if next(fails):
            raise ConnectionError
        return "retried"

    await together(
        victim=lambda: victim(stage.call, "victim", be_slow),
        other=lambda: stage.call("other", fail_once),
    )
    stage.clear()
    assert stage.ends["other"] == "retried"
    assert stage.ends.get("victim", "slow") == "slow"
    assert breaker.state is BreakerState.CLOSED
    now = stage.pipeline.statistics()
    assert (now.calls, now.failed, now.cancelled) == (2, 0, int(victim.cancelled))
    assert now.parts["breaker"].failed == now.parts["retry"].retried == 1
    assert now.parts["timeout"].timed_out == 0


@explored
async def test_failing_caller_is_cancelled(victim: Victim, sim: Simulation) -> None:
    """Cancelled while it waits for its next attempt, it returns the retry to the budget."""
    slots, budget = slots_for_two(), Budget(0.5, min_per_second=0)
    breaker = Breaker(1, last=9, min_calls=9)
    stage = Stage(sim, whole(slots, breaker, budget), slots)

    async def fail() -> None:
        await checkpoint()
        raise ConnectionError

    await together(
        victim=lambda: victim(stage.call, "victim", fail),
        other=lambda: stage.call("other", fail),
    )
    stage.clear()
    assert isinstance(stage.ends["other"], ConnectionError)
    now = stage.pipeline.statistics()
    assert now.parts["retry"].retried <= 1
    assert now.parts["retry"].retried + budget.statistics().available <= 1
    assert now.cancelled == int(victim.cancelled)


@explored
async def test_short_way(victim: Victim, sim: Simulation) -> None:
    """A call whose first attempt goes past the retry is counted once, cancelled wherever."""
    api = Pipeline(Retry(2, wait_initial=1, jitter=0), RateLimiter(1))
    fails = iter([True, False, False, False])
    ends: dict[str, str] = {}

    def holds() -> bool:
        now = api.statistics()
        ended = now.succeeded + now.failed + now.cancelled
        return now.in_flight == now.calls - ended and now.parts["retry"].calls == now.calls

    async def work() -> str:
        await checkpoint()
        if next(fails):
            raise ConnectionError
        return "done"

    async def call(name: str, fn: Callable[[], Awaitable[str]]) -> None:
        ends[name] = await fn()

    sim.always(holds)
    await together(
        victim=lambda: victim(call, "victim", api(work)),
        other=lambda: call("other", partial(api.run, work)),
    )
    assert_quiescent(api)
    assert ends["other"] == ends.get("victim", "done") == "done"
    now = api.statistics()
    assert (now.calls, now.failed, now.cancelled) == (2, 0, int(victim.cancelled))
    assert now.parts["retry"].retried <= 1


@explored
async def test_timeouts_meet_cancellation(victim: Victim, sim: Simulation) -> None:
    """A call that hangs ends by its timeouts, and one that is cancelled then has no outcome."""
    slots = slots_for_two()
    stage = Stage(
        sim,
        Pipeline(Fallback(lambda _: "fallback"), Timeout(3, total=True), slots, Timeout(2)),
        slots,
    )
    await together(
        victim=lambda: victim(stage.call, "victim", anyio.sleep_forever),
        other=lambda: stage.call("other", anyio.sleep_forever),
        third=lambda: stage.call("third", anyio.sleep_forever),
    )
    stage.clear()
    assert [stage.ends[name] for name in ("other", "third")] == ["fallback"] * 2
    now = stage.pipeline.statistics()
    assert now.cancelled == int(victim.cancelled)
    assert now.succeeded == 3 - now.cancelled
