"""
The executor: overhead per item, fairness, timeouts, memory.

`map` is to take 1.45 of a raw asyncio pool, 1/6 of ``gather`` and 1/10 of aiometer. That of the
pool is for asyncio and without slots. There the least code with the promises of `map`, which
``executor_parts`` measures, takes 1.27 to 1.32. On uvloop, where a raw pool is faster and what is
added is not, that code takes 1.5 to 1.6, and no target is set. With ``max_workers`` each item has a
link to its slot for nested calls besides: 1.75 on asyncio.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import aiometer
import anyio
import psutil
import sniffio
import trio
import trio.lowlevel
from anyio.lowlevel import checkpoint

from benchmarks._harness import OURS, Contest, Figure, Target, maybe
from mtaio.core import TaskExecutor

if TYPE_CHECKING:
    from collections.abc import Iterable

ITEMS = 100_000
SOURCE_ITEMS = 10_000
LIMIT = 100
MANY = 1_000_000
THREAD_CALLS = 2_000
MIB = 1024 * 1024

GATHER = "gather + Semaphore"
RAW = "raw asyncio pool"
AIOMETER = "aiometer.run_on_each"
AMAP = "anyio.amap, no limit"
AIOMISC = "aiomisc.threaded"

Body = Callable[[int], Awaitable[int]]


async def suspends(x: int) -> int:
    await checkpoint()
    return x


async def suspends_on_asyncio(x: int) -> int:
    await asyncio.sleep(0)
    return x


async def suspends_on_trio(x: int) -> int:
    await trio.lowlevel.checkpoint()
    return x


def cheapest(body: Body) -> Body:
    """Return the body with the backend's own ``sleep(0)``: anyio's costs as much as the work."""
    if body is not suspends:
        return body
    return suspends_on_asyncio if sniffio.current_async_library() == "asyncio" else suspends_on_trio


async def returns(x: int) -> int:
    return x


async def ours(body: Body, items: Iterable[int]) -> Any:
    return await TaskExecutor().map(body, items, limit=LIMIT)


async def ours_with_slots(body: Body, items: Iterable[int]) -> Any:
    return await TaskExecutor(max_workers=LIMIT).map(body, items)


async def gather_semaphore(body: Body, items: Iterable[int]) -> Any:
    semaphore = asyncio.Semaphore(LIMIT)

    async def one(x: int) -> int:
        async with semaphore:
            return await body(x)

    return await asyncio.gather(*[one(x) for x in items])


async def raw_pool(body: Body, items: Iterable[int]) -> Any:
    source = iter(items)
    results: list[int] = []

    async def work() -> None:
        for x in source:
            place = len(results)
            results.append(0)
            results[place] = await body(x)

    async with asyncio.TaskGroup() as group:
        for _ in range(LIMIT):
            group.create_task(work())
    return results


async def aiometer_each(body: Body, items: Iterable[int]) -> Any:
    await aiometer.run_on_each(body, list(items), max_at_once=LIMIT)


async def anyio_amap(body: Body, items: Iterable[int]) -> Any:
    call: Any = body  # which is typed as any function whose result can be awaited
    return await anyio.amap(call, items)


def per_item(
    way: Callable[[Body, Iterable[int]], Awaitable[Any]], body: Body, items: int = ITEMS
) -> Any:
    async def measure() -> float:
        cheap = cheapest(body)
        began = time.process_time()
        await way(cheap, range(items))
        return (time.process_time() - began) / items * 1e6

    return measure


def nothing() -> None:
    """Stand for blocking work: what is left is the way to a thread and back."""


async def await_threads(call: Callable[[], Awaitable[object]]) -> float:
    for _ in range(10):
        await call()  # the threads are there
    began = time.perf_counter()
    for _ in range(THREAD_CALLS):
        await call()
    return (time.perf_counter() - began) / THREAD_CALLS * 1e6


async def thread_ours() -> float:
    executor = TaskExecutor()
    return await await_threads(lambda: executor.run_in_thread(nothing))


async def thread_anyio() -> float:
    return await await_threads(lambda: anyio.to_thread.run_sync(nothing))


async def thread_asyncio() -> float:
    return await await_threads(lambda: asyncio.to_thread(nothing))


async def thread_aiomisc() -> float:
    aiomisc = maybe("aiomisc")  # here, as it takes longer to import than all others

    # As its entrypoint does.
    asyncio.get_running_loop().set_default_executor(aiomisc.ThreadPoolExecutor())
    return await await_threads(aiomisc.threaded(nothing))


async def starvation() -> float:
    """Milliseconds that another task's ``sleep(0)`` loop had to wait at the worst."""
    worst = 0.0
    over = False

    async def watch() -> None:
        nonlocal worst
        last = time.perf_counter()
        while not over:
            await checkpoint()
            now = time.perf_counter()
            worst, last = max(worst, now - last), now

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await checkpoint()
        await TaskExecutor().map(returns, range(ITEMS), limit=LIMIT)
        over = True
    return worst * 1e3


async def added_by(way: Callable[[], Awaitable[Any]], plain: Callable[[], Awaitable[Any]]) -> float:
    """Microseconds an item that ``way`` takes beyond ``plain``."""
    began = time.perf_counter()
    await plain()
    between = time.perf_counter()
    await way()
    return (2 * between - began - time.perf_counter()) / -ITEMS * 1e6


async def map_plain() -> Any:
    return await TaskExecutor().map(suspends, range(ITEMS), limit=LIMIT)


async def map_timeout() -> Any:
    return await TaskExecutor().map(suspends, range(ITEMS), limit=LIMIT, timeout=30)


async def map_fail_after() -> Any:
    async def limited(x: int) -> int:
        with anyio.fail_after(30):
            return await suspends(x)

    return await TaskExecutor().map(limited, range(ITEMS), limit=LIMIT)


async def timeout_ours() -> float:
    return await added_by(map_timeout, map_plain)


async def timeout_theirs() -> float:
    return await added_by(map_fail_after, map_plain)


async def growth(work: Callable[[TaskExecutor], Awaitable[Any]]) -> float:
    """MiB by which resident memory grew at its highest, sampled during the work."""
    process = psutil.Process()
    executor = TaskExecutor(max_workers=LIMIT)
    await executor.map(suspends, range(1000))
    before = process.memory_info().rss
    high = before
    over = False

    async def sample() -> None:
        nonlocal high
        while not over:
            high = max(high, process.memory_info().rss)
            await anyio.sleep(0.02)

    async with anyio.create_task_group() as group:
        group.start_soon(sample)
        kept = await work(executor)
        high = max(high, process.memory_info().rss)
        over = True
    del kept
    return (high - before) / MIB


async def for_each_memory() -> float:
    return await growth(lambda executor: executor.for_each(suspends, range(MANY)))


async def stream_memory() -> float:
    async def consume(executor: TaskExecutor) -> None:
        async with executor.stream(suspends, range(MANY)) as results:
            async for _ in results:
                pass

    return await growth(consume)


async def map_memory() -> float:
    return await growth(lambda executor: executor.map(suspends, range(MANY)))


async def numbers() -> AsyncIterator[int]:
    for x in range(SOURCE_ITEMS):
        yield x


def buffered() -> AsyncIterator[int]:
    send, receive = anyio.create_memory_object_stream[int](SOURCE_ITEMS)
    with send:
        for x in range(SOURCE_ITEMS):
            send.send_nowait(x)
    return receive


def reading(source: Callable[[], AsyncIterator[int]], kind: str, limit: int) -> Contest:
    """Compare an async source read when an item can begin with one read ahead."""

    def per_item_ahead(read_ahead: int) -> Callable[[], Awaitable[float]]:
        async def measure() -> float:
            body = cheapest(suspends)
            began = time.process_time()
            await TaskExecutor().for_each(body, source(), limit=limit, read_ahead=read_ahead)
            return (time.process_time() - began) / SOURCE_ITEMS * 1e6

        return measure

    return Contest(
        title=f"for_each(limit={limit}) over {kind}, sleep(0)",
        contenders={OURS: per_item_ahead(0), "read_ahead=16": per_item_ahead(16)},
    )


RIVALS = {
    GATHER: gather_semaphore,
    RAW: raw_pool,
    AIOMETER: aiometer_each,
    AMAP: anyio_amap,
}
ASYNCIO_ONLY = frozenset({GATHER, RAW})


def mapping(body: Body, title: str, targets: dict[str, Target], way: Any = ours) -> Contest:
    contenders = {OURS: way, **RIVALS}
    return Contest(
        title=title,
        contenders={name: per_item(each, body) for name, each in contenders.items()},
        targets=targets,
        asyncio_only=ASYNCIO_ONLY,
    )


EVENTS = [
    mapping(
        suspends,
        "map(limit=100), sleep(0)",
        {GATHER: 1 / 6, AIOMETER: 1 / 10, RAW: {"asyncio": 1.45}},
    ),
    mapping(
        suspends,
        "map, max_workers=100, sleep(0)",
        {GATHER: 1 / 6, AIOMETER: 1 / 9.5, RAW: {"asyncio": 1.75}},
        ours_with_slots,
    ),
    mapping(returns, "map(limit=100), no-op", {GATHER: 1 / 10}),
    *[reading(numbers, "an async generator", limit) for limit in (1, 10, 100)],
    *[reading(buffered, "a memory stream", limit) for limit in (1, 10, 100)],
    Figure(title="no-op map: worst wait of another task", measure=starvation, unit="ms", most=10),
    Contest(
        title="map(timeout=): added per item",
        contenders={OURS: timeout_ours, "fail_after around each": timeout_theirs},
        targets={"fail_after around each": 0.25},
    ),
    Contest(
        title="a call in a worker thread",
        contenders={
            OURS: thread_ours,
            "anyio.to_thread": thread_anyio,
            "asyncio.to_thread": thread_asyncio,
            AIOMISC: thread_aiomisc,
        },
        asyncio_only=frozenset({"asyncio.to_thread", AIOMISC}),
    ),
    Figure(
        title="for_each of 1M items: growth",
        measure=for_each_memory,
        unit="MiB",
        most=5,
        isolated=True,
    ),
    Figure(
        title="stream of 1M items: growth", measure=stream_memory, unit="MiB", most=5, isolated=True
    ),
    Figure(title="map of 1M items: growth", measure=map_memory, unit="MiB", most=60, isolated=True),
]
