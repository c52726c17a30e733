"""One contract for every policy, and what is special to each."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from mtaio.cache._entry import Entry, entry_of
from mtaio.cache._lfu import LFU
from mtaio.cache._policy import HOT, POLICIES, Policy, new_policy
from mtaio.cache._s3fifo import S3FIFO
from mtaio.types import EvictionPolicy
from tests.cache.models import PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterable


def entry(key: object, policy: Policy) -> Entry:
    """Return an entry as a cache with this policy makes one."""
    return entry_of(Entry(), key, None, 0.0, policy.score)


def filled(policy: Policy, keys: Iterable[int]) -> dict[object, Entry]:
    """Insert an entry for each key."""
    entries: dict[object, Entry] = {key: entry(key, policy) for key in keys}
    for each in entries.values():
        policy.insert(each)
    return entries


def emptied(policy: Policy, number: int) -> list[object]:
    """Evict so many, and return their keys."""
    return [policy.evict().key for _ in range(number)]


@pytest.mark.parametrize("name", POLICIES)
def test_every_entry_is_evicted_once(name: EvictionPolicy) -> None:
    """What was inserted and not removed comes out, each once."""
    policy = new_policy(name)
    entries = filled(policy, range(50))
    for key in (0, 7, 49):
        policy.remove(entries[key])
    assert set(emptied(policy, 47)) == set(range(50)) - {0, 7, 49}


@pytest.mark.parametrize("name", POLICIES)
def test_unused_entries_leave_in_their_order(name: EvictionPolicy) -> None:
    """Without any use, every policy is first in, first out."""
    policy = new_policy(name)
    filled(policy, range(20))
    assert emptied(policy, 20) == list(range(20))


@pytest.mark.parametrize("name", POLICIES)
def test_replace_is_evict_and_insert(name: EvictionPolicy) -> None:
    """Replacing gives up what evicting would have, and takes in the new entry."""
    one, other = new_policy(name), new_policy(name)
    for policy in (one, other):
        entries = filled(policy, range(10))
        for key in (0, 0, 1, 1, 5):
            policy.hit(entries[key])
    for key in (10, 11, 12, 13, 0, 1, 14, 2, 15, 16, 10, 11):
        there = one.replace(entry(key, one)).key
        here = other.evict().key
        other.insert(entry(key, other))
        assert there == here
    assert emptied(one, 10) == emptied(other, 10)


@pytest.mark.parametrize("name", POLICIES)
def test_equals_the_plain_model(name: EvictionPolicy) -> None:
    """Over long random histories of every size, it does what the plain model does."""
    for seed in range(60):
        chance = random.Random(seed)  # noqa: S311 - reproducible
        size = chance.choice([1, 2, 3, 10, 40])
        policy, model = new_policy(name), PLAIN[name]()
        entries: dict[object, Entry] = {}
        for _ in range(600):
            key = chance.randrange(size * 3)
            if key in entries:
                if chance.random() < 0.1:
                    policy.remove(entries.pop(key))
                    model.remove(key)
                else:
                    policy.hit(entries[key])
                    model.hit(key)
                continue
            made = entry(key, policy)
            if len(entries) < size:
                policy.insert(made)
            else:
                old = policy.replace(made)
                del entries[old.key]
                assert old.key == model.evict()
            model.insert(key)
            entries[key] = made
        assert emptied(policy, len(entries)) == [model.evict() for _ in entries]


def test_lfu_keeps_no_ring_for_a_count_that_no_entry_has() -> None:
    """However often entries are used, there are as many rings as different counts."""
    policy = LFU()
    entries = filled(policy, range(3))
    for _ in range(100):
        policy.hit(entries[1])
    rings = 0
    ring = policy._root.after
    while ring is not None and ring is not policy._root:
        rings += 1
        ring = ring.after
    assert rings == 2


def test_s3fifo_remembers_what_it_evicted() -> None:
    """A key that comes back soon goes to the main queue, and outlives newcomers."""
    policy = S3FIFO()
    filled(policy, range(10))
    assert policy.evict().key == 0
    policy.insert(entry(0, policy))
    for key in range(100, 109):
        policy.replace(entry(key, policy))
    assert policy._in_main == 1
    assert policy._main.next.key == 0


def test_s3fifo_ghost_knows_hash_zero_from_an_empty_slot() -> None:
    """A key whose hash is 0, and one of hash -1's twin, are not taken for old acquaintances."""
    policy = S3FIFO()
    for key in (0, "", -1, -2):
        assert hash(key) != -1  # which is what marks an empty slot
        policy.insert(entry(key, policy))
    assert policy._in_main == 0


def test_s3fifo_ghost_grows_and_forgets_nothing() -> None:
    """When the cache grows, what was evicted before is still remembered."""
    policy = S3FIFO()
    filled(policy, [0, 1])
    assert policy.evict().key == 0
    filled(policy, range(10, 100))
    assert policy.evict().key == 1
    assert len(policy._ghost) == 128
    filled(policy, [0, 1])
    assert policy._in_main == 2


def test_s3fifo_evicts_in_bounded_time_when_all_is_hot() -> None:
    """At most sixteen entries are passed over, then the oldest newcomer goes."""
    policy = S3FIFO()
    entries = filled(policy, range(1000))
    for each in entries.values():
        each.score = HOT
    assert policy.evict().key == 16
    assert policy._in_main == 16


def test_s3fifo_gives_up_the_head_of_small_when_all_of_main_is_hot() -> None:
    """With little in small, sixteen of main are passed over, then the oldest newcomer goes."""
    policy = S3FIFO()
    entries = filled(policy, range(40))
    for each in entries.values():
        each.score = HOT
    assert emptied(policy, 2) == [16, 33]
    for key in (34, 35, 36):
        policy.remove(entries[key])
    assert (policy._in_small, policy._in_main) == (3, 32)
    for each in entries.values():
        each.score = HOT
    assert policy.evict() is entries[37]
    assert (policy._in_small, policy._in_main) == (2, 32)


def test_s3fifo_gives_up_the_head_of_main_only_when_small_is_empty() -> None:
    """With nothing in small, an eviction out of chances takes the oldest of main."""
    policy = S3FIFO()
    entries = filled(policy, range(40))
    for each in entries.values():
        each.score = HOT
    for key in emptied(policy, 2):  # all sixteen chances each time
        assert key in (16, 33)
    for key in range(34, 40):
        policy.remove(entries[key])
    assert policy._in_small == 0
    for each in entries.values():
        each.score = HOT
    assert policy.evict() is entries[17]
