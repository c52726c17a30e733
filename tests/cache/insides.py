"""What must hold inside a cache whenever its lock is free, whatever was done to it before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from mtaio.cache._entry import Entry, Failure, Laden
from mtaio.cache._queues import FIFO, LFU
from mtaio.cache._s3fifo import S3FIFO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtaio.cache import TTLCache

__all__ = ["require_order_inside"]


def ring(sentinel: Entry) -> Iterator[Entry]:
    """Yield the entries of a ring of ``prev`` and ``next``."""
    entry = sentinel.next
    while entry is not sentinel:
        assert entry.prev.next is entry
        yield entry
        entry = entry.next
    assert sentinel.prev.next is sentinel


def known_to(policy: object) -> Iterator[Entry]:
    """Yield the entries that a policy has, each in its queue."""
    if isinstance(policy, FIFO):
        yield from ring(policy._ring)
    elif isinstance(policy, S3FIFO):
        for queue, count in ((policy._small, policy._in_small), (policy._main, policy._in_main)):
            there = [*ring(queue)]
            assert len(there) == count
            assert all(entry.home is queue for entry in there)
            yield from there
    else:
        assert isinstance(policy, LFU)
        uses = 0
        home = cast("Entry", policy._root.after)
        while home is not policy._root:
            assert home.score > uses
            uses = home.score
            there = [*ring(home)]
            assert there
            assert all(entry.home is home and entry.score == uses for entry in there)
            yield from there
            home = cast("Entry", home.after)


def require_order_inside(cache: TTLCache[Any]) -> None:
    """Raise ``AssertionError`` unless table, policy, agenda, tags and weight say the same."""
    with cache._gate.held:
        entries = cache._entries
        everybody = {id(entry) for entry in entries.values()}
        assert all(entry.key == key for key, entry in entries.items())
        known = [id(entry) for entry in known_to(cache._policy)]
        assert len(known) == len(everybody)
        assert set(known) == everybody
        agenda = cache._agenda
        filed: set[int] = set()
        for number, bucket in agenda._buckets.items():
            entry = bucket.after
            assert entry is not bucket
            while entry is not bucket:
                assert entry is not None
                assert id(entry) in everybody
                assert entry.expires >= number - 1
                assert id(entry) not in filed
                filed.add(id(entry))
                entry = entry.after
        assert set(agenda._buckets) <= set(agenda._heap)
        assert agenda.due <= min(agenda._buckets, default=math.inf)
        for entry in entries.values():
            assert (entry.after is not None) == (id(entry) in filed)
            assert entry.after is not None or entry.expires == math.inf
            assert entry.fresh <= entry.expires
            assert type(entry.value) is not Failure or entry.fresh == -math.inf
        tags = cache._tags
        assert {id(entry) for entry in tags.marked} <= everybody
        assert all(tags.marked.values())
        assert all(mark.entries for mark in tags._marks.values())
        carried = {(id(entry), mark.tag) for entry, each in tags.marked.items() for mark in each}
        found = {(id(entry), tag) for tag, mark in tags._marks.items() for entry in mark.entries}
        assert carried == found
        weights = [entry.weight if type(entry) is Laden else 1 for entry in entries.values()]
        assert cache._total() == sum(weights) <= cache._max_size
