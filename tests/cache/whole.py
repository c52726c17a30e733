"""Tells whether a cache is whole: whether all its parts speak of the same entries."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mtaio.cache._entry import Entry, Failure, Laden
from mtaio.cache._flight import State
from mtaio.cache._queues import LFU
from mtaio.cache._s3fifo import S3FIFO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtaio.cache import TTLCache

__all__ = ["assert_whole"]


def around(ring: Entry) -> Iterator[Entry]:
    """Return the entries of a ring, each linked both ways."""
    entry = ring.next
    while entry is not ring:
        assert entry.next.prev is entry
        assert entry.prev.next is entry
        yield entry
        entry = entry.next


def queued(policy: Any) -> list[Entry]:
    """Return the entries of a policy."""
    if isinstance(policy, S3FIFO):
        small, main = [*around(policy._small)], [*around(policy._main)]
        assert (len(small), len(main)) == (policy._in_small, policy._in_main)
        assert all(entry.home is policy._small for entry in small)
        assert all(entry.home is policy._main for entry in main)
        total = len(small) + len(main)
        share = len(small) * 10 >= total and policy._mask >= total - 1
        assert share or not policy._settled
        return small + main
    if isinstance(policy, LFU):
        entries: list[Entry] = []
        ring = policy._root.after
        while ring is not None and ring is not policy._root:
            held = [*around(ring)]
            assert held
            assert {entry.score for entry in held} == {ring.score}
            entries += held
            ring = ring.after
        return entries
    return [*around(policy._ring)]


def filed(cache: TTLCache[Any]) -> list[Entry]:
    """Return the entries of the agenda."""
    entries: list[Entry] = []
    for number, bucket in cache._agenda._buckets.items():
        assert number in cache._agenda._heap
        assert cache._agenda.due <= number
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
    entries = set(cache._entries.values())
    assert len(entries) == len(cache._entries)
    assert all(entry.key == key for key, entry in cache._entries.items())
    queue = queued(cache._policy)
    assert len(queue) == len(entries)
    assert set(queue) == entries
    agenda = filed(cache)
    assert len(agenda) == len(set(agenda))
    assert {entry for entry in entries if entry.expires != math.inf} <= set(agenda) <= entries
    assert {entry for entry in entries if entry.after is not None} == set(agenda)
    marked = cache._tags.marked
    assert set(marked) <= entries
    for mark in cache._tags._marks.values():
        assert all(mark in marked[entry] for entry in mark.entries)
    for entry, marks in marked.items():
        assert marks
        assert all(entry in mark.entries for mark in marks)
        assert all(cache._tags._marks[mark.tag] is mark for mark in marks)
    weights = [entry.weight if isinstance(entry, Laden) else 1 for entry in entries]
    assert cache._weight in (0, sum(weights))
    assert cache._weigher is None or cache._weight == sum(weights)
    assert cache._total() == sum(weights)
    assert cache._total() <= cache._max_size or not bounded
    for entry in entries:
        assert entry.fresh <= entry.expires
        assert type(entry.value) is not Failure or entry.fresh == -math.inf
    flights = cache._flights
    assert flights.loads - flights.ended >= sum(
        each.state is State.RUNNING for each in flights._all()
    )
    assert cache._gate.free
    assert not cache._gate.later
