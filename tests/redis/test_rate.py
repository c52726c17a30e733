"""`RedisRateLimiter` on the virtual clock, with a server in memory."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from mtaio.core import Retry, TaskExecutor
from mtaio.exceptions import LimitTimeoutError, StoreError
from mtaio.redis import RedisRateLimiter
from mtaio.redis._bucket import RESERVE
from mtaio.resilience import OrderWarning, Pipeline
from mtaio.resources import TimeoutManager
from mtaio.testing import run, settle
from tests.redis.forking import forked
from tests.redis.memory import MemoryStore
from tests.redis.reserving import reserve, reserving_store

ROOT = Path(__file__).parents[2]


async def test_tokens_are_granted_when_they_are_due() -> None:
    """The burst at once, and then in even steps; late by the way of one answer at most."""
    async with reserving_store(latency=0.002) as store:
        limiter = RedisRateLimiter(store, "key", 10, burst=2)
        moments: list[float] = []

        async def work() -> None:
            async with limiter:
                moments.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(work)
        late = [
            moment - due for moment, due in zip(moments, (0, 0, 0.1, 0.2, 0.3, 0.4), strict=True)
        ]
        assert all(0 < each < 0.005 for each in late), late


async def test_forked_processes_are_two() -> None:
    """A limiter made before a fork is another one in each process, and so they share evenly."""
    async with reserving_store() as store:
        limiter = RedisRateLimiter(store, "key", 10)
        other = forked(limiter, store)
        await limiter.acquire()
        await other.acquire()
        assert other.statistics().members == 2


KILLED = """
import asyncio, os, sys
import anyio
from mtaio.redis import RedisRateLimiter
from mtaio.testing import run
from tests.redis.reserving import reserving_store

store = reserving_store(latency=0)
limiter, other = (RedisRateLimiter(store, "key", 0.1, burst=1, slack=10) for _ in range(2))

async def first():
    await store.__aenter__()
    await limiter.acquire()
    waits = asyncio.ensure_future(limiter.acquire())
    while limiter.statistics().server_calls < 2:
        await asyncio.sleep(0)
    for _ in range(20):  # the answer is that the next token is too far ahead
        await asyncio.sleep(0)
    return waits

async def second():
    async with store:
        assert not await other.try_acquire()  # the server learns of this loop's clock
        await anyio.sleep(6)  # now the next token is near
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(limiter.acquire)
                await anyio.sleep(1)
    return limiter.statistics().acquired

loop = asyncio.new_event_loop()
held = loop.run_until_complete(first()), asyncio.all_tasks(loop)
loop.close()
print(run(second, backend=sys.argv[1]), flush=True)
os._exit(0)  # without the words of all that was left
"""


def test_loop_that_was_killed(backend: str) -> None:
    """What its server had refused holds up nobody in the next loop."""
    program = [sys.executable, "-c", KILLED, backend]
    done = subprocess.run(  # noqa: S603 - a program of ours
        program, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("4\n", 0), done.stderr


COLLECTED = """
import asyncio, gc, sys
import anyio
from mtaio.redis import RedisRateLimiter
from mtaio.testing import run
from tests.redis.reserving import reserving_store

store = reserving_store(latency=0.01, timeout=0.05)
limiter = RedisRateLimiter(store, "key", 0.5, burst=1, on_failure=sys.argv[2])

async def first():
    # AnyIO 4.16 happens to keep what its task groups started, for ever.
    store.start = lambda fn: asyncio.ensure_future(fn())
    await limiter.acquire()
    store.down = sys.argv[2] == "local"
    held.extend(asyncio.ensure_future(fn()) for fn in (limiter.try_acquire, limiter.acquire))
    while not eval(sys.argv[3], {}, {"limiter": limiter.statistics()}):
        await asyncio.sleep(0)
    held.extend(asyncio.all_tasks())

async def second():
    store.down = False
    del store.start
    granted = limiter.statistics().acquired
    async with store:
        await limiter.acquire()
        async with anyio.create_task_group() as group:
            group.start_soon(limiter.acquire)
            await anyio.sleep(1)
            held.clear()
            gc.collect()
            assert limiter.statistics().waiting == 1
    return limiter.statistics().acquired - granted

loop = asyncio.new_event_loop()
held = []
loop.run_until_complete(first())
loop.close()
del loop
print(run(second, backend=sys.argv[1]))
"""


@pytest.mark.parametrize(
    "when",
    [
        ("raise", "limiter.server_calls == 2"),  # the server is asked for the one that tries
        ("raise", "limiter.server_calls == 3"),  # for the one that waits
        ("local", "limiter.down"),  # it is down, and looked for
    ],
    ids=" ".join,
)
def test_tasks_of_a_closed_loop_that_are_collected(backend: str, when: tuple[str, ...]) -> None:
    """Their coroutines are closed when the next loop uses the limiter, and leave it alone."""
    program = [sys.executable, "-c", COLLECTED, backend, *when]
    done = subprocess.run(  # noqa: S603 - a program of ours
        program, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr
    assert "Traceback" not in done.stderr, done.stderr


async def test_order_and_calls() -> None:
    """Tasks are served in the order of asking, by few calls."""
    async with reserving_store() as store:
        limiter = RedisRateLimiter(store, "key", 2000, burst=1)
        served: list[int] = []

        async def work(number: int) -> None:
            await limiter.acquire()
            served.append(number)

        async with anyio.create_task_group() as group:
            for number in range(1000):
                group.start_soon(work, number)
                await settle()
        assert anyio.current_time() == pytest.approx(0.5, abs=0.01)
        in_order = sum(one < two for one, two in pairwise(served))
        assert in_order >= 900  # trio runs what is ready at one moment in random order
        statistics = limiter.statistics()
        assert statistics.server_calls <= 40
        assert statistics.acquired == 1000
        assert statistics.lost == statistics.reserved == statistics.waiting == 0


async def test_what_acquires_returns_nothing() -> None:
    """However the tokens came, as with a local limiter."""
    async with reserving_store() as store:
        limiter: Any = RedisRateLimiter(store, "key", 1000, on_failure="allow")
        for timeout in (None, 0):
            assert await limiter.acquire(timeout=timeout) is None
        store.fail()
        for _ in range(2):  # the call that learns that the server is down, and one that knows
            assert await limiter.acquire() is None


async def test_processes_share_a_bucket() -> None:
    """Limiters of one key together keep to the rate, and each gets about the same."""
    async with reserving_store() as store:
        limiters = [RedisRateLimiter(store, "key", 1000, burst=10) for _ in range(4)]
        counts = [0] * 4

        async def work(number: int) -> None:
            while True:
                await limiters[number].acquire()
                counts[number] += 1

        async with anyio.create_task_group() as group:
            for number in range(4):
                for _ in range(50 * (number + 1)):
                    group.start_soon(work, number)
            await anyio.sleep(2)
            group.cancel_scope.cancel()
        assert 0.98 * 2010 <= sum(counts) <= 2010 + 1000 * 0.1
        assert max(counts) <= 2 * min(counts)
        assert limiters[0].statistics().members == 4


@pytest.mark.parametrize("more", [25, 400])
async def test_share_of_processes_with_enough_tasks(more: int) -> None:
    """As many as fall due in half of slack, divided by the processes; more tasks get no more."""
    async with reserving_store() as store:
        limiters = [RedisRateLimiter(store, "key", 1000, burst=1) for _ in range(2)]
        counts = await grants(limiters, (25, more), seconds=2)
        assert sum(counts) == pytest.approx(2000, rel=0.03)
        assert counts[0] == pytest.approx(counts[1], rel=0.15)


async def test_share_of_processes_with_few_tasks() -> None:
    """Below that, a process gets less, in proportion to its tasks."""
    async with reserving_store() as store:
        limiters = [RedisRateLimiter(store, "key", 1000, burst=1) for _ in range(2)]
        counts = await grants(limiters, (5, 400), seconds=2)
        assert sum(counts) == pytest.approx(2000, rel=0.03)
        assert 3 * counts[0] < counts[1] < 8 * counts[0]


async def grants(
    limiters: list[RedisRateLimiter], tasks: tuple[int, ...], *, seconds: float
) -> list[int]:
    """Return how many tokens each got whose tasks ask for the next as soon as they have one."""

    async def work(limiter: RedisRateLimiter) -> None:
        while True:
            await limiter.acquire()

    with anyio.move_on_after(seconds):
        async with anyio.create_task_group() as group:
            for limiter, count in zip(limiters, tasks, strict=True):
                for _ in range(count):
                    group.start_soon(work, limiter)
    return [limiter.statistics().acquired for limiter in limiters]


async def test_maps_of_several_processes_keep_to_one_rate() -> None:
    """The executor takes the limiter as a rate, in each of them."""
    async with reserving_store() as store:
        starts: list[float] = []

        async def work(_: int) -> None:
            starts.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            for _ in range(2):
                limiter = RedisRateLimiter(store, "key", 10, burst=1)
                group.start_soon(partial(TaskExecutor().map, work, range(10), rate=limiter))
        assert starts == pytest.approx([number / 10 for number in range(20)], abs=0.01)


async def test_part_of_a_pipeline() -> None:
    """Each call waits for a token."""
    async with reserving_store() as store:
        limiter = RedisRateLimiter(store, "key", 10, burst=1)
        api = Pipeline(limiter, name="api")
        for _ in range(3):
            await api.run(anyio.sleep, 0)
        assert anyio.current_time() == pytest.approx(0.2, abs=0.01)
        assert str(api) == f"Pipeline 'api'\n  {limiter}"
        assert api.statistics().parts["redis_rate_limiter"] == limiter.statistics()
        with pytest.warns(OrderWarning, match="stands outside of Retry"):
            Pipeline(limiter, Retry(2))


async def test_try_acquire_keeps_to_what_others_have_reserved() -> None:
    """Tokens that are reserved ahead are not granted again to a process that does not wait."""
    async with reserving_store() as store:
        waits, tries = (RedisRateLimiter(store, "key", 2000, burst=1) for _ in range(2))

        async def wait() -> None:
            while True:
                await waits.acquire()

        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(wait)
            while anyio.current_time() < 1:
                await tries.try_acquire()
            group.cancel_scope.cancel()
        granted = waits.statistics().acquired + tries.statistics().acquired
        assert granted <= 1 + 2000 * (1 + waits.slack)


async def test_cancelled_waiters_token_goes_to_the_next() -> None:
    """What was reserved for a task that gives up is granted to the next at the same time."""
    async with reserving_store(latency=0) as store:
        limiter = RedisRateLimiter(store, "key", 20, burst=1)
        await limiter.acquire()
        moments: list[float] = []

        async def work() -> None:
            await limiter.acquire()
            moments.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            with anyio.move_on_after(0.04) as scope:
                group.start_soon(late_start, work)
                await limiter.acquire()
            assert scope.cancelled_caught
        assert moments == [pytest.approx(0.05)]
        statistics = limiter.statistics()
        assert (statistics.acquired, statistics.cancelled) == (2, 1)


async def late_start(fn: Any) -> None:
    """Call ``fn`` a little later."""
    await anyio.sleep(0.01)
    await fn()


async def test_several_tokens() -> None:
    """A request for several waits for the last of them; what is left of others is not touched."""
    async with reserving_store(latency=0) as store:
        limiter = RedisRateLimiter(store, "key", 10, burst=4)
        await limiter.acquire(4)
        assert anyio.current_time() == pytest.approx(0)
        await limiter.acquire(3)
        assert anyio.current_time() == pytest.approx(0.3)
        with pytest.raises(ValueError, match=r"^cannot acquire 5 tokens of <.*>: the bucket never"):
            await limiter.acquire(5)


@pytest.mark.parametrize(
    ("latency", "gives_up", "served"), [(0, 0.5, 0.5), (0.0625, 0.5, 0.5625), (0.0625, 0.1, 0.1875)]
)
async def test_smaller_request_does_not_wait_for_a_larger_that_gave_up(
    latency: float, gives_up: float, served: float
) -> None:
    """When the first gives up, be it during a call, the server is asked for what the next needs."""
    async with reserving_store(latency=latency) as store:
        limiter = RedisRateLimiter(store, "key", 1, burst=10)
        await limiter.acquire(9)

        async def large() -> None:
            with anyio.CancelScope(deadline=gives_up):
                await limiter.acquire(10)

        async with anyio.create_task_group() as group:
            group.start_soon(large)
            await settle()
            await limiter.acquire(1)
            assert anyio.current_time() == served


async def test_one_at_a_time_unless_a_burst_is_given() -> None:
    """Tokens are granted evenly spaced, as by a limiter of one process, and one is the most."""
    async with reserving_store(latency=0) as store:
        limiter = RedisRateLimiter(store, "key", 10)
        moments: list[float] = []
        for _ in range(12):
            async with limiter:
                moments.append(anyio.current_time())
        assert moments == pytest.approx([number / 10 for number in range(12)])
        with pytest.raises(
            ValueError, match=r"^cannot acquire 2 tokens of .* burst=1\. Raise burst"
        ):
            await limiter.acquire(2)


async def test_no_limit() -> None:
    """With an infinite rate all is granted, and the server is not asked."""
    async with reserving_store() as store:
        limiter = RedisRateLimiter(store, "key", math.inf, burst=2)
        await limiter.acquire(2)
        assert await limiter.try_acquire()
        async with limiter:
            assert anyio.current_time() == 0
        with anyio.CancelScope() as scope:
            scope.cancel()
            await limiter.acquire(timeout=1)  # a checkpoint all the same
        assert scope.cancelled_caught
        assert (limiter.statistics().acquired, store.calls) == (3, 0)


async def test_timeouts() -> None:
    """A wait that cannot fit is refused at once if that is known, else when the time is over."""
    async with reserving_store(latency=0) as store:
        limiter = RedisRateLimiter(store, "key", 1, burst=1, name="api")
        await limiter.acquire(timeout=1)
        with pytest.raises(LimitTimeoutError, match=r"^<.*'api'.*within 0.5 s, only in") as caught:
            await limiter.acquire(timeout=0.5)
        assert anyio.current_time() == 0
        assert caught.value.retry_after == pytest.approx(1)

        async def first() -> None:
            await limiter.acquire()

        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await settle()
            with pytest.raises(LimitTimeoutError, match=r"only in about 2\.5 s\.$") as caught:
                await limiter.acquire(timeout=0.5)
            assert anyio.current_time() == 0.5
            assert caught.value.retry_after == 2
        assert anyio.current_time() == pytest.approx(1)
        statistics = limiter.statistics()
        assert (statistics.acquired, statistics.timed_out, statistics.rejected) == (2, 2, 0)
        assert statistics.wait_seconds == statistics.max_wait_seconds == pytest.approx(1)


async def test_a_wait_counts_from_when_it_was_asked() -> None:
    """However long the event loop has run by then."""
    async with reserving_store(latency=0) as store:
        limiter = RedisRateLimiter(store, "key", 1, burst=1)
        await anyio.sleep(100)
        for _ in range(2):
            await limiter.acquire()
        assert limiter.statistics().wait_seconds == pytest.approx(1)


async def test_a_deadline_counts_like_a_timeout() -> None:
    """A token that comes after the time of a block around is refused at once; anyio's is not."""
    async with reserving_store(latency=0) as store:
        limiter, timeouts = RedisRateLimiter(store, "key", 1, burst=1), TimeoutManager()
        with timeouts(1):
            await limiter.acquire()
        with timeouts(9), timeouts(0.5), pytest.raises(LimitTimeoutError, match=r"within 0\.5 s"):
            await limiter.acquire(timeout=5)
        assert anyio.current_time() == 0
        with anyio.move_on_after(0.5) as scope:
            await limiter.acquire()
        assert scope.cancelled_caught
        with timeouts(2):
            await limiter.acquire()
        assert anyio.current_time() == pytest.approx(1)


async def test_reserved_token_that_comes_too_late() -> None:
    """A task whose token is reserved, but due after its deadline, is refused at once."""
    async with reserving_store(latency=0) as store:
        limiter = RedisRateLimiter(store, "key", 25, burst=1)
        await limiter.acquire()
        with pytest.raises(LimitTimeoutError):
            await limiter.acquire(timeout=0.03)
        assert anyio.current_time() == 0
        await limiter.acquire(timeout=0.05)
        assert anyio.current_time() == pytest.approx(0.04)


async def test_try_acquire() -> None:
    """It takes what is there, also what was reserved and not used, and does not wait for more."""
    async with reserving_store(latency=0) as store:
        limiter = RedisRateLimiter(store, "key", 25, burst=2)
        assert await limiter.try_acquire(2)
        assert not await limiter.try_acquire()
        async with anyio.create_task_group() as group:
            group.start_soon(limiter.acquire)
            await settle()
            assert not await limiter.try_acquire()  # a task waits
            group.cancel_scope.cancel()
        await anyio.sleep(0.04)
        calls = limiter.statistics().server_calls
        assert await limiter.try_acquire()
        assert limiter.statistics().server_calls == calls
        assert anyio.current_time() == 0.04


async def try_together(limiter: RedisRateLimiter, tokens: list[int]) -> list[bool]:
    """Return what `try_acquire` returned to each of several tasks."""
    taken = [False] * len(tokens)

    async def one(number: int) -> None:
        taken[number] = await limiter.try_acquire(tokens[number])

    async with anyio.create_task_group() as group:
        for number in range(len(tokens)):
            group.start_soon(one, number)
    return taken


async def test_many_tries_are_one_call() -> None:
    """However many try at once, the server is asked once, and as many are granted as there are."""
    async with reserving_store(latency=0.09) as store:
        limiter = RedisRateLimiter(store, "key", 10, burst=10, on_failure="allow")
        assert sum(await try_together(limiter, [1] * 1500)) == 10
        statistics = limiter.statistics()
        assert (statistics.server_calls, statistics.down, statistics.lost) == (1, False, 0)
        assert (statistics.acquired, statistics.rejected) == (10, 1490)


async def test_tries_that_are_answered_late() -> None:
    """What was there when the server was asked is granted, however late the answer is handled."""
    async with reserving_store(latency=0.3) as store:
        limiter = RedisRateLimiter(store, "key", 0.1, burst=10)
        for _ in range(4):
            assert sum(await try_together(limiter, [1] * 2)) == 2
        for _ in range(2):
            await limiter.acquire(timeout=0)
        assert not await limiter.try_acquire()
        with pytest.raises(LimitTimeoutError, match=r"within 0 s, only in about 7\.9 s\.$"):
            await limiter.acquire(timeout=0)
        statistics = limiter.statistics()
        assert (statistics.acquired, statistics.rejected, statistics.timed_out) == (10, 1, 1)
        assert (statistics.lost, statistics.server_failures) == (0, 0)


async def test_tries_that_are_answered_late_keep_to_the_rate() -> None:
    """They count from when the server took their tokens: no bucket is filled by a late answer."""
    async with reserving_store(latency=0.5) as store:
        limiters = [RedisRateLimiter(store, "key", 10, burst=20) for _ in range(2)]

        async def work(limiter: RedisRateLimiter) -> None:
            while True:
                await limiter.try_acquire(5)

        with anyio.move_on_after(30):
            async with anyio.create_task_group() as group:
                for limiter in limiters * 3:
                    group.start_soon(work, limiter)
        granted = sum(limiter.statistics().acquired for limiter in limiters) * 5
        assert 0.9 * 320 <= granted <= 320


async def test_first_request_of_many_users_at_once() -> None:
    """A busy event loop, which hears of each answer late, refuses nobody for that."""
    async with reserving_store(latency=0.2) as store:
        limiters = [RedisRateLimiter(store, f"user {each}", 1, burst=1) for each in range(50)]
        granted: list[bool] = []

        async def work(limiter: RedisRateLimiter) -> None:
            granted.append(await limiter.try_acquire())

        async with anyio.create_task_group() as group:
            for limiter in limiters:
                group.start_soon(work, limiter)
        assert granted == [True] * 50


async def test_tries_of_several_sizes() -> None:
    """All that ask for as many share a call; no tokens are taken for half a request."""
    async with reserving_store(latency=0) as store:
        limiter = RedisRateLimiter(store, "key", 1, burst=6)
        await limiter.acquire()
        await settle()
        taken = await try_together(limiter, [2, 2, 2, 2])
        assert sum(taken) == 2
        assert sum(await try_together(limiter, [1, 1])) == 1
        statistics = limiter.statistics()
        assert (statistics.server_calls, statistics.reserved, statistics.lost) == (3, 0, 0)
        await anyio.sleep(3)
        taken = await try_together(limiter, [3, 1, 3, 1])
        assert sum(taken) in {1, 2}  # one of three, or two of one: trio starts tasks in any order
        assert limiter.statistics().server_calls == 5


async def test_cancelled_try_leaves_its_tokens_to_the_next() -> None:
    """Those behind it in the same call get them; if there are none, the tokens are lost."""
    async with reserving_store(latency=0.01) as store:
        limiter = RedisRateLimiter(store, "key", 1, burst=2)
        taken: list[bool] = []

        async def work(patience: float) -> None:
            with anyio.move_on_after(patience):
                taken.append(await limiter.try_acquire())

        async with anyio.create_task_group() as group:
            for patience in (0.005, 1, 1):
                group.start_soon(work, patience)
        assert taken == [True, True]
        assert limiter.statistics().cancelled == 1
        await anyio.sleep(1)
        await work(0.005)
        await anyio.sleep(0.1)
        assert limiter.statistics().lost == 1


async def test_those_that_try_come_before_those_that_wait_later() -> None:
    """A task that begins to wait during the call of others is supplied after them."""
    async with reserving_store(latency=0.01) as store:
        limiter = RedisRateLimiter(store, "key", 10, burst=1)

        async def tries() -> None:
            assert await limiter.try_acquire()

        async with anyio.create_task_group() as group:
            group.start_soon(tries)
            await anyio.sleep(0.005)
            await limiter.acquire()
        assert anyio.current_time() == pytest.approx(0.11, abs=0.02)


async def test_timeout_of_zero() -> None:
    """It is one question: what is there is granted, what is not is refused at once."""
    async with reserving_store(latency=0.01) as store:
        limiter = RedisRateLimiter(store, "key", 1, burst=2)

        @limiter(timeout=0)
        async def limited() -> bool:
            return True

        await limiter.acquire(timeout=0)
        assert await limited()
        with pytest.raises(
            LimitTimeoutError, match=r"^<.*> cannot grant 1 token within 0 s, only in about 0.9"
        ) as caught:
            await limited()
        assert caught.value.retry_after == pytest.approx(0.99, abs=0.05)
        assert caught.value.deadline == pytest.approx(0.02)
        assert anyio.current_time() == pytest.approx(0.03)
        async with anyio.create_task_group() as group:
            group.start_soon(limiter.acquire)
            await settle()
            with pytest.raises(LimitTimeoutError, match=r"only in about 2 s\.$"):
                await limiter.acquire(timeout=0)  # a task waits
            group.cancel_scope.cancel()
        assert limiter.statistics().timed_out == 2


async def test_timeout_while_others_are_served() -> None:
    """What is estimated is never less than the time that was waited in vain."""
    async with reserving_store(latency=0.001) as store:
        limiters = [RedisRateLimiter(store, "key", 10, burst=1) for _ in range(2)]
        late: list[float] = []

        async def work(limiter: RedisRateLimiter) -> None:
            while True:
                try:
                    await limiter.acquire(timeout=0.13)
                except LimitTimeoutError as error:
                    late.append(float(str(error).rpartition(" only in about ")[2].split()[0]))

        with anyio.move_on_after(3):
            async with anyio.create_task_group() as group:
                for limiter in limiters * 2:
                    group.start_soon(work, limiter)
        assert min(late) > 0.13


async def test_try_that_is_cancelled_though_it_need_not_wait() -> None:
    """With tasks in front of it a try is refused without the server, but at a checkpoint."""
    async with reserving_store() as store, anyio.create_task_group() as group:
        limiter = RedisRateLimiter(store, "key", 1, burst=1)
        await limiter.acquire()
        group.start_soon(limiter.acquire)
        await settle()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await limiter.try_acquire()
        assert scope.cancelled_caught
        statistics = limiter.statistics()
        assert (statistics.cancelled, statistics.rejected) == (1, 0)


async def test_cancelled_try_leaves_its_token_to_the_next() -> None:
    """One that is being cancelled as the answer arrives gets nothing of it."""
    scopes: list[anyio.CancelScope] = []

    class Cancelling(MemoryStore):
        async def script(self, script: Any, keys: Any, args: Any = ()) -> Any:
            answer = await super().script(script, keys, args)
            for scope in scopes:
                scope.cancel()
            return answer

    async with Cancelling({RESERVE: reserve}) as store:
        limiter = RedisRateLimiter(store, "key", 0.1, burst=1)
        granted: list[bool] = []

        async def cancelled() -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await limiter.try_acquire()

        async def tries() -> None:
            granted.append(await limiter.try_acquire())

        async with anyio.create_task_group() as group:
            group.start_soon(cancelled)
            group.start_soon(tries)
        assert granted == [True]
        assert limiter.statistics().lost == 0


async def test_timeout_before_the_server_has_answered() -> None:
    """It says so; and that the server is down, once that is known."""
    async with reserving_store(timeout=1) as store:
        limiter = RedisRateLimiter(store, "key", 10)
        await limiter.acquire(timeout=0.2)
        store.fail()
        with pytest.raises(
            LimitTimeoutError,
            match=r"^<.*> cannot grant 1 token within 0\.2 s: memory:// has not answered yet\.$",
        ) as caught:
            await limiter.acquire(timeout=0.2)
        assert caught.value.retry_after == 1
        await anyio.sleep(1)
        with pytest.raises(
            StoreError,
            match=r"^<.*> cannot grant 1 token within 0\.2 s: memory:// did not answer within 1 s",
        ) as known:
            await limiter.acquire(timeout=0.2)
        assert known.value.server == "memory://"
        store.recover()
        await anyio.sleep(1)
        await limiter.acquire(timeout=0.2)
        statistics = limiter.statistics()
        assert (statistics.timed_out, statistics.rejected) == (1, 1)


async def test_tokens_not_used_in_time_are_lost() -> None:
    """A token that was reserved for a task that gave up is granted for ``slack`` seconds more."""
    async with reserving_store(latency=0) as store:
        limiter = RedisRateLimiter(store, "key", 25, burst=1)
        await limiter.acquire()
        with anyio.move_on_after(0.01):
            await limiter.acquire()
        assert limiter.statistics().reserved == 1
        await anyio.sleep(0.2)
        await limiter.acquire()
        statistics = limiter.statistics()
        assert (statistics.reserved, statistics.lost) == (0, 1)


async def test_server_that_fails_closed() -> None:
    """By default all that wait get an error that names the server, after its timeout at most."""
    async with reserving_store(timeout=0.5) as store:
        limiter = RedisRateLimiter(store, "key", 10, burst=1)
        store.fail()
        errors: list[StoreError] = []

        async def work() -> None:
            with pytest.raises(StoreError, match=r"^memory:// did not answer") as caught:
                await limiter.acquire()
            errors.append(caught.value)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(work)
        assert anyio.current_time() == 0.5
        assert len(set(map(id, errors))) == 3  # each has its own traceback and notes
        assert {error.server for error in errors} == {"memory://"}
        with pytest.raises(StoreError, match=r"^memory:// did not answer"):
            await limiter.try_acquire()
        store.recover()
        await limiter.acquire()
        statistics = limiter.statistics()
        assert (statistics.rejected, statistics.server_failures, statistics.down) == (4, 2, False)


async def test_server_that_fails_open() -> None:
    """With "allow" all is granted while the server is down, which is noticed when it is not."""
    async with reserving_store(timeout=0.5) as store:
        limiter = RedisRateLimiter(store, "key", 10, burst=1, on_failure="allow")
        store.fail()
        for _ in range(20):
            await limiter.acquire()
            assert await limiter.try_acquire()
        assert anyio.current_time() == 0.5
        assert limiter.statistics().down
        await anyio.sleep(5)
        store.recover()
        await anyio.sleep(2.6)
        assert not limiter.statistics().down
        start = anyio.current_time()
        for _ in range(3):
            await limiter.acquire()
        assert anyio.current_time() - start >= 0.2
        assert limiter.statistics().acquired_without_server == 40
        assert limiter.statistics().acquired == 43


async def test_looking_for_the_server_takes_and_adds_no_tokens() -> None:
    """The bucket holds after a failure what it held before it."""
    async with reserving_store(timeout=0.5) as store:
        limiter = RedisRateLimiter(store, "key", 1, burst=5, on_failure="allow")
        await limiter.acquire(5)
        store.fail()
        await limiter.acquire()
        store.recover()
        await anyio.sleep(1)
        assert not limiter.statistics().down
        assert not await limiter.try_acquire(2)
        assert await limiter.try_acquire()


async def test_failure_seen_by_try_acquire() -> None:
    """It is answered in the way that was chosen, at once after the first time."""
    async with reserving_store(timeout=0.5) as store:
        limiter = RedisRateLimiter(store, "key", 10, burst=1, on_failure="allow")
        store.fail()
        assert await limiter.try_acquire()
        assert await limiter.try_acquire()
        await limiter.acquire(timeout=0)
        assert anyio.current_time() == 0.5
        assert limiter.statistics().acquired_without_server == 3


async def test_server_that_fails_to_a_local_limit() -> None:
    """With "local" each process grants its part of the rate."""
    async with reserving_store(timeout=0.5) as store:
        limiters = [
            RedisRateLimiter(store, "key", 20, burst=4, on_failure="local") for _ in range(2)
        ]
        for limiter in limiters:
            await limiter.acquire()
        first = limiters[1]
        assert first.statistics().members == 2
        store.fail()
        with pytest.raises(AssertionError):
            await fails_at_once(first)
        start = anyio.current_time()
        moments: list[float] = []
        for _ in range(6):
            await first.acquire()
            moments.append(anyio.current_time() - start)
        assert moments == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5], abs=1e-6)
        assert not await first.try_acquire()
        await anyio.sleep(0.1)
        assert await first.try_acquire()
        with pytest.raises(LimitTimeoutError):
            await first.acquire(timeout=0.05)
        with pytest.raises(
            LimitTimeoutError, match=r"4 tokens within 0\.05 s, only in about 0\.4 s"
        ):
            await first.acquire(4, timeout=0.05)
        with anyio.move_on_after(0.05):
            await first.acquire()
        await first.acquire(4)  # more than its part of the burst: in parts
        await anyio.sleep(0.3)
        assert not await first.try_acquire(4)  # what it could not pay for
        with pytest.raises(LimitTimeoutError, match=r"4 tokens within 0 s, only in about 0.4 s"):
            await first.acquire(4, timeout=0)
        await first.acquire(2, timeout=0)
        statistics = first.statistics()
        assert (statistics.cancelled, statistics.rejected, statistics.timed_out) == (1, 2, 3)


async def acquire_in_turn(
    limiter: RedisRateLimiter, numbers: range, served: list[tuple[int, float]]
) -> None:
    """Start a task for each number, in this order, which acquires a token and notes when."""

    async def work(number: int) -> None:
        await limiter.acquire()
        served.append((number, anyio.current_time()))

    async with anyio.create_task_group() as group:
        for number in numbers:
            group.start_soon(work, number)
            await settle()


async def test_order_of_asking_through_an_outage() -> None:
    """Tasks that wait when the server goes, or comes back, stay before those that come then."""
    async with reserving_store(latency=0.002, timeout=0.5) as store:
        limiter = RedisRateLimiter(store, "key", 10, burst=1, on_failure="local")
        served: list[tuple[int, float]] = []
        async with anyio.create_task_group() as group:
            group.start_soon(acquire_in_turn, limiter, range(20), served)
            await anyio.sleep(0.55)
            store.fail()
            group.start_soon(acquire_in_turn, limiter, range(20, 60), served)
            await anyio.sleep(3)
            group.start_soon(acquire_in_turn, limiter, range(60, 70), served)
            await settle()
            store.recover()
            await anyio.sleep(1.7)
            assert not limiter.statistics().down
            group.start_soon(acquire_in_turn, limiter, range(70, 80), served)
        assert [number for number, _ in served] == [*range(80)]
        moments = [moment for _, moment in served]
        back = [moment for moment in moments if moment > 5.2]
        assert max(two - one for one, two in pairwise(back)) <= 0.11
        assert len(back) <= 2 + 10 * (back[-1] - back[0] + limiter.slack)
        statistics = limiter.statistics()
        assert 20 <= statistics.acquired_without_server <= 50
        assert (statistics.acquired, statistics.waiting) == (80, 0)


async def test_rate_when_the_server_is_back() -> None:
    """Those who waited in the outage get tokens of the server, and no others beside them."""
    async with reserving_store(timeout=0.5) as store:
        limiters = [
            RedisRateLimiter(store, "key", 100, burst=1, on_failure="local") for _ in range(4)
        ]
        moments: list[float] = []

        async def work(limiter: RedisRateLimiter) -> None:
            while True:
                await limiter.acquire()
                moments.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            for limiter in limiters * 30:
                group.start_soon(work, limiter)
            await anyio.sleep(1)
            store.fail()
            await anyio.sleep(6)
            store.recover()
            await anyio.sleep(2.6)  # within which each has noticed
            back = anyio.current_time()
            assert {limiter.statistics().down for limiter in limiters} == {0}
            await anyio.sleep(4)
            group.cancel_scope.cancel()
        after = [moment for moment in moments if moment >= back]
        assert 0.95 * 400 <= len(after) <= 1 + 100 * (4 + limiters[0].slack)
        without = [moment for moment in moments if 2 <= moment < 7]
        assert len(without) == pytest.approx(500, abs=5)


async def test_rest_of_a_large_request_when_the_server_is_back() -> None:
    """What it had without the server stays with it; the rest comes from the server."""
    async with reserving_store(latency=0.002, timeout=0.5) as store:
        limiter, other = (
            RedisRateLimiter(store, "key", 1, burst=4, on_failure="local") for _ in range(2)
        )
        await limiter.acquire()
        await other.acquire()
        await limiter.acquire(2)
        store.fail()
        async with anyio.create_task_group() as group:
            group.start_soon(limiter.acquire, 4)
            await anyio.sleep(3)  # two after the timeout, and two more would take four seconds
            store.recover()
        assert anyio.current_time() == pytest.approx(3.5, abs=0.05)
        statistics = limiter.statistics()
        assert (statistics.acquired, statistics.acquired_without_server) == (3, 0)
        assert not await limiter.try_acquire(2)  # the server's bucket had 3.5, and granted two
        assert await limiter.try_acquire()


async def test_timeouts_without_the_server() -> None:
    """The first in the queue is refused when it is known that it waits in vain, others later."""
    async with reserving_store(timeout=0.5) as store:
        limiter = RedisRateLimiter(store, "key", 1, burst=1, on_failure="local")
        store.fail()
        await limiter.acquire()
        assert anyio.current_time() == 0.5
        with pytest.raises(LimitTimeoutError, match=r"within 0\.4 s, only in about 1 s\.$"):
            await limiter.acquire(timeout=0.4)
        assert anyio.current_time() == 0.5
        async with anyio.create_task_group() as group:
            group.start_soon(limiter.acquire)
            await settle()
            with pytest.raises(LimitTimeoutError, match=r"only in about 2\.4 s\.$"):
                await limiter.acquire(timeout=0.4)
            assert anyio.current_time() == 0.9
            with pytest.raises(LimitTimeoutError, match=r"0 s, only in about 2 s\.$"):
                await limiter.acquire(timeout=0)  # a task waits
            assert not await limiter.try_acquire()
        assert anyio.current_time() == 1.5
        statistics = limiter.statistics()
        assert (statistics.rejected, statistics.timed_out) == (1, 3)
        assert statistics.acquired == statistics.acquired_without_server == 2


async def test_those_that_try_when_the_server_fails() -> None:
    """They are answered by the local bucket, before those that began to wait later."""
    async with reserving_store(timeout=0.5) as store:
        limiter = RedisRateLimiter(store, "key", 1, burst=2, on_failure="local")
        store.fail()
        taken: list[bool] = []

        async def tries() -> None:
            taken.append(await limiter.try_acquire())

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(tries)
            await settle()
            await limiter.acquire()
        assert sorted(taken) == [False, True, True]
        assert anyio.current_time() == 1.5


async def test_all_that_wait_go_on_with_a_server_that_fails_open() -> None:
    """At once, however many tokens they ask for, and so do those that come later."""
    async with reserving_store(timeout=0.5) as store:
        limiter = RedisRateLimiter(store, "key", 0.1, burst=5, on_failure="allow")
        await limiter.acquire(5)
        store.fail()
        async with anyio.create_task_group() as group:
            for tokens in (1, 5, 3) * 20:
                group.start_soon(limiter.acquire, tokens)
        assert limiter.statistics().acquired_without_server == 60
        assert await limiter.try_acquire(5)
        await limiter.acquire(5)
        assert anyio.current_time() == pytest.approx(0.501)
        assert limiter.statistics().acquired_without_server == 62


async def test_what_is_left_over_is_taken_at_a_checkpoint() -> None:
    """A task that is cancelled already takes no token, though one that nobody wanted is there."""
    async with reserving_store(latency=0) as store:
        limiter = RedisRateLimiter(store, "key", 25, burst=1, on_failure="allow")
        await limiter.acquire()
        with anyio.move_on_after(0.01):
            await limiter.acquire()
        await anyio.sleep(0.05)
        for _ in range(2):
            assert limiter.statistics().reserved == 1
            with anyio.CancelScope() as scope:
                scope.cancel()
                await limiter.acquire()
            assert scope.cancelled_caught
        store.fail()
        await anyio.sleep(0.2)
        await limiter.acquire()  # which is granted without the server
        with anyio.CancelScope() as scope:
            scope.cancel()
            await limiter.acquire()
        assert scope.cancelled_caught
        assert limiter.statistics().acquired == 2


async def test_the_bucket_of_one_outage_serves_the_next() -> None:
    """A server that fails again and again does not let a full burst through each time."""
    async with reserving_store(timeout=0.5) as store:
        limiter = RedisRateLimiter(store, "key", 0.1, burst=3, on_failure="local")
        for granted in (3, 0):
            store.fail()
            assert [await limiter.try_acquire() for _ in range(4)].count(True) == granted
            store.recover()
            await anyio.sleep(1)
            assert not limiter.statistics().down


async def test_another_number_of_processes_fills_no_bucket() -> None:
    """The share of an outage is another one then, but begins with what the last outage left."""
    async with reserving_store(timeout=0.5) as store:
        limiter, other = (
            RedisRateLimiter(store, "key", 0.1, burst=6, on_failure="local") for _ in range(2)
        )
        granted = []
        for processes, tries in ((1, 1), (2, 8), (1, 8), (2, 8)):
            if processes > 1:
                await other.try_acquire()
            await limiter.try_acquire()
            assert limiter.statistics().members == processes
            store.fail()
            granted.append([await limiter.try_acquire() for _ in range(tries)].count(True))
            store.recover()
            await anyio.sleep(3)
            assert not limiter.statistics().down
        assert granted == [1, 3, 0, 0]


async def test_errors_say_whether_the_server_refused() -> None:
    """The error of each task does, as the one of the store does."""
    async with reserving_store() as store:
        limiter = RedisRateLimiter(store, "key", 1)

        def refuse(*_: object) -> None:
            raise StoreError("memory:// is full", server="memory://", refused=True)

        store.scripts = dict.fromkeys(store.scripts, refuse)
        for call in (
            limiter.acquire,
            limiter.try_acquire,
            partial(limiter.acquire, timeout=0.0005),
        ):
            with pytest.raises(StoreError, match="memory:// is full") as caught:
                await call()
            assert (caught.value.refused, caught.value.server) == (True, "memory://")


async def test_failures_that_raise_nothing_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With the reason, and at most once a minute."""
    async with reserving_store(timeout=0.5) as store:
        limiter = RedisRateLimiter(store, "key", 1, on_failure="allow")
        with caplog.at_level(logging.WARNING, "mtaio.redis"):
            for lines in (1, 1, 2):
                store.fail()
                await limiter.acquire()
                store.recover()
                assert len(caplog.records) == lines
                await anyio.sleep(30)
        assert caplog.messages[0] == (
            f"{limiter!r}: the server failed (on_failure='allow'): memory:// did not "
            f"answer within 0.5 s."
        )


async def fails_at_once(limiter: RedisRateLimiter) -> None:
    """Learn that the server is down, which takes its timeout."""
    await limiter.acquire()
    msg = "granted"
    raise AssertionError(msg)


async def test_answers_that_come_too_late() -> None:
    """A server that answers later than ``slack`` allows is down, as far as the limiter goes."""
    async with reserving_store(latency=0.3) as store:
        limiter = RedisRateLimiter(store, "key", 10)
        with pytest.raises(
            StoreError, match=r"^memory:// took 0.3 s to answer, more than slack=0.1"
        ):
            await limiter.acquire()
        assert anyio.current_time() == pytest.approx(0.9)
        store.latency = 0.001
        await limiter.acquire()
        statistics = limiter.statistics()
        assert (statistics.server_calls, statistics.server_failures, statistics.lost) == (4, 1, 3)


async def test_store_that_is_left() -> None:
    """Tasks that still wait when the store's block ends are told so."""
    store = reserving_store()
    limiter = RedisRateLimiter(store, "key", 1, burst=1, on_failure="allow")
    async with anyio.create_task_group() as group, store:
        await limiter.acquire()

        async def work() -> None:
            with pytest.raises(RuntimeError, match=r"^<.*> was left while <RedisRateLimiter"):
                await limiter.acquire()

        async def tries() -> None:
            with pytest.raises(RuntimeError, match=r"^<.*> was left while <RedisRateLimiter"):
                await limiter.try_acquire()

        store.latency = 0.5
        group.start_soon(tries)
        await settle()
        group.start_soon(work)
        await anyio.sleep(0.2)
    store.latency = 0
    async with store:
        await limiter.acquire()


async def test_probe_ends_with_the_store() -> None:
    """A limiter that found its server down asks again after the store is entered again."""
    store = reserving_store(timeout=0.5)
    limiter = RedisRateLimiter(store, "key", 1, burst=1, on_failure="allow")
    store.fail()
    async with store:
        await limiter.acquire()
        assert limiter.statistics().down
    assert not limiter.statistics().down


async def test_decorator() -> None:
    """Each call of a decorated function acquires first."""
    async with reserving_store(latency=0) as store:
        limiter = RedisRateLimiter(store, "key", 10, burst=2)

        @limiter
        async def one() -> float:
            return anyio.current_time()

        @limiter(tokens=2, timeout=5)
        async def two() -> float:
            return anyio.current_time()

        assert await one() == 0
        assert await two() == pytest.approx(0.1)


async def test_run() -> None:
    """It makes one call for one token."""
    async with reserving_store(latency=0) as store:
        limiter = RedisRateLimiter(store, "key", 10)

        async def power(base: int, exponent: int) -> tuple[int, float]:
            return base**exponent, anyio.current_time()

        assert await limiter.run(power, 2, 3) == (8, 0)
        assert await limiter.run(power, 3, 2) == pytest.approx((9, 0.1))
        with pytest.raises(TypeError, match=r"=7 can be neither called nor awaited\."):
            await limiter.run(7)  # type: ignore[arg-type] # what is tested
        assert limiter.statistics().acquired == 2


def test_one_loop_after_another(backend: str) -> None:
    """What one loop reserved is not given to the next, nor do its tasks stay in the queue."""
    store = reserving_store(latency=0)
    limiter = RedisRateLimiter(store, "key", 25, burst=1)

    async def main() -> None:
        async with store:
            await limiter.acquire()
            with anyio.move_on_after(0.01):
                await limiter.acquire()
            assert limiter.statistics().reserved == 1

    for _ in range(2):
        run(main, backend=backend)


def test_attributes() -> None:
    """It shows what it was made with."""
    store = MemoryStore()
    limiter = RedisRateLimiter(store, "geo", 2.5, per=2, slack=0.2)
    shown = (limiter.name, limiter.key, limiter.rate, limiter.per, limiter.burst, limiter.slack)
    assert shown == ("geo", "geo", 2.5, 2, 1, 0.2)
    assert repr(limiter) == "<RedisRateLimiter 'geo' 2.5 per 2 s, burst=1 at memory://>"
    assert (limiter.statistics().rate, limiter.statistics().burst) == (2.5, 1)
    assert RedisRateLimiter(store, "geo", 0.5, name="other").name == "other"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": ""}, r"^key='' is empty\. Pass a str"),
        ({"rate": 0}, "^rate=0 is not a finite number greater than 0"),
        ({"per": -1}, "^per=-1 is not a finite number"),
        (
            {"rate": 1e-300},
            r"^rate=1e-300 per 1\.0 s is too slow for burst=1: the bucket",
        ),
        ({"per": 1e300}, r"^rate=1 per 1e\+300 s is too slow for burst=1: "),
        ({"rate": 1e300}, r"^rate=1e\+300 per 1\.0 s is more than a server can count, which"),
        ({"rate": 1e300, "per": 1e-300}, r"^rate=1e\+300 per 1e-300 s is more than a server"),
        ({"burst": 10**9}, r"^rate=1 per 1\.0 s is too slow for burst=1000000000: "),
        ({"slack": 0}, "^slack=0 is not a finite number"),
        ({"slack": 1e-9}, r"^slack=1e-09 is not between 0\.001 and 3600\.0\. Pass several times"),
        ({"slack": 1e300}, r"^slack=1e\+300 is not between"),
        ({"burst": 0}, "^burst=0 is less than 1"),
        ({"on_failure": "never"}, "^on_failure='never' is unknown"),
    ],
)
def test_refused_arguments(options: dict[str, Any], message: str) -> None:
    """What cannot be meant is refused when the limiter is made."""
    with pytest.raises(ValueError, match=message):
        RedisRateLimiter(MemoryStore(), **{"key": "key", "rate": 1, **options})
    store: Any = None
    with pytest.raises(TypeError, match=r"^store=None is a NoneType, not a store\. "):
        RedisRateLimiter(store, "key", 1)


async def test_refused_calls() -> None:
    """What can never be granted is refused at once."""
    limiter = RedisRateLimiter(MemoryStore(), "key", 1)
    with pytest.raises(ValueError, match=r"^tokens=0 is less than 1"):
        await limiter.acquire(0)
    with pytest.raises(TypeError, match=r"^tokens=0.5 is a float, not an int"):
        await limiter.try_acquire(0.5)  # type: ignore[arg-type]  # refused
    with pytest.raises(ValueError, match=r"^timeout=-1 is less than 0"):
        await limiter.acquire(timeout=-1)
