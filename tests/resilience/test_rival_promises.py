"""
What the README of nopanic 0.3 promises, row by row, kept here in our words.

Each test names the row. What is promised of a part in other tests is not repeated at length: one
short program for each promise, so that a row that we lose is seen at once.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import pytest

from mtaio.exceptions import BreakerOpenError, ConcurrencyLimitError
from mtaio.resilience import (
    AdaptiveLimiter,
    Breaker,
    BreakerChange,
    BreakerState,
    Fallback,
    FellBack,
    Keyed,
    PartEvent,
    Pipeline,
    Refused,
    Retry,
    Timeout,
    subscribe,
)
from mtaio.resources import ConcurrencyLimiter, TimeoutManager
from tests.resilience.calls import Sleeper, fail, succeed

if TYPE_CHECKING:
    from mtaio.resilience import StandalonePart

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


async def tried(part: StandalonePart | Pipeline, fn: Any = fail) -> str:
    """Call through a part, and return what came of it."""
    try:
        return str(await part.run(fn))
    except (ConnectionError, BreakerOpenError, TimeoutError) as error:
        return type(error).__name__


# ---- retry: a place for its rows -----------------------------------------------------------------

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


# ---- streams, quotas, rate limits, deadlines: places for their rows ------------------------------
