"""Checks a cache from inside: whether all its parts hold the same entries."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mtaio.cache._entry import DetailedEntry, Entry, Failure
from mtaio.cache._lfu import LFU
from mtaio.cache._s3fifo import S3FIFO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mtaio.cache import TTLCache
    from mtaio.cache._store import Store

__all__ = ["assert_whole"]


def around(ring: Entry) -> Iterator[Entry]:
    """Return the entries of a ring, each linked both ways."""
    entry = ring.next
    while entry is not ring:
        assert entry.next.prev is entry
        assert entry.prev.next is entry
        yield entry
        entry = entry.next


def queued(policy: Any, held: Iterable[Entry]) -> list[Entry]:
    """Return the entries of a policy; of one that is not known here, those linked with any held."""
    if isinstance(policy, S3FIFO):
        small, main = [*around(policy._small)], [*around(policy._main)]
        small.remove(policy._mark)
        assert (len(small), len(main)) == (policy._in_small, policy._in_main)
        assert all(entry.queue is policy._small for entry in small)
        assert all(entry.queue <= policy._turn for entry in main)
        total = len(small) + len(main)
        share = len(small) >= policy._share and policy._mask >= 2 * total - 1
        assert share or not policy._settled
        return small + main
    if isinstance(policy, LFU):
        entries: list[Entry] = []
        ring = policy._root.after
        while ring is not None and ring is not policy._root:
            alike = [*around(ring)]
            assert alike
            assert {entry.score for entry in alike} == {ring.score}
            entries += alike
            ring = ring.after
        return entries
    found: dict[Entry, None] = {}
    for entry in held:
        if entry not in found:
            found |= dict.fromkeys([entry, *around(entry)])
    return [entry for entry in found if entry.queue is not entry]  # else it is a sentinel


def expiring(store: Store) -> list[Entry]:
    """Return the entries in the buckets of what expires."""
    entries: list[Entry] = []
    for number, bucket in store.expiry._buckets.items():
        assert number in store.expiry._heap
        assert store.expiry.due <= number
        entry = bucket.after
        assert entry is not bucket
        while entry is not None and entry is not bucket:
            assert entry.expires >= number - 1
            entries.append(entry)
            entry = entry.after
    return entries


def assert_whole(cache: TTLCache[Any], *, bounded: bool = True) -> None:
    """
    Raise ``AssertionError`` if an entry is in one part of a cache and not in another.

    Args:
        cache: The cache.
        bounded: Whether the weight has to be within its limit.
    """
    store = cache._store
    entries = set(store.entries.values())
    assert len(entries) == len(store.entries)
    assert all(entry.key == key for key, entry in store.entries.items())
    queue = queued(store._policy, store.entries.values())
    assert len(queue) == len(entries)
    assert set(queue) == entries
    buckets = expiring(store)
    assert len(buckets) == len(set(buckets))
    assert {entry for entry in entries if entry.expires != math.inf} <= set(buckets) <= entries
    assert {entry for entry in entries if entry.after is not None} == set(buckets)
    tags = store._tags
    assert set(tags.of_entries) <= entries
    for tag in tags._by_name.values():
        assert all(tag in tags.of_entries[entry] for entry in tag.entries)
    for entry, carried in tags.of_entries.items():
        assert carried
        assert all(entry in tag.entries for tag in carried)
        assert all(tags._by_name[tag.name] is tag for tag in carried)
    weights = [entry.weight if isinstance(entry, DetailedEntry) else 1 for entry in entries]
    assert store._weight in (0, sum(weights))
    assert store._weigher is None or store._weight == sum(weights)
    assert store.weight == sum(weights)
    assert store.weight <= store._max_size or not bounded
    for entry in entries:
        assert entry.fresh <= entry.expires
        assert type(entry.value) is not Failure or entry.fresh == -math.inf
    loads = cache._loads
    assert loads.in_flight >= sum(not load.is_over() for load in loads.all())
    assert not cache._lock.changing
