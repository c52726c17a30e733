"""A cancellation is no outcome: nothing counts, retries or hedges it, wherever it strikes."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.core import Budget, Retry
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
from mtaio.testing import Victim, assert_quiescent, injections, run
from tests.resilience.parts import Failing

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.testing._inject import Mode


class Whole:
    """A pipeline of all parts, around a function that needs two retries and a hedge."""

    def __init__(self) -> None:
        self.answers: list[Exception] = []
        self.slots = AdaptiveLimiter(initial=2, max_waiting=99)
        self.breaker = Breaker(1, last=9, half_open=1)
        self.budget = Budget(1, min_per_second=9)
        self.api = Pipeline(
            Fallback(self.answer),
            Timeout(50, total=True),
            Retry(3, wait_initial=1, jitter=0, budget=self.budget),
            self.breaker,
            Hedge(0.5),
            self.slots,
            RateLimiter(1000),
            Timeout(10),
            name="api",
        )
        self.inside = 0
        self.calls = 0

    def answer(self, error: Exception) -> int:
        """Answer for a call that has failed."""
        self.answers.append(error)
        return 0

    async def fetch(self) -> int:
        """Fail at first, then be slow, and then answer: with two attempts at once in between."""
        self.calls += 1
        number = self.calls
        self.inside += 1
        try:
            await checkpoint()
            if number == 1:
                raise ConnectionError
            await anyio.sleep(5 if number == 2 else 0.25)
        finally:
            self.inside -= 1
        return number

    def left_alone(self) -> None:
        """Make sure that no part holds anything."""
        assert self.inside == 0
        assert_quiescent(self.api)
        assert self.breaker.state is BreakerState.CLOSED


def counts(statistics: Any, *names: str) -> list[int]:
    """Return the values of fields, those that are there."""
    known = {field.name for field in fields(statistics)}
    return [getattr(statistics, name) for name in names if name in known]


@pytest.mark.parametrize("mode", ["checkpoint", "step", "native"])
def test_at_every_moment_of_a_call(mode: Mode, backend: str) -> None:
    """Cancelled anywhere, it leaves no slot, no probe and no count behind, and no fallback."""
    if mode == "native":
        backend = "asyncio"  # whose own Task.cancel() it is
    cancelled = 0

    async def scenario(victim: Victim) -> None:
        nonlocal cancelled
        whole = Whole()
        result, failed = None, 0
        try:
            result = await victim(whole.api.run, whole.fetch)
        except ConnectionError:  # it had failed as the cancellation came
            failed = 1
        whole.left_alone()
        statistics = whole.api.statistics()
        parts = statistics.parts
        assert (statistics.calls, statistics.failed, whole.answers) == (1, failed, [])
        assert counts(parts["total_timeout"], "timed_out") == [0]
        assert counts(parts["timeout"], "timed_out") == [0]
        assert parts["retry"].failed == failed
        assert parts["breaker"].failed <= 1
        if failed:
            assert victim.fired
        elif victim.cancelled:
            cancelled += 1
            assert (statistics.cancelled, result) == (1, None)
        else:
            assert (statistics.succeeded, result) == (1, 3)
            assert parts["retry"].retried == parts["breaker"].failed == 1
            assert (parts["hedge"].hedges, parts["hedge"].wins) == (1, 1)
        # What was cancelled is not remembered: the next call goes through at once.
        whole.calls = 2
        assert await whole.api.run(whole.fetch) == 3
        whole.left_alone()

    for victim in injections(mode):
        run(scenario, victim, backend=backend)
    assert cancelled >= 4


def after_failures() -> tuple[Pipeline, Callable[[], Any]]:
    """Return a pipeline whose breaker is about to probe, and its breaker."""
    breaker = Breaker(0.5, last=1, open_for=1)
    return Pipeline(breaker, Timeout(9)), lambda: breaker.state


@pytest.mark.parametrize("mode", ["checkpoint", "step"])
def test_cancelled_probe_gives_its_place_to_the_next(mode: Mode, backend: str) -> None:
    """It is neither a success nor a failure: the breaker stays half-open, and the next decides."""

    async def scenario(victim: Victim) -> None:
        api, state = after_failures()
        failing = Failing(1)
        with pytest.raises(ConnectionError):
            await api.run(failing)
        assert state() is BreakerState.OPEN
        await anyio.sleep(1)
        failing.seconds = 1
        await victim(partial(api.run, failing))
        assert state() is (BreakerState.HALF_OPEN if victim.cancelled else BreakerState.CLOSED)
        assert await api.run(failing) == 1
        assert state() is BreakerState.CLOSED

    for victim in injections(mode):
        run(scenario, victim, backend=backend)


async def test_many_are_cancelled_at_once() -> None:
    """Some of them wait in queues, some before a retry, some in the call: all is given back."""
    whole = Whole()
    whole.calls = 1
    whole.fetch = Failing(3, seconds=0.2)  # type: ignore[method-assign] # of various fates
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(partial(whole.api.run, whole.fetch))
        await anyio.sleep(0.5)
        group.cancel_scope.cancel()
    whole.left_alone()
    statistics = whole.api.statistics()
    assert statistics.calls == 20
    assert statistics.failed == 0
    assert statistics.succeeded + statistics.cancelled == 20
    assert whole.answers == []
