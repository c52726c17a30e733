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


def newcomers(policy: S3FIFO, keys: Iterable[int]) -> list[object]:
    """Let new entries replace others, and return the keys of those that left."""
    return [policy.replace(entry(key, policy)).key for key in keys]


def test_s3fifo_remembers_what_it_evicted() -> None:
    """A key that comes back soon goes to the main queue, and outlives newcomers."""
    policy = S3FIFO()
    filled(policy, range(10))
    assert policy.evict().key == 0
    policy.insert(entry(0, policy))
    newcomers(policy, range(100, 109))
    assert policy._in_main == 1
    assert policy._main.next.key == 0


def test_s3fifo_ghost_knows_hash_zero_from_an_empty_slot() -> None:
    """A key whose hash is 0, and one of hash -1's twin, are not taken for old acquaintances."""
    policy = S3FIFO()
    for key in (0, "", -1, -2):
        policy.insert(entry(key, policy))
    assert policy._in_main == 0


def test_s3fifo_ghost_knows_neighbours_from_each_other() -> None:
    """Keys that share a slot of the ghost are not taken for each other in any turn."""
    policy = S3FIFO()
    filled(policy, range(4))
    newcomers(policy, range(4, 400))
    assert policy._turn > policy._mask
    assert policy._in_main == 0


def test_s3fifo_ghost_grows_and_forgets_nothing() -> None:
    """When the cache grows, what was evicted before is still remembered, and when that was."""
    policy = S3FIFO()
    filled(policy, [0, 1])
    assert policy.evict().key == 0
    filled(policy, range(10, 100))
    assert policy.evict().key == 1
    assert len(policy._ghost) == 256
    filled(policy, [0, 1])
    assert policy._in_main == 2


def in_main(policy: S3FIFO, keys: Iterable[int]) -> dict[object, Entry]:
    """Have a policy hold these keys in main, and in small ten others, which are its share."""
    entries = filled(policy, keys)
    for each in entries.values():
        policy._to_main(each)
    policy._in_small -= len(entries)
    policy._in_main += len(entries)
    filled(policy, range(-10, 0))
    policy._share = 10
    return entries


def test_s3fifo_lets_a_key_that_comes_back_replace_what_was_not_used_since() -> None:
    """What left small goes to main when it returns, if main's oldest has been idle for longer."""
    policy = S3FIFO()
    in_main(policy, range(5))
    (left, *_) = newcomers(policy, range(2000, 2003))
    held = policy._in_main
    policy.replace(entry(left, policy))
    assert policy._main.prev.key == left
    assert policy._early == 1
    assert policy._in_main == held + 1


def test_s3fifo_prefers_what_was_used_since_to_a_key_that_comes_back() -> None:
    """What was used since the key left keeps its place, and the key is a newcomer again."""
    policy = S3FIFO()
    entries = in_main(policy, range(5))
    (left, *_) = newcomers(policy, range(2000, 2003))
    for each in entries.values():
        policy.hit(each)
    policy.replace(entry(left, policy))
    assert policy._small.prev.key == left
    assert policy._main.prev.key == 0  # it was used, and passed over for that
    assert policy._early == 0


def test_s3fifo_keeps_most_of_a_loop() -> None:
    """Of keys that come round and round, those that found room stay."""
    policy = S3FIFO()
    entries: dict[object, Entry] = {}
    hits = 0
    for step in range(3000):
        key = step % 150
        if key in entries:
            policy.hit(entries[key])
            hits += step >= 1500
            continue
        made = entry(key, policy)
        if len(entries) < 100:
            policy.insert(made)
        else:
            del entries[policy.replace(made).key]
        entries[key] = made
    assert hits > 930  # of 1,000 that can be had


def test_s3fifo_gives_small_what_newcomers_need() -> None:
    """Small grows up to nine tenths while its entries are used, and shrinks when none is."""
    policy = S3FIFO()
    entries = filled(policy, range(100))
    for key in range(100, 600):
        made = entry(key, policy)
        del entries[policy.replace(made).key]
        entries[key] = made
        for each in range(key - 80, key):
            if each in entries:
                policy.hit(entries[each])
    assert policy._share == 90
    newcomers(policy, range(600, 1600))
    assert policy._share == 5


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
    entries = in_main(policy, range(100))
    for each in entries.values():
        each.score = HOT
    policy._share = 20
    assert emptied(policy, 2) == [-10, -9]
    assert (policy._in_small, policy._in_main) == (8, 100)
    assert policy._main.next.key == 32


def test_s3fifo_gives_up_the_head_of_main_only_when_small_is_empty() -> None:
    """With nothing in small but the mark, an eviction out of chances takes the oldest of main."""
    policy = S3FIFO()
    entries = in_main(policy, range(40))
    while policy._in_small:
        policy.remove(policy._small.prev)
    for each in entries.values():
        each.score = HOT
    assert policy.evict().key == 16
    assert policy._small.next is policy._mark
