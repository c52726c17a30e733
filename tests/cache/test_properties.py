"""TTLCache against a plain model with times, for each policy, over random histories."""

# ruff: noqa: D102 - the methods are those of the cache, and say so by their names

from __future__ import annotations

import contextlib
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from mtaio._internal import clock
from mtaio.cache import RemovalCause, TTLCache
from mtaio.cache._policy import POLICIES
from mtaio.types import EvictionPolicy
from tests.cache.models import PLAIN, ModelPolicy
from tests.cache.whole import assert_whole

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

# Moments are whole numbers and times to live are not, so nothing expires at the moment of a step,
# and at each moment the buckets of all that has expired are over. Only where nothing sweeps, and
# values are found to be over as they are read, may that be so at the very moment.
TTLS = st.sampled_from([0.5, 1.5, 2.5, 4.5, 9.5, 30.5, 2_000_000.5, math.inf, 0])
WHOLE = {0.5: 1, 1.5: 2, 2.5: 3, 4.5: 5}
KEYS = st.integers(0, 8)
KINDS = [
    frozenset(kind.split())
    for kind in ("", "", "", "idle", "weighed", "stale", "stale ahead", "idle stale ahead weighed")
]
"""What the cache is told, half of the time nothing: then its shortest ways are gone."""
TAGS = st.frozensets(st.sampled_from("abc"), max_size=2)


@dataclass
class Held:
    """A value in the model."""

    value: int
    expires: float
    tags: frozenset[str]
    weight: int
    limit: float
    """When its time to live is over; it is kept until it expires."""


@dataclass
class Model:
    """A dict, a plain policy, and a look at the clock."""

    policy: ModelPolicy
    max_size: int
    idle: float
    stale: float
    weighed: bool
    now: float = 0.0
    held: dict[int, Held] = field(default_factory=dict)
    heard: list[tuple[int, int, RemovalCause]] = field(default_factory=list)
    evictions: int = 0
    expirations: int = 0
    hits: int = 0
    misses: int = 0

    def total(self) -> int:
        return sum(each.weight for each in self.held.values())

    def live(self, key: int) -> Held | None:
        held = self.held.get(key)
        return held if held is not None and self.now < held.limit else None

    def values(self) -> dict[int, int]:
        return {key: held.value for key, held in self.held.items() if self.live(key)}

    def begin(self, held: Held, ttl: float) -> None:
        held.limit = self.now + ttl
        held.expires = min(held.limit + self.stale, self.now + self.idle)

    def drop(self, key: int, cause: RemovalCause) -> None:
        self.policy.remove(key)
        self.gone(key, cause)

    def gone(self, key: int, cause: RemovalCause) -> None:
        self.heard.append((key, self.held.pop(key).value, cause))
        self.evictions += cause is RemovalCause.EVICTED
        self.expirations += cause is RemovalCause.EXPIRED

    def tick(self, seconds: int) -> None:
        self.now += seconds
        for key in [key for key, each in self.held.items() if each.expires <= self.now]:
            self.drop(key, RemovalCause.EXPIRED)

    def shrink(self, room: float, spared: int | None = None) -> None:
        passed = False
        while self.held and self.total() > room:
            key = self.policy.evict()
            if key == spared:
                passed = True
            else:
                self.gone(key, RemovalCause.EVICTED)
        if passed and spared is not None:
            self.policy.restore(spared)

    def set(self, key: int, value: int, ttl: float, tags: frozenset[str]) -> None:
        weight = value % 5 if self.weighed else 1
        kept = ttl > 0 and weight <= self.max_size
        held = self.held.get(key)
        if not kept:
            if held is not None:
                self.drop(key, RemovalCause.REPLACED)
            cause = RemovalCause.EXPIRED if ttl == 0 else RemovalCause.EVICTED
            self.held[key] = Held(value, 0, tags, 0, 0)
            self.gone(key, cause)
            return
        made = Held(value, 0, tags, weight, 0)
        self.begin(made, ttl)
        if held is not None:
            self.heard.append((key, held.value, RemovalCause.REPLACED))
            self.held[key] = made
            self.policy.hit(key)
            self.shrink(self.max_size, key)
            return
        self.shrink(self.max_size - weight)
        self.policy.insert(key)
        self.held[key] = made

    def get(self, key: int) -> int | None:
        held = self.live(key)
        if held is None:
            self.misses += 1
            return None
        self.hits += 1
        self.policy.hit(key)
        held.expires = min(held.limit + self.stale, self.now + self.idle)
        return held.value

    def increment(self, key: int, by: int, ttl: float) -> int:
        held = self.live(key)
        if held is None:
            self.set(key, by, ttl, frozenset())
            return by
        value = held.value + by
        if self.weighed and value % 5 > self.max_size:
            self.drop(key, RemovalCause.REPLACED)
            self.set(key, value, ttl, frozenset())
            return value
        self.heard.append((key, held.value, RemovalCause.REPLACED))
        held.value, held.weight = value, value % 5 if self.weighed else 1
        held.expires = min(held.limit + self.stale, self.now + self.idle)
        self.policy.hit(key)
        self.shrink(self.max_size, key)
        return value

    def delete(self, key: int) -> bool:
        if key not in self.held:
            return False
        live = self.live(key) is not None
        self.drop(key, RemovalCause.DELETED)
        return live

    def touch(self, key: int, ttl: float) -> bool:
        held = self.live(key)
        if held is None:
            return False
        if ttl == 0:
            self.drop(key, RemovalCause.EXPIRED)
        else:
            self.begin(held, ttl)
        return True


class CacheMachine(RuleBasedStateMachine):
    """Both, side by side."""

    policy: EvictionPolicy
    swept: bool

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()

    def teardown(self) -> None:
        self.stack.close()

    @initialize(
        max_size=st.sampled_from([1, 2, 4, 6, None]),
        kind=st.sampled_from(KINDS),
        listened=st.booleans(),
    )
    def begin(self, max_size: int | None, kind: frozenset[str], *, listened: bool) -> None:
        weighed = "weighed" in kind
        idle = 3.5 if "idle" in kind else math.inf
        stale = 2.0 if "stale" in kind else 0.0
        if not self.swept:
            max_size = None  # what is over and not yet found to be so would take room
        limit = 10**9 if max_size is None else max_size * (3 if weighed else 1)
        plain = PLAIN["fifo" if max_size is None else self.policy]()
        self.model = Model(plain, limit, idle, stale, weighed)
        self.stack.enter_context(clock.reading_from(lambda: self.model.now))
        self.heard: list[tuple[Any, int, RemovalCause]] = []
        self.listened = listened
        self.cache: TTLCache[int] = TTLCache(
            9.5,
            max_size=None if max_size is None else limit,
            policy=self.policy,
            idle_ttl=None if idle == math.inf else idle,
            stale_while_revalidate=stale,
            refresh_ahead=0.5 if "ahead" in kind else None,
            weigher=(lambda _, value: value % 5) if weighed else None,
            on_removed=(lambda *removal: self.heard.append(removal)) if listened else None,
        )

    def ttl(self, ttl: float) -> float:
        return ttl if self.swept else WHOLE.get(ttl, ttl)

    @rule(key=KEYS, value=st.integers(0, 99), ttl=TTLS, tags=TAGS)
    def set(self, key: int, value: int, ttl: float, tags: frozenset[str]) -> None:
        ttl = self.ttl(ttl)
        self.cache.set_nowait(key, value, ttl, tags=tags)
        self.model.set(key, value, ttl, tags)

    @rule(key=KEYS, value=st.integers(0, 99))
    def set_for_the_default(self, key: int, value: int) -> None:
        self.cache.set_nowait(key, value)
        self.model.set(key, value, 9.5, frozenset())

    @rule(values=st.lists(st.integers(0, 99), min_size=9, max_size=9), key=KEYS)
    def set_each(self, values: list[int], key: int) -> None:
        for number, value in enumerate(values, key):
            self.set_for_the_default(number % 9, value)

    @rule(values=st.dictionaries(KEYS, st.integers(0, 99)), ttl=TTLS, tags=TAGS)
    def set_many(self, values: dict[int, int], ttl: float, tags: frozenset[str]) -> None:
        ttl = self.ttl(ttl)
        self.cache.set_many_nowait(values, ttl, tags=tags)
        for key, value in values.items():
            self.model.set(key, value, ttl, tags)

    @rule(key=KEYS)
    def get(self, key: int) -> None:
        assert self.cache.get_nowait(key) == self.model.get(key)

    @rule()
    def get_each(self) -> None:
        for key in range(9):
            assert at_once(self.cache.get(key)) == self.model.get(key)

    @rule(waits=st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=3))
    def get_each_now_and_then(self, waits: list[int]) -> None:
        for seconds in waits:
            self.tick(seconds)
            self.get_each()

    @rule(keys=st.lists(KEYS))
    def get_many(self, keys: list[int]) -> None:
        found = {key: self.model.get(key) for key in keys}
        present = {key: value for key, value in found.items() if value is not None}
        assert self.cache.get_many_nowait(keys) == present

    @rule(key=KEYS)
    def delete(self, key: int) -> None:
        assert self.cache.delete_nowait(key) == self.model.delete(key)

    @rule(keys=st.lists(KEYS, unique=True))
    def delete_many(self, keys: list[int]) -> None:
        assert self.cache.delete_many_nowait(keys) == sum(map(self.model.delete, keys))

    @rule(key=KEYS, ttl=TTLS)
    def touch(self, key: int, ttl: float) -> None:
        ttl = self.ttl(ttl)
        assert self.cache.touch_nowait(key, ttl) == self.model.touch(key, ttl)

    @rule(key=KEYS, by=st.integers(-9, 9), ttl=TTLS)
    def increment(self, key: int, by: int, ttl: float) -> None:
        ttl = self.ttl(ttl)
        assert self.cache.increment_nowait(key, by, ttl=ttl) == self.model.increment(key, by, ttl)

    @rule(tag=st.sampled_from("abc"))
    def invalidate_tag(self, tag: str) -> None:
        keys = {key for key, held in self.model.held.items() if tag in held.tags}
        live = sum(self.model.live(key) is not None for key in keys)
        told = len(self.heard)
        assert self.cache.invalidate_tag_nowait(tag) == live
        if self.listened and self.swept:
            order = [key for key, _, _ in self.heard[told:]]
            assert set(order) == keys
            for key in order:
                self.model.drop(key, RemovalCause.DELETED)
        else:
            for key in keys:
                self.model.drop(key, RemovalCause.DELETED)

    @rule()
    def clear(self) -> None:
        # What is over and was not found to be so counts as cleared.
        self.model.expirations -= len(self.cache) - len(self.model.held)
        self.cache.clear_nowait()
        for key in [*self.model.held]:
            self.model.drop(key, RemovalCause.CLEARED)
        self.model.policy = type(self.model.policy)()

    @rule(seconds=st.sampled_from([1, 1, 2, 5, 20, 10_000_000]))
    def tick(self, seconds: int) -> None:
        told = len(self.model.heard)
        self.model.tick(seconds)
        if not self.swept:
            return
        store = self.cache._store
        while store.expiry.due <= self.model.now:  # what the sweep of an entered cache does
            with self.cache._lock:
                _gone = store.expire(self.model.now, 3)
            self.cache._loads.deliver(_gone)
        # What expires in one second expires in any order.
        self.model.heard[told:] = sorted(self.model.heard[told:])
        self.heard[told:] = sorted(self.heard[told:])

    @invariant()
    def same(self) -> None:
        values = self.model.values()
        assert dict(self.cache.items()) == values
        assert set(self.cache) == set(values)
        assert all((key in self.cache) == (key in values) for key in range(9))
        statistics = self.cache.statistics()
        assert (statistics.hits, statistics.misses) == (self.model.hits, self.model.misses)
        assert statistics.weight <= self.model.max_size
        assert statistics.evictions == self.model.evictions
        assert len(self.cache) == statistics.size
        assert_whole(self.cache)
        if self.swept:
            assert statistics.size == len(self.model.held)
            assert statistics.weight == self.model.total()
            assert statistics.expirations == self.model.expirations
        else:
            over = statistics.size - len(self.model.held)
            assert over >= 0
            assert statistics.expirations == self.model.expirations - over
        if self.listened and self.swept:
            assert self.heard == self.model.heard
        elif self.listened:
            # What was not looked at has not been told of; what is cleared was not looked at.
            told = Counter((key, value) for key, value, _ in self.heard)
            assert told <= Counter((key, value) for key, value, _ in self.model.heard)


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """Run what is not a checkpoint to its end."""
    try:
        call.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    call.close()
    msg = "it was a checkpoint"
    raise AssertionError(msg)


def hold(policy: EvictionPolicy, *, swept: bool) -> None:
    """Let Hypothesis look for a history in which cache and model differ."""

    class Machine(CacheMachine):
        pass

    Machine.policy = policy
    Machine.swept = swept
    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=40, stateful_step_count=50),
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_does_what_the_model_does(policy: EvictionPolicy) -> None:
    """Whatever is done and when, the cache holds, evicts and reports what the model does."""
    hold(policy, swept=True)


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_expired_values_are_not_served_before_they_are_swept(policy: EvictionPolicy) -> None:
    """To the moment, a value whose time is over is none for any operation, removed or not."""
    hold(policy, swept=False)
