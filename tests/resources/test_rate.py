"""What RateLimiter promises, one case at a time."""

from __future__ import annotations

import asyncio
import math
import pickle
import threading
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio import exceptions
from mtaio._internal import clock
from mtaio._internal.checkpoints import FAST_CALLS
from mtaio.exceptions import LimitError, LimitTimeoutError, RateLimitError
from mtaio.resources import RateLimiter
from mtaio.testing import run, settle
from tests.clocks import by_hand
from tests.injection import cancelled_at, struck, suspensions
from tests.resources.moments import cancel_everywhere, modes
from tests.resources.timers import live_timers, pending_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from anyio.abc import TaskGroup

    from mtaio.testing import Victim
    from tests.resources.moments import Mode


class Crowd:
    """Lets tasks ask a limiter one after another, and notes what became of each, and when."""

    def __init__(self, limiter: RateLimiter, group: TaskGroup) -> None:
        self.limiter = limiter
        self.group = group
        self.outcomes: dict[str, tuple[str, float]] = {}
        self.scopes: dict[str, anyio.CancelScope] = {}
        self.errors: dict[str, LimitError] = {}

    async def _ask(self, name: str, tokens: float, timeout: float | None) -> None:
        outcome = "cancelled"
        with anyio.CancelScope() as self.scopes[name]:
            try:
                await self.limiter.acquire(tokens, timeout=timeout)
            except LimitError as error:
                self.errors[name] = error
                outcome = "late" if isinstance(error, LimitTimeoutError) else "refused"
            else:
                outcome = "granted"
        self.outcomes[name] = outcome, anyio.current_time()

    async def ask(self, name: str, tokens: float = 1, *, timeout: float | None = None) -> None:
        """Let a task ask, and wait until it has got its answer or its place in the queue."""
        self.group.start_soon(self._ask, name, tokens, timeout)
        await settle()

    @property
    def granted(self) -> dict[str, float]:
        """When each request was granted, in the order in which they were."""
        return {name: at for name, (what, at) in self.outcomes.items() if what == "granted"}


@contextmanager
def late_loop() -> Generator[Callable[[float], None]]:
    """Yield a function that lets time pass while the event loop stands still."""
    lost = 0.0

    def block(seconds: float) -> None:
        nonlocal lost
        lost += seconds

    with clock.reading_from(lambda: anyio.current_time() + lost):
        yield block


# --- Tokens -----------------------------------------------------------------------------------


async def test_burst_then_rate() -> None:
    """A full bucket grants ``burst`` at once, then a token every ``per / rate`` seconds."""
    limiter = RateLimiter(2, burst=3)
    times = []
    for _ in range(7):
        await limiter.acquire()
        times.append(anyio.current_time())
    assert times == [0, 0, 0, 0.5, 1, 1.5, 2]


async def test_bucket_fills_while_no_task_asks() -> None:
    """Tokens flow in with time, up to ``burst``."""
    limiter = RateLimiter(2, burst=3)
    await limiter.acquire(3)
    assert limiter.statistics().tokens == 0
    await anyio.sleep(0.75)
    assert limiter.statistics().tokens == 1.5
    await anyio.sleep(10)
    assert limiter.statistics().tokens == 3


async def test_per_gives_the_rate_its_unit() -> None:
    """``rate`` is meant for every ``per`` seconds."""
    limiter = RateLimiter(6, burst=1, per=3)
    await limiter.acquire()
    await limiter.acquire()
    assert anyio.current_time() == 0.5


@pytest.mark.parametrize("rate", [5, 0.25, 0])
def test_no_burst_unless_one_is_given(rate: float) -> None:
    """The bucket holds one token, whatever the rate."""
    limiter = RateLimiter(rate)
    assert limiter.burst == limiter.statistics().tokens == 1


async def test_first_second() -> None:
    """Without a burst work starts at even intervals; with one, so much starts at once."""
    even, bursty = RateLimiter(5), RateLimiter(5, burst=5)
    for limiter, starts in ((even, [0, 0.2, 0.4, 0.6, 0.8, 1]), (bursty, [0, 0, 0, 0, 0, 0.2])):
        before = anyio.current_time()
        found = []
        for _ in range(6):
            await limiter.acquire()
            found.append(anyio.current_time() - before)
        assert found == pytest.approx(starts)


async def test_weighted_requests() -> None:
    """A request waits for all its tokens, and takes them at once."""
    limiter = RateLimiter(1, burst=4)
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        for number, tokens in enumerate([3, 2, 4, 1]):
            await crowd.ask(f"{number}", tokens)
    assert crowd.granted == {"0": 0, "1": 1, "2": 5, "3": 6}


async def test_tokens_need_not_be_whole() -> None:
    """Half a token is half a token."""
    limiter = RateLimiter(1, burst=1.5)
    await limiter.acquire(1.25)
    assert limiter.statistics().tokens == 0.25
    await limiter.acquire(0.5)
    assert anyio.current_time() == 0.25


class Whole(int):
    """An int of another class, as an enumeration's member is."""


async def test_numbers_of_other_classes() -> None:
    """A subclass of int or float is a number like any other, granted at once or after a wait."""
    limiter = RateLimiter(1, burst=2)
    limiter.acquire_nowait(Whole(1))
    await limiter.acquire(Whole(1))
    await limiter.acquire(Whole(2))
    assert anyio.current_time() == 2


async def test_no_tokens_are_granted_at_once() -> None:
    """``tokens=0`` never waits: not with an empty bucket, not behind others, not while paused."""
    limiter = RateLimiter(1)
    limiter.acquire_nowait()
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        await crowd.ask("waits")
        for _ in range(2 * FAST_CALLS):
            await limiter.acquire(0)
            await limiter.acquire(0, timeout=0)
            limiter.acquire_nowait(0)
        limiter.rate = 0
        await limiter.acquire(0.0)
        limiter.acquire_nowait(0)
        limiter.rate = 1
    assert crowd.granted == {"waits": 1}
    assert anyio.current_time() == 1


async def test_async_with_takes_one_token() -> None:
    """``async with`` acquires on the way in, and does nothing on the way out."""
    limiter = RateLimiter(1, burst=2)
    async with limiter:
        pass
    assert limiter.statistics().tokens == 1


async def test_decorator_takes_its_options() -> None:
    """``limit`` acquires as many tokens as it was told to, within the timeout it was given."""
    limiter = RateLimiter(1, burst=2, name="api")

    @limiter(tokens=2, timeout=1.5)
    async def call(value: int) -> int:
        return value

    assert await call(3) == 3
    assert limiter.statistics().tokens == 0
    with pytest.raises(LimitTimeoutError, match=r"^<RateLimiter 'api' 1/s burst=2> cannot"):
        await call(4)


def test_decorator_refuses_options_at_once() -> None:
    """Options that could never be granted are refused when the function is decorated."""
    limiter = RateLimiter(1, burst=2)
    with pytest.raises(ValueError, match=r"^cannot acquire 3 tokens: the bucket never holds"):
        limiter(tokens=3)
    with pytest.raises(ValueError, match=r"^timeout=-1 is less than 0\. Pass seconds >= 0"):
        limiter(timeout=-1)


async def test_no_limit() -> None:
    """An infinite rate never waits, and grants more than ``burst`` at once."""
    limiter = RateLimiter(math.inf, burst=2)
    for _ in range(3 * FAST_CALLS):
        await limiter.acquire(1000)
        limiter.acquire_nowait(1e300)
    await limiter.acquire(10**300, timeout=0)
    assert anyio.current_time() == 0
    assert limiter.burst == 2
    assert limiter.statistics().tokens == math.inf
    assert limiter.statistics().next_grant_seconds == 0


# --- Starting over ----------------------------------------------------------------------------


async def test_reset_fills_the_bucket() -> None:
    """After ``reset`` it is as if nothing had been granted; the counters go on."""
    limiter = RateLimiter(1, burst=2)
    limiter.acquire_nowait(2)
    limiter.reset()
    assert limiter.statistics().tokens == 2
    limiter.acquire_nowait(2)
    assert limiter.statistics().acquired == 2
    limiter.rate = 0
    limiter.reset()
    limiter.acquire_nowait(2)
    assert limiter.statistics().next_grant_seconds == math.inf  # still paused


async def test_reset_serves_those_who_wait() -> None:
    """The full bucket goes to the tasks that wait, in their order, ahead of newcomers."""
    limiter = RateLimiter(0.5, burst=3, slack=0)
    limiter.acquire_nowait(3)
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        for name, tokens in (("a", 2), ("b", 1), ("c", 2)):
            await crowd.ask(name, tokens)
        await anyio.sleep(1)
        limiter.reset()
        with pytest.raises(RateLimitError) as refused:
            limiter.acquire_nowait()
        assert refused.value.retry_after == 6  # behind the three
        await settle()
        assert crowd.granted == {"a": 1, "b": 1}
    assert crowd.granted == {"a": 1, "b": 1, "c": 5}


# --- Refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rate": -1}, ValueError, r"^rate=-1 is less than 0\. Pass tokens >= 0, 0 to pause, or"),
        ({"rate": math.nan}, ValueError, r"^rate=nan is not a number\. Pass tokens >= 0"),
        ({"rate": "5"}, TypeError, r"^rate='5' is a str, not a number\. Pass tokens >= 0"),
        ({"rate": True}, TypeError, r"^rate=True is a bool, not a number\."),
        ({"rate": 1e-320}, ValueError, r"^rate=1e-320 every 1\.0 s is beyond what can be timed\."),
        ({"rate": 1e308, "per": 1e-300}, ValueError, r"^rate=1e\+308 every 1e-300 s is beyond"),
        ({"burst": 0}, ValueError, r"^burst=0 is less than 1\. Pass the tokens that may be taken"),
        ({"burst": 0.5}, ValueError, r"^burst=0\.5 is less than 1\."),
        ({"burst": math.nan}, ValueError, r"^burst=nan is not a number\."),
        (
            {"burst": math.inf},
            ValueError,
            r"^burst=inf is not a limit\. Pass .* Pass rate=math\.inf",
        ),
        ({"burst": 10**400}, ValueError, r"^burst is an int too large for a float\."),
        ({"rate": 10**400}, ValueError, r"^rate is an int too large for a float\."),
        ({"per": 0}, ValueError, r"^per=0 is not a finite number greater than 0\. Pass the secon"),
        ({"per": -1}, ValueError, r"^per=-1 is not a finite number"),
        ({"per": math.inf}, ValueError, r"^per=inf is not a finite number"),
        ({"per": math.nan}, ValueError, r"^per=nan is not a number"),
        ({"per": None}, TypeError, r"^per=None is a NoneType, not a number\."),
        ({"slack": -0.1}, ValueError, r"^slack=-0\.1 is less than 0\. Pass seconds >= 0"),
        (
            {"slack": math.inf},
            ValueError,
            r"^slack=inf would lift the limit for every task that waits\.",
        ),
    ],
)
def test_limits_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """A limit that makes no sense is refused with the value, the reason and the way out."""
    with pytest.raises(error, match=message):
        RateLimiter(**{"rate": 5, **arguments})


@pytest.mark.parametrize("rate", [5, 0])
@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        (
            4,
            ValueError,
            r"^cannot acquire 4 tokens: the bucket never holds more than burst=3\. Raise burst",
        ),
        (math.inf, ValueError, r"^cannot acquire inf tokens: the bucket never holds more"),
        pytest.param(10**400, ValueError, r"^tokens is an int too large for a float", id="10**400"),
        (-1, ValueError, r"^tokens=-1 is less than 0\. Pass how many tokens to take, 0 or more\.$"),
        (math.nan, ValueError, r"^tokens=nan is not a number\."),
        ("1", TypeError, r"^tokens='1' is a str, not a number\."),
        (True, TypeError, r"^tokens=True is a bool, not a number\."),
        (None, TypeError, r"^tokens=None is a NoneType, not a number\."),
        (Fraction(1), TypeError, r"^tokens=Fraction\(1, 1\) is a Fraction, not a number\."),
    ],
)
async def test_tokens_are_refused(
    rate: float, tokens: Any, error: type[Exception], message: str
) -> None:
    """Tokens that could never be granted are refused by both calls, paused or not."""
    limiter = RateLimiter(rate, burst=3)
    with pytest.raises(error, match=message):
        await limiter.acquire(tokens)
    with pytest.raises(error, match=message):
        limiter.acquire_nowait(tokens)
    assert limiter.statistics().tokens == 3
    assert limiter.statistics().rejected == 0


@pytest.mark.parametrize(
    ("timeout", "error", "message"),
    [
        (-1, ValueError, r"^timeout=-1 is less than 0\. Pass seconds >= 0, or None for no limit"),
        (math.nan, ValueError, r"^timeout=nan is not a number\."),
        ("1", TypeError, r"^timeout='1' is a str, not a number\."),
    ],
)
async def test_timeouts_are_refused(timeout: Any, error: type[Exception], message: str) -> None:
    """A timeout that makes no sense is refused even where there is nothing to wait for."""
    with pytest.raises(error, match=message):
        await RateLimiter(1).acquire(timeout=timeout)


def test_attributes_without_effect_are_refused() -> None:
    """What cannot be changed cannot be assigned."""
    limiter: Any = RateLimiter(1)
    for name in ("per", "slack", "name"):
        with pytest.raises(AttributeError):
            setattr(limiter, name, 2)
    with pytest.raises(AttributeError):
        limiter.max_rate = 2


def test_repr_and_properties() -> None:
    """A limiter shows its name and its limits."""
    assert repr(RateLimiter(5)) == "<RateLimiter 5/s burst=1>"
    assert RateLimiter(5).slack == 0.02
    assert RateLimiter(5).name is None
    limiter = RateLimiter(0.5, burst=2, per=60, slack=0.1, name="api")
    assert repr(limiter) == "<RateLimiter 'api' 0.5/60 s burst=2>"
    assert (limiter.rate, limiter.burst, limiter.per, limiter.slack, limiter.name) == (
        0.5,
        2,
        60,
        0.1,
        "api",
    )
    assert repr(RateLimiter(math.inf)) == "<RateLimiter inf/s burst=1>"


# --- Order ------------------------------------------------------------------------------------


async def test_first_come_first_served() -> None:
    """Waiters are served in the order of asking, each as soon as its tokens are there."""
    async with anyio.create_task_group() as group:
        crowd = Crowd(RateLimiter(4, burst=2), group)
        for number in range(8):
            await crowd.ask(f"{number}")
    assert list(crowd.granted) == [f"{number}" for number in range(8)]
    assert list(crowd.granted.values()) == [0, 0, 0.25, 0.5, 0.75, 1, 1.25, 1.5]


async def test_small_request_does_not_overtake_a_large_one() -> None:
    """A task that waits for many tokens is not starved by those that want one."""
    limiter = RateLimiter(1, burst=4)
    await limiter.acquire(4)
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        await crowd.ask("large", 4)
        await anyio.sleep(2)
        await crowd.ask("small")
        with pytest.raises(RateLimitError, match=r"^<RateLimiter 1/s burst=4> cannot") as caught:
            limiter.acquire_nowait()
        assert caught.value.retry_after == 4  # 2 until "large" is served, 1 for each after it
    assert crowd.granted == {"large": 4, "small": 5}


async def test_burst_is_served_in_order_past_the_call_that_yields() -> None:
    """The call that yields for fairness is not overtaken by those that came after it."""
    limiter = RateLimiter(1, burst=2 * FAST_CALLS)
    asked: list[int] = []
    answered: list[int] = []

    async def ask(number: int) -> None:
        asked.append(number)
        await limiter.acquire()
        answered.append(number)

    async with anyio.create_task_group() as group:
        for number in range(2 * FAST_CALLS + 5):
            group.start_soon(ask, number)
    assert answered == asked
    assert anyio.current_time() == 5


async def test_nowait_gets_what_delays_no_task() -> None:
    """While another is about to be served at once, there may be enough left for one more."""
    limiter = RateLimiter(1, burst=FAST_CALLS + 1)
    for _ in range(FAST_CALLS - 1):
        await limiter.acquire()

    def meanwhile() -> None:
        assert limiter.statistics().waiting == 1
        limiter.acquire_nowait()
        with pytest.raises(RateLimitError) as caught:
            limiter.acquire_nowait()
        assert caught.value.retry_after == 1

    assert await struck(limiter.acquire(), 1, meanwhile) == 1
    assert limiter.statistics().acquired == FAST_CALLS + 1


# --- The call that yields ---------------------------------------------------------------------


async def before_the_yield(*, slack: float = 0.02) -> RateLimiter:
    """Return a limiter that a task of this loop has used, whose next call yields."""
    limiter = RateLimiter(1, burst=3 * FAST_CALLS, slack=slack)
    for _ in range(FAST_CALLS):
        await limiter.acquire()
    for _ in range(FAST_CALLS - 1):
        assert await suspensions(limiter.acquire()) == 0
    return limiter


LEFT = FAST_CALLS + 1
"""What is left then of the tokens."""

# One token takes a path of its own, on which nothing is called, unless it is not written as an int.
each_way = pytest.mark.parametrize("one", [1, 1.0])


@each_way
async def test_yielding_call_takes_a_token(one: float) -> None:
    """It holds its place while others run, takes one token after that, and is counted once."""
    limiter = await before_the_yield()

    def meanwhile() -> None:
        now = limiter.statistics()
        assert (now.waiting, now.tokens, now.acquired) == (1, LEFT, 2 * FAST_CALLS - 1)

    assert await struck(limiter.acquire(one), 1, meanwhile) == 1
    now = limiter.statistics()
    assert (now.waiting, now.tokens, now.acquired) == (0, LEFT - 1, 2 * FAST_CALLS)
    assert (now.cancelled, now.wait_seconds, now.max_wait_seconds) == (0, 0, 0)
    assert [await suspensions(limiter.acquire()) for _ in range(FAST_CALLS)] == [0] * 63 + [1]
    with pytest.raises(RateLimitError) as caught:
        limiter.acquire_nowait()
    assert caught.value.retry_after == 1  # the queue asks for nothing


@each_way
async def test_yielding_call_is_first(one: float) -> None:
    """Those who ask while it lets them run come after it, in their order."""
    limiter = await before_the_yield()
    async with anyio.create_task_group() as group:
        answered: list[int] = []

        async def ask(number: int) -> None:
            await limiter.acquire(one)
            answered.append(number)

        for number in range(5):
            group.start_soon(ask, number)
    assert sorted(answered) == [0, 1, 2, 3, 4]
    now = limiter.statistics()
    assert (now.waiting, now.tokens, now.acquired) == (0, LEFT - 5, 2 * FAST_CALLS + 4)


@each_way
async def test_yielding_call_cancelled(one: float) -> None:
    """Cancelled there, it has taken nothing, and the next call is the one that yields."""
    limiter = await before_the_yield()
    assert await cancelled_at(limiter.acquire(one), 1)
    now = limiter.statistics()
    assert (now.waiting, now.tokens, now.acquired) == (0, LEFT, 2 * FAST_CALLS - 1)
    assert now.cancelled == 1
    assert await suspensions(limiter.acquire(one)) == 1
    assert await suspensions(limiter.acquire(one)) == 0


@each_way
async def test_nowait_while_a_call_yields(one: float) -> None:
    """What is taken from behind it is counted like any other, and it still gets its own."""
    limiter = await before_the_yield()

    def meanwhile() -> None:
        limiter.acquire_nowait(LEFT - 1)
        assert not limiter.try_acquire()

    assert await struck(limiter.acquire(one), 1, meanwhile) == 1
    now = limiter.statistics()
    assert (now.tokens, now.acquired, now.rejected) == (0, 2 * FAST_CALLS + 1, 1)


@each_way
@pytest.mark.parametrize("rate", [0, 8, math.inf])
async def test_new_rate_while_a_call_yields(one: float, rate: float) -> None:
    """It takes its token from the bucket that there is then: also from one that is paused."""
    limiter = await before_the_yield()
    assert await struck(limiter.acquire(one), 1, lambda: limiter.reconfigure(rate=rate)) == 1
    now = limiter.statistics()
    assert now.tokens == (LEFT - 1 if rate < math.inf else math.inf)
    assert now.acquired == 2 * FAST_CALLS


@each_way
async def test_reset_while_a_call_yields(one: float) -> None:
    """It takes its token from the full bucket."""
    limiter = await before_the_yield()
    assert await struck(limiter.acquire(one), 1, limiter.reset) == 1
    assert limiter.statistics().tokens == 3 * FAST_CALLS - 1


@each_way
@pytest.mark.parametrize(("late", "tokens"), [(0.25, LEFT - 1 + 0.25), (2, LEFT - 1 + 2)])
async def test_late_yielding_call(one: float, late: float, tokens: float) -> None:
    """However long the others keep it, it waits that long, takes one token and loses none."""
    with late_loop() as block:
        limiter = await before_the_yield(slack=0.5)
        assert await struck(limiter.acquire(one), 1, lambda: block(late)) == 1
        now = limiter.statistics()
    assert (now.tokens, now.acquired) == (tokens, 2 * FAST_CALLS)
    assert (now.wait_seconds, now.max_wait_seconds) == (late, late)


@each_way
async def test_late_yielding_call_of_a_full_bucket(one: float) -> None:
    """It counts as served when it asked, but no earlier than the slack allows."""
    with late_loop() as block:
        limiter = await before_the_yield(slack=0.5)
        limiter.reset()
        assert await struck(limiter.acquire(one), 1, lambda: block(0.25)) == 1
        assert limiter.statistics().tokens == 3 * FAST_CALLS - 0.75
        for _ in range(FAST_CALLS - 1):
            limiter.acquire_nowait()
        limiter.reset()
        assert await struck(limiter.acquire(one), 1, lambda: block(0.75)) == 1
        assert limiter.statistics().tokens == 3 * FAST_CALLS - 0.5


def test_yielding_call_of_each_loop(backend: str) -> None:
    """A limiter at module level has a place for it in the queue of one loop after another."""
    limiter = RateLimiter(1, burst=1000)
    waiting: list[int] = []

    async def use() -> None:
        for _ in range(2 * FAST_CALLS):
            await struck(limiter.acquire(), 1, lambda: waiting.append(limiter.statistics().waiting))

    for _ in range(3):
        run(use, backend=backend)
    assert waiting == [1] * 6
    assert limiter.statistics().acquired == 6 * FAST_CALLS


async def test_yielding_call_after_some_that_did_not() -> None:
    """More calls than 64 may pass without one that yields, if they never do; all are counted."""
    limiter = await before_the_yield()
    for _ in range(3):
        limiter.acquire_nowait()
    assert await suspensions(limiter.acquire()) == 1
    assert limiter.statistics().acquired == 2 * FAST_CALLS + 3


@pytest.mark.parametrize("left", [1, 0])
async def test_yielding_call_waits_if_its_token_is_not_there(left: int) -> None:
    """With a token it takes it after the yield, without one it waits for it like any other."""
    limiter = await before_the_yield()
    limiter.acquire_nowait(LEFT - left)
    await limiter.acquire()
    assert anyio.current_time() == 1 - left


# --- Fairness ---------------------------------------------------------------------------------


async def test_one_call_in_64_yields() -> None:
    """A loop over calls that need not wait lets others run, at least once in 64 calls."""
    limiter = RateLimiter(1e9, burst=1e9)
    suspended = [await suspensions(limiter.acquire()) for _ in range(4 * FAST_CALLS)]
    assert sum(suspended) == 4
    assert suspended[: FAST_CALLS - 1] == [0] * (FAST_CALLS - 1)
    assert suspended[FAST_CALLS - 1] == 1


async def test_calls_of_others_count() -> None:
    """Grants without a wait, to whomever and by whichever call, lead to the next yield."""
    limiter = RateLimiter(1e9, burst=1e9)
    for _ in range(FAST_CALLS - 1):
        limiter.acquire_nowait()
    assert await suspensions(limiter.acquire()) == 1


async def test_calls_without_tokens_yield() -> None:
    """A loop over ``acquire(0)`` is fair too, and each is counted."""
    limiter = RateLimiter(1)
    assert sum([await suspensions(limiter.acquire(0)) for _ in range(2 * FAST_CALLS)]) == 2
    assert limiter.statistics().acquired == 2 * FAST_CALLS


async def test_timeout_makes_no_call_yield() -> None:
    """A call with a timeout returns at once like any other if it need not wait."""
    limiter = RateLimiter(1e9, burst=1e9)
    suspended = [await suspensions(limiter.acquire(timeout=1)) for _ in range(2 * FAST_CALLS)]
    assert sum(suspended) == 2


async def test_one_refused_call_in_64_yields() -> None:
    """A loop over calls whose timeout is too short lets others run, at least once in 64 calls."""
    limiter = RateLimiter(1, burst=1)

    async def refused() -> None:
        with pytest.raises(LimitTimeoutError):
            await limiter.acquire(timeout=0)

    await limiter.acquire()
    suspended = [await suspensions(refused()) for _ in range(4 * FAST_CALLS)]
    assert sum(suspended) == 4
    assert suspended[: FAST_CALLS - 2] == [0] * (FAST_CALLS - 2)


async def test_loop_over_refused_calls_can_be_cancelled() -> None:
    """A task that only ever asks in vain, and never sleeps, can be cancelled all the same."""
    limiter = RateLimiter(1)
    limiter.acquire_nowait()
    refused = 0
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(suspensions, checkpoint())
            await checkpoint()
            scope.cancel()
            while True:
                try:
                    await limiter.acquire(timeout=0)
                except LimitTimeoutError:
                    refused += 1
    assert refused < FAST_CALLS


# --- Waiting no longer than -------------------------------------------------------------------


async def test_day_one_4_timeout_is_judged_at_once() -> None:
    """PyrateLimiter#178, #194, #175: a task that cannot be served in time is told so at once."""
    limiter = RateLimiter(1, name="api")
    await limiter.acquire()
    await anyio.sleep(0.25)
    with pytest.raises(
        LimitTimeoutError,
        match=r"^<RateLimiter 'api' 1/s burst=1> cannot grant 1 token within 0\.5 s, only in 0",
    ) as caught:
        await limiter.acquire(timeout=0.5)
    assert anyio.current_time() == 0.25
    error = caught.value
    assert isinstance(error, TimeoutError | exceptions.TimeoutError)
    assert (error.retry_after, error.timeout, error.deadline, error.name) == (
        0.75,
        0.5,
        0.75,
        "api",
    )
    assert (limiter.statistics().rejected, limiter.statistics().timed_out) == (0, 1)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (str(again), again.retry_after) == (str(error), 0.75)


async def test_day_one_4_timeout_that_fits_waits() -> None:
    """PyrateLimiter#178: a timeout that just suffices is a wait, not an error."""
    limiter = RateLimiter(1)
    await limiter.acquire()
    await limiter.acquire(timeout=1)
    assert anyio.current_time() == 1
    await limiter.acquire(timeout=math.inf)
    assert anyio.current_time() == 2


async def test_timeout_0_is_acquire_or_raise() -> None:
    """``timeout=0`` grants what is there and raises otherwise."""
    limiter = RateLimiter(1)
    await limiter.acquire(timeout=0)
    with pytest.raises(LimitTimeoutError):
        await limiter.acquire(timeout=0)


async def test_timeout_counts_those_ahead() -> None:
    """The wait is judged by the tokens asked for ahead, as if none of those tasks gave up."""
    limiter = RateLimiter(1, burst=3)
    await limiter.acquire(3)
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        await crowd.ask("ahead", 2)
        await crowd.ask("fits", timeout=3)
        await crowd.ask("does not", timeout=3)
        assert crowd.outcomes == {"does not": ("late", 0)}
        assert crowd.errors["does not"].retry_after == 4
        crowd.scopes["ahead"].cancel()
    assert crowd.granted == {"fits": 1}


async def test_timeout_of_thirds_fits_in_spite_of_rounding() -> None:
    """A timeout as long as the wait suffices even where floats add up to a little more."""
    limiter = RateLimiter(10, burst=1)
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        for number in range(1, 50):
            await crowd.ask(f"{number}", timeout=(number - 1) / 10)
    assert len(crowd.granted) == 49
    assert anyio.current_time() == pytest.approx(4.8)


async def test_timeout_ends_a_wait_that_grew() -> None:
    """Admitted and then slowed down, a waiter gives up at its deadline, at the head or not."""
    limiter = RateLimiter(1)
    await limiter.acquire()
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        await crowd.ask("head", timeout=1.5)
        await crowd.ask("second", timeout=2.5)
        await crowd.ask("third")
        await crowd.ask("fourth", timeout=4.25)
        await anyio.sleep(0.5)
        limiter.rate = 0.25  # half a token is there, the next half takes 2 s
    assert crowd.outcomes == {
        "head": ("late", 1.5),
        "second": ("granted", 2.5),
        "fourth": ("late", 4.25),
        "third": ("granted", 6.5),
    }
    assert crowd.errors["head"].retry_after == 1 + 12  # by then: behind the other three
    assert crowd.errors["fourth"].retry_after == 2.25 + 4
    statistics = limiter.statistics()
    assert (statistics.rejected, statistics.timed_out, statistics.waiting) == (0, 2, 0)
    assert (statistics.wait_seconds, statistics.max_wait_seconds) == (2.5 + 6.5, 6.5)


async def test_timeouts_end_waits_of_a_pause() -> None:
    """While the limiter is paused, deadlines pass as ever, in whatever order they come."""
    limiter = RateLimiter(4, burst=4)
    await limiter.acquire(4)
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        for name, timeout in {"a": 3.0, "b": None, "c": 2.0, "d": math.inf, "e": 2.5}.items():
            await crowd.ask(name, timeout=timeout)
        limiter.rate = 0
        await crowd.ask("f", timeout=100)
        assert crowd.errors["f"].retry_after == math.inf
        await anyio.sleep(5)
        limiter.rate = 1
    assert crowd.outcomes == {
        "f": ("late", 0),
        "c": ("late", 2),
        "e": ("late", 2.5),
        "a": ("late", 3),
        "b": ("granted", 6),
        "d": ("granted", 7),
    }


async def test_deadline_and_turn_at_one_moment() -> None:
    """A waiter whose tokens are there at its deadline gets them, though another expires then."""
    limiter = RateLimiter(2, burst=2)
    await limiter.acquire(2)
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        await crowd.ask("head", 2, timeout=2)
        await crowd.ask("next", timeout=2)
        limiter.rate = 1
    assert crowd.outcomes == {"head": ("granted", 2), "next": ("late", 2)}


async def test_emptied_queue_counts_for_nothing() -> None:
    """Once all that waited are gone, new requests are judged as if none had ever waited."""
    limiter = RateLimiter(1, burst=2)
    await limiter.acquire(2)
    for _ in range(2):
        async with anyio.create_task_group() as group:
            crowd = Crowd(limiter, group)
            await crowd.ask("first", timeout=1)
            await crowd.ask("second", timeout=2)
        assert list(crowd.granted) == ["first", "second"]


# --- Giving up --------------------------------------------------------------------------------


async def test_day_one_2_cancelled_waiter_spends_nothing() -> None:
    """anyio#947, cpython#90155: a task that gives up leaves the bucket as if it had not asked."""
    limiter = RateLimiter(rate=1, burst=1)
    await limiter.acquire()
    with anyio.move_on_after(0.25) as scope:
        await limiter.acquire()
    assert scope.cancelled_caught
    assert limiter.statistics().tokens == 0.25
    assert limiter.statistics().cancelled == 1
    assert limiter.statistics().waiting == 0


async def test_day_one_2_those_behind_move_up() -> None:
    """anyio#947: when the first or another gives up, those behind are served earlier."""
    limiter = RateLimiter(1, burst=2)
    await limiter.acquire(2)
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        for name, tokens in {"a": 2, "b": 1, "c": 2, "d": 1}.items():
            await crowd.ask(name, tokens)
        await anyio.sleep(1.5)
        crowd.scopes["a"].cancel()
        crowd.scopes["c"].cancel()
    assert crowd.granted == {"b": 1.5, "d": 2}
    assert limiter.statistics().cancelled == 2


async def test_all_give_up_at_once() -> None:
    """A whole queue that is cancelled leaves no waiter, no timer and no token taken."""
    limiter = RateLimiter(1, burst=2)
    await limiter.acquire()
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        for number in range(100):
            await crowd.ask(f"{number}", 2, timeout=500)
        await anyio.sleep(0.5)
        group.cancel_scope.cancel()
    assert live_timers() == 0
    assert limiter.statistics().waiting == 0
    assert limiter.statistics().cancelled == 100
    assert limiter.statistics().tokens == 1.5


async def test_cancelled_in_the_call_that_yields() -> None:
    """Cancelled where a call yields for fairness, nothing was taken, and the next call yields."""
    limiter = RateLimiter(1, burst=100)
    for _ in range(FAST_CALLS - 1):
        await limiter.acquire()
    for _ in range(2):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await limiter.acquire(5)
        assert scope.cancelled_caught
        assert limiter.statistics().tokens == 100 - (FAST_CALLS - 1)
    assert limiter.statistics().cancelled == 2


async def ask_plainly(limiter: RateLimiter) -> None:
    """Ask for two tokens."""
    await limiter.acquire(2)


async def ask_in_time(limiter: RateLimiter) -> None:
    """Ask for two tokens within an hour."""
    await limiter.acquire(2, timeout=3600)


async def ask_decorated(limiter: RateLimiter) -> None:
    """Call a function that asks for two tokens."""
    await limiter(tokens=2)(checkpoint)()


@modes
@pytest.mark.parametrize("ask", [ask_plainly, ask_in_time, ask_decorated])
@pytest.mark.parametrize(("taken", "ahead"), [(3, 0), (3, 1), (3, 2), (0, 0), (1, 3)])
def test_cancelled_at_any_moment(
    mode: Mode, ask: Callable[[RateLimiter], Coroutine[Any, Any, None]], taken: int, ahead: int
) -> None:
    """anyio#1170, cpython#90155: first, second, third or yielding: all its tokens or none."""

    async def scenario(victim: Victim) -> None:
        limiter = RateLimiter(math.inf, burst=3, slack=0)
        for _ in range(FAST_CALLS - 1):
            await limiter.acquire()
        limiter.rate = 1
        limiter.acquire_nowait(taken)
        started, before = anyio.current_time(), limiter.statistics().acquired
        async with anyio.create_task_group() as group:
            crowd = Crowd(limiter, group)
            for number in range(ahead):
                await crowd.ask(f"ahead {number}")
            group.start_soon(victim, ask, limiter)
            await settle()
            for number in range(3):
                await crowd.ask(f"behind {number}")
        statistics = limiter.statistics()
        assert statistics.waiting == live_timers() == 0
        others = [f"ahead {number}" for number in range(ahead)]
        others += [f"behind {number}" for number in range(3)]
        assert list(crowd.granted) == others
        victims = statistics.acquired - before - len(others)
        assert victims + statistics.cancelled <= 1
        spent = 3 - taken + (anyio.current_time() - started) - statistics.tokens
        assert spent == len(others) + 2 * victims

    cancel_everywhere(mode, scenario)


async def test_waiter_closed_by_hand() -> None:
    """A waiter whose coroutine is closed leaves the queue, and the next moves up."""
    limiter = RateLimiter(1)
    limiter.acquire_nowait()
    limiter.rate = 0
    waiter = limiter.acquire()
    waiter.send(None)
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        await crowd.ask("next")
        waiter.close()
        limiter.rate = 1
    assert crowd.granted == {"next": 1}
    assert limiter.statistics().cancelled == 1


# --- Change at run time -----------------------------------------------------------------------


async def test_day_one_7_a_new_rate_has_effect() -> None:
    """aiolimiter#98: assigning a rate counts for the tasks that wait and those to come."""
    limiter = RateLimiter(1)
    await limiter.acquire()
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        for number in range(4):
            await crowd.ask(f"{number}")
        await anyio.sleep(0.5)
        limiter.rate = 4  # half a token is there, the rest takes an eighth of a second
        await anyio.sleep(0.25)
        limiter.rate = 0.5
    assert list(crowd.granted.values()) == [0.625, 1.75, 3.75, 5.75]
    assert limiter.rate == 0.5


@pytest.mark.parametrize(("burst", "tokens"), [(8, 3), (4, 3), (3, 3), (2, 2), (1.5, 1.5), (1, 1)])
async def test_new_burst_keeps_tokens_that_fit(burst: float, tokens: float) -> None:
    """A larger bucket keeps what it held and fills at the rate, a smaller one loses the excess."""
    limiter = RateLimiter(1, burst=4)
    await limiter.acquire(2)
    await anyio.sleep(1)
    limiter.burst = burst
    assert limiter.burst == burst
    assert limiter.statistics().tokens == tokens
    await anyio.sleep(0.25)
    assert limiter.statistics().tokens == min(tokens + 0.25, burst)


async def test_larger_burst_lets_no_task_in_earlier() -> None:
    """A larger burst gives no tokens by itself, so waiters wait as long as before."""
    limiter = RateLimiter(1)
    await limiter.acquire()
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        await crowd.ask("a")
        limiter.burst = 10
        await crowd.ask("b", 3)
    assert crowd.granted == {"a": 1, "b": 4}


async def test_burst_below_what_is_waited_for() -> None:
    """A task that waits for more than the bucket will ever hold is told so, and delays none."""
    limiter = RateLimiter(1, burst=3)
    await limiter.acquire(3)
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        for name, tokens in {"a": 3, "b": 1, "c": 3, "d": 2}.items():
            await crowd.ask(name, tokens, timeout=100 if name == "c" else None)
        await anyio.sleep(0.5)
        limiter.burst = 2
    assert crowd.outcomes == {
        "a": ("refused", 0.5),
        "c": ("refused", 0.5),
        "b": ("granted", 1),
        "d": ("granted", 3),
    }
    assert str(crowd.errors["a"]) == (
        "<RateLimiter 1/s burst=2> can no longer grant 3 tokens: burst was lowered to 2 during the "
        "wait. Acquire in smaller parts."
    )
    assert crowd.errors["a"].retry_after == math.inf
    assert limiter.statistics().rejected == 2


async def test_burst_lowered_and_raised_at_once() -> None:
    """A burst that is too small for a moment, in which no task runs, changes nothing."""
    limiter = RateLimiter(1, burst=3)
    await limiter.acquire(3)
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        await crowd.ask("a", 3)
        limiter.burst = 2
        limiter.burst = 3
    assert crowd.granted == {"a": 3}


async def test_pause_spends_what_is_held() -> None:
    """Rate 0 pauses: tokens that are there may be taken, then all tasks wait for a new rate."""
    limiter = RateLimiter(4, burst=3)
    await limiter.acquire()
    limiter.rate = 0
    await anyio.sleep(100)
    assert limiter.statistics().tokens == 2
    assert limiter.statistics().next_grant_seconds == 0
    await limiter.acquire()
    limiter.acquire_nowait(0.5)
    message = r"^<RateLimiter 0/s burst=3> cannot .* now, and not before its rate is above 0\.$"
    with pytest.raises(RateLimitError, match=message) as caught:
        limiter.acquire_nowait()
    assert caught.value.retry_after == math.inf
    assert limiter.statistics().next_grant_seconds == math.inf
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        await crowd.ask("a")
        await crowd.ask("b", 0.5)
        await anyio.sleep(100)
        assert crowd.outcomes == {}
        limiter.rate = 1
    assert crowd.granted == {"a": 200.5, "b": 201}


async def test_made_paused() -> None:
    """A limiter may start paused, with a full bucket."""
    limiter = RateLimiter(0, burst=2)
    await limiter.acquire(2)
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        await crowd.ask("a")
        await anyio.sleep(7)
        limiter.reconfigure(rate=2)
    assert crowd.granted == {"a": 7.5}


async def test_limit_lifted_and_set() -> None:
    """An infinite rate lets all waiters go; a finite one after it starts from a full bucket."""
    limiter = RateLimiter(1, burst=2)
    await limiter.acquire(2)
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        for name in "abcd":
            await crowd.ask(name)
        await anyio.sleep(0.5)
        limiter.rate = math.inf
    assert crowd.granted == dict.fromkeys("abcd", 0.5)
    limiter.rate = 4
    assert limiter.burst == 2
    assert limiter.statistics().tokens == 2
    limiter.rate = math.inf
    await limiter.acquire(100)
    limiter.rate = 0
    assert limiter.statistics().tokens == 2


@pytest.mark.parametrize("rate", [3.5, 0])
async def test_burst_counts_from_the_first_finite_rate(rate: float) -> None:
    """Without a limit any number of tokens is granted; a finite rate brings the burst back."""
    limiter = RateLimiter(math.inf, burst=2)
    await limiter.acquire(100)
    assert (limiter.burst, limiter.statistics().tokens) == (2, math.inf)
    limiter.rate = rate
    assert limiter.burst == limiter.statistics().tokens == 2
    with pytest.raises(ValueError, match=r"^cannot acquire 3 tokens: the bucket never holds more"):
        await limiter.acquire(3)


async def test_both_limits_at_once() -> None:
    """``reconfigure`` changes rate and burst in one step, and leaves what is not given."""
    limiter = RateLimiter(1, burst=4)
    limiter.reconfigure(rate=8, burst=2)
    assert (limiter.rate, limiter.burst) == (8, 2)
    limiter.reconfigure()
    assert (limiter.rate, limiter.burst) == (8, 2)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"rate": -1, "burst": 2}, r"^rate=-1 is less than 0\."),
        ({"rate": 2, "burst": 0}, r"^burst=0 is less than 1\."),
        ({"rate": 2, "burst": math.inf}, r"^burst=inf is not a limit\."),
    ],
)
async def test_refused_change_changes_nothing(limits: dict[str, float], message: str) -> None:
    """A change that is refused leaves limits, tokens and waiters as they were."""
    limiter = RateLimiter(1, burst=4)
    await limiter.acquire(4)
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        await crowd.ask("a", 4)
        with pytest.raises(ValueError, match=message):
            limiter.reconfigure(**limits)
        assert (limiter.rate, limiter.burst) == (1, 4)
    assert crowd.granted == {"a": 4}


async def test_same_limits_do_not_round() -> None:
    """Assigning what is there already leaves the bucket as it is, to the last bit."""
    limiter = RateLimiter(3, burst=7)
    await limiter.acquire(5.3)
    await anyio.sleep(0.1)
    before = limiter.statistics()
    for _ in range(100):
        limiter.rate = 3
        limiter.burst = 7
    assert limiter.statistics() == before


async def test_changed_while_a_call_yields() -> None:
    """A change that comes while the head only yields is what it is served by."""
    limiter = RateLimiter(1, burst=FAST_CALLS)
    for _ in range(FAST_CALLS - 1):
        await limiter.acquire()

    def change() -> None:
        limiter.reconfigure(rate=2, burst=1)
        limiter.rate = 4

    await struck(limiter.acquire(), 1, change)
    assert limiter.statistics().tokens == 0
    assert limiter.statistics().acquired == FAST_CALLS


# --- The bound --------------------------------------------------------------------------------


async def test_day_one_1_burst_is_explicit() -> None:
    """aiolimiter#298: the first ``per`` seconds see ``burst`` and ``rate``, as documented."""
    limiter = RateLimiter(2, burst=2, per=10)
    times = []
    for _ in range(5):
        await limiter.acquire()
        times.append(anyio.current_time())
    assert times == [0, 0, 5, 10, 15]


async def test_day_one_1_smooth_has_no_burst() -> None:
    """aiolimiter#200, #90: without a burst work is spaced evenly, also after a rest."""
    limiter = RateLimiter(2, per=10, slack=0.5, name="even")
    assert repr(limiter) == "<RateLimiter 'even' 2/10 s burst=1>"
    assert limiter.slack == 0.5
    await anyio.sleep(1000)
    times = []
    for _ in range(4):
        await limiter.acquire()
        times.append(anyio.current_time() - 1000)
    assert times == [0, 5, 10, 15]


async def test_lateness_does_not_add_up() -> None:
    """Waiters who are woken late by less than the slack cost no tokens in the long run."""
    limiter = RateLimiter(8, burst=1, slack=0.0625)
    times = []
    with late_loop() as block:
        for _ in range(64):
            await limiter.acquire()
            times.append(clock.now())
            block(0.03125)
    assert times[-1] == 63 / 8
    late = [time - number / 8 for number, time in enumerate(times)]
    assert max(late) <= 0.0625


async def test_without_slack_lateness_is_lost() -> None:
    """With ``slack=0`` no two grants are closer than the rate allows, whatever the loop does."""
    limiter = RateLimiter(8, burst=1, slack=0)
    times = []

    async def work() -> None:
        await limiter.acquire()
        times.append(clock.now())
        block(0.03125)

    with late_loop() as block:
        async with anyio.create_task_group() as group:
            for _ in range(33):
                group.start_soon(work)
    gaps = [after - before for before, after in pairwise(times)]
    assert min(gaps) >= 0.125
    assert max(gaps) <= 0.125 + 2 * 0.03125


async def test_stalled_loop_releases_no_flood() -> None:
    """However long the loop stood still, waiters get no more than the slack's worth beyond it."""
    limiter = RateLimiter(8, burst=1, slack=0.25)
    times: list[float] = []

    async def work() -> None:
        await limiter.acquire()
        times.append(clock.now())

    with late_loop() as block:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(work)
            await anyio.sleep(0.0625)
            block(100)
    at_once = [time for time in times if time <= times[1]]
    assert len(at_once) == 1 + 1 + 2  # the first; then the burst and the slack's worth


async def test_no_slack_for_the_time_before_asking() -> None:
    """Served at once, though from the queue, a request is not counted as served before it asked."""
    limiter = RateLimiter(8, burst=8, slack=1)
    await anyio.sleep(10)
    for _ in range(FAST_CALLS - 1):
        await limiter.acquire(0)
    await limiter.acquire(4)  # yields, and so is in the queue for a moment
    assert limiter.statistics().tokens == 4


async def test_time_lost_while_yielding_counts() -> None:
    """What the loop loses while a call yields is not credited, beyond the slack."""
    limiter = RateLimiter(1, burst=8, slack=0.5)
    with late_loop() as block:
        for _ in range(FAST_CALLS - 1):
            await limiter.acquire(0)
        assert await struck(limiter.acquire(8), 1, lambda: block(3)) == 1
        assert limiter.statistics().tokens == 0.5


@pytest.mark.parametrize("start", [0.0, 0.1, 1000.3, 123456.7])
@pytest.mark.parametrize("rate", [3, 7, 10, 0.3])
async def test_whole_burst_at_once_in_spite_of_rounding(start: float, rate: float) -> None:
    """A full bucket grants all its tokens one by one at one moment, whatever floats add up to."""
    limiter = RateLimiter(rate, burst=30)
    await anyio.sleep(start)
    for _ in range(30):
        limiter.acquire_nowait()
    with pytest.raises(RateLimitError) as caught:
        limiter.acquire_nowait()
    await anyio.sleep(caught.value.retry_after)
    limiter.acquire_nowait()
    await limiter.acquire()
    assert anyio.current_time() == pytest.approx(start + 2 / rate)


async def test_clock_that_is_finer_than_the_loop_s() -> None:
    """A timer that fires counts, although by rounding the clock is not there yet."""
    await anyio.sleep_until(1e12)  # from here on the loop counts in steps of 0.12 ms
    with clock.reading_from(lambda: anyio.current_time() - 1e12):
        limiter = RateLimiter(7, burst=1)
        for _ in range(15):
            await limiter.acquire()
        assert clock.now() == pytest.approx(2, abs=0.01)


# --- Timers -----------------------------------------------------------------------------------


async def test_day_one_6_one_timer() -> None:
    """aiolimiter#73: one timer exists while tasks wait, and one for each timeout; else none."""
    limiter = RateLimiter(1)
    await limiter.acquire()
    assert live_timers() == 0
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        for number in range(20):
            await crowd.ask(f"{number}")
            assert live_timers() == 1
        for number in range(3):
            await crowd.ask(f"with timeout {number}", timeout=100)
            assert live_timers() == 1 + number + 1
        limiter.rate = 0.75
        await settle()
        assert live_timers() == 1 + 3
        for name in ("0", "7", "19", "with timeout 0", "with timeout 1", "with timeout 2"):
            crowd.scopes[name].cancel()
            await settle()
        assert live_timers() == 1
        for _ in range(10):
            await anyio.sleep(1)
            await settle()
            assert live_timers() == 1
        limiter.rate = math.inf
        await settle()
        assert live_timers() == 0
    assert limiter.statistics().acquired == 18


async def test_looking_leaves_no_calls_behind() -> None:
    """Calls that do not wait leave nothing for the loop to do, however often they are made."""
    limiter = RateLimiter(1)
    await limiter.acquire()
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        await crowd.ask("a")
        before = pending_calls()
        for _ in range(100):
            limiter.statistics()
            with pytest.raises(RateLimitError):
                limiter.acquire_nowait()
        assert pending_calls() == before
    assert crowd.granted == {"a": 1}


async def test_pause_needs_no_timer() -> None:
    """While the limiter is paused no task sleeps until a moment that never comes."""
    limiter = RateLimiter(0)
    await limiter.acquire()
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        await crowd.ask("a")
        await crowd.ask("b")
        assert live_timers() == 0
        limiter.rate = math.inf
    assert crowd.granted == {"a": 0, "b": 0}


# --- Statistics -------------------------------------------------------------------------------


async def test_statistics() -> None:
    """Everything that happened is counted, and the next grant is foreseen."""
    limiter = RateLimiter(2, burst=2)
    assert limiter.statistics().next_grant_seconds == 0
    await limiter.acquire()
    limiter.acquire_nowait()
    with pytest.raises(RateLimitError) as caught:
        limiter.acquire_nowait()
    assert caught.value.retry_after == 0.5
    assert str(caught.value) == "<RateLimiter 2/s burst=2> cannot grant 1 token now, only in 0.5 s."
    async with anyio.create_task_group() as group:
        crowd = Crowd(limiter, group)
        await crowd.ask("a", 2)
        await crowd.ask("b")
        await crowd.ask("c", timeout=1)
        await anyio.sleep(0.25)
        statistics = limiter.statistics()
        assert (statistics.tokens, statistics.waiting, statistics.acquired) == (0.5, 2, 2)
        assert (statistics.cancelled, statistics.rejected, statistics.timed_out) == (0, 1, 1)
        assert (statistics.rate, statistics.burst, statistics.wait_seconds) == (2, 2, 0)
        assert statistics.next_grant_seconds == 0.75
        crowd.scopes["b"].cancel()
    statistics = limiter.statistics()
    assert (statistics.waiting, statistics.acquired, statistics.cancelled) == (0, 3, 1)
    assert (statistics.wait_seconds, statistics.max_wait_seconds) == (1, 1)
    assert statistics.next_grant_seconds == 0.5
    with pytest.raises(AttributeError):
        statistics.tokens = 3  # type: ignore[misc] # what is refused


# --- Clocks and loops -------------------------------------------------------------------------


async def test_clock_that_takes_over() -> None:
    """When another clock takes over, the bucket holds what it held, and goes on."""
    with by_hand(1000.0) as hands:
        limiter = RateLimiter(1, burst=4)
        limiter.acquire_nowait(3)
        hands.take_over(5.0)
        assert limiter.statistics().tokens == 1
        limiter.acquire_nowait(0)
        hands.now = 5.5
        await limiter.acquire()
        hands.take_over(4000.0)
        assert limiter.statistics().tokens == 0.5
        limiter.acquire_nowait(0.5)
        with pytest.raises(RateLimitError) as caught:
            limiter.acquire_nowait()
        assert caught.value.retry_after == 1
        hands.now = 4002.5
        assert limiter.statistics().tokens == 2.5
        hands.take_over(2.0)
        limiter.acquire_nowait(2.5)
        hands.take_over(1.0)
        limiter.rate = 0
        hands.take_over(0.0)
        assert limiter.statistics().tokens == 0
        limiter.acquire_nowait(0)
        limiter.rate = 2
        hands.now = 1.0
        assert limiter.statistics().tokens == 2


def test_tasks_of_a_finished_loop_wait_no_longer(backend: str) -> None:
    """Statistics do not count tasks whose event loop has finished, wherever they are asked for."""
    limiter = RateLimiter(rate=1, burst=1)
    kept: list[object] = []

    async def leave_one_behind() -> None:
        await limiter.acquire()
        limiter.rate = 0
        waiter = limiter.acquire()
        waiter.send(None)
        kept.append(waiter)
        assert limiter.statistics().waiting == 1

    anyio.run(leave_one_behind, backend=backend)
    assert limiter.statistics().waiting == 0


def test_thread_that_looks_as_the_next_loop_begins() -> None:
    """Who finds that a loop is over forgets its tasks, not those of the loop that comes next."""
    limiter = RateLimiter(0, burst=1)
    limiter.acquire_nowait()
    kept: list[object] = []
    began = threading.Event()

    async def wait_and_be_left() -> None:
        waiter = limiter.acquire()
        waiter.send(None)
        kept.append(waiter)

    async def wait() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(limiter.acquire)
            await checkpoint()
            began.set()

    next_loop = threading.Thread(target=anyio.run, args=(wait,))

    class Last(asyncio.SelectorEventLoop):
        """A loop that is over; as a thread asks it, a task of the next begins to wait."""

        def is_closed(self) -> bool:
            over = super().is_closed()
            if over and not next_loop.ident:
                next_loop.start()
                began.wait(10)
            return over

    loop = Last()
    loop.run_until_complete(wait_and_be_left())
    loop.close()
    limiter.rate = 0
    assert limiter.statistics().waiting == 1
    limiter.rate = math.inf
    next_loop.join(10)
    assert limiter.statistics().acquired == 2
