"""How often caches have what they are asked for: every cache on every trace, each only once."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

import cachebox
import cachetools

from benchmarks._traces import CAPACITY, LOOPS, TRACES
from mtaio.cache import TTLCache
from mtaio.types import EvictionPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[int], tuple[Callable[[int], object], Callable[[int, int], object]]]
    """Makes a cache of so many entries; returns how to read, None for nothing, and to write."""

__all__ = ["CACHES", "ratio"]


def ours(policy: EvictionPolicy) -> Make:
    def make(capacity: int) -> Any:
        made = TTLCache[int](3600, max_size=capacity, policy=policy)
        return made.get_nowait, made.set_nowait

    return make


def mapping(kind: Callable[[int], Any]) -> Make:
    """Return a way to make a cache that is a mapping."""

    def make(capacity: int) -> Any:
        made = kind(capacity)
        return made.get, made.__setitem__

    return make


def w_tinylfu(capacity: int) -> Any:
    """Make a cache of theine, which learns of reads and writes by the batch."""
    import theine  # noqa: PLC0415 - there is none for the newest Pythons

    made: Any = cast("Any", theine).Cache(capacity, nolock=True)
    get = made.get

    def look_up(key: int) -> object:
        return get(key)[0]

    return look_up, made.set


CACHES: dict[str, Make] = {
    "mtaio s3fifo": ours("s3fifo"),
    "mtaio lru": ours("lru"),
    "mtaio lfu": ours("lfu"),
    "mtaio fifo": ours("fifo"),
    "cachetools LRU": mapping(cachetools.LRUCache),
    "cachetools LFU": mapping(cachetools.LFUCache),
    "cachebox LRU": mapping(cachebox.LRUCache),
    "cachebox LFU": mapping(cachebox.LFUCache),
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
