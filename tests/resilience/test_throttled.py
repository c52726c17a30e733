"""Retry: a refusal by the service is no failure; what is held, and who waits where."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.core import Budget, Retry, TaskExecutor
from mtaio.exceptions import BreakerOpenError, MTAIOError, RateLimitError
from mtaio.resilience import GaveUp, PartEvent, Pipeline, Throttled, subscribe
from mtaio.resources import KeyedRateLimiter, Quota, RateLimiter
from mtaio.testing import Victim, injections, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable, Iterator

    from mtaio.testing._inject import Mode


class BusyError(Exception):
    """A 429, with what its header says."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__(seconds)
        if seconds is not None:
            self.retry_after = seconds


class Service:
    """
    Refuses the first calls, and notes when each came.

    Args:
        refusals: How many.
        seconds: For how long; None if it does not say.
    """

    def __init__(self, refusals: int, seconds: float | None = 2.0) -> None:
        self.refusals = refusals
        self.seconds = seconds
        self.calls: list[float] = []

    async def __call__(self, _: object = None) -> str:
        """Answer, or refuse."""
        self.calls.append(anyio.current_time())
        if len(self.calls) <= self.refusals:
            raise BusyError(self.seconds)
        return "fine"


class Shelf:
    """Notes what is held."""

    def __init__(self) -> None:
        self.held: list[float] = []

    def hold(self, seconds: float) -> None:
        """Note it."""
        self.held.append(seconds)


@pytest.fixture
def heard() -> Iterator[list[PartEvent]]:
    """Return what the parts tell during the test."""
    events: list[PartEvent] = []
    unsubscribe = subscribe(events.append)
    yield events
    unsubscribe()


async def test_refusal_costs_no_attempt_and_no_budget(heard: list[PartEvent]) -> None:
    """Ten of them are obeyed by a policy of one attempt, whose budget is used up."""
    budget = Budget(0, min_per_second=0)
    service = Service(10)
    shelf, other = Shelf(), Shelf()
    policy = Retry(1, throttled=BusyError, budget=budget, hold=(shelf, other), name="api")
    assert await policy.run(service) == "fine"
    gaps = [later - before for before, later in pairwise(service.calls)]
    assert len(gaps) == 10
    assert min(gaps) >= 2
    assert shelf.held == other.held == [2.0] * 10
    now = policy.statistics()
    assert (now.throttled, now.retried, now.failed, now.errors) == (10, 10, 0, {"BusyError": 10})
    assert budget.statistics().rejected == 0
    told = [(type(each), each.name, each.function) for each in heard]
    assert told == [(Throttled, "api", "Service")] * 10
    assert isinstance(heard[0], Throttled)
    assert heard[0].seconds == 2


async def test_failures_between_refusals_count_as_ever() -> None:
    """Two attempts are two, whatever was refused between them."""
    calls = iter([BusyError(1), OSError("1"), BusyError(1), BusyError(1), OSError("2")])

    async def ask() -> None:
        raise next(calls)

    policy = Retry(2, on=OSError, throttled=BusyError, wait_initial=0)
    with pytest.raises(OSError, match="2") as caught:
        await policy.run(ask)
    assert caught.value.__notes__ == ["gave up after 2 attempts"]
    with pytest.raises(ValueError, match="mine"):
        await policy.run(fail_with_a_value)


async def fail_with_a_value() -> None:
    """Fail in a way that is neither."""
    raise ValueError("mine")


async def test_callers_who_were_told_the_same_come_back_one_by_one() -> None:
    """None of them before the time."""
    service = Service(50)
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(partial(Retry(3, throttled=BusyError).run, service))
    back = sorted(service.calls[50:])
    assert back[0] >= 2
    assert back[-1] < 3
    assert max(sum(0 <= other - each < 0.05 for other in back) for each in back) < 20


@pytest.mark.parametrize("seconds", [None, 0.0, -1.0])
async def test_service_that_does_not_say_is_asked_less_and_less(seconds: float | None) -> None:
    """The pauses grow as other waits do, and none is shorter than a tenth of a second."""
    service, shelf = Service(6, seconds), Shelf()
    await Retry(throttled=BusyError, hold=shelf).run(service)
    assert shelf.held == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    shelf.held.clear()
    await Retry(throttled=BusyError, hold=shelf, wait_initial=0).run(Service(3, seconds))
    assert shelf.held == [0.1] * 3


@pytest.mark.parametrize(
    ("policy", "limit", "lasts", "reason"),
    [
        (partial(Retry, 3), math.inf, 300, "within"),
        (partial(Retry, 3, within=9), math.inf, 9, "within"),
        (partial(Retry, 3, within=900), 9, 9, "deadline"),
        (partial(Retry, 3, within=math.inf), 900, 900, "deadline"),
    ],
)
async def test_total_time_is_bounded(
    policy: Callable[..., Retry], limit: float, lasts: float, reason: str, heard: list[PartEvent]
) -> None:
    """By ``within``, by the deadline around, or by five minutes; then the refusal is raised."""
    service, shelf = Service(10**6), Shelf()
    with anyio.move_on_after(limit), pytest.raises(BusyError) as caught:
        await policy(throttled=BusyError, hold=shelf, jitter=0).run(service)
    assert lasts - 2 <= anyio.current_time() <= lasts
    assert caught.value.__notes__[0].startswith(
        "not tried again: the call that was refused would have to wait 2 s, and "
    )
    last = heard[-1]
    assert isinstance(last, GaveUp)
    assert (last.attempt, last.reason) == (1, reason)
    assert len(shelf.held) == len(service.calls)  # the others obey the last one, too


async def test_refusal_for_ever_holds_nothing() -> None:
    """A service that says so has nothing to wait for."""
    service, shelf = Service(1, math.inf), Shelf()
    with pytest.raises(BusyError):
        await Retry(throttled=BusyError, hold=shelf).run(service)
    assert shelf.held == []


async def test_open_breaker_is_no_refusal_of_the_service() -> None:
    """Unless it is named."""

    async def refuse() -> None:
        raise BreakerOpenError(retry_after=1)

    with pytest.raises(BreakerOpenError):
        await Retry(1, throttled=MTAIOError).run(refuse)
    assert anyio.current_time() == 0
    with pytest.raises(BreakerOpenError):
        await Retry(1, throttled=BreakerOpenError, within=9).run(refuse)
    assert anyio.current_time() > 5


async def test_group_of_refusals_is_one() -> None:
    """It waits for the longest."""
    service = Service(0)

    async def ask() -> str:
        await service()
        if len(service.calls) == 1:
            raise ExceptionGroup("", [BusyError(1), BusyError(5)])
        return "fine"

    assert await Retry(1, throttled=BusyError, jitter=0).run(ask) == "fine"
    assert service.calls == [0, 5]


async def test_stream_that_is_refused_is_opened_again() -> None:
    """And ``until`` does not judge it: a stream that has been opened is no result."""
    held = limiter()
    opened: list[float] = []

    async def items() -> AsyncIterator[int]:
        opened.append(anyio.current_time())
        if len(opened) == 1:
            raise BusyError(10)
        yield 1
        yield 2

    api = Pipeline(Retry(1, throttled=BusyError, hold=held, until=lambda _: False), held)
    async with api.stream(items) as stream:
        assert [item async for item in stream] == [1, 2]
    assert opened == [0, 10]
    assert api.statistics().parts["retry"].throttled == 1


# ---- where what is held stands -------------------------------------------------------------------


def limiter() -> RateLimiter:
    """Return one for two a second."""
    return RateLimiter(2, burst=1)


def quota() -> Quota:
    """Return one for two a second."""
    return Quota(requests=2, per=1, start=0.5)


@pytest.mark.parametrize("make", [limiter, quota])
@pytest.mark.parametrize("where", ["pipeline", "part", "executor"])
async def test_refused_calls_wait_at_the_limiter(make: Callable[[], Any], where: str) -> None:
    """Ten are refused at once; all come back after the pause, at the limiter's rate."""
    held = make()
    policy = Retry(1, throttled=BusyError, hold=held)
    service = Service(1, 10.0)
    if where == "executor":
        await TaskExecutor(10).map(service, range(10), rate=held, retry=policy)
    else:
        part = held.part() if where == "part" and make is quota else held
        api = Pipeline(policy, part)
        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(api.run, service, number)
    first, *later = service.calls
    assert first == 0
    assert len(later) == 10
    assert 10 <= later[0] <= 10.5
    gaps = [round(after - before, 6) for before, after in pairwise(later)]
    assert set(gaps) <= {0.0, 0.5}  # a quota has a second's worth when the pause ends
    assert later[-1] - later[0] >= 4


async def test_refused_call_sleeps_where_the_limiter_stands_elsewhere() -> None:
    """Or it would come back at once."""
    held = limiter()
    service = Service(1, 10.0)
    await Pipeline(Retry(1, throttled=BusyError, hold=(held, Shelf())), held).run(service)
    assert service.calls[1] >= 10
    service = Service(1, 10.0)
    started = anyio.current_time()
    await Retry(1, throttled=BusyError, hold=held).run(service)
    assert service.calls[1] - started >= 10


async def test_key_of_the_call_is_held() -> None:
    """And no other; a limiter that has no room for the key does not matter."""
    held = KeyedRateLimiter(1000, burst=1000, max_keys=1)
    policy = Retry(1, throttled=BusyError, hold=held)
    api = Pipeline(policy, held)
    service = Service(1, 10.0)
    assert await api.run(service, key="a") == "fine"
    assert service.calls == [0, 10]
    shut = KeyedShelf()
    service = Service(1, 10.0)
    assert await Retry(1, throttled=BusyError, hold=shut).run(service) == "fine"
    assert shut.held == []
    assert (
        await Pipeline(Retry(1, throttled=BusyError, hold=shut)).run(Service(1), key="b") == "fine"
    )
    assert shut.held == ["b"]


class KeyedShelf:
    """Has no room for any key."""

    def __init__(self) -> None:
        self.held: list[Hashable] = []

    def hold(self, key: Hashable, seconds: float) -> None:
        """Note it, and refuse."""
        self.held.append(key)
        raise RateLimitError(retry_after=seconds)


@pytest.mark.parametrize("mode", ["checkpoint", "step", "native"])
def test_cancelled_anywhere_it_leaves_nothing(mode: Mode, backend: str) -> None:
    """Of the budget and of the limiter; the pause of the service goes on for the others."""
    if mode == "native":
        backend = "asyncio"  # whose own Task.cancel() it is

    async def scenario(victim: Victim) -> None:
        held = RateLimiter(1, burst=2)
        budget = Budget(1, min_per_second=9)
        policy = Retry(3, throttled=BusyError, hold=held, budget=budget, wait_initial=1, jitter=0)
        api = Pipeline(policy, held)
        outcomes = iter([BusyError(5), OSError()])

        async def ask() -> str:
            for error in outcomes:
                raise error
            return "fine"

        result = await victim(api.run, ask)
        taken = budget.statistics().retried - api.statistics().parts["retry"].retried
        if victim.cancelled:
            assert result is None
            assert held.statistics().waiting == 0
        else:
            assert (result, taken) == ("fine", -1)
        assert api.statistics().parts["retry"].failed == 0
        # The budget has all that was not used: two retries in a window of two calls.
        assert budget.statistics().available >= 89

    for victim in injections(mode):
        run(scenario, victim, backend=backend)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"Retry-After": b"7"}, 0.1),  # what means nothing leaves the policy's own wait
        ({"Retry-After": "soon"}, 0.1),
        (None, 0.1),
    ],
)
@pytest.mark.parametrize("in_response", [True, False])
async def test_headers_of_the_response_say_how_long(
    headers: object, seconds: float, *, in_response: bool
) -> None:
    """They are found where httpx and where aiohttp have them; of a failure they mean nothing."""

    class RefusedError(Exception):
        """What a client raises for a 429."""

    error: Any = RefusedError()
    if in_response:
        error.response = SimpleNamespace(headers=headers)
    else:
        error.headers = headers
    ends = iter([error, None])

    async def ask() -> None:
        end = next(ends)
        if end is not None:
            raise end

    await Retry(1, throttled=RefusedError, wait_initial=0.1, jitter=0).run(ask)
    assert anyio.current_time() == pytest.approx(seconds)
    ends = iter([error, None])
    await Retry(2, on=RefusedError, wait_initial=0, jitter=0).run(ask)
    assert anyio.current_time() == pytest.approx(seconds)
