"""Budget: how many retries all calls together may make."""

from __future__ import annotations

import math
from functools import partial
from threading import Thread
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaio.core import Budget, Retry, TaskExecutor
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.monitoring import ResourceMonitor
from mtaio.resilience._budget import give_back, record_call, take
from mtaio.resources import TimeoutManager
from mtaio.testing import run


class Dead:
    """An upstream that is down, and counts what it gets in each second."""

    def __init__(self) -> None:
        self.requests = 0

    async def __call__(self, _: object = None) -> None:
        """Fail after 10 ms."""
        self.requests += 1
        await anyio.sleep(0.01)
        raise ConnectionError


QUICK = Retry(4, wait_initial=0.05)


async def load(policy: Retry, dead: Dead, *, rate: float, seconds: float) -> int:
    """Send calls at a rate, whatever becomes of them; return how many there were."""

    async def caller() -> None:
        with pytest.raises(ConnectionError):
            await policy.run(dead)

    calls = int(rate * seconds)
    async with anyio.create_task_group() as group:
        for _ in range(calls):
            group.start_soon(caller)
            await anyio.sleep(1 / rate)
    return calls


@pytest.mark.parametrize("rate", [1, 10, 50])
async def test_dead_upstream_gets_a_tenth_more(rate: float) -> None:
    """A service that is down for a minute gets at most 1.1 times its load, and not four times."""
    dead = Dead()
    calls = await load(Retry(4, wait_initial=0.05, budget=Budget(0.1)), dead, rate=rate, seconds=60)
    assert 1.08 * calls <= dead.requests <= 1.1 * calls + 1


async def test_without_a_budget_it_gets_all_attempts() -> None:
    """The figure that the budget is there for."""
    dead = Dead()
    calls = await load(QUICK, dead, rate=10, seconds=10)
    assert dead.requests == 4 * calls


async def test_budget_holds_for_the_items_of_a_map() -> None:
    """``map(retry=)`` keeps to it too, and it may be shared by calls of all kinds."""
    dead, budget = Dead(), Budget(0.1)
    policy = Retry(4, wait_initial=0.05, budget=budget)
    results = await TaskExecutor(5).map(dead, range(1000), retry=policy, errors="return")
    assert {type(each) for each in results} == {ConnectionError}
    assert 1080 <= dead.requests <= 1101
    statistics = budget.statistics()
    assert (statistics.calls, statistics.retried) == (1000, dead.requests - 1000)
    assert 950 < statistics.rejected <= 1000  # but for those that used up their attempts


async def test_few_calls_may_retry_all_the_same() -> None:
    """One retry in ten seconds is allowed by default, though a tenth of one call is none."""
    dead, budget = Dead(), Budget(0.1)
    policy = Retry(2, jitter=0, budget=budget)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            await policy.run(dead)
        await anyio.sleep(5)
    # At 0 s one is taken, at 5 s it is still counted, after 10 s it is not.
    assert dead.requests == 5
    assert take(Budget(0.1, min_per_second=0)) is False


async def test_error_says_that_the_budget_is_used_up() -> None:
    """The error of the attempt comes at once, with a note."""
    policy = Retry(3, budget=Budget(0, min_per_second=0))
    with pytest.raises(ConnectionError) as caught:
        await policy.run(Dead())
    assert caught.value.__notes__ == [
        "not tried again: Budget(0) is used up by the retries of all calls"
    ]
    assert anyio.current_time() == 0.01


async def test_cancelled_retry_returns_to_the_budget() -> None:
    """A retry that was cancelled while it waited was not made."""
    budget = Budget(0, min_per_second=0.1)
    policy = Retry(2, wait_initial=5, jitter=0, budget=budget)
    async with anyio.create_task_group() as group:
        group.start_soon(partial(policy.run, Dead()))
        await anyio.sleep(1)
        assert budget.statistics().available == 0
        group.cancel_scope.cancel()
    assert budget.statistics().available == 1
    # The deadline of mtaio's own timeouts is seen before, and takes none.
    with pytest.raises(ConnectionError), TimeoutManager()(1):
        await policy.run(Dead())
    assert budget.statistics().available == 1


async def test_cancelled_retry_of_another_slice_is_forgotten_with_it() -> None:
    """When the slice in which it was taken is over, it is left to the window."""
    budget = Budget(0, min_per_second=0.1)
    assert take(budget)
    await anyio.sleep(2)
    record_call(budget)
    give_back(budget)
    assert budget.statistics().available == 0
    await anyio.sleep(9)
    assert budget.statistics().available == 1


@given(
    ratio=st.sampled_from([0, 0.1, 0.5, 1]),
    window=st.sampled_from([1, 10]),
    steps=st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=60),
)
def test_retries_never_exceed_the_ratio(
    ratio: float, window: float, steps: list[tuple[bool, float]]
) -> None:
    """However calls and failures come, retries are at most the ratio of all calls."""

    async def main() -> None:
        budget = Budget(ratio, min_per_second=0, window=window)
        calls = retries = 0
        for is_call, pause in steps:
            if is_call:
                record_call(budget)
                calls += 1
            elif take(budget):
                retries += 1
            assert retries <= ratio * calls + 1e-6
            assert budget.statistics().available <= max(0, ratio * calls - retries) + 1e-6
            await anyio.sleep(pause)

    run(main)


def test_serves_one_loop_after_another() -> None:
    """In a loop whose clock stands earlier the window goes on."""
    budget = Budget(0.5, min_per_second=0)

    async def main() -> None:
        await anyio.sleep(100)
        for _ in range(4):
            record_call(budget)
        assert take(budget)
        assert budget.statistics().available == 1

    async def sooner() -> None:
        assert take(budget)
        assert not take(budget)
        await anyio.sleep(11)
        assert not take(budget)
        record_call(budget)
        record_call(budget)
        assert take(budget)

    run(main)
    run(sooner)


async def test_monitor_reads_it() -> None:
    """It has a name and statistics, from any thread."""
    budget = Budget(0.25, name="api")
    monitor = ResourceMonitor()
    assert monitor.watch(budget) is budget
    assert (budget.name, budget.ratio) == ("api", 0.25)
    assert repr(budget) == "<Budget 'api' of 0.25: 0 retries, 0 calls in 10 s>"
    assert repr(Budget(1)) == "<Budget of 1: 0 retries, 0 calls in 10 s>"
    thread = Thread(target=budget.statistics)
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ratio": -1}, ValueError, "^ratio=-1 is less than 0"),
        ({"ratio": 10}, ValueError, "^ratio=10 is more than one retry per call. Pass the"),
        ({"ratio": True}, TypeError, "^ratio=True is a bool"),
        ({"ratio": 1, "min_per_second": -1}, ValueError, "^min_per_second=-1 is less than 0"),
        ({"ratio": 1, "window": 0}, ValueError, "^window=0 is not a finite number"),
        (
            {"ratio": 1, "window": math.inf},
            ValueError,
            "^window=inf is not a finite number",
        ),
    ],
)
def test_senseless_numbers_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """With the value, the reason and the way out."""
    with pytest.raises(error, match=message):
        Budget(**arguments)


async def test_services_restart_within_the_budget() -> None:
    """A restart is a retry: without one in the budget the service fails."""
    started: list[float] = []

    async def service(*, task_status: Any) -> None:
        started.append(anyio.current_time())
        task_status.started()
        await anyio.sleep(1)
        raise MTAIOTimeoutError

    policy = Retry(5, wait_initial=0, budget=Budget(0, min_per_second=0.1))
    with pytest.raises(MTAIOTimeoutError, match="used up"):  # noqa: PT012 - the block fails
        async with TaskExecutor(1) as executor:
            await executor.start(service, restart=policy)
            await anyio.sleep(60)
    assert started == [0, 1]


async def test_counts_what_comes_as_a_slice_begins() -> None:
    """No call is lost to the rounding of the moment at which the counting began."""
    for _ in range(20):
        await anyio.sleep(0.0173)
        budget = Budget(0.1, min_per_second=0)
        for _ in range(10):
            record_call(budget)
        assert take(budget)
