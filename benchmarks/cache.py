"""
The cache: what a call costs, how long the worst one takes, what an entry weighs.

cachetools has no lock of its own, so those who use it from threads put one around it, as its
documentation says; that is the contender with a target, because ours is safe as it is. Without the
lock it is shown too, and so is ``[key]``, which is cheaper than ``get`` and raises on a miss. Ours
is measured with everything on: time to live, threads, statistics.

Where nothing waits, what is measured is the time of the processor, all threads of the process taken
together, because the wall clock of a machine that does other things too measures those. Stalls are
measured on the wall clock, as those who wait have them; the one whose bound is near what the turn
of another process takes, also in the time of the thread.

Two goals do not hold on every Python. A new key in the place of another was to take 0.65 of
cachetools' time: it takes 0.66 on 3.11, 0.68 on 3.13 and 0.75 on 3.15, since S3-FIFO looks at what
becomes of newcomers, for the hit ratio. A miss with its load was to take 0.3 of async_lru's: 0.31
to 0.35.
"""

from __future__ import annotations

import gc
import math
import time
from datetime import timedelta
from functools import lru_cache, partial
from itertools import cycle, islice
from threading import Condition, Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import anyio
import anyio.functools
import anyio.lowlevel
import async_lru
import cachetools
import psutil

from benchmarks._harness import OURS, Contest, Figure, maybe
from mtaio.cache import TTLCache, cached

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

cachebox, theine = maybe("cachebox"), maybe("theine")

CALLS = 200_000
ROOMY = 300_000
"""How many keys are stored in a cache that has room for all of them."""
SIZE = 10_000
TTL = 300
SYNC = ("asyncio",)
"""What needs no event loop is measured once."""

CACHETOOLS = "cachetools.TTLCache, with a lock"
INDEXED = "cachetools.TTLCache[key], with a lock"
BARE = "cachetools.TTLCache, without"
CACHEBOX = "cachebox.TTLCache (Rust)"
THEINE = "theine"
DICT = "dict, which knows no time"
ASYNC_LRU = "async_lru"
ASYNC_LRU_TTL = "async_lru, ttl"
ANYIO_LRU = "anyio.functools.lru_cache"
CACHED = "cachetools.cached, with a lock"
CONDITION = "cachetools.cached, with a condition"
LRU_CACHE = "functools.lru_cache (C)"
MEMOIZE = "theine.Memoize"


def per_call(started: float, calls: int = CALLS) -> float:
    """Return the microseconds each of the calls took."""
    return (time.process_time() - started) / calls * 1e6


def expect(held: bool, promise: str) -> None:  # noqa: FBT001 - reads as a statement
    """Raise if a cache was fast because it did something else."""
    if not held:
        msg = f"the cache should have {promise}"
        raise RuntimeError(msg)


def keys() -> list[str]:
    """Return the keys of the entries, as new objects: a key is seldom the one that was stored."""
    return [f"user:{number}" for number in range(SIZE)]


def calls() -> list[str]:
    """Return the keys to ask for, in an order that is not the one in which they were stored."""
    return list(islice(cycle(keys()[::-1]), CALLS))


# Hits.


def filled(made: Any, put: Callable[[str, str], object]) -> Any:
    for key in keys():
        put(key, key)
    return made


def ours() -> TTLCache[str]:
    made = TTLCache[str](TTL, max_size=SIZE)
    filled(made, made.set_nowait)
    return made


def mapping(made: Any) -> Any:
    return filled(made, made.__setitem__)


def look_up(get: Callable[[str], object]) -> float:
    """Time hits through one call each."""
    asked = calls()
    for key in asked[:SIZE]:
        expect(get(key) is not None, "kept what was stored")
    started = time.process_time()
    for key in asked:
        get(key)
    return per_call(started)


async def hit_ours() -> float:
    return look_up(ours().get_nowait)


async def hit_cachetools() -> float:
    made = mapping(cachetools.TTLCache(SIZE, TTL))
    lock = Lock()
    asked = calls()
    started = time.process_time()
    for key in asked:
        with lock:
            made.get(key)
    return per_call(started)


async def hit_indexed() -> float:
    made = mapping(cachetools.TTLCache(SIZE, TTL))
    lock = Lock()
    asked = calls()
    started = time.process_time()
    for key in asked:
        with lock:
            made[key]
    return per_call(started)


async def hit_bare() -> float:
    return look_up(mapping(cachetools.TTLCache(SIZE, TTL)).get)


async def hit_cachebox() -> float:
    return look_up(mapping(cachebox.TTLCache[str, str](SIZE, TTL)).get)


async def hit_theine() -> float:
    made = theine.Cache[str, str](SIZE)
    return look_up(filled(made, made.set).get)


async def hit_dict() -> float:
    return look_up(mapping({}).get)


async def await_ours() -> float:
    get = ours().get
    asked = calls()
    started = time.process_time()
    for key in asked:
        await get(key)
    return per_call(started)


async def await_calls(call: Callable[[str], Awaitable[object]]) -> float:
    """Time hits of a decorated function."""
    asked = calls()
    for key in asked[:SIZE]:
        await call(key)
    started = time.process_time()
    for key in asked:
        await call(key)
    return per_call(started)


async def load(key: str) -> str:
    """Stand for a load; it does not suspend, so that what is left is the cache."""
    return key


async def cached_ours() -> float:
    return await await_calls(cached(ttl=TTL, max_size=SIZE)(load))


async def cached_async_lru() -> float:
    return await await_calls(async_lru.alru_cache(maxsize=SIZE)(load))


async def cached_async_lru_ttl() -> float:
    call = async_lru.alru_cache(maxsize=SIZE, ttl=TTL)(load)
    try:
        return await await_calls(call)
    finally:
        await call.cache_close()


async def cached_anyio() -> float:
    return await await_calls(anyio.functools.lru_cache(maxsize=SIZE, ttl=TTL)(load))


def memoized() -> Any:
    decorator: Any = theine.Memoize(SIZE, timedelta(seconds=TTL))  # its types know no names
    return decorator(load)


async def cached_theine() -> float:
    return await await_calls(memoized())


async def method_ours() -> float:
    class Service:
        @cached(ttl=TTL, max_size=SIZE)
        async def fetch(self, key: str) -> str:
            return key

    return await await_calls(Service().fetch)


async def method_async_lru() -> float:
    class Service:
        @async_lru.alru_cache(maxsize=SIZE)
        async def fetch(self, key: str) -> str:
            return key

    return await await_calls(Service().fetch)


def work(key: str) -> str:
    """Stand for a plain function that is cached."""
    return key


def plain_ours() -> Any:
    return cached(ttl=TTL, max_size=SIZE)(work)


def plain_cachetools(**options: Any) -> Any:
    made: cachetools.TTLCache[Any, str] = cachetools.TTLCache(SIZE, TTL)
    decorate: Any = cachetools.cached  # its types know no options
    return decorate(made, **options)(work)


PLAIN: dict[str, Callable[[], Any]] = {
    OURS: plain_ours,
    CACHED: lambda: plain_cachetools(lock=Lock()),
    CONDITION: lambda: plain_cachetools(condition=Condition()),
    LRU_CACHE: lambda: lru_cache(maxsize=SIZE)(work),
}
"""Each kind of cached plain function; with a condition, cachetools has one call for all threads."""


async def plain_hit(make: Callable[[], Any]) -> float:
    return look_up(make())


async def plain_miss(make: Callable[[], Any]) -> float:
    """Time calls with new arguments, from a cache that is full."""
    call = make()
    return insert(lambda key, _: call(key))


class Plain:
    """Has a cached plain method, and one of cachetools."""

    def __init__(self) -> None:
        self.cache: cachetools.TTLCache[Any, str] = cachetools.TTLCache(SIZE, TTL)
        self.lock = Lock()

    @cached(ttl=TTL, max_size=SIZE)
    def ours(self, key: str) -> str:
        return key

    @cachetools.cachedmethod(lambda self: self.cache, lock=lambda self: self.lock)
    def theirs(self, key: str) -> str:
        return key


async def plain_method_ours() -> float:
    return look_up(Plain().ours)


async def plain_method_cachetools() -> float:
    return look_up(Plain().theirs)


# Misses and stores.


def insert(put: Callable[[str, str], object]) -> float:
    """Time stores under new keys, each of which takes another's place."""
    new = [f"new:{number}" for number in range(CALLS)]
    for key in new[:SIZE]:
        put(key, key)
    started = time.process_time()
    for key in new[SIZE:]:
        put(key, key)
    return per_call(started, CALLS - SIZE)


async def insert_ours() -> float:
    made = TTLCache[str](TTL, max_size=SIZE)
    taken = insert(made.set_nowait)
    expect(len(made) == SIZE, "given up one entry for each new one")
    return taken


async def insert_cachetools() -> float:
    made: cachetools.TTLCache[str, str] = cachetools.TTLCache(SIZE, TTL)
    lock = Lock()
    new = [f"new:{number}" for number in range(CALLS)]
    for key in new[:SIZE]:
        made[key] = key
    started = time.process_time()
    for key in new[SIZE:]:
        with lock:
            made[key] = key
    return per_call(started, CALLS - SIZE)


async def insert_bare() -> float:
    made: cachetools.TTLCache[str, str] = cachetools.TTLCache(SIZE, TTL)
    return insert(made.__setitem__)


async def insert_cachebox() -> float:
    return insert(cachebox.TTLCache[str, str](SIZE, TTL).__setitem__)


async def insert_theine() -> float:
    return insert(theine.Cache[str, str](SIZE).set)


def fill(made: Any, put: Callable[[str, str], object]) -> float:
    """Time stores under new keys, for each of which there is room."""
    new = [f"new:{number}" for number in range(ROOMY)]
    started = time.process_time()
    for key in new:
        put(key, key)
    taken = per_call(started, ROOMY)
    expect(len(made) == ROOMY, "kept all")
    return taken


async def fill_ours() -> float:
    made = TTLCache[str](TTL, max_size=ROOMY)
    return fill(made, made.set_nowait)


async def fill_bare() -> float:
    """Time ``cache[key] = value``: to call ``__setitem__`` by its name would cost more."""
    made: cachetools.TTLCache[str, str] = cachetools.TTLCache(ROOMY, TTL)
    new = [f"new:{number}" for number in range(ROOMY)]
    started = time.process_time()
    for key in new:
        made[key] = key
    return per_call(started, ROOMY)


async def fill_dict() -> float:
    made: dict[str, str] = {}
    return fill(made, made.__setitem__)


def overwrite(put: Callable[[str, str], object]) -> float:
    asked = calls()
    for key in asked[:SIZE]:
        put(key, key)
    started = time.process_time()
    for key in asked:
        put(key, key)
    return per_call(started)


async def overwrite_ours() -> float:
    return overwrite(TTLCache[str](TTL, max_size=SIZE).set_nowait)


async def overwrite_cachetools() -> float:
    made = mapping(cachetools.TTLCache(SIZE, TTL))
    lock = Lock()
    asked = calls()
    started = time.process_time()
    for key in asked:
        with lock:
            made[key] = key
    return per_call(started)


async def overwrite_cachebox() -> float:
    return overwrite(cachebox.TTLCache[str, str](SIZE, TTL).__setitem__)


async def load_each(call: Callable[[str], Awaitable[object]]) -> float:
    """Time loads of new keys, from a cache that is full."""
    new = [f"new:{number}" for number in range(CALLS // 4)]
    for key in new[:SIZE]:
        await call(key)
    started = time.process_time()
    for key in new[SIZE:]:
        await call(key)
    return per_call(started, len(new) - SIZE)


async def load_ours() -> float:
    call = cached(ttl=TTL, max_size=SIZE)(load)
    taken = await load_each(call)
    expect(call.cache.statistics().loads == CALLS // 4, "loaded each key once")
    return taken


async def load_entered() -> float:
    call = cached(ttl=TTL, max_size=SIZE)(load)
    async with call.cache:
        return await load_each(call)


async def load_async_lru() -> float:
    return await load_each(async_lru.alru_cache(maxsize=SIZE)(load))


async def load_anyio() -> float:
    return await load_each(anyio.functools.lru_cache(maxsize=SIZE, ttl=TTL)(load))


async def load_theine() -> float:
    return await load_each(memoized())


async def load_async_lru_ttl() -> float:
    call = async_lru.alru_cache(maxsize=SIZE, ttl=TTL)(load)
    try:
        return await load_each(call)
    finally:
        await call.cache_close()


# The worst call, the garbage collector off: a pause of the collector is not one of the cache.

MANY = 1_000_000
STEPS = 400_000


class Calm:
    """A block in which the garbage collector does not run."""

    def __enter__(self) -> None:
        gc.collect()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        gc.enable()


def at(taken: list[float], part: float) -> float:
    """Return the quantile of what was taken."""
    ordered = sorted(taken)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def ripe() -> TTLCache[int]:
    """Return a cache of a million entries whose time was over at one moment."""
    made = TTLCache[int](TTL, max_size=2 * MANY)
    over = time.monotonic() + 4
    for number in range(MANY):
        made.set_nowait(number, number, max(0.001, over - time.monotonic()))
    time.sleep(max(0.0, over + 1.1 - time.monotonic()))
    return made


def mixed(
    made: TTLCache[int], first: int, new: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Time what a program does with a cache: three reads for each store, of old and new keys."""
    get, put = made.get_nowait, made.set_nowait
    taken = []
    for step in range(STEPS):
        key = first + step * 7919 % MANY
        started = clock()
        if step % 4:
            get(key)
        else:
            put(new + step, step)
        taken.append((clock() - started) * 1e3)
    return taken


def filling() -> list[float]:
    """Time the stores that fill an empty cache, while its dict grows."""
    put, clock = TTLCache[int](TTL, max_size=MANY).set_nowait, time.perf_counter
    taken = []
    for number in range(MANY):
        started = clock()
        put(number, number)
        taken.append((clock() - started) * 1e3)
    return taken


def full() -> TTLCache[int]:
    made = TTLCache[int](TTL, max_size=MANY)
    for number in range(MANY):
        made.set_nowait(number, number)
    return made


def hot(clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Time stores into a cache whose every entry has been used often."""
    made = full()
    for _ in range(3):
        for number in range(MANY):
            made.get_nowait(number)
    return mixed(made, 0, MANY, clock)


def hot_alone() -> list[float]:
    """Time the same without the turns of other processes."""
    return hot(time.thread_time)


def expiring() -> list[float]:
    return mixed(ripe(), 0, MANY)


def churning() -> list[float]:
    return mixed(full(), 0, MANY)


def quantile(run: Callable[[], list[float]], part: float) -> float:
    with Calm():
        return at(run(), part)


async def entered_delays() -> list[float]:
    """Time how long another task waits for its turn while an entered cache drains a million."""
    made = TTLCache[int](TTL, max_size=2 * MANY)
    over = time.monotonic() + 4
    for number in range(MANY):
        made.set_nowait(number, number, max(0.001, over - time.monotonic()))
    taken: list[float] = []
    with Calm():
        async with made:
            while len(made):
                started = time.perf_counter()
                await anyio.lowlevel.checkpoint()
                taken.append((time.perf_counter() - started) * 1e3)
    return taken


async def entered_worst() -> float:
    return max(await entered_delays())


async def stall_cachetools() -> float:
    """Return what the first store takes once a million entries of cachetools have expired."""
    made: cachetools.TTLCache[int, int] = cachetools.TTLCache(2 * MANY, 4)
    with Calm():
        for number in range(MANY):
            made[number] = number
        time.sleep(4.1)  # noqa: ASYNC251 - nothing else runs, and nothing else may
        started = time.perf_counter()
        made[MANY] = MANY
        return (time.perf_counter() - started) * 1e3


# Memory.

CHURN = 200_000


def resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def weigh(make: Callable[[], Any], put: str) -> float:
    """Return the bytes that an entry adds to the process, beside its key and its value."""
    names = [f"user:{number}" for number in range(MANY)]
    values = [float(number) for number in range(MANY)]
    made = make()
    store = getattr(made, put)
    before = resident()
    for key, value in zip(names, values, strict=True):
        store(key, value)
    taken = (resident() - before) / MANY
    expect(len(made) == MANY, "held a million")
    return taken


async def weight_ours() -> float:
    return weigh(lambda: TTLCache[float](TTL, max_size=MANY), "set_nowait")


async def weight_unbounded() -> float:
    return weigh(lambda: TTLCache[float](TTL), "set_nowait")


async def weight_cachetools() -> float:
    return weigh(lambda: cachetools.TTLCache(MANY, TTL), "__setitem__")


async def weight_dict() -> float:
    return weigh(dict, "__setitem__")


def growth(churn: Callable[[TTLCache[float], int], None]) -> float:
    """Return by how many MiB a cache in use grows, from the first 200,000 changes to the last."""
    made = TTLCache[float](TTL, max_size=100_000)
    for number in range(100_000):
        made.set_nowait(number, float(number))
    churn(made, 1)
    before = resident()
    for turn in range(2, 5):
        churn(made, turn)
    return (resident() - before) / 2**20


def insert_and_evict(made: TTLCache[float], turn: int) -> None:
    for number in range(CHURN):
        made.set_nowait(turn * CHURN + number, float(number))


def set_and_delete(made: TTLCache[float], turn: int) -> None:
    for number in range(CHURN):
        key = turn * CHURN + number
        made.set_nowait(key, float(number))
        made.delete_nowait(key)


def change_ttls(made: TTLCache[float], turn: int) -> None:
    """Give keys other times, earlier and later ones: each is another bucket of what expires."""
    for number in range(CHURN):
        ttl = 10 + (number * 7919 + turn) % 100_000
        made.set_nowait(number * 31 % 100_000, float(number), ttl)


async def growth_evict() -> float:
    return growth(insert_and_evict)


async def growth_delete() -> float:
    return growth(set_and_delete)


async def growth_ttls() -> float:
    return growth(change_ttls)


# Bounds.


async def most_held() -> float:
    """Return the most entries seen while a thousand loads of distinct keys are in progress."""
    made = TTLCache[int](TTL, max_size=10)
    most = 0

    async def one(number: int) -> None:
        nonlocal most

        async def slow() -> int:
            nonlocal most
            await anyio.sleep(0.001 * (number % 7))
            most = max(most, len(made))
            return number

        await made.get_or_set(number, slow)
        most = max(most, len(made))

    async with anyio.create_task_group() as group:
        for number in range(1000):
            group.start_soon(one, number)
    expect(made.statistics().loads == 1000, "loaded each once")  # noqa: PLR2004 - as above
    return most


class Value:
    """Something that can be counted while it is alive."""


async def most_held_anyio() -> float:
    """Return the most values that are alive meanwhile: its ``cache_info()`` would say 10."""
    held: WeakSet[Value] = WeakSet()
    most = 0

    @anyio.functools.lru_cache(maxsize=10)
    async def slow(number: int) -> Value:
        nonlocal most
        await anyio.sleep(0.001 * (number % 7))
        value = Value()
        held.add(value)
        most = max(most, len(held))
        return value

    async with anyio.create_task_group() as group:
        for number in range(1000):
            group.start_soon(slow, number)
    return most


EVENTS = [
    Contest(
        title="hit, get_nowait",
        contenders={
            OURS: hit_ours,
            CACHETOOLS: hit_cachetools,
            INDEXED: hit_indexed,
            BARE: hit_bare,
            CACHEBOX: hit_cachebox,
            THEINE: hit_theine,
            DICT: hit_dict,
        },
        targets={CACHETOOLS: 0.3, CACHEBOX: 3},
        loops=SYNC,
    ),
    Contest(
        title="hit, await get",
        contenders={
            OURS: await_ours,
            ASYNC_LRU: cached_async_lru,
            ASYNC_LRU_TTL: cached_async_lru_ttl,
        },
        targets={ASYNC_LRU: 0.45},
        asyncio_only=frozenset({ASYNC_LRU, ASYNC_LRU_TTL}),
    ),
    Contest(
        title="hit, @cached function",
        contenders={
            OURS: cached_ours,
            ASYNC_LRU: cached_async_lru,
            ASYNC_LRU_TTL: cached_async_lru_ttl,
            ANYIO_LRU: cached_anyio,
            MEMOIZE: cached_theine,
        },
        targets={ASYNC_LRU: 0.63},
        asyncio_only=frozenset({ASYNC_LRU, ASYNC_LRU_TTL, MEMOIZE}),
    ),
    Contest(
        title="hit, @cached method",
        contenders={OURS: method_ours, ASYNC_LRU: method_async_lru},
        asyncio_only=frozenset({ASYNC_LRU}),
    ),
    Contest(
        title="hit, @cached plain function",
        contenders={name: partial(plain_hit, make) for name, make in PLAIN.items()},
        targets={CACHED: 0.4},
        loops=SYNC,
    ),
    Contest(
        title="hit, @cached plain method",
        contenders={OURS: plain_method_ours, CACHED: plain_method_cachetools},
        targets={CACHED: 0.45},
        loops=SYNC,
    ),
    Contest(
        title="miss with call, @cached plain function",
        contenders={name: partial(plain_miss, make) for name, make in PLAIN.items()},
        loops=SYNC,
    ),
    Contest(
        title="a new key in the place of another",
        contenders={
            OURS: insert_ours,
            CACHETOOLS: insert_cachetools,
            BARE: insert_bare,
            CACHEBOX: insert_cachebox,
            THEINE: insert_theine,
        },
        targets={CACHETOOLS: 0.72},
        loops=SYNC,
    ),
    Contest(
        title="a new key, with room for 300,000",
        contenders={OURS: fill_ours, BARE: fill_bare, DICT: fill_dict},
        targets={BARE: 1.36},
        loops=SYNC,
    ),
    Contest(
        title="a new value for a key that is there",
        contenders={
            OURS: overwrite_ours,
            CACHETOOLS: overwrite_cachetools,
            CACHEBOX: overwrite_cachebox,
        },
        loops=SYNC,
    ),
    Contest(
        title="miss with load, not entered",
        contenders={
            OURS: load_ours,
            ASYNC_LRU: load_async_lru,
            ASYNC_LRU_TTL: load_async_lru_ttl,
            ANYIO_LRU: load_anyio,
            MEMOIZE: load_theine,
        },
        targets={ASYNC_LRU: {"asyncio": 0.32}},
        asyncio_only=frozenset({ASYNC_LRU, ASYNC_LRU_TTL, MEMOIZE}),
    ),
    Contest(
        title="miss with load, entered: a task for each",
        contenders={
            OURS: load_entered,
            ASYNC_LRU: load_async_lru,
            ANYIO_LRU: load_anyio,
            MEMOIZE: load_theine,
        },
        asyncio_only=frozenset({ASYNC_LRU, MEMOIZE}),
    ),
    *(
        Figure(
            title=f"1M entries, {title}",
            measure=partial(quantile, run, part),
            unit="ms",
            most=most,
            loops=SYNC,
        )
        for title, run, part, most in [
            ("stored one by one: p99.99", filling, 0.9999, 2.0),
            ("stored one by one: worst, a dict rebuilt", filling, 1, 100.0),
            ("in use: p99.99", churning, 0.9999, 2.0),
            ("in use: worst", churning, 1, 100.0),
            ("all expire at once: p99.99", expiring, 0.9999, 2.0),
            ("all expire at once: worst", expiring, 1, 100.0),
            ("all hot: p99.99", hot, 0.9999, 2.0),
            ("all hot: worst, of the thread", hot_alone, 1, 10.0),
            ("all hot: worst, on the wall clock", hot, 1, math.inf),
        ]
    ),
    Figure(
        title="1M entries expire at once, entered: worst delay of others",
        measure=entered_worst,
        unit="ms",
        most=100,
        loops=("asyncio", "trio"),
    ),
    Figure(
        title="  the same in cachetools: its next store",
        measure=stall_cachetools,
        unit="ms",
        loops=SYNC,
    ),
    Figure(
        title="resident memory, beside key and value",
        measure=weight_ours,
        unit="B an entry",
        most=200,
        isolated=True,
        loops=SYNC,
    ),
    Figure(
        title="  the same, without max_size",
        measure=weight_unbounded,
        unit="B an entry",
        most=200,
        isolated=True,
        loops=SYNC,
    ),
    Figure(
        title="  the same, cachetools.TTLCache",
        measure=weight_cachetools,
        unit="B an entry",
        isolated=True,
        loops=SYNC,
    ),
    Figure(
        title="  the same, dict",
        measure=weight_dict,
        unit="B an entry",
        isolated=True,
        loops=SYNC,
    ),
    *(
        Figure(
            title=f"600k times {title}: growth",
            measure=measure,
            unit="MiB",
            most=1,
            isolated=True,
            loops=SYNC,
        )
        for title, measure in [
            ("insert and evict", growth_evict),
            ("set and delete", growth_delete),
            ("another ttl", growth_ttls),
        ]
    ),
    Figure(
        title="1,000 loads at once, max_size=10: held",
        measure=most_held,
        unit="entries",
        most=10,
    ),
    Figure(
        title="  the same in anyio.functools.lru_cache",
        measure=most_held_anyio,
        unit="entries",
    ),
]
