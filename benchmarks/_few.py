"""
What only the page "Compared with other libraries" measures: few calls, waiting, memory, growth.

Waiting is that of `waiting`, with more rivals; memory that of `cache`, each in a new process.
"""

from __future__ import annotations

import asyncio
import gc
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import aiolimiter
import anyio
import async_lru
import cachetools
from blinker import Signal
from pyee import EventEmitter as PlainEmitter

from benchmarks import cache, events, waiting
from benchmarks._harness import OURS, Contest, expect, maybe, run_alone
from mtaio.cache import TTLCache
from mtaio.core import TaskExecutor
from mtaio.events import EventEmitter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.waiting import Taken

aiojobs = maybe("aiojobs")
cachebox, theine = maybe("cachebox"), maybe("theine")

CALLS: Final = 2_000
CROWD: Final = 10_000

TASK_GROUP: Final = "anyio task group"


# ---- few calls -----------------------------------------------------------------------------------


async def answer() -> int:
    """Stand for a call that waits a moment."""
    await asyncio.sleep(0)
    return 1


async def never() -> int:
    """Stand for a call that loses."""
    await asyncio.sleep(3600)
    return 0


async def each(call: Callable[[], Awaitable[object]]) -> float:
    """Return the microseconds of processor time that a call takes."""
    await call()
    gc.collect()
    started = time.process_time()
    for _ in range(CALLS):
        await call()
    return (time.process_time() - started) / CALLS * 1e6


async def gather_ours() -> float:
    executor = TaskExecutor()
    return await each(lambda: executor.gather(answer, answer))


async def group_of_two() -> list[int]:
    async with anyio.create_task_group() as group:
        handles = [group.start_soon(answer) for _ in range(2)]
    return [handle.return_value for handle in handles]


async def gather_group() -> float:
    return await each(group_of_two)


async def gather_asyncio() -> float:
    return await each(lambda: asyncio.gather(answer(), answer()))


async def asyncio_group_of_two() -> list[int]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(answer()) for _ in range(2)]
    return [task.result() for task in tasks]


async def gather_asyncio_group() -> float:
    return await each(asyncio_group_of_two)


async def race_ours() -> float:
    executor = TaskExecutor()
    return await each(lambda: executor.race(answer, never))


async def group_race() -> None:
    """Let the first of two end the other."""
    async with anyio.create_task_group() as group:

        async def run(call: Callable[[], Awaitable[int]]) -> None:
            await call()
            group.cancel_scope.cancel()

        group.start_soon(run, answer)
        group.start_soon(run, never)


async def race_group() -> float:
    return await each(group_race)


async def asyncio_race() -> None:
    tasks = [asyncio.create_task(answer()), asyncio.create_task(never())]
    _, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.wait(rest)


async def race_asyncio() -> float:
    return await each(asyncio_race)


async def submit_ours() -> float:
    executor = TaskExecutor()

    async def call() -> None:
        await (await executor.submit(answer))

    taken: list[float] = []
    async with executor:
        taken.append(await each(call))
    return taken[0]


async def submit_group() -> float:
    taken: list[float] = []
    async with anyio.create_task_group() as group:

        async def call() -> None:
            await group.start_soon(answer)

        taken.append(await each(call))
    return taken[0]


async def submit_asyncio() -> float:
    return await each(lambda: asyncio.create_task(answer()))


async def submit_asyncio_group() -> float:
    async with asyncio.TaskGroup() as group:

        async def call() -> None:
            await group.create_task(answer())

        return await each(call)


async def submit_aiojobs() -> float:
    async with aiojobs.Scheduler() as scheduler:

        async def call() -> None:
            job = await scheduler.spawn(answer())
            await job.wait()

        return await each(call)


def double(number: int) -> int:
    """Stand for a short function in a thread."""
    return number * 2


async def threads_ours() -> float:
    executor = TaskExecutor()
    started = time.perf_counter()
    results = await executor.map(double, range(CROWD))
    taken = time.perf_counter() - started
    expect(len(results) == CROWD, "called all")
    return taken / CROWD * 1e6


async def threads_pool() -> float:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(40) as pool:
        started = time.perf_counter()
        await loop.run_in_executor(None, lambda: list(pool.map(double, range(CROWD))))
        return (time.perf_counter() - started) / CROWD * 1e6


async def threads_asyncio() -> float:
    started = time.perf_counter()
    await asyncio.gather(*(asyncio.to_thread(double, number) for number in range(CROWD)))
    return (time.perf_counter() - started) / CROWD * 1e6


GATHER: Final = Contest(
    title="gather of two",
    contenders={
        OURS: gather_ours,
        TASK_GROUP: gather_group,
        "asyncio.TaskGroup": gather_asyncio_group,
        "asyncio.gather": gather_asyncio,
    },
)
RACE: Final = Contest(
    title="race of two",
    contenders={OURS: race_ours, TASK_GROUP: race_group, "tasks of asyncio's": race_asyncio},
)
SUBMIT: Final = Contest(
    title="submit, and its result",
    contenders={
        OURS: submit_ours,
        TASK_GROUP: submit_group,
        "asyncio.TaskGroup": submit_asyncio_group,
        "asyncio.create_task": submit_asyncio,
        "aiojobs": submit_aiojobs,
    },
)
THREADS: Final = Contest(
    title="map over threads",
    contenders={
        OURS: threads_ours,
        "ThreadPoolExecutor.map": threads_pool,
        "asyncio.to_thread": threads_asyncio,
    },
)


# ---- waiting -------------------------------------------------------------------------------------

SEMAPHORE: Final = "asyncio.Semaphore"
CAPACITY: Final = "anyio.CapacityLimiter"
ASYNC_LRU: Final = "async_lru"


class Acquires:
    """Something else to wait for."""

    def __init__(self, acquire: Callable[[], Awaitable[object]]) -> None:
        self.acquire = acquire


def capacity() -> Taken:
    made = anyio.CapacityLimiter(1)
    made.acquire_on_behalf_of_nowait(made)
    return Acquires(lambda: made.acquire_on_behalf_of(object()))


def aiolimiter_taken() -> Taken:
    # More than it gives in an hour are wanted at once, so that all wait.
    made = aiolimiter.AsyncLimiter(1, 86400)
    made._level = 1.0  # noqa: SLF001 - as after an acquire, which would be awaited
    made._last_check = asyncio.get_running_loop().time()  # noqa: SLF001 - as above
    return made


def loading_ours() -> Taken:
    made = TTLCache[int](300)
    return Acquires(lambda: made.get_or_set("key", never))


def loading_async_lru() -> Taken:
    return Acquires(async_lru.alru_cache(maxsize=10)(never))


KINDS: Final[dict[str, dict[str, Callable[[], Taken]]]] = {
    "slot": {OURS: waiting.limiter, SEMAPHORE: waiting.semaphore, CAPACITY: capacity},
    "token": {OURS: waiting.rate_limiter, "aiolimiter": aiolimiter_taken},
    "load": {OURS: loading_ours, ASYNC_LRU: loading_async_lru},
}
"""What is waited for, of whom."""


async def parks(make: Callable[[], Taken]) -> float:
    """Return the microseconds to start a task and let it wait."""
    spent: list[float] = []
    started = time.process_time()
    taken = make()
    await waiting.crowd(
        taken.acquire, lambda: spent.append(waiting.per_task(started, CROWD)), count=CROWD
    )
    return spent[0]


async def cancels(make: Callable[[], Taken]) -> float:
    """Return the microseconds to cancel it."""
    began: list[float] = []
    await waiting.crowd(make().acquire, lambda: began.append(time.process_time()), count=CROWD)
    return waiting.per_task(began[0], CROWD)


async def weighs(make: Callable[[], Taken]) -> float:
    """Return the bytes of a task that waits, itself included."""
    return await waiting.weigh(make())


def of_each(measure: Callable[[Any], Awaitable[float]], kind: str) -> Contest:
    makes = KINDS[kind]
    return Contest(
        title=f"{measure.__name__}: {kind}",
        contenders={name: partial(measure, make) for name, make in makes.items()},
        unit="bytes" if measure is weighs else "µs",
    )


WAITING: Final = {
    f"wait-{kind}{suffix}": of_each(measure, kind)
    for kind in KINDS
    for suffix, measure in (("", parks), ("-cancel", cancels))
}


# ---- memory and growth ---------------------------------------------------------------------------

MANY: Final = 1_000_000
LARGE: Final = 300_000
FEW_HANDLERS: Final = 2_000
TTL: Final = 300


async def weight_cachebox() -> float:
    return cache.weigh(lambda: cachebox.TTLCache[str, float](MANY, TTL), "__setitem__")


def weight(measure: Callable[[], Awaitable[float]]) -> Callable[[], float]:
    return lambda: run_alone("asyncio", measure)


MEMORY: Final = {
    "weight-entry": Contest(
        title="an entry of a cache",
        contenders={
            OURS: weight(cache.weight_ours),
            cache.BARE: weight(cache.weight_cachetools),
            cache.CACHEBOX: weight(weight_cachebox),
            "dict": weight(cache.weight_dict),
        },
        unit="bytes",
    ),
    "weight-slot": of_each(weighs, "slot"),
    "weight-token": of_each(weighs, "token"),
}


def numbered() -> list[str]:
    return [f"user:{number}" for number in range(LARGE)]


def store(put: Callable[[str, str], object]) -> float:
    """Return the microseconds to store each of many."""
    keys = numbered()
    started = time.process_time()
    for key in keys:
        put(key, key)
    return (time.process_time() - started) / LARGE * 1e6


def hit(put: Callable[[str, str], object], get: Callable[[str], object]) -> float:
    """Return the microseconds to find one of many, here and there among them."""
    keys = numbered()
    for key in keys:
        put(key, key)
    asked = [keys[number * 7919 % LARGE] for number in range(LARGE // 4)]
    started = time.process_time()
    for key in asked:
        get(key)
    return (time.process_time() - started) / len(asked) * 1e6


def cache_makers() -> dict[str, Callable[[], tuple[Any, Any]]]:
    """Return what makes each cache, as its functions to store and to find."""

    def ours() -> tuple[Any, Any]:
        made = TTLCache[str](TTL, max_size=LARGE)
        return made.set_nowait, made.get_nowait

    def bare() -> tuple[Any, Any]:
        made: cachetools.TTLCache[str, str] = cachetools.TTLCache(LARGE, TTL)
        return made.__setitem__, made.get

    def of_theine() -> tuple[Any, Any]:
        made = theine.Cache[str, str](LARGE)
        return made.set, made.get

    def of_cachebox() -> tuple[Any, Any]:
        made = cachebox.TTLCache[str, str](LARGE, TTL)
        return made.__setitem__, made.get

    return {OURS: ours, cache.BARE: bare, cache.THEINE: of_theine, cache.CACHEBOX: of_cachebox}


def large_store(make: Callable[[], tuple[Any, Any]]) -> float:
    return store(make()[0])


def large_hit(make: Callable[[], tuple[Any, Any]]) -> float:
    return hit(*make())


def handlers(count: int = CROWD) -> list[Callable[[Any], None]]:
    """Return handlers, each another one."""

    def one(_: int) -> Callable[[Any], None]:
        return lambda event: None  # noqa: ARG005 - called with it

    return [one(number) for number in range(count)]


async def emit_ours() -> float:
    emitter = EventEmitter(max_listeners=None)
    for handler in handlers():
        emitter.on("event", handler)
    started = time.process_time()
    for _ in range(10):
        await emitter.emit("event", 1)
    return (time.process_time() - started) / CROWD / 10 * 1e6


def emit_pyee() -> float:
    emitter = PlainEmitter()
    for handler in handlers():
        emitter.on("event", handler)
    started = time.process_time()
    for _ in range(10):
        emitter.emit("event", 1)
    return (time.process_time() - started) / CROWD / 10 * 1e6


def emit_blinker() -> float:
    signal = Signal()
    receivers = handlers()
    for receiver in receivers:
        signal.connect(receiver)
    started = time.process_time()
    for _ in range(10):
        signal.send(1)
    return (time.process_time() - started) / CROWD / 10 * 1e6


def on_and_off(on: Callable[[Any], object], off: Callable[[Any], object]) -> float:
    """Return the microseconds to add a handler and to remove it, the oldest first."""
    all_handlers = handlers(FEW_HANDLERS)
    started = time.process_time()
    for handler in all_handlers:
        on(handler)
    for handler in all_handlers:
        off(handler)
    return (time.process_time() - started) / FEW_HANDLERS * 1e6


def on_ours() -> float:
    emitter = EventEmitter(max_listeners=None)
    return on_and_off(partial(emitter.on, "event"), partial(emitter.off, "event"))


def on_pyee() -> float:
    emitter = PlainEmitter()
    return on_and_off(partial(emitter.on, "event"), partial(emitter.remove_listener, "event"))


def on_blinker() -> float:
    signal = Signal()
    return on_and_off(signal.connect, signal.disconnect)


def by_maker(measure: Callable[[Any], float]) -> Contest:
    return Contest(
        title=measure.__name__,
        contenders={name: partial(measure, make) for name, make in cache_makers().items()},
    )


GROWTH: Final = {
    "large-hit": by_maker(large_hit),
    "large-store": by_maker(large_store),
    "large-emit": Contest(
        title="an event to 10,000 handlers",
        contenders={
            OURS: emit_ours,
            events.PYEE_SYNC: emit_pyee,
            events.BLINKER_SYNC: emit_blinker,
        },
    ),
    "large-on": Contest(
        title="adding and removing 2,000 handlers",
        contenders={OURS: on_ours, events.PYEE_SYNC: on_pyee, events.BLINKER_SYNC: on_blinker},
    ),
    "large-wake": Contest(
        title="letting 10,000 go",
        contenders={OURS: waiting.let_go_rate, SEMAPHORE: waiting.let_go_native},
    ),
}
