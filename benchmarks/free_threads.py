"""
Several threads at once, on a Python without the GIL; elsewhere nothing is measured here.

``.ci/free-threaded`` builds one. What counts is the ratio of what two threads do to what one does,
in the same run: each the best of several rounds, in turns, since the rest of the machine can only
make a round slower. Both processors have to be idle for that.

Two threads that use one cache are not held to a bound. Both change the counts of references to the
cache, its table and its values, and two processors that write to one place wait for each other: two
threads that merely read one dict do less together than one of them alone, which is shown beside it.
A change takes the cache's lock. What has a bound is what a program can get: a cache for each
thread, at least 1.6 times as much with two; a hit in a thread that did not fill the cache, at most
twice the owner's time; `map` over plain functions, at least 1.8 times as much with two threads.
These are the goals themselves, without a margin.

``python -m benchmarks.free_threads`` prints what one thread pays, on any Python: run it with one
that has the GIL too, in turns, for what its absence costs.
"""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from benchmarks._harness import Figure
from mtaio._internal.gil import has_gil
from mtaio.cache import TTLCache
from mtaio.core import TaskExecutor
from mtaio.events import EventEmitter
from mtaio.resources import ConcurrencyLimiter, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

HAS_GIL = has_gil()

CALLS = 40_000
SIZE = 1000
ROUNDS = 7
SYNC = ("asyncio",)


def together(works: list[Callable[[], Callable[[], object]]]) -> float:
    """
    Return the seconds from the first to the last moment in which any of the threads works.

    Each function makes, in its thread, what the thread then does.
    """
    begun = threading.Barrier(len(works))
    times: list[tuple[float, float]] = []

    def run(prepare: Callable[[], Callable[[], object]]) -> None:
        work = prepare()
        begun.wait()
        before = time.perf_counter()
        work()
        times.append((before, time.perf_counter()))

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(end for _, end in times) - min(start for start, _ in times)


def gain(prepare: Callable[[], Callable[[], object]]) -> float:
    """Return how many times as much two threads do as one, which does half of the work."""
    alone: list[float] = []
    both: list[float] = []
    for _ in range(ROUNDS):
        alone.append(together([prepare]))
        both.append(together([prepare, prepare]))
    return 2 * min(alone) / min(both)


def filled() -> TTLCache[object]:
    cache = TTLCache[object](300, max_size=SIZE)
    for number in range(SIZE):
        cache.set_nowait(("key", number), object())
    return cache


# The keys are equal to those in the cache and not the same, as those of calls are.


def hit(cache: TTLCache[object]) -> None:
    get = cache.get_nowait
    for _ in range(CALLS // SIZE):
        for number in range(SIZE):
            get(("key", number))


def put(cache: TTLCache[object]) -> None:
    store = cache.set_nowait
    for _ in range(CALLS // SIZE):
        for number in range(SIZE):
            store(("key", number), number)


def look_up(entries: dict[object, object]) -> None:
    for _ in range(CALLS // SIZE):
        for number in range(SIZE):
            entries[("key", number)]


def of_one(work: Callable[[TTLCache[object]], None]) -> float:
    cache = filled()
    return gain(lambda: partial(work, cache))


def of_two(work: Callable[[TTLCache[object]], None]) -> float:
    return gain(lambda: partial(work, filled()))


def reads_of_one_dict() -> float:
    """Return what the interpreter itself allows: two threads that read one dict, and do no more."""
    entries: dict[object, object] = {("key", number): object() for number in range(SIZE)}
    return gain(lambda: partial(look_up, entries))


def hit_from_another_thread() -> float:
    """Return what a hit costs in a thread that did not fill the cache, to one that did."""
    cache = filled()
    own: list[float] = []
    others: list[float] = []

    def timed(times: list[float]) -> None:
        before = time.thread_time()
        hit(cache)
        times.append(time.thread_time() - before)

    for _ in range(ROUNDS):
        timed(own)
        together([lambda: partial(timed, others)])
    return min(others) / min(own)


def compute(number: int) -> int:
    return sum([each * each % 7 for each in range(20_000)]) + number


async def mapping() -> float:
    """Return how many times as much `map` does with two worker threads as with one."""
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for threads, seconds in times.items():
            executor = TaskExecutor(threads=threads)
            before = time.perf_counter()
            await executor.map(compute, range(20))
            seconds.append(time.perf_counter() - before)
    return min(times[1]) / min(times[2])


def figure(title: str, measure: Callable[[], Any], **bounds: Any) -> Figure:
    options: dict[str, Any] = {"loops": SYNC, **bounds}
    return Figure(title=title, measure=measure, unit="x", **options)


EVENTS: list[Figure] = [
    figure("two threads that read one dict, to one", reads_of_one_dict),
    figure("hits of one cache in two threads, to one", partial(of_one, hit)),
    figure("sets in one cache in two threads, to one", partial(of_one, put)),
    figure("hits of a cache each", partial(of_two, hit), least=1.6),
    figure("sets in a cache each", partial(of_two, put), least=1.6),
    figure("a hit in another thread, to the owner's", hit_from_another_thread, most=2.0),
    figure("map in two threads, to one", mapping, least=1.8, loops=("asyncio", "trio")),
]
if HAS_GIL:
    EVENTS.clear()


def hear(_: object) -> None:
    pass


async def emits() -> None:
    emitter = EventEmitter()
    emitter.on("name", hear)
    for _ in range(CALLS):
        await emitter.emit("name")


async def slots() -> None:
    limiter = ConcurrencyLimiter(1)
    for _ in range(CALLS):
        async with limiter:
            pass


async def tokens() -> None:
    limiter = RateLimiter(1e9, burst=CALLS)
    for _ in range(CALLS):
        await limiter.acquire()


async def items() -> None:
    await TaskExecutor(max_workers=10).map(anyio.sleep, [0] * CALLS)


def main() -> None:
    print(sys.version)
    works: dict[str, Any] = {
        "a hit": partial(hit, filled()),
        "a set": partial(put, filled()),
        "an emit": emits,
        "a slot": slots,
        "a token": tokens,
        "an item of map": items,
    }
    for name, work in works.items():
        times: list[float] = []
        for _ in range(ROUNDS):
            before = time.process_time()
            if isinstance(work, partial):
                work()
            else:
                anyio.run(work)
            times.append(time.process_time() - before)
        print(f"  {name:16} {min(times) / CALLS * 1e6:6.3f} µs")


if HAS_GIL and __name__ != "__main__":
    print("  nothing: this Python has a GIL")
if __name__ == "__main__":
    main()
