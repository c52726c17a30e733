"""What Quota promises, one case at a time."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Self

import anyio
import pytest
from anyio import to_thread

from mtaio import Quota, RateLimiter, TaskExecutor
from mtaio._internal.checkpoints import FAST_CALLS
from mtaio.exceptions import LimitClosedError, LimitTimeoutError, RateLimitError
from mtaio.resilience import Pipeline, Retry, Timeout
from mtaio.resources import ResourceLimiter, TimeoutManager
from mtaio.testing import assert_checkpoints, assert_quiescent, run, settle
from mtaio.types import Rate
from tests.clocks import by_hand
from tests.closed_loops import leave_waiting
from tests.resources.moments import cancel_everywhere, modes
from tests.resources.timers import live_timers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from types import TracebackType

    from mtaio.testing import Victim
    from tests.resources.moments import Mode


def level(quota: Quota, name: str) -> float:
    """Return how much there is of a limit."""
    return quota.statistics().limits[name].tokens


class Asked:
    """Tasks that ask one after another, and when they are served."""

    def __init__(self) -> None:
        self.served: dict[str, float] = {}
        self.scopes: dict[str, anyio.CancelScope] = {}
        self._group = anyio.create_task_group()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._group.__aexit__(exc_type, exc, traceback)

    async def ask(self, name: str, acquire: Callable[[], Any]) -> None:
        """Let a task ask, and wait until it has got its answer or its place in the queue."""

        async def task() -> None:
            with anyio.CancelScope() as self.scopes[name]:
                await acquire()
                self.served[name] = anyio.current_time()

        self._group.start_soon(task)
        await settle()


# --- What is taken ----------------------------------------------------------------------------


async def test_all_limits_count() -> None:
    """Each request waits for the limit that is last to have what it needs."""
    quota = Quota(requests=(2, 1), tokens=(100, 10))
    moments: list[float] = []
    for tokens in (40, 40, 1, 1, 40, 5):
        await quota.acquire(tokens=tokens)
        moments.append(anyio.current_time())
    assert moments == pytest.approx([0, 0, 0.5, 1, 2.2, 2.7])


async def test_what_is_not_named_costs_one() -> None:
    """`take` and its relatives cost one of each limit, unless they say otherwise."""
    quota = Quota(requests=10, tokens=100, per=60)
    await quota.acquire()
    await quota.acquire(tokens=9)
    async with quota.take(requests=0) as taken:
        assert taken.cost == (0, 1)
    assert quota.try_acquire(tokens=9)
    figures = quota.statistics()
    assert (figures.limits["requests"].tokens, figures.limits["tokens"].tokens) == (7, 80)
    assert quota.limits == ("requests", "tokens")


async def test_first_come_first_served() -> None:
    """A small request behind a large one waits, even if it could be served."""
    quota = Quota(requests=10, tokens=10, per=10)
    async with Asked() as tasks:
        await tasks.ask("a", partial(quota.acquire, tokens=8))
        await tasks.ask("b", partial(quota.acquire, tokens=6))
        await tasks.ask("c", quota.acquire)
        assert not quota.try_acquire()
        assert (quota.statistics().waiting, quota.statistics().next_grant_seconds) == (2, 4)
        assert live_timers() <= 2  # one is the runner's own
    assert tasks.served == {"a": 0, "b": 4, "c": 5}


async def test_all_or_none() -> None:
    """While one limit lacks something, nothing is taken of the others."""
    quota = Quota(requests=(4, 4), tokens=(10, 10))
    await quota.acquire(tokens=10)
    async with Asked() as tasks:
        await tasks.ask("a", partial(quota.acquire, tokens=6))
        await anyio.sleep(5.5)
        assert level(quota, "requests") == 4
        tasks.scopes["a"].cancel()
        await settle()
        assert level(quota, "requests") == 4
        assert level(quota, "tokens") == 5.5
    assert quota.statistics().cancelled == 1


async def test_those_behind_one_that_gives_up_move_up() -> None:
    """Whoever is cancelled has not been there."""
    quota = Quota(requests=10, tokens=10, per=10)
    await quota.acquire(tokens=10)
    async with Asked() as tasks:
        await tasks.ask("a", partial(quota.acquire, tokens=8))
        await tasks.ask("b", partial(quota.acquire, tokens=2))
        await anyio.sleep(1)
        tasks.scopes["a"].cancel()
    assert tasks.served == {"b": 2}


async def test_a_request_that_never_fits_is_refused_at_once() -> None:
    """The error names the limit."""
    quota = Quota(requests=10, tokens=100, per=60, name="model")
    message = r"^cannot take 101 tokens of <Quota 'model' of requests 10/60 s"
    for take in (quota.take, quota.try_acquire):
        with pytest.raises(ValueError, match=message):
            take(tokens=101)
    with pytest.raises(ValueError, match=message):
        await quota.acquire(tokens=101)
    with pytest.raises(ValueError, match=message):
        quota.part(tokens=101)


@pytest.mark.parametrize("start", [0, 0.25, 1])
async def test_start(start: float) -> None:
    """After a restart as much is there as is said."""
    quota = Quota(requests=8, per=8, start=start)
    window = Quota(requests=8, per=8, start=start, window=True)
    assert level(quota, "requests") == level(window, "requests") == 8 * start
    await quota.acquire(requests=8)
    assert anyio.current_time() == 8 * (1 - start)
    await window.acquire(requests=8)
    assert anyio.current_time() == 8 * (start < 1)


async def test_windows() -> None:
    """In no span of ``per`` seconds more than a window's limit is granted."""
    quota = Quota(requests=3, per=10, window=True)
    moments: list[float] = []
    for _ in range(7):
        await quota.acquire()
        moments.append(anyio.current_time())
        await anyio.sleep(1)
    assert moments == [0, 1, 2, 10, 11, 12, 20]


async def test_nothing_to_take_of_one() -> None:
    """A task that waits needs nothing of a limit of which it takes nothing."""
    quota = Quota(a=1, b=1, per=10)
    await quota.acquire()
    async with Asked() as tasks:
        await tasks.ask("a", partial(quota.acquire, a=0))
    assert tasks.served == {"a": 10}


async def test_nothing_to_take() -> None:
    """A request that costs nothing waits for nobody but those before it."""
    quota = Quota(requests=1, per=9)
    await quota.acquire()
    await quota.acquire(requests=0)
    assert quota.statistics().next_grant_seconds == 9
    assert anyio.current_time() == 0


async def test_timeouts() -> None:
    """A wait that is too long is refused at once, one that becomes too long ends in time."""
    quota = Quota(requests=1, per=4)
    await quota.acquire()
    with pytest.raises(LimitTimeoutError, match=r"cannot grant 1 requests within 3 s,") as late:
        await quota.acquire(timeout=3)
    assert late.value.retry_after == 4
    with pytest.raises(LimitTimeoutError):
        async with quota.take(timeout=3):
            pass
    assert anyio.current_time() == 0
    await quota.acquire(timeout=4)
    async with Asked() as tasks:
        await tasks.ask("a", quota.acquire)
        with pytest.raises(LimitTimeoutError):
            await quota.acquire(timeout=7)

        async def impatient() -> None:
            with pytest.raises(LimitTimeoutError):
                await quota.acquire(timeout=9)

        await tasks.ask("b", impatient)
        quota.hold(20)
    assert tasks.served == {"b": 13, "a": 24}
    assert quota.statistics().timed_out == 4


async def test_the_time_that_is_left_counts() -> None:
    """A wait that a timeout around it would end is not begun."""
    quota = Quota(requests=1, per=4)
    await quota.acquire()
    for seconds in (3, 4):  # the block ends at the very moment at which it would be granted
        with TimeoutManager(seconds)(), pytest.raises(LimitTimeoutError, match="left here"):
            await quota.acquire()
    assert anyio.current_time() == 0
    with TimeoutManager(5)():
        await quota.acquire()


async def test_without_waiting() -> None:
    """What is refused says when it would succeed, and has taken nothing."""
    quota = Quota(requests=4, tokens=10, per=10)
    quota.acquire_nowait(tokens=6)
    with pytest.raises(RateLimitError, match=r"cannot grant 1 requests and 9 tokens now") as error:
        quota.acquire_nowait(tokens=9)
    assert error.value.retry_after == 5
    assert level(quota, "requests") == 3
    assert quota.statistics().rejected == 1


async def test_some_calls_yield() -> None:
    """At least one in 64 that finds all it needs lets other tasks run, granted or refused."""
    quota = Quota(requests=1000)
    for _ in range(FAST_CALLS - 1):
        await quota.acquire()
    with assert_checkpoints():
        await quota.acquire()
    quota.close()

    async def refused() -> None:
        for _ in range(FAST_CALLS):
            with pytest.raises(LimitClosedError):
                await quota.acquire()

    with assert_checkpoints():
        await refused()


# --- What was used ----------------------------------------------------------------------------


async def test_settle_gives_back() -> None:
    """What was not used is there for others, in the block or after it."""
    quota = Quota(tokens=100, per=100)
    async with quota.take(tokens=60) as first, quota.take(tokens=40) as second:
        first.settle(tokens=50)
        assert level(quota, "tokens") == 10
    second.settle(tokens=0)
    second.settle(tokens=0)
    assert level(quota, "tokens") == 50
    second.settle(tokens=20)
    assert level(quota, "tokens") == 30
    assert (first.cost, second.cost) == ((50,), (20,))
    assert quota.statistics().limits["tokens"].used == 70


async def test_settle_wakes_those_who_wait() -> None:
    """A task that waits for what comes back gets it at once."""
    quota = Quota(tokens=100, per=100)
    async with Asked() as tasks, quota.take(tokens=100) as taken:
        await tasks.ask("a", partial(quota.acquire, tokens=50))
        await anyio.sleep(10)
        taken.settle(tokens=50)
    assert tasks.served == {"a": 10}


async def test_settle_takes_more() -> None:
    """Who used more leaves a debt, and those behind wait for it."""
    quota = Quota(tokens=100, per=100)
    async with quota.take(tokens=90) as taken:
        taken.settle(tokens=150)
    assert level(quota, "tokens") == -50
    await quota.acquire(tokens=10)
    assert anyio.current_time() == 60


async def test_nothing_comes_back_twice() -> None:
    """A bucket that has been full since would have lost what comes back."""
    quota = Quota(tokens=10, per=10)
    async with quota.take(tokens=10) as first:
        await anyio.sleep(6)
        async with quota.take(tokens=6):  # there were 4 missing
            first.settle(tokens=0)
        assert level(quota, "tokens") == 4
    async with quota.take(tokens=10) as last:
        await anyio.sleep(20)
        last.settle(tokens=0)
    assert level(quota, "tokens") == 10


async def test_what_came_back_of_one_counts_for_those_before() -> None:
    """A bucket that would have been full but for one request has nothing to give to an older."""
    quota = Quota(tokens=10, per=10)
    async with quota.take(tokens=3) as first:
        await anyio.sleep(1)
        async with quota.take(tokens=5) as second:
            await anyio.sleep(3)
            async with quota.take(tokens=5):
                second.settle(tokens=0)
                assert level(quota, "tokens") == 5
                first.settle(tokens=0)
                assert level(quota, "tokens") == 5


async def test_many_notes_are_thinned_out() -> None:
    """However many requests are in flight, little is remembered; less may come back, never more."""
    quota = Quota(tokens=100_000, per=1000)
    async with quota.take(tokens=1000) as taken:
        for _ in range(600):
            await quota.acquire(tokens=2)
        taken.settle(tokens=0)
    assert level(quota, "tokens") == pytest.approx(100_000 - 1200, abs=1)


async def test_settle_in_a_window() -> None:
    """A window counts whole tokens, and gives them back to the moment of the grant."""
    quota = Quota(tokens=10, per=10, window=True)
    async with quota.take(tokens=8) as taken:
        await anyio.sleep(1)
        await quota.acquire(tokens=2)
        taken.settle(tokens=4.5)
        assert level(quota, "tokens") == 3
        taken.settle(tokens=12)
        assert level(quota, "tokens") == 0
    await quota.acquire(tokens=9)  # 5 leave at 10 s, and the others at 11 s
    assert anyio.current_time() == 11


@pytest.mark.parametrize("window", [False, True])
async def test_settled_up_and_down(*, window: bool) -> None:
    """What was taken beside comes back as of when it was; little is remembered of many changes."""
    quota = Quota(tokens=100, per=1000, window=window)
    async with quota.take(tokens=10) as taken:
        for used in (50, 40, 20):
            taken.settle(tokens=used)
            assert level(quota, "tokens") == 100 - used
        for used in range(21, 60):
            await anyio.sleep(1)
            taken.settle(tokens=used)
        taken.settle(tokens=0)
        left = level(quota, "tokens")
        assert 60 < left <= 100
    await anyio.sleep(1040)
    assert level(quota, "tokens") == 100


async def test_a_grant_that_has_left_its_window() -> None:
    """What a window has forgotten does not come back."""
    quota = Quota(tokens=10, per=10, window=True)
    async with quota.take(tokens=8) as taken:
        await anyio.sleep(20)
        await quota.acquire(tokens=9)
        taken.settle(tokens=0)
    assert level(quota, "tokens") == 1


def test_settled_in_another_loop(backend: str) -> None:
    """A window cannot tell the moment of a grant by another clock; a bucket does not need to."""
    quota = Quota(a=10, per=1000, window=True)
    bucket = Quota(a=10, per=1000)

    async def take() -> list[Any]:
        made = [each.take(a=8) for each in (quota, bucket)]
        for each in made:
            async with each:
                await anyio.sleep(1)
        return made

    async def later(taken: list[Any]) -> None:
        for each in taken:
            each.settle(a=0)

    run(later, run(take, backend=backend), backend=backend)
    assert level(quota, "a") == 2
    assert level(bucket, "a") == pytest.approx(10)


async def test_a_block_that_fails_keeps_what_it_has() -> None:
    """The server may have counted the request."""
    quota = Quota(requests=2, per=9)
    with suppress(ZeroDivisionError):
        async with quota.take():
            assert (quota.statistics().in_flight, level(quota, "requests")) == (1, 1)
            raise ZeroDivisionError
    assert (quota.statistics().in_flight, level(quota, "requests")) == (0, 1)


async def test_misuse_of_a_block() -> None:
    """It is for one request, and has to be entered."""
    quota = Quota(requests=2, per=9)
    taken = quota.take()
    with pytest.raises(RuntimeError, match=r"^<Taken: 1 requests of .*> has taken nothing yet"):
        taken.settle(requests=0)
    async with taken:
        pass
    with pytest.raises(RuntimeError, match="was entered before, and is for one request"):
        await taken.__aenter__()
    with pytest.raises(TypeError, match=r"has no limit 'tokens'. Pass one of requests"):
        taken.settle(tokens=1)
    await taken.__aexit__(None, None, None)
    assert quota.statistics().in_flight == 0


# --- What the server says ---------------------------------------------------------------------


async def test_a_lower_remaining_counts() -> None:
    """The server knows of others that use its limits; more than there is here means nothing."""
    quota = Quota(requests=10, tokens=100, per=100)
    quota.observe(remaining={"tokens": 30})
    assert level(quota, "tokens") == 30
    quota.observe(remaining={"tokens": 90, "requests": 10})
    assert (level(quota, "tokens"), level(quota, "requests")) == (30, 10)


async def test_a_debt_that_the_server_does_not_know_of() -> None:
    """It is none, but for work in flight."""
    quota = Quota(a=10, per=60)
    async with quota.take(a=10) as taken:
        taken.settle(a=30)
    quota.observe(remaining={"a": 8})
    assert level(quota, "a") == 0


async def test_another_limit() -> None:
    """A limit that is not what was thought changes rate and size; what is in use stays in use."""
    quota = Quota(tokens=100, per=100)
    async with quota.take(tokens=30):
        quota.observe(limit={"tokens": 50})
        figures = quota.statistics().limits["tokens"]
        assert (figures.rate, figures.burst, figures.tokens) == (50, 50, 20)
        quota.observe(limit={"tokens": 200})
        assert level(quota, "tokens") == 170
    window = Quota(tokens=100, per=100, window=True)
    window.observe(limit={"tokens": 50.5}, remaining={"tokens": 20})
    await window.acquire(tokens=20)
    assert level(window, "tokens") == 0


async def test_a_limit_that_is_too_small_for_who_waits() -> None:
    """Who waits for more than the server ever allows is told so, at once."""
    quota = Quota(tokens=100, per=100)
    async with Asked() as tasks:
        await tasks.ask("a", partial(quota.acquire, tokens=100))

        async def refused() -> None:
            with pytest.raises(RateLimitError, match="can no longer grant 60 tokens"):
                await quota.acquire(tokens=60)

        await tasks.ask("b", refused)
        quota.observe(limit={"tokens": 50})
    assert tasks.served["b"] == 0


async def test_a_new_window_of_the_server() -> None:
    """When the end that it has told has passed, and it tells a later one, more is there."""
    for quota in (Quota(a=10, per=60), Quota(a=10, per=60, window=True)):
        start = anyio.current_time()
        await quota.acquire(a=10)
        quota.observe(remaining={"a": 0}, reset={"a": 6})
        await anyio.sleep(5)
        quota.observe(remaining={"a": 10}, reset={"a": 1})  # not yet
        assert level(quota, "a") < 1
        await anyio.sleep(1.5)
        async with quota.take(a=0):
            quota.observe(remaining={"a": 9}, reset={"a": 59.5})
            assert level(quota, "a") == 9
        assert anyio.current_time() - start == 6.5


async def test_a_new_window_counts_what_is_in_flight() -> None:
    """The server may not know yet of the requests that are under way."""
    quota = Quota(a=10, per=60)
    async with quota.take(a=4):
        quota.observe(remaining={"a": 0}, reset={"a": 5})
        await anyio.sleep(6)
        quota.observe(remaining={"a": 10}, reset={"a": 59})
        assert level(quota, "a") == 6


async def test_hold() -> None:
    """A refusal holds all, and what is there counts as gone; given limiters keep theirs."""
    shared = RateLimiter(1, burst=5)
    quota = Quota(a=(4, 8), shared=shared)
    quota.hold(2)
    assert (quota.statistics().held_seconds, quota.statistics().next_grant_seconds) == (2, 2)
    assert shared.try_acquire(5)
    await quota.acquire(shared=1)
    assert anyio.current_time() == 2
    alone = Quota(shared=shared)
    alone.hold(3)
    alone.hold(1)
    assert not alone.try_acquire()
    await alone.acquire()
    assert anyio.current_time() == 5


async def test_a_window_that_a_task_needs_more_of() -> None:
    """A window that was lowered to the server's pace is large enough for what it may grant."""
    quota = Quota(a=10, per=10, window=True)
    number = 0

    async def ask() -> None:
        nonlocal number
        await quota.acquire()
        number += 1
        if number % 10 >= 5:  # as a server does that allows half of it
            quota.hold(0.5)

    async with anyio.create_task_group() as group:
        for _ in range(60):
            group.start_soon(ask)
    assert quota.statistics().pace < 1
    assert quota.statistics().limits["a"].burst < 10
    await quota.acquire(a=10)
    with pytest.raises(ValueError, match=r"^cannot take 11 a of"):
        await quota.acquire(a=11)


async def test_from_another_thread() -> None:
    """What threads say reaches the tasks that wait."""
    quota = Quota(tokens=100, per=100)
    async with Asked() as tasks, quota.take(tokens=100) as taken:
        await tasks.ask("a", partial(quota.acquire, tokens=50))
        await to_thread.run_sync(lambda: taken.settle(tokens=40))
        await settle()
        assert tasks.served == {"a": 0}
        await tasks.ask("b", partial(quota.acquire, tokens=50))
        await to_thread.run_sync(quota.hold, 60)
        await to_thread.run_sync(lambda: quota.observe(remaining={"tokens": 0}))
        await to_thread.run_sync(quota.statistics)
    assert tasks.served["b"] == 60
    await to_thread.run_sync(quota.hold, 0)  # nobody waits

    async def refused() -> None:
        with pytest.raises(LimitClosedError):
            await quota.acquire(tokens=50)

    async with Asked() as tasks:
        await tasks.ask("c", refused)
        await tasks.ask("d", refused)
        await to_thread.run_sync(quota.close)
    assert anyio.current_time() == 60


async def test_unknown_names_and_wrong_values() -> None:
    """An error names what there is, and what it is about."""
    quota = Quota(requests=2, tokens=10)
    with pytest.raises(TypeError, match=r"has no limit 'token'. Pass one of requests, tokens"):
        quota.observe(remaining={"token": 3})
    with pytest.raises(ValueError, match=r"^limit\['tokens'\]=0 is not a finite number greater"):
        quota.observe(limit={"tokens": 0})
    with pytest.raises(ValueError, match=r"^remaining\['tokens'\]=-1 is less than 0"):
        quota.observe(remaining={"tokens": -1})
    with pytest.raises(ValueError, match=r"^tokens=inf is more than there can be"):
        quota.take(tokens=math.inf)
    with pytest.raises(ValueError, match=r"^seconds=inf would hold the quota for ever"):
        quota.hold(math.inf)
    with pytest.raises(TypeError, match=r"^used=3 is an int, which is not callable"):
        quota.part(used=3)  # type: ignore[arg-type]
    quota.observe(remaining={})


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({}, TypeError, "^a Quota without limits"),
        ({"timeout": 3}, TypeError, "^a limit cannot be called 'timeout'"),
        ({"a": 0}, ValueError, "^a=0 is not a finite number greater than 0"),
        ({"a": (1, 2, 3)}, ValueError, r"^a=\(1, 2, 3\) is not a pair"),
        ({"a": "1"}, TypeError, "^a='1' is a str, not a number"),
        ({"a": 1, "start": 1.5}, ValueError, "^start=1.5 is more than 1"),
        ({"a": 1, "window": 1}, TypeError, "^window=1 is an int, not a bool"),
        (
            dict.fromkeys("ab", RateLimiter(1)),
            ValueError,
            r"^\{'a': <.* has the same limiter twice",
        ),
    ],
)
def test_what_is_no_quota(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    """What makes no sense is refused when it is made."""
    with pytest.raises(kind, match=message):
        Quota(**options)


async def test_what_is_said_of_given_limiters() -> None:
    """It counts for them too, but ends no pause, and finds nothing missing without a limit."""
    paused, unlimited, eight = RateLimiter(0), RateLimiter(math.inf), RateLimiter.window(8, per=8)
    quota = Quota(paused=paused, unlimited=unlimited, eight=eight)
    names = ("paused", "unlimited", "eight")
    quota.observe(limit=dict.fromkeys(names, 4), remaining=dict.fromkeys(names, 0))
    assert (paused.rate, eight.rate) == (0, 4)
    assert paused.statistics().tokens == eight.statistics().tokens == 0
    with pytest.raises(RateLimitError, match="and not before each of its rates is above 0"):
        quota.acquire_nowait()
    other = Quota(unlimited=RateLimiter(math.inf), eight=RateLimiter.window(8, per=8))
    async with other.take(unlimited=10**6, eight=3) as taken:
        taken.settle(unlimited=0, eight=1)
    assert (level(other, "unlimited"), level(other, "eight")) == (math.inf, 7)


async def test_a_new_window_of_the_server_in_a_hold() -> None:
    """What a window has room for is known while it is held."""
    quota = Quota(a=10, per=60, window=True)
    await quota.acquire(a=10)
    quota.observe(remaining={"a": 0}, reset={"a": 5})
    quota.hold(20)
    await anyio.sleep(6)
    quota.observe(remaining={"a": 7}, reset={"a": 59})
    assert level(quota, "a") == 7
    await quota.acquire(a=7)
    assert anyio.current_time() == 20


def test_what_the_server_said_in_another_loop(backend: str) -> None:
    """The moments that it told are moved to the clock of the next loop."""
    quota = Quota(a=10, per=60)

    async def first() -> None:
        await quota.acquire(a=10)
        quota.hold(0)
        quota.observe(remaining={"a": 0}, reset={"a": 8})
        await anyio.sleep(5)

    async def second() -> None:
        quota.observe(remaining={"a": 10}, reset={"a": 3})
        assert level(quota, "a") == pytest.approx(10 / 60 * 5, abs=0.1)
        await anyio.sleep(4)
        quota.observe(remaining={"a": 10}, reset={"a": 59})
        assert level(quota, "a") == 10

    run(first, backend=backend)
    run(second, backend=backend)


async def test_a_short_pause_leaves_a_long_limit_alone() -> None:
    """What the server asks to wait is too short for the day to be used up, or long enough."""
    quota = Quota(second=(2, 1), minute=(100, 60), day=(5_000, 86_400))
    await quota.acquire()
    quota.hold(1)
    assert (level(quota, "second"), level(quota, "minute")) == (0, 0)
    assert level(quota, "day") == 4_999
    quota.hold(100)
    assert level(quota, "day") == 0
    await quota.acquire()
    assert anyio.current_time() == 100


async def test_a_window_of_the_server_counts_as_a_whole() -> None:
    """It grants everything in an instant and then nothing: what counts is all of it."""
    quota = Quota(requests=60, per=60)
    paces: list[float] = []
    for _ in range(3):
        for _ in range(20):
            await quota.acquire()
        await anyio.sleep(1)
        for _ in range(3):  # that were under way
            quota.hold(59)
        paces.append(quota.statistics().pace)
    assert paces == [1, pytest.approx(17 / 60), pytest.approx(17 / 60)]
    quota.observe(remaining={"requests": 60}, reset={"requests": 1})
    await anyio.sleep(60)
    quota.observe(remaining={"requests": 60}, reset={"requests": 60})
    assert level(quota, "requests") == pytest.approx(17)  # whatever the server says it has left


async def test_a_server_that_allows_half() -> None:
    """With what it says in its headers, a batch is hardly refused, and as fast as can be."""
    quota = Quota(requests=240, tokens=40_000, per=60)
    half = {"requests": 120.0, "tokens": 20_000.0}
    left, last = dict(half), 0.0
    refused, used = 0, 0
    lengths = Random(1)  # noqa: S311 - the same requests each time

    def serve(cost: int) -> float:
        """Take it as it comes; return how long to wait if there is not enough."""
        nonlocal last
        now = anyio.current_time()
        for name, limit in half.items():
            left[name] = min(limit, left[name] + (now - last) * limit / 60)
        last = now
        wait = (cost - left["tokens"]) / half["tokens"] * 60
        if wait <= 0:
            left["requests"] -= 1
            left["tokens"] -= cost
        return wait

    async def ask(_: int) -> bool:
        nonlocal refused, used
        guess = lengths.randint(100, 900)
        cost = int(guess * lengths.uniform(0.3, 1))
        while True:
            async with quota.take(tokens=guess) as taken:
                await anyio.sleep(lengths.uniform(0.05, 0.1))
                wait = serve(cost)
                if wait > 0:
                    refused += 1
                    quota.hold(wait)
                    continue
                remaining = dict(left)
                await anyio.sleep(lengths.uniform(0.5, 3))
                quota.observe(limit=half, remaining=remaining)
                taken.settle(tokens=cost)
                used += cost
                return True

    assert all(await TaskExecutor().map(ask, range(200), limit=20))
    assert refused <= 5  # by the order in which trio runs its tasks
    assert (used - half["tokens"]) / half["tokens"] * 60 >= 0.9 * anyio.current_time()


async def test_the_pace_of_a_server_that_allows_less() -> None:
    """From its refusals alone a quota learns how much that is, and finds its way back."""
    given = RateLimiter(100, burst=100)
    quota = Quota(a=(10, 1), given=given)
    left, last, refused = 5.0, 0.0, 0

    async def ask() -> None:
        nonlocal left, last, refused
        await quota.acquire()
        now = anyio.current_time()
        left, last = min(5.0, left + (now - last) * (5 if now < 60 else 20)), now
        if left < 1:
            refused += 1
            quota.hold((1 - left) / 5)
        else:
            left -= 1

    async with anyio.create_task_group() as group:
        for _ in range(800):
            group.start_soon(ask)
    assert 3 < refused < 800 / 10
    assert quota.statistics().pace > 0.9
    assert given.rate == 100
    idle = Quota(a=1000)
    for _ in range(3):
        for _ in range(20):
            idle.acquire_nowait()
        idle.hold(0)
        await anyio.sleep(5)
    assert idle.statistics().pace == 1


# --- Shared limiters --------------------------------------------------------------------------


async def test_shared_limiters() -> None:
    """Tasks that use a limiter itself and two quotas with it never exceed it, and none starves."""
    shared = RateLimiter(10, slack=0)
    slow, fast = Quota(shared=shared, own=(6, 60)), Quota(shared=shared, own=(60, 60))
    moments: list[float] = []
    ended: dict[str, float] = {}

    async def use(name: str, acquire: Callable[[], Any], times: int) -> None:
        for _ in range(times):
            await acquire()
            moments.append(anyio.current_time())
        ended[name] = anyio.current_time()

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(use, f"direct {number}", shared.acquire, 30)
        for number in range(2):
            group.start_soon(use, f"slow {number}", slow.acquire, 3)
            group.start_soon(use, f"fast {number}", fast.acquire, 10)
    assert moments == pytest.approx([number / 10 for number in range(116)])
    assert ended["slow 0"] < ended["direct 0"]
    assert ended["fast 0"] < 11.6
    assert_quiescent(shared, slow, fast)


async def test_a_shared_limiter_is_not_kept_waiting_for_another_limit() -> None:
    """While a quota waits for its own limit, others use the shared one as if it were not there."""
    shared = RateLimiter(1, burst=2, slack=0)
    quota = Quota(shared=shared, own=(1, 60))
    async with Asked() as tasks:
        await tasks.ask("quota 1", quota.acquire)
        await tasks.ask("quota 2", quota.acquire)
        for number in range(4):
            await tasks.ask(f"direct {number}", shared.acquire)
        assert shared.statistics().waiting == 3
    assert list(tasks.served.values()) == [0, 0, 1, 2, 3, 60]


async def test_a_quota_that_waits_in_the_queue_of_a_limiter() -> None:
    """Who is outrun at a shared limiter gets its turn there, and may give up as any task."""
    shared = RateLimiter(1, burst=4, slack=0)
    quota = Quota(shared=shared, own=(100, 1))

    async def greedy() -> None:
        while anyio.current_time() < 6:
            await shared.acquire(1)

    async with Asked() as tasks:
        await shared.acquire(4)
        await tasks.ask("quota", partial(quota.acquire, shared=3))
        await tasks.ask("greedy", greedy)
        await tasks.ask("other", greedy)
        await anyio.sleep(3.5)
        assert "quota" not in tasks.served
        await tasks.ask("late", partial(quota.acquire, shared=2, timeout=60))
        await anyio.sleep(2)
    assert tasks.served["quota"] <= 8
    assert_quiescent(shared, quota)


async def test_what_comes_back_to_a_shared_limiter_is_seen() -> None:
    """Tasks that wait for it get what a request has not used."""
    shared = RateLimiter(1, burst=4, slack=0)
    quota = Quota(shared=shared)
    async with Asked() as tasks, quota.take(shared=4) as taken:
        await tasks.ask("direct", partial(shared.acquire, 3))
        await anyio.sleep(1)
        taken.settle(shared=1)
        await settle()
        assert tasks.served == {"direct": 1}
        await tasks.ask("another", partial(shared.acquire, 3))
        quota.observe(remaining={"shared": 0})
    assert tasks.served["another"] == 4


async def test_changes_of_a_shared_limiter_are_seen() -> None:
    """A pause that ends, a reset and a lower burst reach the tasks of a quota."""
    shared = RateLimiter(0, burst=4)
    quota = Quota(shared=shared)
    await shared.acquire(4)
    async with Asked() as tasks:
        await tasks.ask("a", quota.acquire)
        await anyio.sleep(3)
        shared.rate = 1
        await tasks.ask("b", partial(quota.acquire, shared=4))
        await anyio.sleep(3)
        shared.reset()

        async def refused() -> None:
            await quota.acquire(shared=4)
            with pytest.raises(RateLimitError):
                await quota.acquire(shared=4)

        await tasks.ask("c", refused)
        await anyio.sleep(5)
        shared.burst = 2
    assert (tasks.served["a"], tasks.served["b"], tasks.served["c"]) == (4, 6, 11)


async def test_nothing_comes_back_of_before_a_reset() -> None:
    """A bucket that somebody has filled has got back what was taken from it."""
    shared = RateLimiter(1, burst=10, slack=0)
    async with Quota(shared=shared).take(shared=8) as taken:
        shared.reset()
        await shared.acquire(9)
        taken.settle(shared=0)
    assert shared.statistics().tokens == 1


async def test_a_queue_that_has_become_empty_is_seen() -> None:
    """When those who waited for a limiter itself have given up, a quota does not wait for them."""
    shared = RateLimiter(1, burst=5, slack=0)
    quota = Quota(shared=shared)
    await shared.acquire(5)
    async with Asked() as tasks:
        await tasks.ask("direct", partial(shared.acquire, 5))
        await tasks.ask("quota", partial(quota.acquire, shared=2))
        await anyio.sleep(2)
        tasks.scopes["direct"].cancel()
    assert tasks.served == {"quota": 2}


async def test_a_limiter_forgets_quotas_that_are_gone() -> None:
    """A limiter that many quotas have used, one after another, remembers none of them."""
    shared = RateLimiter(100)
    for _ in range(3):
        await Quota(shared=shared).acquire()
    shared.reset()
    quota = Quota(shared=shared)
    assert len(shared._watchers) <= 2
    await quota.acquire()


async def test_a_closed_limiter_closes_the_quota() -> None:
    """Who waits for a limiter that is closed is told so."""
    shared = RateLimiter(1, per=60)
    quota = Quota(shared=shared)
    await quota.acquire()

    async def refused() -> None:
        with pytest.raises(LimitClosedError):
            await quota.acquire()

    async with Asked() as tasks:
        await tasks.ask("a", refused)
        shared.close()
    with pytest.raises(LimitClosedError):
        quota.try_acquire()
    assert quota.statistics().rejected == 2


# --- Cancelled anywhere, loops ----------------------------------------------------------------


@modes
@pytest.mark.parametrize("shared", [False, True])
def test_cancelled_anywhere(mode: Mode, *, shared: bool) -> None:
    """A task that is cancelled leaves what it has not got, wherever it is cancelled."""

    async def scenario(victim: Victim) -> None:
        limiter = RateLimiter(1, burst=3, slack=0)
        quota = Quota(a=limiter if shared else (3, 3), b=(4, 4))
        served: list[str] = []
        await quota.acquire(a=3)

        async def use(name: str, a: int) -> None:
            async with quota.take(a=a) as taken:
                served.append(name)
                taken.settle(a=1)

        async def direct() -> None:
            if shared:
                for _ in range(3):
                    await limiter.acquire()

        async with anyio.create_task_group() as group:
            group.start_soon(use, "first", 3)
            group.start_soon(direct)
            group.start_soon(victim, use, "victim", 3)
            group.start_soon(use, "last", 3)
        used = len(served) + 3 * shared
        assert {"first", "last"} <= set(served)
        assert quota.statistics().acquired == 1 + len(served)
        assert level(quota, "a") == pytest.approx(anyio.current_time() - used)
        assert_quiescent(quota, limiter)

    cancel_everywhere(mode, scenario)


def close(coroutine: Any) -> None:
    """Throw away a coroutine whose loop is over."""
    with suppress(RuntimeError):  # AnyIO's: the scope in it finds no loop to leave
        coroutine.close()


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(("outrun", "paused"), [(False, True), (True, False), (True, True)])
def test_a_loop_that_is_over(*, outrun: bool, paused: bool, early: bool, backend: str) -> None:
    """Tasks of a loop that has ended are forgotten, also in the queue of a shared limiter."""
    shared = RateLimiter(1, burst=2, slack=0)
    quota = Quota(shared=shared, own=(100, 1))
    turns = 0

    async def wait() -> None:
        await shared.acquire(2)
        await quota.acquire(shared=2)

    def waits() -> bool:
        nonlocal turns
        turns += 1
        if turns == 3 and outrun:
            hands.now += 2  # there are enough, and at once too few
            shared.acquire_nowait()
            shared.rate = 2  # which wakes the task
        if turns == 6 and paused:
            shared.rate = 0  # so that it has no timer
        return turns > 9

    coroutine = wait()
    with by_hand(1000.0) as hands:
        leave_waiting(coroutine, waits)
    assert shared.statistics().waiting == 0  # of a loop that is over
    assert shared._queue is not None if outrun else shared._queue is None

    async def again() -> None:
        shared.rate = 1000
        await quota.acquire(shared=2)
        assert quota.statistics().waiting == shared.statistics().waiting == 0

    if early:
        close(coroutine)
    run(again, backend=backend)
    close(coroutine)
    run(again, backend=backend)
    assert_quiescent(quota, shared)


# --- Where a rate is taken --------------------------------------------------------------------


async def test_as_a_rate() -> None:
    """A quota stands wherever a rate limiter may, and costs one of each limit."""
    quota = Quota(requests=(2, 1), tokens=(6, 60))
    assert isinstance(quota, Rate)
    assert quota.rate == 0.1
    moments: list[float] = []

    async def call(_: int) -> None:
        moments.append(anyio.current_time())

    await TaskExecutor().for_each(call, range(3), rate=quota)
    assert moments == [0, 0, 0.5]
    async with ResourceLimiter(rate=quota):
        assert anyio.current_time() == 1


async def test_several_rates() -> None:
    """A list of rates is kept in whole, wherever a rate is taken."""

    async def moments_of(run_all: Callable[[Callable[[int], Any]], Any]) -> list[float]:
        start = anyio.current_time()
        moments: list[float] = []

        async def call(_: int) -> None:
            moments.append(round(anyio.current_time() - start, 6))

        await run_all(call)
        return moments

    def rates() -> list[Any]:
        return [RateLimiter(2, slack=0), RateLimiter.window(3, per=10)]

    async def each(run_one: Callable[[], Any]) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(run_one)
                await settle()

    expected = [0, 0.5, 1, 10]
    executor = TaskExecutor()
    assert await moments_of(lambda call: executor.map(call, range(4), rate=rates())) == expected
    assert (
        await moments_of(
            lambda call: executor.map(call, range(4), rate=[2, RateLimiter.window(3, per=10)])
        )
        == expected
    )
    shared = rates()
    assert (
        await moments_of(lambda call: each(lambda: executor.run(call, 0, rate=list(shared))))
        == expected
    )
    limiter = ResourceLimiter(rate=rates())
    assert await moments_of(lambda call: each(lambda: limiter.run(call, 0))) == expected
    pipeline = Pipeline(rates(), Timeout(60))
    assert await moments_of(lambda call: each(lambda: pipeline.run(call, 0))) == expected
    assert "quota" in pipeline.statistics().parts


async def test_one_queue_for_the_same_rates() -> None:
    """Calls that name the same limiters are served first come, first served."""
    rates = [RateLimiter(1, slack=0), RateLimiter(2)]
    first = Quota.together(rates)
    assert Quota.together(tuple(rates)) is first
    assert Quota.together([1, rates[0]]) is not Quota.together([1, rates[0]])


@pytest.mark.parametrize(
    ("rates", "kind", "message"),
    [
        ([], ValueError, r"^rate=\[\] limits nothing"),
        ([RateLimiter(1), "2"], TypeError, r"^rate\[1\]='2' is a str, not a number"),
        ([RateLimiter(1)] * 2, ValueError, r"^rate=.* has the same limiter twice"),
    ],
)
async def test_what_is_no_list_of_rates(rates: Any, kind: type[Exception], message: str) -> None:
    """Each has to be a number or a rate limiter, and another than those before."""
    with pytest.raises(kind, match=message):
        await TaskExecutor().map(str, [], rate=rates)
    with pytest.raises(TypeError, match=r"^rate=3 would apply to this one call only"):
        await TaskExecutor().run(anyio.sleep, 0, rate=[RateLimiter(1), 3])  # type: ignore[list-item] # wrong on purpose


# --- In a pipeline ----------------------------------------------------------------------------


def estimate(prompt: str, *, extra: int = 0) -> int:
    """Return what a call costs."""
    return len(prompt) + extra


def usage(answer: str) -> Mapping[str, float]:
    """Return what a call has used."""
    return {"tokens": len(answer)}


async def answer(prompt: str, *, extra: int = 0) -> str:
    """Answer."""
    await anyio.sleep(1)
    return prompt[: 2 + extra]


async def test_part() -> None:
    """A call costs what its arguments say, and what it has used is settled."""
    quota = Quota(requests=10, tokens=100, per=1000, name="model")
    api = Pipeline(quota.part(tokens=estimate, used=usage, requests=2))
    assert str(api).splitlines()[1].strip() == "Quota('model', tokens=estimate, requests=2)"
    async with anyio.create_task_group() as group:
        group.start_soon(partial(api.run, answer, "a" * 30))
        await anyio.sleep(0.5)
        assert quota.statistics().limits["tokens"].in_flight == 30
        assert level(quota, "tokens") == 70.05
    assert quota.statistics().limits["tokens"].used == 2
    await api.run(partial(answer, extra=5), "a" * 30)
    assert quota.statistics().limits["tokens"].used == 9
    decorated = api(answer)
    await decorated("a" * 20, extra=70)
    assert quota.statistics().limits["tokens"].acquired == 30 + 35 + 90
    assert api.statistics().parts["quota_part"].acquired == 3
    assert quota.part().name == "model"
    assert str(Quota(a=1).part(a=1)) == "Quota(a=1)"


async def test_what_was_used_may_be_unknown() -> None:
    """A service that has not said leaves the estimate; what is no mapping is named."""
    quota = Quota(tokens=100, per=1000)
    silent = Pipeline(quota.part(tokens=30, used=lambda _: None))
    assert await silent.run(answer, "prompt") == "pr"
    assert level(quota, "tokens") == 70.1

    async def asks(_: str) -> dict[str, float]:
        return {}

    for used, text in ((asks, "<coroutine"), (lambda _: 900, "900")):
        wrong = Pipeline(quota.part(tokens=1, used=used))  # type: ignore[arg-type] # on purpose
        with pytest.raises(TypeError, match=rf"^used=.* returned {text}.* is not a mapping\. Ret"):
            await wrong.run(answer, "prompt")


async def test_a_call_that_fails_keeps_its_cost() -> None:
    """Each attempt takes its own; only what has returned is settled."""
    quota = Quota(requests=10, tokens=100, per=1000)
    failures = iter([True, False])

    async def flaky(prompt: str) -> str:
        if next(failures):
            raise ConnectionError
        return prompt[:1]

    api = Pipeline(Retry(2, wait_initial=0), quota.part(tokens=estimate, used=usage))
    await api.run(flaky, "a" * 10)
    figures = quota.statistics().limits
    assert (figures["requests"].used, figures["tokens"].used) == (2, 11)


async def test_given_to_a_pipeline_as_it_is() -> None:
    """It costs one of each limit."""
    quota = Quota(requests=10, tokens=100, per=1000)
    await Pipeline(quota).run(answer, "a")
    assert (level(quota, "requests"), level(quota, "tokens")) == (9.01, 99.1)


async def test_decorator() -> None:
    """A function or method may be decorated, with or without a cost."""
    quota = Quota(requests=10, tokens=100, per=1000)

    @quota
    async def plain() -> int:
        return 1

    class Client:
        @quota(tokens=lambda _, prompt: len(prompt), used=usage)
        async def ask(self, prompt: str) -> str:
            return prompt[:3]

    assert await plain() == 1
    assert await Client().ask("a" * 50) == "aaa"
    figures = quota.statistics().limits["tokens"]
    assert (figures.acquired, figures.used) == (51, 4)


async def test_streams() -> None:
    """A stream takes its cost before it is opened, and is in flight until it ends."""
    quota = Quota(tokens=100, per=1000)
    api = Pipeline(quota.part(tokens=estimate, used=usage))

    async def letters(prompt: str) -> AsyncGenerator[str]:
        if not prompt:
            raise ConnectionError
        for letter in prompt:
            yield letter

    async with api.stream(letters, "abc") as items:
        assert quota.statistics().in_flight == 1
        assert [each async for each in items] == ["a", "b", "c"]
    assert quota.statistics().in_flight == 0
    assert quota.statistics().limits["tokens"].used == 1  # as its last item says
    async with api.stream(letters, "abc") as items:
        async for _ in items:
            break  # who leaves early has not seen what was used
    with pytest.raises(ConnectionError):
        async with api.stream(letters, ""):
            pass
    async with Pipeline(quota).stream(letters, "a"):
        pass
    figures = quota.statistics()
    assert (figures.in_flight, figures.limits["tokens"].used) == (0, 1 + 3 + 0 + 1)
