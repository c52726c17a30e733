"""
What every primitive of mtaio holds to, whichever it is: one contract, one table.

Each is made where no event loop runs, as at module level, and may be used by one event loop after
another, on either backend, also after a run that failed or was cancelled while tasks waited at it.
Those with a block are entered once at a time, and left in the task that entered them.
Its statistics are snapshots that add up at any moment, and its ``repr`` is a line that says what it
is. What its methods do in threads and in two loops at once is in test_threads.py, what it remembers
from loop to loop in test_clocks.py.
"""

from __future__ import annotations

import copy
import gc
import pickle
import re
from contextlib import nullcontext, suppress
from dataclasses import FrozenInstanceError, asdict, fields
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest
from anyio import to_thread

from mtaio import exceptions
from mtaio.app import Application
from mtaio.cache import TTLCache, cached
from mtaio.config import Settings
from mtaio.core import TaskExecutor
from mtaio.events import EventEmitter
from mtaio.monitoring import HealthRegistry, ResourceMonitor
from mtaio.redis import RedisStore, TieredCache
from mtaio.resilience import (
    AdaptiveLimiter,
    Breaker,
    Budget,
    Fallback,
    Hedge,
    Pipeline,
    Retry,
    Timeout,
)
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedConcurrencyLimiter,
    KeyedQuota,
    KeyedRateLimiter,
    Quota,
    RateLimiter,
    ResourceLimiter,
    TimeoutManager,
)
from mtaio.testing import run, settle
from mtaio.testing._contract import require_nothing_left
from mtaio.types import EvictionPolicy
from tests.backends import BACKENDS
from tests.closed_loops import leave_waiting
from tests.injection import at_every_checkpoint, cancelled_at, natively_cancelled_at
from tests.redis.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from mtaio.events import Event

    Use = Callable[[], Coroutine[Any, Any, None]]
    """Uses the primitive, so that tasks wait at it for a second or more; asserts what it got."""

LOOPS = (*BACKENDS, *reversed(BACKENDS))


async def second(value: int) -> int:
    """Take a second."""
    await anyio.sleep(1)
    return value


def limiter_of(limiter: Any) -> tuple[object, Use]:
    """Return a use of a limiter that lets one in at a time."""

    async def use() -> None:
        started = anyio.current_time()
        ended: list[float] = []

        async def work(number: int) -> None:
            async with limiter:
                await second(number)
            ended.append(anyio.current_time() - started)

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(work, number)
        assert ended == [1, 2, 3]

    return limiter, use


def rate_of(limiter: Any, *key: str) -> tuple[object, Use]:
    """Return a use of a limiter that grants one token a second."""

    async def use() -> None:
        granted: list[float] = []

        async def work() -> None:
            await limiter.acquire(*key)
            granted.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(work)
        assert [later - sooner for sooner, later in pairwise(granted)] == [1, 1]

    return limiter, use


def keyed_slots() -> tuple[object, Use]:
    """Return a use of one key of a limiter, which lets one in at a time."""
    limiter = KeyedConcurrencyLimiter(1)
    return limiter, limiter_of(limiter.slot("key"))[1]


def timeouts() -> tuple[object, Use]:
    """Return a use of a timeout manager."""
    manager = TimeoutManager()

    async def use() -> None:
        with pytest.raises(exceptions.TimeoutError), manager(1.5):
            await anyio.sleep_forever()

    return manager, use


def cache(policy: EvictionPolicy, *, entered: bool) -> tuple[object, Use]:
    """Return a use of a cache, by callers that wait for one load."""
    made: TTLCache[int] = TTLCache(0.5, max_size=4, policy=policy)

    async def use() -> None:
        loads: list[int] = []
        got: list[int] = []

        async def load() -> int:
            loads.append(1)
            return await second(7)

        async def ask() -> None:
            got.append(await made.get_or_set("key", load))

        async def ask_all() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(ask)

        made.clear_nowait()
        if entered:
            async with made:
                await ask_all()
        else:
            await ask_all()
        assert (got, loads) == ([7, 7, 7], [1])
        await made.set("other", 8)
        assert await made.get("other") == 8

    return made, use


def cached_function() -> tuple[object, Use]:
    """Return a use of a function whose results are cached."""
    fetch = cached(ttl=0.5)(second)

    async def use() -> None:
        async with anyio.create_task_group() as group:
            for number in (1, 1, 2):
                group.start_soon(fetch, number)
        assert await fetch(1) == 1

    return fetch.cache, use


def emitter() -> tuple[object, Use]:
    """Return a use of an emitter, by handlers, a stream and those who wait for an event."""
    made = EventEmitter()
    seen: list[int] = []

    @made.on("a")
    async def handle(event: Event[Any]) -> None:
        await anyio.sleep(1)
        seen.append(event.data)

    async def use() -> None:
        seen.clear()
        await made.emit("a", 1)
        async with made, made.stream("a") as events, anyio.create_task_group() as group:
            group.start_soon(made.emit, "a", 2)
            assert (await made.wait_for("a")).data == 2
            assert (await anext(events)).data == 2
            made.emit_nowait("a", 3)
        assert sorted(seen) == [1, 2, 3]

    return made, use


def monitor() -> tuple[object, Use]:
    """Return a use of a monitor, whose handler is at work when it is stopped."""
    made = ResourceMonitor(1)
    level = 2.0
    handled: list[float] = []
    made.gauge("level", lambda: level)
    made.set_threshold("level", 1)

    @made.on_threshold_exceeded
    async def handle(_metric: str, value: float, _threshold: float) -> None:
        await anyio.sleep(1)
        handled.append(value)

    async def use() -> None:
        nonlocal level
        handled.clear()
        level = 0.0
        await made.tick()
        before = made.statistics().samples
        async with made:
            level = 2.0
            await anyio.sleep(1.5)
            assert (await made.get_current_stats()).memory.total > 0
        assert (handled, made.statistics().samples - before) == ([2.0], 1)

    return made, use


def executor() -> tuple[object, Use]:
    """Return a use of an executor, with tasks that wait for its one slot."""
    made = TaskExecutor(1, max_pending=1, threads=1)

    async def use() -> None:
        assert await made.map(second, range(3)) == [0, 1, 2]
        assert await made.gather(second(1), made.run(second, 2)) == (1, 2)
        assert await made.run_in_thread(divmod, 7, 2) == (3, 1)
        async with made:
            handles = [await made.submit(second, number) for number in range(3)]
            assert [await handle for handle in handles] == [0, 1, 2]

    return made, use


def health() -> tuple[object, Use]:
    """Return a use of a registry whose check takes a second."""
    made = HealthRegistry()

    @made.check(timeout=2, ttl=0)
    async def check() -> None:
        await anyio.sleep(1)

    async def use() -> None:
        started = anyio.current_time()
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(made.report)
        assert anyio.current_time() == started + 1
        assert (await made.report()).ready

    return made, use


def pipeline() -> tuple[object, Use]:
    """Return a use of a pipeline: calls that fail, are retried and hedged, one at a time."""
    made = Pipeline(
        Fallback(lambda _: 0),
        Timeout(100, total=True),
        Retry(2, wait_initial=0, budget=Budget(1)),
        Breaker(1, last=99),
        Hedge(1.5),
        AdaptiveLimiter(initial=3, max_waiting=9),
        Timeout(10),
    )

    async def use() -> None:
        failures = iter([True, False, False, False])
        results: list[int] = []

        async def work() -> int:
            await anyio.sleep(1)
            if next(failures, False):
                raise ConnectionError
            return 1

        async def call() -> None:
            results.append(await made.run(work))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(call)
        assert results == [1, 1, 1]

    return made, use


def keyed_quota() -> tuple[object, Use]:
    """Return a use of a quota for each key, by one of them."""
    made = KeyedQuota(requests=(1, 1), tokens=(60, 1))

    async def use() -> None:
        granted: list[float] = []

        async def work() -> None:
            async with made.take("key", tokens=20) as taken:
                granted.append(anyio.current_time())
                taken.settle(tokens=10)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(work)
        assert [later - sooner for sooner, later in pairwise(granted)] == [1, 1]

    return made, use


PRIMITIVES: dict[str, Callable[[], tuple[object, Use]]] = {
    "ConcurrencyLimiter": lambda: limiter_of(ConcurrencyLimiter(1)),
    "ResourceLimiter": lambda: limiter_of(
        ResourceLimiter(concurrency=1, rate=1000, burst=1000, timeout=60)
    ),
    "RateLimiter": lambda: rate_of(RateLimiter(1, slack=0)),
    "KeyedRateLimiter": lambda: rate_of(KeyedRateLimiter(1, slack=0), "key"),
    "Quota": lambda: rate_of(Quota(requests=1, tokens=(60, 20))),
    "Quota, shared": lambda: rate_of(Quota(requests=RateLimiter(1, slack=0), tokens=(60, 20))),
    "KeyedQuota": keyed_quota,
    "KeyedConcurrencyLimiter": keyed_slots,
    "TimeoutManager": timeouts,
    "TTLCache": lambda: cache("s3fifo", entered=False),
    "TTLCache, entered": lambda: cache("lru", entered=True),
    "cached": cached_function,
    "EventEmitter": emitter,
    "HealthRegistry": health,
    "TaskExecutor": executor,
    "ResourceMonitor": monitor,
    "Pipeline": pipeline,
}


@pytest.fixture(params=PRIMITIVES)
def primitive(request: pytest.FixtureRequest) -> tuple[object, Use]:
    """Return each primitive in turn, made where no loop runs, and a use of it."""
    return PRIMITIVES[request.param]()


def use_everywhere(primitive: tuple[object, Use]) -> None:
    """Use a primitive in one loop after another."""
    made, use = primitive
    for backend in LOOPS:
        run(use, backend=backend)
        require_nothing_left(made)


def test_one_loop_after_another(primitive: tuple[object, Use]) -> None:
    """It is as good in the second loop as in the first, and in the third."""
    use_everywhere(primitive)


def test_after_a_run_that_failed(primitive: tuple[object, Use], backend: str) -> None:
    """An error that ends a run while tasks wait leaves it as good as new."""
    made, use = primitive

    async def fail() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(use)
            await settle()
            raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        run(fail, backend=backend)
    require_nothing_left(made)
    use_everywhere(primitive)


def test_after_a_run_that_was_cancelled_anywhere(
    primitive: tuple[object, Use], backend: str
) -> None:
    """So does a deadline, at any moment of its use."""
    _, use = primitive

    async def give_up(deadline: float) -> None:
        with anyio.move_on_after(deadline):
            await use()

    for half in range(9):
        run(give_up, half / 2 + 0.25, backend=backend)
        run(use, backend=backend)


# ---- misuse of the block -------------------------------------------------------------------------

STORE = MemoryStore()

BLOCKS: dict[str, Callable[[], Any]] = {
    "EventEmitter": EventEmitter,
    "TaskExecutor": TaskExecutor,
    "TTLCache": lambda: TTLCache[int](60),
    "TieredCache": lambda: TieredCache[int](STORE, "numbers"),
}
"""The objects whose block has tasks, which is left in the task that entered it."""

if find_spec("glide") is not None:  # as in the session `redis`
    BLOCKS["RedisStore"] = lambda: RedisStore("redis://127.0.0.1:1", timeout=0.1)

APPLICATION = {"Application": lambda: Application(Settings(), logging=False, probes=False)}
"""Its block may be left in another task: it has none of its own."""

ONCE: dict[str, Callable[[], Any]] = {
    "EventStream": lambda: EventEmitter().stream("a"),
    "TimeoutScope": lambda: TimeoutManager()(5),
    "Taken": lambda: Quota(requests=9).take(),
    "TaskExecutor.stream": lambda: TaskExecutor().stream(second, [1]),
}
"""The objects that serve one block, once."""


def around(made: object) -> AbstractAsyncContextManager[object]:
    """Return what has to be entered before."""
    return STORE if isinstance(made, TieredCache) else nullcontext()


@pytest.fixture(params=BLOCKS)
def block(request: pytest.FixtureRequest) -> Any:
    """Return each object with a block in turn."""
    return BLOCKS[request.param]()


def refusal(made: object, reason: str) -> Any:
    """Expect a refusal that names the object, the reason and the way out."""
    return pytest.raises(RuntimeError, match=rf"^{re.escape(repr(made))} {reason}.*\. \w+ ")


@pytest.mark.parametrize("make", [*BLOCKS.values(), *APPLICATION.values()], ids=[*BLOCKS, "App"])
async def test_entered_twice(make: Callable[[], Any]) -> None:
    """It is entered once at a time: the second is refused, and the first does not notice."""
    made = make()
    async with around(made):
        for _ in range(2):
            async with made as same:
                assert same is made
                for _ in range(2):
                    with refusal(made, "is already (entered|running)"):
                        await made.__aenter__()
        require_nothing_left(made)


@pytest.mark.parametrize("make", ONCE.values(), ids=ONCE)
async def test_entered_for_another_block(make: Callable[[], Any]) -> None:
    """What serves one block is refused for a second, also when the first has been left."""
    made = make()
    async with made:
        with pytest.raises(RuntimeError, match=r" was entered before, .*\. \w+ "):
            await made.__aenter__()
    with pytest.raises(RuntimeError, match=r" was entered before, .*\. \w+ "):
        await made.__aenter__()


async def test_left_in_another_task(block: Any) -> None:
    """As fixtures of pytest-asyncio do: it is refused before anything happens."""

    async def leave() -> None:
        with refusal(block, "was entered in another task"):
            await block.__aexit__(None, None, None)

    async with around(block), block:
        async with anyio.create_task_group() as group:
            group.start_soon(leave)
        with refusal(block, "is already entered"):
            await block.__aenter__()
    require_nothing_left(block)


@pytest.mark.parametrize("make", [*BLOCKS.values(), *APPLICATION.values()], ids=[*BLOCKS, "App"])
async def test_left_without_having_been_entered(make: Callable[[], Any]) -> None:
    """As a stack does that is closed twice: nothing happens, and it may be entered afterwards."""
    made = make()
    async with around(made):
        for _ in range(2):
            assert not await made.__aexit__(None, None, None)
            async with made:
                pass


async def test_entered_in_another_loop(block: Any, backend: str) -> None:
    """It is entered once in all threads."""

    async def enter() -> None:
        with refusal(block, "is already entered"):
            await block.__aenter__()

    async with around(block), block:
        await to_thread.run_sync(lambda: anyio.run(enter, backend=backend))


@pytest.mark.parametrize("thrown_away", ["before", "inside", "after"])
@pytest.mark.parametrize("name", [each for each in BLOCKS if each != "TieredCache"])
@pytest.mark.filterwarnings("ignore:GlideClient was garbage-collected:ResourceWarning")
def test_a_loop_that_is_over(name: str, backend: str, thrown_away: str) -> None:
    """
    A block that can never be left is forgotten, and throwing it away disturbs no other.

    The coroutine of a closed loop stays suspended in its body. When it is thrown away, the body
    ends there, and the block of its object is left: not that which was entered in the meantime.
    """
    block = BLOCKS[name]()
    inside: list[object] = []

    async def enter() -> None:
        async with block:
            inside.append(block)
            await anyio.sleep_forever()

    coroutine = enter()
    leave_waiting(coroutine, lambda: inside)

    async def again() -> None:
        async with block:
            if thrown_away == "inside":
                coroutine.close()
            with refusal(block, "is already entered"):
                await block.__aenter__()

    if thrown_away == "before":
        coroutine.close()
    for _ in range(2):
        run(again, backend=backend)
    gc.collect()
    run(again, backend=backend)
    coroutine.close()
    require_nothing_left(block)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.filterwarnings("ignore:GlideClient was garbage-collected:ResourceWarning")
def test_left_after_its_loop_is_over(name: str, backend: str) -> None:
    """As by a stack that is closed late: there is nothing to wait for, and it may be entered."""
    block = BLOCKS[name]()
    inside: list[object] = []

    async def enter() -> None:
        async with around(block), block:
            inside.append(block)
            await anyio.sleep_forever()

    coroutine = enter()
    leave_waiting(coroutine, lambda: inside)

    async def leave_and_enter() -> None:
        assert not await block.__aexit__(None, None, None)
        async with around(block), block:
            pass

    run(leave_and_enter, backend=backend)
    coroutine.close()
    require_nothing_left(block)


async def given_up(use: Use) -> None:
    """Use a primitive; a handle whose task was cancelled first may say so."""
    with suppress(exceptions.TaskCancelledError):
        await use()


async def test_cancelled_at_each_checkpoint(primitive: tuple[object, Use]) -> None:
    """A task that is cancelled wherever it suspends leaves it as good as new."""
    made, use = primitive

    async def once(at: int) -> bool:
        hit = await cancelled_at(given_up(use), at)
        require_nothing_left(made)
        return hit

    assert await at_every_checkpoint(once) >= 1
    await use()


def test_cancelled_natively_at_each_checkpoint(primitive: tuple[object, Use]) -> None:
    """``Task.cancel()`` does no more harm."""
    made, use = primitive

    async def once(at: int) -> bool:
        hit = await natively_cancelled_at(given_up(use), at)
        require_nothing_left(made)
        return hit

    async def main() -> None:
        assert await at_every_checkpoint(once) >= 1
        await use()

    run(main, backend="asyncio")


# ---- statistics, repr ----------------------------------------------------------------------------

LAWS: Final[dict[str, Callable[[Any], bool]]] = {
    "ConcurrencyStatistics": lambda it: it.in_use <= it.peak <= it.limit,
    "ResourceStatistics": lambda it: it.in_flight <= it.entered,
    "RateLimiterStatistics": lambda it: it.next_grant_seconds == 0 or it.tokens < 1,
    "KeyedRateLimiterStatistics": lambda it: it.keys <= it.max_keys,
    "QuotaStatistics": lambda it: (
        it.in_flight <= it.acquired
        and (it.next_grant_seconds == 0 or any(each.tokens < 1 for each in it.limits.values()))
    ),
    "KeyedQuotaStatistics": lambda it: it.keys <= it.max_keys,
    "KeyedConcurrencyStatistics": lambda it: (
        it.in_use <= it.limit * it.keys and it.keys <= min(it.max_keys, it.in_use + it.waiting)
    ),
    "TimeoutStatistics": lambda it: it.timed_out <= it.entered,
    "CacheStatistics": lambda it: (
        it.size <= it.max_size
        and it.hit_rate == pytest.approx(it.hits / max(1, it.hits + it.misses))
    ),
    "EmitterStatistics": lambda it: (
        it.emitted == sum(name.emitted for name in (*it.names.values(), it.other))
        and it.handled == sum(name.handled for name in (*it.names.values(), it.other))
    ),
    "HealthStatistics": lambda it: it.passing + it.failing + it.degraded <= it.checks,
    "ExecutorStatistics": lambda it: (
        it.in_use <= it.max_workers
        and it.in_flight <= it.peak
        and it.started == it.in_flight + it.succeeded + it.failed + it.cancelled
    ),
    "MonitorStatistics": lambda it: it.failed <= it.samples,
    "PipelineStatistics": lambda it: (
        it.calls == it.succeeded + it.failed + it.cancelled + it.in_flight
    ),
}
"""What holds at any moment of what a primitive counts."""

COUNTS: Final = {
    *("acquired", "alerts", "calls", "cancelled", "emitted", "entered", "failed"),
    *("handled", "hits", "loads", "misses", "rejected", "runs", "samples", "started"),
    *("succeeded", "timed_out", "wait_seconds"),
}
"""What never becomes less."""


async def test_statistics_add_up(primitive: tuple[object, Use]) -> None:
    """At any moment they are a frozen snapshot of what has happened, which nothing changes."""
    made: Any
    made, use = primitive
    if not hasattr(made, "statistics"):
        pytest.skip("it has none")
    before = made.statistics()
    law, taken = LAWS[type(before).__name__], [(before, repr(before))]

    async def look() -> None:
        for _ in range(20):
            snapshot = made.statistics()
            assert law(snapshot), snapshot
            taken.append((snapshot, repr(snapshot)))
            await anyio.sleep(0.25)

    for _ in range(2):
        async with anyio.create_task_group() as group:
            group.start_soon(look)
            await use()
    for (sooner, shown), (later, _) in pairwise(taken):
        assert repr(sooner) == shown
        for name in COUNTS & {each.name for each in fields(sooner)}:
            assert getattr(sooner, name) <= getattr(later, name), name
    assert taken[-1][0] != before
    for copied in (pickle.loads(pickle.dumps(before)), copy.deepcopy(before)):  # noqa: S301 - our own
        assert copied == before
    assert [*asdict(before)] == [each.name for each in fields(before)]
    with pytest.raises(FrozenInstanceError):
        setattr(before, fields(before)[0].name, 5)


async def test_repr_is_one_line(primitive: tuple[object, Use]) -> None:
    """It shows at any moment what it is, in a line."""
    made, use = primitive
    shown: list[str] = []

    async def look() -> None:
        for _ in range(20):
            shown.append(repr(made))
            await anyio.sleep(0.25)

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        await use()
    for text in shown:
        assert text.startswith(f"<{type(made).__name__}")
        assert text.endswith(">")
        assert "\n" not in text
        assert len(text) < 120
