"""How often caches have what they are asked for: every cache on every trace, each only once."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import cachetools

from benchmarks._harness import maybe
from benchmarks._traces import CAPACITY, LOOPS, TRACES
from mtaio.cache import TTLCache
from mtaio.types import EvictionPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[int], tuple[Callable[[int], object], Callable[[int, int], object]]]
    """Makes a cache of so many entries; returns how to read, None for nothing, and to write."""

__all__ = ["CACHES", "ratio"]

cachebox, theine = maybe("cachebox"), maybe("theine")


def ours(policy: EvictionPolicy) -> Make:
    def make(capacity: int) -> Any:
        made = TTLCache[int](3600, max_size=capacity, policy=policy)
        return made.get_nowait, made.set_nowait

    return make


def mapping(library: Any, kind: str) -> Make:
    """Return a way to make a library's cache of this class, which is a mapping."""

    def make(capacity: int) -> Any:
        made = getattr(library, kind)(capacity)
        return made.get, made.__setitem__

    return make


def w_tinylfu(capacity: int) -> Any:
    """Make a cache of theine, which learns of reads and writes by the batch."""
    made: Any = theine.Cache(capacity, nolock=True)
    get = made.get

    def look_up(key: int) -> object:
        return get(key)[0]

    return look_up, made.set


CACHES: dict[str, Make] = {
    "mtaio s3fifo": ours("s3fifo"),
    "mtaio lru": ours("lru"),
    "mtaio lfu": ours("lfu"),
    "mtaio fifo": ours("fifo"),
    "cachetools LRU": mapping(cachetools, "LRUCache"),
    "cachetools LFU": mapping(cachetools, "LFUCache"),
    "cachebox LRU": mapping(cachebox, "LRUCache"),
    "cachebox LFU": mapping(cachebox, "LFUCache"),
}
if find_spec("theine") is not None:
    CACHES["theine"] = w_tinylfu


@cache
def keys_of(trace: str) -> list[int]:
    return next(each for each in TRACES + LOOPS if each.name == trace).keys()


@cache
def ratio(name: str, trace: str, capacity: int = CAPACITY) -> float:
    """Return what per cent of the requests of a trace a cache could answer."""
    get, put = CACHES[name](capacity)
    hits = 0
    keys = keys_of(trace)
    for key in keys:
        if get(key) is None:
            put(key, key)
        else:
            hits += 1
    return 100 * hits / len(keys)
