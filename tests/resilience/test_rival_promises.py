"""
What the README of nopanic 0.3 promises, row by row, kept here in our words.

Each test names the row. What is promised of a part in other tests is not repeated at length: one
short program for each promise, so that a row that we lose is seen at once.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

from mtaio.cache import TTLCache, cached
from mtaio.exceptions import (
    BreakerOpenError,
    ConcurrencyLimitError,
    LimitTimeoutError,
    RateLimitError,
)
from mtaio.resilience import (
    AdaptiveLimiter,
    Breaker,
    BreakerChange,
    BreakerState,
    Budget,
    Fallback,
    FellBack,
    GaveUp,
    Hedge,
    Keyed,
    PartEvent,
    Pipeline,
    Refused,
    Retried,
    Retry,
    Timeout,
    subscribe,
)
from mtaio.resources import ConcurrencyLimiter, Quota, RateLimiter, TimeoutManager, time_left
from mtaio.testing import run
from tests.resilience.calls import Sleeper, fail, succeed
from tests.resilience.parts import Failing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from mtaio.resilience import Call, StandalonePart
    from mtaio.types import Next

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


async def tried(part: StandalonePart | Pipeline, fn: Any = fail) -> str:
    """Call through a part, and return what came of it."""
    try:
        return str(await part.run(fn))
    except (ConnectionError, BreakerOpenError, TimeoutError) as error:
        return type(error).__name__


async def bad_request() -> None:
    """Fail for good."""
    raise ValueError("400")


def cap(most: float) -> Callable[[Exception], float]:
    """Return what believes a service up to so many seconds."""
    return lambda error: min(float(getattr(error, "retry_after", 0)), most)


# ---- retry ---------------------------------------------------------------------------------------


class BusyError(Exception):
    """A refusal that says, as HTTP 429 does, when to come back."""

    def __init__(self, retry_after: float | str) -> None:
        super().__init__(f"429, Retry-After: {retry_after}")
        self.retry_after = retry_after


@pytest.mark.parametrize(
    ("options", "begun"),
    [
        ({"waits": [2]}, [0, 2, 4, 6]),
        ({"wait_initial": 1, "jitter": 0}, [0, 1, 3, 7]),
        ({"wait_initial": 1, "wait_max": 2, "jitter": 0}, [0, 1, 3, 5]),
        ({"waits": [1, 5]}, [0, 1, 6, 11]),
        ({"waits": lambda failed: failed / 2}, [0, 0.5, 1.5, 3]),
    ],
    ids=["fixed", "exponential", "cap", "iterable", "function"],
)
async def test_retry_backoff(options: dict[str, Any], begun: list[float]) -> None:
    """``backoff=fixed, exponential, any iterable``; the original exception is raised again."""
    service = Failing(9)
    with pytest.raises(ConnectionError) as last:
        await Retry(4, on=(ConnectionError, TimeoutError), **options)(service)()
    assert service.calls == pytest.approx(begun)
    assert last.value.args == (4,)


async def test_retry_backoff_is_random_by_default() -> None:
    """``full_jitter`` (default): from 0 to the growing wait, so that callers come back apart."""
    waits = [Retry(wait_initial=1).wait_before(3) for _ in range(50)]
    assert len(set(waits)) == 50
    assert all(0 <= seconds <= 2 for seconds in waits)


async def test_retry_gives_up_what_is_hopeless_and_tells_of_the_rest() -> None:
    """``giveup=`` is the same function as ``on=``; ``before_sleep=`` cannot break the call."""
    told: list[tuple[int, str, float]] = []

    def note(event: Retried) -> None:
        told.append((event.attempt, str(event.error), event.seconds))
        raise ValueError

    errors = iter([ConnectionError("reset"), PermissionError("401")])

    async def fetch() -> None:
        raise next(errors)

    policy = Retry(
        5,
        on=lambda error: isinstance(error, OSError) and not isinstance(error, PermissionError),
        waits=[3],
        on_retry=note,
    )
    with pytest.raises(PermissionError):
        await policy.run(fetch)
    assert told == [(1, "reset", 3)]


async def test_retry_waits_as_long_as_the_service_asks() -> None:
    """A numeric ``retry_after``, of a service or of `BreakerOpenError`; or ``honor_...=False``."""
    errors = iter([BusyError(7), BusyError("2.5")])

    async def fetch() -> float:
        if error := next(errors, None):
            raise error
        return anyio.current_time()

    assert await Retry(3, jitter=0)(fetch)() == pytest.approx(9.5)
    errors = iter([BusyError(100)])
    assert await Retry(2, waits=[1], retry_after=lambda _: 0)(fetch)() == pytest.approx(10.5)
    breaker = Breaker(1, last=1, open_for=15)
    await tried(breaker)
    patient = Pipeline(Retry(2, on=BreakerOpenError, jitter=0), breaker)
    assert await patient.run(succeed) == "answer"
    assert anyio.current_time() == pytest.approx(25.5)


@pytest.mark.parametrize("asked", [999_999_999, 1e300, "9" * 300, float("inf")])
@pytest.mark.parametrize("way", ["within", "deadline", "total", "throttled", "cap"])
async def test_retry_a_hostile_wait_parks_nobody(way: str, asked: float | str) -> None:
    """
    ``retry_after_cap``: who bounds what a server asks for.

    ``within``, the caller's deadline or the pipeline's total do, and the error comes at once; for
    refusals there is a bound without them. Or ``retry_after`` says what is believed.
    """
    policies: dict[str, Any] = {
        "within": Retry(3, within=60),
        "deadline": Retry(3),
        "total": Pipeline(Timeout(60, total=True), Retry(3), Timeout(1)),
        "throttled": Retry(3, throttled=BusyError),
        "cap": Retry(2, jitter=0, retry_after=cap(60)),
    }

    async def hostile() -> None:
        raise BusyError(asked)

    with TimeoutManager()(100 if way == "deadline" else None), pytest.raises(BusyError):
        await policies[way].run(hostile)
    assert anyio.current_time() == (60 if way == "cap" else 0)


async def test_retry_a_hostile_wait_holds_for_a_day_at_most() -> None:
    """``max_block``: a limiter is held for no longer than the headers of a response may say."""
    quota = Quota(requests=10)

    async def hostile() -> None:
        raise BusyError(999_999_999)

    with pytest.raises(BusyError):
        await Pipeline(Retry(3, throttled=BusyError, hold=quota), quota).run(hostile)
    assert quota.statistics().held_seconds == 86_400
    await quota.acquire()
    assert anyio.current_time() == pytest.approx(86_400, abs=1)


async def test_retry_bounds_the_total_time() -> None:
    """``max_time=20``: no attempt is begun after it; the error is the original one."""
    service = Failing(9, seconds=4)
    with pytest.raises(ConnectionError):
        await Retry(6, within=20, waits=[3]).run(service)
    assert service.calls == pytest.approx([0, 7, 14])  # the next would begin at 21
    assert anyio.current_time() == pytest.approx(18)


async def test_retry_on_bad_results() -> None:
    """``on_result``: tried again, and in the end the last result is returned as it is."""
    statuses = iter([503, 200, 429, 502])

    async def get() -> int:
        return next(statuses)

    policy = Retry(2, until=lambda status: status not in {429, 502, 503}, wait_initial=0)
    assert [await policy.run(get), await policy.run(get)] == [200, 502]


async def test_retry_budget_is_one_for_a_service() -> None:
    """``RetryBudget(ratio=0.1)``: a tenth of the calls of both functions, or the floor if more."""
    seen: list[PartEvent] = []
    budget = Budget(0.1, min_per_second=1)
    get_user, get_orders = Failing(999), Failing(999)
    policy = Retry(4, budget=budget, wait_initial=0)
    cancel = subscribe(seen.append)
    for _ in range(100):
        for fn in (get_user, get_orders):
            with pytest.raises(ConnectionError):
                await policy.run(fn)
    cancel()
    assert len(get_user.calls) + len(get_orders.calls) == 200 + 20
    assert {event.reason for event in seen if isinstance(event, GaveUp)} >= {"budget"}


# ---- circuit_breaker -----------------------------------------------------------------------------


async def test_breaker_opens_at_a_ratio_and_lets_a_probe_through() -> None:
    """``failure_threshold, min_calls, reset_timeout``: opens, refuses, probes, closes."""
    payments = Breaker(0.5, last=10, min_calls=4, open_for=15, name="payments")
    for fn in (succeed, fail, succeed, fail):
        await tried(payments, fn)
    with pytest.raises(BreakerOpenError) as refused:
        await payments.run(succeed)
    assert refused.value.retry_after == 15
    await anyio.sleep(15)
    assert await payments.run(succeed) == "answer"
    assert payments.state is CLOSED


async def test_breaker_one_instance_decorates_many() -> None:
    """``@payments`` on as many functions as there are: one dependency, one state."""
    payments = Breaker(1, last=1)
    charge, refund = payments(fail), payments(succeed)
    with suppress(ConnectionError):
        await charge()
    with pytest.raises(BreakerOpenError):
        await refund()


async def test_breaker_slow_calls_trip_it_too() -> None:
    """``slow_call_duration=2.0, slow_call_threshold=0.5``."""
    breaker = Breaker(last=4, min_calls=4, slow=2.0, slow_ratio=0.5)
    for seconds in (0.1, 2, 0.1, 2):
        await breaker.run(Sleeper(seconds))
    assert breaker.state is OPEN


async def test_breaker_manual_control() -> None:
    """``force_open()``, ``disable()``, ``reset()``."""
    breaker = Breaker(1, last=1)
    breaker.force_open()
    assert await tried(breaker, succeed) == "BreakerOpenError"
    breaker.disable()
    assert [await tried(breaker) for _ in range(3)] == ["ConnectionError"] * 3
    breaker.reset()
    assert breaker.state is CLOSED


async def test_breaker_metrics() -> None:
    """``metrics``: state, calls, failures, slow calls and both rates at once."""
    breaker = Breaker(1, last=10, slow=1, slow_ratio=1)
    await tried(breaker)
    await tried(breaker, Sleeper(1))
    now = breaker.statistics()
    assert (now.open, now.recent_calls, now.failed, now.slow) == (0, 2, 1, 1)
    assert (now.recent_failed_ratio, now.recent_slow_ratio) == (0.5, 0.5)


async def test_breaker_guards_blocks() -> None:
    """``async with payments.guard():``; and a result may be marked, which theirs cannot."""
    breaker = Breaker(1, last=2, min_calls=2)
    with suppress(ConnectionError):
        async with breaker:
            raise ConnectionError
    async with breaker as block:
        block.mark_failed()
    assert breaker.state is OPEN


async def test_breaker_cancelled_probe_frees_its_slot() -> None:
    """Cancellation is never a failure."""
    breaker = Breaker(1, last=1, open_for=0)
    await tried(breaker)
    with anyio.move_on_after(1):
        await breaker.run(anyio.sleep_forever)
    assert breaker.state is HALF_OPEN
    assert await tried(breaker, succeed) == "answer"


async def test_breaker_state_change_hook_cannot_break_a_call() -> None:
    """``on_state_change``; hooks and listeners that fail are logged and suppressed."""
    changes: list[tuple[str | None, str, str]] = []

    def note(change: BreakerChange) -> None:
        changes.append((change.name, change.before, change.state))
        raise ValueError

    assert await tried(Breaker(1, last=1, name="payments", on_change=note)) == "ConnectionError"
    assert changes == [("payments", "closed", "open")]


def test_breaker_refuses_numbers_that_are_none() -> None:
    """NaN, infinity and booleans are rejected at construction, not by never tripping."""
    for number in (float("nan"), True, "half"):
        with pytest.raises((ValueError, TypeError), match=r"^failure_ratio="):
            Breaker(number)  # type: ignore[arg-type] # one is a text
    with pytest.raises(ValueError, match=r"^failure_ratio=inf is not a ratio"):
        Breaker(float("inf"))


# ---- fallback ------------------------------------------------------------------------------------


async def test_fallback_answers_for_errors_it_names() -> None:
    """``@fallback(lambda exc: CACHED_ANSWER, on=(ConnectionError, CircuitOpen))``; results too."""
    cached = Fallback(lambda error: f"cached, {error}", on=(ConnectionError, BreakerOpenError))
    assert await cached(fail)() == "cached, nobody there"

    async def wrong() -> None:
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        await cached(wrong)()
    bad = Fallback(lambda response, _: response.status, failed=lambda r: r.status >= 500)

    async def answer(status: int) -> SimpleNamespace:
        return SimpleNamespace(status=status)

    assert await bad.run(answer, 503) == 503
    assert (await bad.run(answer, 200)).status == 200


# ---- keyed ---------------------------------------------------------------------------------------


async def test_keyed_one_policy_per_host() -> None:
    """``keyed(lambda host: circuit_breaker(...), key=lambda url, **_: urlsplit(url).hostname)``."""
    hosts = Keyed(lambda host: Breaker(1, last=1, name=f"api-{host}"), max_keys=2)

    @hosts(key=lambda url, **_: urlsplit(url).hostname)
    async def fetch(url: str, *, page: int = 1) -> int:
        if "eu" in url:
            raise ConnectionError
        return page

    with pytest.raises(ConnectionError):
        await fetch("https://eu.example.com/a")
    with pytest.raises(BreakerOpenError):
        await fetch("https://eu.example.com/b")
    assert await fetch("https://us.example.com/a", page=2) == 2  # another region is not harmed
    assert hosts.part("eu.example.com").state is OPEN
    await fetch("https://asia.example.com/")
    assert hosts.held_keys() == ["eu.example.com", "asia.example.com"]  # theirs forgets an open one


# ---- bulkhead, blocks ----------------------------------------------------------------------------


async def test_bulkhead_rejects_and_guards_blocks() -> None:
    """``bulkhead(20, max_wait=0)``, ``in_flight``, ``async with bh.guard():``."""
    slots = ConcurrencyLimiter(1, max_waiting=0)
    async with slots:
        assert slots.statistics().in_use == 1
        with pytest.raises(ConcurrencyLimitError):
            await slots.run(succeed)
    assert slots.statistics().in_use == 0
    async with AdaptiveLimiter(initial=1) as slot:
        assert not slot.failed


async def test_timeout_guards_blocks() -> None:
    """``async with timeout(2.0).guard():``."""
    timeouts = TimeoutManager()
    with pytest.raises(TimeoutError), timeouts(2.0):
        await anyio.sleep(3)


# ---- compose -------------------------------------------------------------------------------------


async def test_compose_as_in_the_readme() -> None:
    """Fallback, retry, breaker, timeout: each attempt is timed, and feeds the breaker."""
    llm = Breaker(0.5, last=8, min_calls=6, open_for=20, name="llm")
    api = Pipeline(
        Fallback(
            lambda error: type(error).__name__,
            on=(ConnectionError, BreakerOpenError, TimeoutError),
        ),
        Retry(3, on=(ConnectionError, TimeoutError)),
        llm,
        Timeout(30),
    )
    assert await tried(api, anyio.sleep_forever) == "TimeoutError"
    assert llm.statistics().failed == 3
    assert await tried(api) == "ConnectionError"
    assert llm.state is OPEN
    assert await tried(api) == "BreakerOpenError"  # answered: retries respect an open circuit


async def test_compose_calls_without_a_decorator() -> None:
    """``await resilient.acall(client.users.get, user_id)``, on every policy and on stacks."""

    async def get(user: int) -> int:
        return user

    assert await Pipeline(Retry(3), Timeout(1)).run(get, 7) == 7
    assert await Breaker().run(get, 7) == 7


# ---- events --------------------------------------------------------------------------------------


async def test_events_one_stream_for_everything(caplog: pytest.LogCaptureFixture) -> None:
    """``events.log_to``, ``events.subscribe``: typed, with the policy's name and the function."""
    seen: list[PartEvent] = []

    def listen(event: PartEvent) -> None:
        seen.append(event)
        raise ValueError  # listeners can never break the calls they observe

    cancel = subscribe(listen)
    api = Pipeline(Fallback(lambda _: "later", name="stale"), Breaker(1, last=1, name="b"))
    with caplog.at_level(logging.WARNING, "mtaio.resilience"):
        assert [await tried(api), await tried(api)] == ["later", "later"]
    cancel()
    assert await tried(api) == "later"
    kinds = [type(event) for event in seen]
    assert kinds == [BreakerChange, FellBack, Refused, FellBack]
    assert [(event.name, event.function) for event in seen[1:3]] == [
        ("stale", "fail"),
        ("b", "fail"),
    ]
    assert "breaker 'b' is open: 1 of the last 1 calls failed" in caplog.text


# ---- timeout, hedge ------------------------------------------------------------------------------


async def test_timeout_ends_its_own_calls_only() -> None:
    """``@timeout(2.0)``; a ``TimeoutError`` of the function's own passes untouched."""
    own = TimeoutError("the client's")

    async def fetch() -> None:
        raise own

    with pytest.raises(TimeoutError) as passed:
        await Timeout(2.0)(fetch)()
    assert passed.value is own
    lookup = Sleeper(3)
    with pytest.raises(TimeoutError):
        await Timeout(2.0)(lookup)()
    assert (lookup.ended, anyio.current_time()) == (["cancelled"], 2)


async def test_hedge_first_success_wins() -> None:
    """``@hedge(delay=0.8, max_hedges=1)``: losers are cancelled, and have ended."""
    complete = Sleeper(60, 0.2)
    assert await Hedge(0.8, max_hedges=1)(complete)() == 0.2
    assert (anyio.current_time(), complete.ended) == (1.0, ["answered", "cancelled"])


async def test_hedge_a_permanent_failure_is_not_raced() -> None:
    """``on=``: a 400 propagates at once, as it is on both backends, never as a group."""
    answers = iter([anyio.sleep_forever(), bad_request()])

    async def complete() -> None:
        await next(answers)

    with pytest.raises(ValueError, match=r"^400$"):
        await Hedge(0.8, max_hedges=3, on=ConnectionError).run(complete)
    assert anyio.current_time() == 0.8


@pytest.mark.parametrize("part", [Hedge(1), Retry(3), Timeout(1), Breaker(), Pipeline(Retry(3))])
def test_sync_functions_are_refused_when_decorated(part: Any) -> None:
    """Fail loudly at decoration time; theirs guard sync functions, which is what ours lack."""

    def fetch() -> None:
        """Block."""

    def rows() -> Iterator[int]:
        yield 1

    for fn in (fetch, rows):
        with pytest.raises(TypeError):
            part(fn)


# ---- rate_limit, adaptive_rate_limit -------------------------------------------------------------


async def test_rate_limit_waits() -> None:
    """``rate_limit(90, per=60.0, burst=10)``: in turn; who is cancelled leaves its token."""
    limiter = RateLimiter(90, per=60, burst=10)
    moments: list[float] = []

    @limiter
    async def embed(_: str) -> None:
        moments.append(anyio.current_time())

    async def leave() -> None:
        with anyio.move_on_after(0.1):
            await embed("nobody waits for it")

    for _ in range(10):
        await embed("a")
    async with anyio.create_task_group() as group:
        group.start_soon(leave)
        group.start_soon(embed, "b")
        group.start_soon(embed, "c")
    assert moments == pytest.approx([0] * 10 + [2 / 3, 4 / 3])
    assert limiter.statistics().tokens == pytest.approx(0, abs=1e-6)  # ``available_tokens``


async def test_rate_limit_fails_fast() -> None:
    """``max_wait``: the error says when to come back; ``guard()`` is ``async with``."""
    limiter = RateLimiter(1, per=10)
    async with limiter:
        pass

    @limiter(timeout=3)
    async def embed() -> None:
        """Nothing."""

    with pytest.raises(LimitTimeoutError) as refused:
        await embed()
    assert refused.value.retry_after == pytest.approx(10)
    assert anyio.current_time() == 0
    with pytest.raises(RateLimitError):
        limiter.acquire_nowait()


async def test_adaptive_rate_limit_finds_what_a_server_sustains() -> None:
    """A 429 with ``Retry-After`` blocks for just so long; the rate is learnt, and regained."""
    quota = Quota(requests=10)
    left, last, refused, sustains = 5.0, 0.0, 0, 5

    async def call_api() -> None:
        nonlocal left, last, refused
        now = anyio.current_time()
        left, last = min(5.0, left + (now - last) * sustains), now
        if left < 1:
            refused += 1
            raise BusyError((1 - left) / sustains)
        left -= 1

    api = Pipeline(Retry(3, throttled=BusyError, hold=quota, within=600), quota, Timeout(30))
    async with anyio.create_task_group() as group:
        for _ in range(300):
            group.start_soon(api.run, call_api)
    assert refused < 300 / 8
    assert quota.statistics().pace < 0.8  # ``current_rate``
    sustains, refused = 20, 0
    async with anyio.create_task_group() as group:
        for _ in range(300):
            group.start_soon(api.run, call_api)
    assert refused == 0
    assert quota.statistics().pace == 1


# ---- cache ---------------------------------------------------------------------------------------


async def test_cache_outlives_an_outage() -> None:
    """``ttl=60, stale_ttl=3600``: the old value while refreshing fails; one call for all."""
    calls = 0
    is_down = False

    @cached(cache=TTLCache(60, stale_if_error=3600, max_size=2))
    async def exchange_rates(_: str) -> int:
        nonlocal calls
        calls += 1
        await anyio.sleep(1)
        if is_down:
            raise ConnectionError
        return calls

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(exchange_rates, "EUR")
    assert calls == 1
    is_down = True
    await anyio.sleep(100)
    assert await exchange_rates("EUR") == 1
    await anyio.sleep(3600)
    with pytest.raises(ConnectionError):
        await exchange_rates("EUR")


# ---- deadline ------------------------------------------------------------------------------------


async def test_deadline_is_seen_by_all_parts() -> None:
    """Timeouts are cut, retries and limiters give up at once instead of waiting past it."""
    timeouts = TimeoutManager()
    limiter, slots = RateLimiter(1, per=60), ConcurrencyLimiter(1)
    await limiter.acquire()
    with timeouts(5.0):
        with pytest.raises(ConnectionError):
            await Retry(9, waits=[6]).run(fail)
        with pytest.raises(LimitTimeoutError):
            await limiter.acquire()
        assert anyio.current_time() == 0
        with timeouts(60):  # nested ones only shorten
            assert time_left() == 5  # for one's own client: ``time_remaining()``
            with pytest.raises(TimeoutError), timeouts(2):
                await anyio.sleep(3)
        assert time_left() == 3
        assert time_left(most=1) == 1
    async with slots:
        with pytest.raises(TimeoutError), timeouts(5.0):
            async with slots:
                """Nobody gets here."""
    assert anyio.current_time() == 2 + 5


async def test_deadline_is_a_part() -> None:
    """``compose(deadline(10.0), retry(...), timeout(2.0))``: each call has its own."""
    service = Failing(9, seconds=1)
    api = Pipeline(Timeout(10, total=True), Retry(99, waits=[3]), Timeout(2))
    for _ in range(2):
        with pytest.raises(ConnectionError):  # and no wait past the ten seconds
            await api.run(service)
    assert service.calls == pytest.approx([0, 4, 8, 9, 13, 17])


# ---- streams -------------------------------------------------------------------------------------


class Tokens:
    """A stream of a model: attempt by attempt the seconds before each token; negative is an end."""

    def __init__(self, *attempts: Sequence[float]) -> None:
        self.attempts = iter(attempts)
        self.open = self.opened = 0

    async def __call__(self, _: str = "") -> AsyncIterator[int]:
        """Generate the numbers of the tokens."""
        self.open += 1
        self.opened += 1
        try:
            for number, seconds in enumerate(next(self.attempts)):
                await anyio.sleep(abs(seconds))
                if seconds < 0:
                    raise ConnectionError
                yield number
        finally:
            self.open -= 1


async def read(stream: Any, items: list[int]) -> list[int]:
    """Read all items."""
    async with stream as source:
        async for item in source:
            items.append(item)  # noqa: PERF401 - what came before an error counts
    return items


async def test_stream_is_opened_again_until_its_first_item() -> None:
    """``retry`` re-opens a stream that fails before it; after it a failure propagates."""
    items: list[int] = []
    tokens = Tokens([-1], [1, 1, -1])
    with pytest.raises(ConnectionError):
        await read(Pipeline(Retry(3, wait_initial=0)).stream(tokens), items)
    assert (items, tokens.opened, tokens.open) == ([0, 1], 2, 0)


async def test_stream_each_item_has_its_time() -> None:
    """``timeout(10.0, first_item=30.0)``: never the consumer's own time between items."""
    stream = Pipeline(Timeout(999, first=30, between=10)).stream
    items: list[int] = []
    async with stream(Tokens([29, 9, 9])) as source:
        async for item in source:
            items.append(item)
            await anyio.sleep(50)
    assert items == [0, 1, 2]
    for late, moment in ([31], 30), ([29, 11], 39):
        begun = anyio.current_time()
        with pytest.raises(TimeoutError):
            await read(stream(Tokens(late)), [])
        assert anyio.current_time() - begun == pytest.approx(moment)


async def test_stream_is_one_call_until_its_end() -> None:
    """Breaker, bulkhead, rate limit: the outcome, the slot and the token are of the whole."""
    breaker, slots, rate = Breaker(1, last=1), ConcurrencyLimiter(1), RateLimiter(1, burst=2)
    api = Pipeline(breaker, slots, rate)
    async with api.stream(Tokens([0, 0, 0])) as source:
        assert await anext(source) == 0
        assert (slots.statistics().in_use, breaker.statistics().recent_calls) == (1, 0)
        assert rate.statistics().tokens == pytest.approx(1)
    assert slots.statistics().in_use == 0
    assert (breaker.state, breaker.statistics().recent_calls) == (CLOSED, 1)
    with pytest.raises(ConnectionError):
        await read(api.stream(Tokens([0, 0, -1])), [])
    assert breaker.state is OPEN


async def test_stream_parts_that_theirs_refuse() -> None:
    """``fallback``, ``hedge`` and ``deadline`` raise TypeError there; a cache does here, too."""

    async def sorry(*_: object) -> AsyncIterator[int]:
        yield 99

    tokens = Tokens([60], [0.5, 0.5])
    assert await read(Pipeline(Hedge(1)).stream(tokens), []) == [0, 1]
    assert tokens.open == 0
    assert await read(Pipeline(Fallback(sorry)).stream(Tokens([-1])), []) == [99]
    with pytest.raises(TimeoutError):
        await read(Pipeline(Timeout(3, total=True)).stream(Tokens([2, 2])), [])
    with pytest.raises(TypeError):
        cached(Tokens.__call__)  # which is the mistake


# ---- testing, one-off calls, one's own policy ----------------------------------------------------


def test_testing_takes_no_time(backend: str) -> None:
    """``testing.instant()`` and ``capture_events()``: a virtual clock, on which also timers run."""
    seen: list[PartEvent] = []

    async def checkout() -> tuple[str, float]:
        gateway = Failing(2)
        await Retry(3, waits=[60, 3600]).run(gateway)
        return "paid", anyio.current_time()

    cancel = subscribe(seen.append)
    began = time.monotonic()
    assert run(checkout, backend=backend) == ("paid", 3660)
    assert time.monotonic() - began < 60
    cancel()
    assert [event.seconds for event in seen if isinstance(event, Retried)] == [60, 3600]


async def test_a_call_without_a_decorator_under_every_policy() -> None:
    """``policy.acall(client.users.get, user_id)``: a method, or a lambda around one."""

    async def get(user: int) -> int:
        return user

    policies: list[Any] = [
        *(Retry(3), Timeout(1), Breaker(), Hedge(1), Fallback(lambda *_: 0), AdaptiveLimiter()),
        *(RateLimiter(99, burst=99), ConcurrencyLimiter(1), TimeoutManager(1), Pipeline(Retry(3))),
        Pipeline(Quota(requests=99)),
    ]
    for policy in policies:
        assert await policy.run(get, 7) == 7
        assert await policy.run(lambda: get(8)) == 8


async def test_a_policy_of_ones_own() -> None:
    """``nopanic.extend``: it is composed with others, here by one method."""

    class Audit:
        """Notes each attempt and its outcome."""

        def __init__(self) -> None:
            self.seen: list[str] = []

        def wrap(self, then: Next) -> Next:
            async def audited(call: Call) -> Any:
                try:
                    return await then(call)
                except BaseException as error:
                    self.seen.append(type(error).__name__)
                    raise

            return audited

    audit = Audit()
    api = Pipeline(Retry(3, wait_initial=0), audit, Timeout(1))
    calls = iter([anyio.sleep_forever, fail, succeed])

    @api
    async def call() -> object:
        return await next(calls)()

    assert await call() == "answer"
    assert audit.seen == ["TimeoutError", "ConnectionError"]


@pytest.mark.parametrize("number", [float("nan"), True, "3"], ids=repr)
def test_numbers_that_are_none_are_refused(number: Any) -> None:
    """All numbers, at construction; infinity is no limit where that makes sense."""
    for make in (
        lambda: Retry(number),
        lambda: Retry(within=number),
        lambda: Timeout(number),
        lambda: Hedge(number),
        lambda: Budget(number),
        lambda: RateLimiter(number),
        lambda: Quota(requests=number),
        lambda: ConcurrencyLimiter(number),
        lambda: AdaptiveLimiter(initial=number),
        lambda: TTLCache(number),
    ):
        with pytest.raises((ValueError, TypeError)):
            make()


# ---- the recipe ----------------------------------------------------------------------------------


def is_retriable(error: Exception) -> bool:
    """Return whether another attempt may help, as the recipe has it."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


async def test_retrying_http_the_right_way() -> None:
    """Transport errors, 429 and 5xx, with ``Retry-After`` read from the response; never a 404."""
    seen: list[tuple[str, float]] = []

    def serve(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.path, anyio.current_time()))
        if request.url.path == "/missing":
            return httpx.Response(404)
        if len(seen) == 1:
            raise httpx.ConnectError("reset")
        headers = {"Retry-After": "5"}
        return httpx.Response(429, headers=headers) if len(seen) == 2 else httpx.Response(200)

    def asked(error: Exception) -> str | None:
        response: httpx.Response | None = getattr(error, "response", None)
        return None if response is None else response.headers.get("Retry-After")

    transport = httpx.MockTransport(serve)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        policy = Retry(4, on=is_retriable, wait_initial=0.2, jitter=0, retry_after=asked)

        @policy
        async def get_json(url: str) -> int:
            response = await client.get(url)
            response.raise_for_status()
            return response.status_code

        assert await get_json("/users") == 200
        with pytest.raises(httpx.HTTPStatusError):
            await get_json("/missing")
    paths, moments = zip(*seen, strict=True)
    assert paths == ("/users", "/users", "/users", "/missing")
    assert moments == pytest.approx((0, 0.2, 5.2, 5.2))
