"""ResourceLimiter: the order of its parts, and how they come apart again."""

# ruff: noqa: PT012 - a limited block, with its body, is the statement that raises

from __future__ import annotations

import asyncio
import inspect
import math
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio import exceptions
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedRateLimiter,
    RateLimiter,
    ResourceLimiter,
    TimeoutManager,
)
from mtaio.testing import settle
from tests.closed_loops import leave_waiting
from tests.resources.moments import cancel_everywhere, modes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mtaio.testing import Victim
    from tests.resources.moments import Mode


def slots(limiter: ResourceLimiter) -> tuple[int, int]:
    """Return how many slots are in use, and how many tasks wait for one."""
    statistics = limiter.statistics().concurrency
    assert statistics is not None
    return statistics.in_use, statistics.waiting


def granted(limiter: ResourceLimiter) -> int:
    """Return how many tokens were taken."""
    statistics = limiter.statistics().rate
    assert statistics is not None
    return statistics.acquired


async def test_all_three_limits_hold() -> None:
    """Slots, rate and the limit of the work are all kept to."""
    limiter = ResourceLimiter(concurrency=2, rate=1, burst=3, timeout=1.5)
    starts = []
    late = []

    async def work(number: int) -> None:
        try:
            async with limiter:
                starts.append(anyio.current_time())
                await anyio.sleep(1 if number else 9)
        except exceptions.TimeoutError:
            late.append((number, anyio.current_time()))

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(work, number)
            await settle()
    # Two at once; the next as slots come free, until the burst is spent.
    assert starts == [0.0, 0.0, 1.0, 1.5, 2.0, 3.0]
    assert late == [(0, 1.5)]
    assert slots(limiter) == (0, 0)


async def test_a_slot_comes_before_a_token() -> None:
    """A task that waits for a slot has taken no token yet."""
    limiter = ResourceLimiter(concurrency=1, rate=1, burst=2)
    async with limiter, anyio.create_task_group() as group:

        async def enter() -> None:
            async with limiter:
                pass

        group.start_soon(enter)
        await settle()
        assert slots(limiter) == (1, 1)
        assert granted(limiter) == 1
        group.cancel_scope.cancel()
    assert granted(limiter) == 1
    assert slots(limiter) == (0, 0)


async def test_timeout_covers_the_work_alone() -> None:
    """However long slot and token take, the work has its whole time."""
    limiter = ResourceLimiter(concurrency=1, rate=0.25, burst=1, timeout=3.0, name="api")
    async with limiter:
        await anyio.sleep(1)
    with pytest.raises(exceptions.TimeoutError, match=r"^api: timed out after 3\.0 s$"):
        async with limiter:
            assert anyio.current_time() == 4.0
            await anyio.sleep_forever()
    assert anyio.current_time() == 7.0
    assert slots(limiter) == (0, 0)


async def test_timeout_total_covers_the_wait_for_a_slot() -> None:
    """A slot that does not come within the total is a timeout, and nothing is held."""
    limiter = ResourceLimiter(concurrency=1, rate=1, timeout=5.0, timeout_total=2.0, name="api")
    assert limiter.concurrency is not None
    await limiter.concurrency.acquire()
    with pytest.raises(exceptions.TimeoutError, match=r"^api: timed out after 2\.0 s$") as info:
        async with limiter:
            pytest.fail("entered")
    assert (anyio.current_time(), info.value.deadline) == (2.0, 2.0)
    assert slots(limiter) == (1, 0)
    assert granted(limiter) == 0


async def test_timeout_total_covers_the_wait_for_a_token() -> None:
    """A token that cannot come within the total is refused at once, and the slot is given back."""
    limiter = ResourceLimiter(concurrency=1, rate=0.1, timeout=5.0, timeout_total=2.0)
    async with limiter:
        pass
    with pytest.raises(exceptions.LimitTimeoutError, match=r" within the 2 s that are left here"):
        async with limiter:
            pytest.fail("entered")
    assert anyio.current_time() == 0.0
    assert slots(limiter) == (0, 0)
    assert granted(limiter) == 1


async def test_timeout_total_covers_the_work() -> None:
    """What waiting has left of the total is for the work, and may be less than its own limit."""
    limiter = ResourceLimiter(rate=1, timeout=5.0, timeout_total=2.0)
    remaining = TimeoutManager().remaining
    async with limiter:
        assert remaining() == 2.0
    with pytest.raises(exceptions.TimeoutError) as info:
        async with limiter:
            assert (anyio.current_time(), remaining()) == (1.0, 1.0)
            await anyio.sleep_forever()
    assert (anyio.current_time(), info.value.timeout) == (2.0, 2.0)
    statistics = limiter.statistics()
    assert statistics.timeout is not None
    assert statistics.timeout_total is not None
    assert (statistics.timeout.timed_out, statistics.timeout_total.timed_out) == (0, 1)


async def test_an_error_inside_undoes_everything() -> None:
    """The body's error goes on as it is, and nothing is held."""
    limiter = ResourceLimiter(concurrency=1, rate=10, timeout=1.0, timeout_total=2.0)
    error = LookupError("mine")
    with pytest.raises(LookupError, match=r"^mine$") as info:
        async with limiter:
            raise error
    assert info.value is error
    assert error.__context__ is None
    assert slots(limiter) == (0, 0)
    assert limiter.statistics().in_flight == 0
    assert TimeoutManager().remaining() == math.inf


async def test_a_full_queue_undoes_the_total() -> None:
    """A refusal by a part goes on as it is, and leaves no limit behind."""
    concurrency = ConcurrencyLimiter(1, max_waiting=0)
    limiter = ResourceLimiter(concurrency=concurrency, timeout_total=2.0)
    async with concurrency:
        with pytest.raises(exceptions.ConcurrencyLimitError):
            async with limiter:
                pytest.fail("entered")
    await anyio.sleep(5)
    assert TimeoutManager().remaining() == math.inf
    assert (limiter.statistics().entered, limiter.statistics().in_flight) == (0, 0)


async def test_one_task_may_enter_several_times() -> None:
    """Entries of one task nest, each with a slot, a token and a limit of its own."""
    limiter = ResourceLimiter(concurrency=3, rate=10, timeout=5.0)
    other = ResourceLimiter(concurrency=1, timeout=3.0)
    remaining = TimeoutManager().remaining
    async with limiter:
        await anyio.sleep(1)
        async with other, limiter:
            assert remaining() == 3.0
            assert slots(limiter) == (2, 0)
            assert slots(other) == (1, 0)
            await anyio.sleep(1)
        assert remaining() == 3.0
        assert slots(limiter) == (1, 0)
        assert slots(other) == (0, 0)
    assert slots(limiter) == (0, 0)
    assert remaining() == math.inf


async def test_an_inner_entry_that_times_out_leaves_the_outer_one() -> None:
    """The limit of an inner entry ends that entry alone."""
    limiter = ResourceLimiter(concurrency=2, timeout=2.0)
    async with limiter:
        await anyio.sleep(1)
        with pytest.raises(exceptions.TimeoutError) as info:
            async with ResourceLimiter(timeout=0.5):
                await anyio.sleep_forever()
        assert info.value.timeout == 0.5
        assert slots(limiter) == (1, 0)
    assert anyio.current_time() == 1.5
    assert slots(limiter) == (0, 0)


async def test_many_tasks_share_one_limiter() -> None:
    """Entries of different tasks, children included, end in any order."""
    limiter = ResourceLimiter(concurrency=20, timeout=30.0)
    left = []

    async def work(number: int) -> None:
        async with limiter:
            await anyio.sleep(10 - number)
            left.append(number)

    async with limiter, anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(work, number)
        await anyio.sleep(0.5)
        assert limiter.statistics().in_flight == 11
    assert left == list(range(9, -1, -1))
    assert slots(limiter) == (0, 0)


async def test_leaving_out_of_order_is_refused() -> None:
    """What was entered last must be left first; nothing is given back that is still held."""
    limiter, other = ResourceLimiter(concurrency=1), ResourceLimiter(concurrency=1)
    message = (
        r"^cannot leave <ResourceLimiter: \d in flight> here: it is not what this task entered last"
    )
    with pytest.raises(RuntimeError, match=message):
        await limiter.__aexit__(None, None, None)
    async with limiter, other:
        with pytest.raises(RuntimeError, match=message):
            await limiter.__aexit__(None, None, None)
        assert slots(limiter) == (1, 0)
    assert slots(limiter) == slots(other) == (0, 0)


async def test_ready_made_limiters_are_shared() -> None:
    """Limiters that were made elsewhere count the use of all who share them."""
    rate, concurrency = RateLimiter(1), ConcurrencyLimiter(1)
    timeout = TimeoutManager(2.0, name="shared")
    limiters = [
        ResourceLimiter(rate=rate, concurrency=concurrency, timeout=timeout, timeout_total=timeout)
        for _ in range(3)
    ]
    starts = []

    async def work(limiter: ResourceLimiter) -> None:
        async with limiter:
            starts.append(anyio.current_time())

    for limiter in limiters:
        assert limiter.rate is rate
        assert limiter.concurrency is concurrency
        await work(limiter)
    assert starts == [0.0, 1.0, 2.0]
    assert timeout.statistics().entered == 6
    with pytest.raises(exceptions.TimeoutError, match=r"^shared: timed out after 2\.0 s$"):
        async with limiters[0]:
            await anyio.sleep_forever()


class Turnstile:
    """A rate limiter of somebody else's."""

    rate = 3.0

    def __init__(self) -> None:
        self.passed = 0

    async def acquire(self) -> None:
        """Wait for a second, in any case."""
        await anyio.sleep(1)
        self.passed += 1


async def test_rate_of_somebody_else() -> None:
    """Whatever has a rate and ``acquire()`` limits the rate; it need not have statistics."""
    turnstile = Turnstile()
    limiter = ResourceLimiter(rate=turnstile, concurrency=1)
    assert limiter.rate is turnstile
    for _ in range(2):
        async with limiter:
            pass
    assert (anyio.current_time(), turnstile.passed) == (2, 2)
    assert limiter.statistics().rate is None
    with pytest.raises(ValueError, match=r"^burst=2 belongs to a rate given as a number, not to"):
        ResourceLimiter(rate=turnstile, burst=2)


@pytest.mark.parametrize("wrong", [KeyedRateLimiter(1), RateLimiter], ids=["keyed", "class"])
def test_rate_whose_acquire_needs_more_is_refused(wrong: Any) -> None:
    """A limiter of keys, or a class, has ``rate`` and ``acquire()`` and could grant nothing."""
    with pytest.raises(TypeError, match=r"^rate=<.*, not a number\."):
        ResourceLimiter(rate=wrong)
    with pytest.raises(TypeError, match=r"^rate=<.*, not a number\."):
        ResourceLimiter(rate=wrong, burst=2)


async def test_limits_that_are_not_given_do_not_limit() -> None:
    """Each limit stands alone, and statistics are there for what is limited."""
    limiter = ResourceLimiter(timeout=1.0)
    assert (limiter.rate, limiter.concurrency, limiter.name) == (None, None, None)
    async with limiter, limiter:
        pass
    statistics = limiter.statistics()
    assert (statistics.entered, statistics.in_flight) == (2, 0)
    assert (statistics.rate, statistics.concurrency, statistics.timeout_total) == (None,) * 3
    assert ResourceLimiter(concurrency=1).statistics().timeout is None
    limiter = ResourceLimiter(rate=2, name="api")
    assert repr(limiter) == "<ResourceLimiter 'api': 0 in flight>"
    async with limiter, limiter:
        assert anyio.current_time() == 0.5
    limiter = ResourceLimiter(rate=2, burst=2)
    async with limiter, limiter:
        assert anyio.current_time() == 0.5


def test_constructor_refuses() -> None:
    """Limits that limit nothing, and a burst that belongs to nothing, are refused."""
    untyped: Any = ResourceLimiter
    with pytest.raises(
        ValueError, match=r"^a ResourceLimiter without rate, concurrency, timeout an"
    ):
        ResourceLimiter()
    with pytest.raises(
        ValueError, match=r"^burst=2 belongs to a rate given as a number, not to ra"
    ):
        ResourceLimiter(burst=2, concurrency=1)
    with pytest.raises(
        ValueError, match=r"^burst=2 belongs to .*, not to rate=<RateLimiter.*Give "
    ):
        ResourceLimiter(burst=2, rate=RateLimiter(1))
    for wrong, kind, message in (
        ({"concurrency": 0}, ValueError, r"^concurrency=0 is less than 1\."),
        ({"rate": -1}, ValueError, r"^rate=-1 is less than 0\."),
        ({"timeout": -1}, ValueError, r"^timeout=-1 is less than 0\."),
        ({"timeout_total": "1"}, TypeError, r"^timeout_total='1' is a str, not a number\."),
        (
            {"concurrency": TimeoutManager()},
            TypeError,
            r"^concurrency=<TimeoutManager.*> is a TimeoutMan",
        ),
    ):
        with pytest.raises(kind, match=message):
            untyped(**wrong)


# --- run and limit ----------------------------------------------------------------------------


async def double(number: int) -> int:
    """Take a second."""
    await anyio.sleep(1)
    return 2 * number


async def test_run_makes_one_call() -> None:
    """A call, or an awaitable, runs under the limits and returns its result."""
    limiter = ResourceLimiter(concurrency=1, timeout=2.0)
    assert await limiter.run(double, 2) == 4
    assert await limiter.run(double(3)) == 6
    with pytest.raises(exceptions.TimeoutError):
        await limiter.run(anyio.sleep, 3)
    assert anyio.current_time() == 4.0
    assert slots(limiter) == (0, 0)


async def test_run_that_never_begins_closes_its_coroutine() -> None:
    """A call that is refused, or cancelled while it waits, is closed and not complained about."""
    limiter = ResourceLimiter(concurrency=1)
    untyped: Any = limiter.run
    call = double(1)
    with pytest.raises(TypeError, match=r"^fn=<coroutine .*> is already a call, and takes no arg"):
        await untyped(call, 1)
    assert inspect.getcoroutinestate(call) == inspect.CORO_CLOSED
    with pytest.raises(
        TypeError, match=r"^<built-in function abs> returned 1, which cannot be awa"
    ):
        await untyped(abs, -1)
    call = double(1)
    async with limiter:
        with anyio.move_on_after(1.0):
            await limiter.run(call)
    assert inspect.getcoroutinestate(call) == inspect.CORO_CLOSED
    assert slots(limiter) == (0, 0)


async def test_limit_decorates_functions_and_methods() -> None:
    """Decorated functions keep name and signature, and each call is one entry."""
    limiter = ResourceLimiter(concurrency=1, timeout=2.0)

    class Service:
        @limiter
        async def plain(self, number: int) -> int:
            """Say something."""
            assert slots(limiter) == (1, 0)
            return await double(number)

        @limiter()
        @staticmethod
        async def slow(seconds: float) -> None:
            await anyio.sleep(seconds)

    assert await Service().plain(4) == 8
    assert (Service.plain.__name__, Service.plain.__doc__) == ("plain", "Say something.")
    with pytest.raises(exceptions.TimeoutError, match=r"^timed out after 2\.0 s$"):
        await Service.slow(3)
    assert slots(limiter) == (0, 0)
    untyped: Any = limiter
    with pytest.raises(TypeError, match=r"^@ResourceLimiter cannot decorate <built-in function"):
        untyped(len)


# --- Cancellation and loops -------------------------------------------------------------------


async def with_block(limiter: ResourceLimiter) -> None:
    """Work for a second."""
    async with limiter:
        await anyio.sleep(1)


async def with_nesting(limiter: ResourceLimiter) -> None:
    """Work for a second, two entries deep."""
    async with limiter, limiter:
        await anyio.sleep(1)


async def with_run(limiter: ResourceLimiter) -> None:
    """Work for a second in a call."""
    await limiter.run(double(1))


@modes
@pytest.mark.parametrize("ask", [with_block, with_nesting, with_run])
def test_cancelled_at_any_moment(
    mode: Mode, ask: Callable[[ResourceLimiter], Coroutine[Any, Any, None]]
) -> None:
    """Waiting for a slot, for a token, or at work: everything is given back exactly once."""

    async def scenario(victim: Victim) -> None:
        limiter = ResourceLimiter(
            concurrency=2, rate=0.5, burst=1, timeout=100.0, timeout_total=200.0
        )
        async with anyio.create_task_group() as group:
            for task in (with_block, with_block):
                group.start_soon(task, limiter)
                await settle()
            group.start_soon(victim, ask, limiter)
            await settle()
            group.start_soon(with_block, limiter)
        assert slots(limiter) == (0, 0)
        statistics = limiter.statistics()
        assert statistics.in_flight == 0
        assert statistics.rate is not None
        assert statistics.rate.waiting == 0
        async with limiter:  # there is no limit left over, and no token missing
            assert TimeoutManager().remaining() == 100.0

    cancel_everywhere(mode, scenario, least=3)


async def test_outer_cancellation_passes() -> None:
    """A cancellation from outside is not a timeout, in the waits and in the work."""
    limiter = ResourceLimiter(concurrency=1, rate=1, timeout=9.0, timeout_total=9.0)
    for _ in range(2):
        with anyio.move_on_after(0.25) as scope:
            async with limiter:
                await anyio.sleep_forever()
        assert scope.cancelled_caught
    with anyio.move_on_after(0.25) as scope:
        async with limiter, limiter:
            pytest.fail("entered twice")
    assert scope.cancelled_caught
    assert slots(limiter) == (0, 0)
    assert limiter.statistics().in_flight == 0


@pytest.mark.parametrize("most", [{"concurrency": 1}, {"rate": math.inf}], ids=str)
def test_block_closed_after_its_loop_gives_back_what_it_held(most: Any) -> None:
    """The collector closes it in whatever context it finds: the slot is free again."""
    limiter = ResourceLimiter(**most)

    async def hold() -> None:
        async with limiter:
            await asyncio.get_running_loop().create_future()

    coroutine = hold()
    leave_waiting(coroutine, lambda: limiter.statistics().in_flight == 1)
    assert limiter.statistics().in_flight == 1
    coroutine.close()
    assert limiter.statistics().in_flight == 0
    if limiter.concurrency is not None:
        assert slots(limiter) == (0, 0)


shared = ResourceLimiter(concurrency=1, rate=math.inf, timeout=2.0)
