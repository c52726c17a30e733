"""What the code of keys, tags, finalisers and signal handlers can do in the middle of a change."""

# ruff: noqa: D102 - only __call__, which the class explains

from __future__ import annotations

import copy
import gc
import itertools
import math
import os
import pickle
import random
import re
import signal
import sys
import threading
from typing import TYPE_CHECKING

import anyio
import pytest

from mtaio.cache import TTLCache, cached
from mtaio.cache._policy import POLICIES
from mtaio.testing import assert_quiescent
from mtaio.types import EvictionPolicy
from tests.cache.whole import assert_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EACH_POLICY = pytest.mark.parametrize("policy", POLICIES)


class Odd:
    """A key or tag whose own code does something, each time it is called while ``act`` is set."""

    act: Callable[[], object] | None = None

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"Odd({self.number})"

    def __hash__(self) -> int:
        self._act()
        return self.number % 3  # so that they have to be compared

    def __eq__(self, other: object) -> bool:
        self._act()
        return isinstance(other, Odd) and other.number == self.number

    @staticmethod
    def _act() -> None:
        act = Odd.act
        if act is not None:
            Odd.act = None  # what it does may ask a key again
            try:
                act()
            finally:
                if getattr(act, "again", False):
                    Odd.act = act


@pytest.fixture(autouse=True)
def calm() -> Iterator[None]:
    """Leave no key that acts."""
    yield
    Odd.act = None


class NthCall:
    """Does something at the n-th call, and nothing before and after."""

    again = True

    def __init__(self, number: int, does: Callable[[], object]) -> None:
        self.left = number
        self.does = does

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.does()


def made(policy: EvictionPolicy, *, weighed: bool, error_ttl: float = 5) -> TTLCache[int]:
    """Return a full cache of keys that are compared."""
    weigher = (lambda _, value: value % 2 + 1) if weighed else None
    cache: TTLCache[int] = TTLCache(
        10, max_size=8, policy=policy, weigher=weigher, error_ttl=error_ttl
    )
    for number in range(8):
        cache.set_nowait(Odd(number), number, tags={Odd(number % 2)} if number % 3 else ())
    for number in range(0, 8, 3):
        cache.get_nowait(Odd(number))
    return cache


OPERATIONS: dict[str, Callable[[TTLCache[int]], object]] = {
    "set": lambda cache: cache.set_nowait(Odd(100), 100),
    "set with tags": lambda cache: cache.set_nowait(Odd(101), 101, 5, tags={Odd(0), Odd(7)}),
    "set again": lambda cache: cache.set_nowait(Odd(4), 104, 3, tags={Odd(1), Odd(8)}),
    "set nothing": lambda cache: cache.set_nowait(Odd(4), 104, 0),
    "set many": lambda cache: cache.set_many_nowait({Odd(4): 1, Odd(102): 2}),
    "delete": lambda cache: cache.delete_nowait(Odd(4)),
    "delete many": lambda cache: cache.delete_many_nowait([Odd(4), Odd(5), Odd(200)]),
    "touch": lambda cache: cache.touch_nowait(Odd(4), 3),
    "increment": lambda cache: cache.increment_nowait(Odd(4)),
    "increment new": lambda cache: cache.increment_nowait(Odd(103)),
    "end": lambda cache: cache.touch_nowait(Odd(4), 0),
    "invalidate": lambda cache: cache.invalidate_tag_nowait(Odd(1)),
    "clear": lambda cache: cache.clear_nowait(),
    "get": lambda cache: cache.get_nowait(Odd(4)),
    "get many": lambda cache: cache.get_many_nowait([Odd(4), Odd(5)]),
    "contains": lambda cache: Odd(4) in cache,
    "items": lambda cache: cache.items(),
}


class OddError(Exception):
    """What a key raises."""


def explode() -> None:
    """Raise."""
    raise OddError


@pytest.mark.parametrize("weighed", [False, True], ids=["plain", "weighed"])
@pytest.mark.parametrize("name", OPERATIONS)
@EACH_POLICY
def test_keys_that_raise(policy: EvictionPolicy, name: str, *, weighed: bool) -> None:
    """
    Wherever the code of a key or a tag raises, the error passes, and the cache is whole.

    What a heavier value should have put out may still be there then; the next change makes room.
    """
    for number in itertools.count(1):
        cache = made(policy, weighed=weighed)
        Odd.act = act = NthCall(number, explode)
        try:
            OPERATIONS[name](cache)
        except OddError:
            pass
        else:
            assert act.left > 0 or name == "items"
        Odd.act = None
        assert_whole(cache, bounded=False)
        for other in range(300, 320):
            cache.set_nowait(Odd(other), other)
        assert_whole(cache)
        if act.left > 0:
            break
    assert number > 1 or name in {"clear", "items"}


REFUSED = r"^a finaliser, a signal handler or the __eq__ of a key tried to change or load"
READS = {"get", "get many", "contains", "items"}


@pytest.mark.parametrize("inner", OPERATIONS)
@pytest.mark.parametrize("outer", [name for name in OPERATIONS if name not in READS])
@pytest.mark.parametrize("policy", ["s3fifo", "lfu"])
def test_keys_that_change_the_cache(policy: EvictionPolicy, outer: str, inner: str) -> None:
    """In the middle of a change a key may read; what it asks to change is refused, and undone."""
    refused = 0
    for number in itertools.count(1):
        cache = made(policy, weighed=False)
        Odd.act = act = NthCall(number, lambda cache=cache: OPERATIONS[inner](cache))  # type: ignore[misc] # mypy sees no type for the default
        try:
            OPERATIONS[outer](cache)
        except RuntimeError as error:
            refused += bool(re.match(REFUSED, str(error)))
        Odd.act = None
        assert_whole(cache)
        if act.left > 0:
            break
    assert (refused > 0) == (inner not in READS and outer != "clear")


async def test_loads_in_the_middle_of_a_change_are_refused() -> None:
    """Nothing has started then, and a load is possible afterwards."""
    cache: TTLCache[int] = TTLCache(10, policy="lru")

    async def load() -> int:
        return 1

    with cache._lock, pytest.raises(RuntimeError, match=REFUSED):
        await cache.get_or_set("key", load)
    assert cache.statistics().loads == 0
    assert await cache.get_or_set("key", load) == 1
    assert_quiescent(cache)


def test_reads_in_the_middle_of_a_change() -> None:
    """They are answered, and are no use of the key."""
    cache = made("lru", weighed=False)
    with cache._lock:
        assert [OPERATIONS[name](cache) for name in ("get", "contains")] == [4, True]
        assert len(cache) == cache.statistics().size == 8
        assert cache.get_nowait(Odd(999), "none") == "none"
    assert_whole(cache)


@EACH_POLICY
def test_a_key_that_was_changed(policy: EvictionPolicy) -> None:
    """Like a dict, a cache does not find it any more, which is an error where it is to go."""
    cache: TTLCache[int] = TTLCache(5, max_size=2, policy=policy)
    key = Odd(0)
    cache.set_nowait(key, 1)
    cache.set_nowait("there", 1)
    key.number = 1
    with pytest.raises(KeyError):
        cache.set_nowait("new", 1)
    cache.set_nowait("new", 1)
    assert "new" in cache
    assert len(cache) == 2
    cache.clear_nowait()
    assert_whole(cache)


async def soon() -> int:
    """Load at once."""
    return 1


@pytest.mark.parametrize("error_ttl", [0, 5], ids=["", "errors kept"])
@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
async def test_keys_that_raise_during_a_load(*, fails: bool, error_ttl: float) -> None:
    """Wherever its key raises, a load ends, those who wait are told, and the cache is whole."""

    async def load() -> int:
        await anyio.sleep(1)
        if fails:
            raise LookupError
        return 1

    for number in itertools.count(1):
        cache = made("s3fifo", weighed=False, error_ttl=error_ttl)
        answers: list[object] = []

        async def ask(cache: TTLCache[int] = cache, answers: list[object] = answers) -> None:
            try:
                answers.append(await cache.get_or_set(Odd(200), load))
            except (OddError, LookupError) as error:
                answers.append(error)

        async with anyio.create_task_group() as group:
            Odd.act = act = NthCall(number, explode)
            for _ in range(3):
                group.start_soon(ask)
        Odd.act = None
        assert len(answers) == 3
        if fails:
            with pytest.raises(LookupError):
                await cache.get_or_set(Odd(200), load)
        assert_whole(cache)
        assert cache.statistics().in_flight == cache.statistics().waiting == 0
        cache.set_nowait("other", 1)
        cache.delete_nowait(Odd(200))
        assert await cache.get_or_set(Odd(200), soon) == 1
        if act.left > 0:
            break
    assert number > 5


class Cyclic:
    """Garbage that only the collector finds, and whose end changes a cache."""

    def __init__(self, end: Callable[[], object]) -> None:
        self.me = self
        self.end = end

    def __del__(self) -> None:
        self.end()


class Weighed:
    """A value with a weight, which does something when it is let go."""

    def __init__(self, weight: int, end: Callable[[], object]) -> None:
        self.weight = weight
        self.end = end

    def __del__(self) -> None:
        self.end()


@EACH_POLICY
def test_finalisers_of_what_a_heavy_value_evicts(policy: EvictionPolicy) -> None:
    """What has to make room is let go when the change is over: its end may change the cache."""
    cache: TTLCache[Weighed] = TTLCache(
        10, max_size=6, policy=policy, weigher=lambda _, it: it.weight
    )
    ended: list[bool] = []

    def end() -> None:
        ended.append(cache.touch_nowait("heavy"))  # it is there by then

    for number in range(4):
        cache.set_nowait(number, Weighed(1, end))
    cache.set_nowait("heavy", Weighed(5, int))
    assert ended == [True] * 3
    assert_whole(cache)


@EACH_POLICY
def test_finalisers_that_change_the_cache(policy: EvictionPolicy) -> None:
    """With the collector running all the time, finalisers change the cache, or are refused."""
    chance = random.Random(5)  # noqa: S311 - reproducible
    cache: TTLCache[object] = TTLCache(10, max_size=20, policy=policy)
    ends: list[Callable[[], object]] = [
        lambda: cache.set_nowait(chance.randrange(40), 1, tags={chance.randrange(3)}),
        lambda: cache.delete_nowait(chance.randrange(40)),
        lambda: cache.touch_nowait(chance.randrange(40), 5),
        lambda: cache.invalidate_tag_nowait(chance.randrange(3)),
        lambda: cache.get_nowait(chance.randrange(40)),
        cache.items,
    ]
    done = refused = 0

    def count(end: Callable[[], object]) -> None:
        nonlocal done, refused
        try:
            end()
        except RuntimeError:
            refused += 1
        else:
            done += 1

    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for _ in range(1500):
            end = chance.choice(ends)
            Cyclic(lambda end=end: count(end))  # type: ignore[misc] # mypy sees no type for the default
            chance.choice(ends)()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert done > refused
    assert done + refused > 500
    assert_whole(cache)


if sys.platform != "win32":  # where there are no timers, and no fork

    def test_signal_handlers_that_change_the_cache() -> None:
        """A handler that runs in the middle of a change is refused; else it changes the cache."""
        cache: TTLCache[int] = TTLCache(10, max_size=20)
        handled = refused = 0

        def handle(*_: object) -> None:
            nonlocal handled, refused
            handled += 1
            try:
                cache.set_nowait(handled % 40, handled, tags={"tag"})
                if handled % 7 == 0:
                    cache.clear_nowait()
                if handled % 5 == 0:
                    cache.invalidate_tag_nowait("tag")
            except RuntimeError:
                refused += 1

        before = signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        try:
            number = 0
            while handled < 300:
                number += 1
                cache.set_nowait(number % 50, number)
                cache.delete_nowait((number + 7) % 50)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert handled > refused
        assert_whole(cache)

    # It has threads, which is the point.
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_fork_catches_no_change_half_done() -> None:
        """A fork waits for the change of another thread, and both processes have it whole."""
        cache = made("s3fifo", weighed=False)
        within, go_on, forked = threading.Event(), threading.Event(), threading.Event()

        def stop() -> None:
            within.set()
            go_on.wait()

        def change() -> None:
            Odd.act = NthCall(3, stop)
            cache.set_nowait(Odd(100), 100, tags={"tag"})
            forked.wait()

        def let_go() -> None:
            while cache._lock.acquire(blocking=False):  # until the fork waits for it
                cache._lock.release()
            go_on.set()

        threads = [threading.Thread(target=change), threading.Thread(target=let_go)]
        threads[0].start()
        within.wait()
        threads[1].start()
        child = os.fork()
        if child == 0:  # pragma: no cover - another process, which ends without a word
            signal.alarm(30)
            code = 1
            try:
                assert_whole(cache)
                assert Odd(100) in cache
                cache.clear_nowait()
                code = 0
            finally:
                os._exit(code)
        forked.set()
        for thread in threads:
            thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert Odd(100) in cache
        assert_whole(cache)


def test_copies_and_pickles() -> None:
    """A cache is not copied; a cached function is itself in every copy, as functions are."""
    cache: TTLCache[int] = TTLCache(60, name="users")
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"^<TTLCache 'users' .*> cannot be copied or pickled"):
            way(cache)
    assert copy.copy(price) is price
    assert copy.deepcopy(price) is price
    assert pickle.loads(pickle.dumps(price)) is price  # noqa: S301 - our own
    shop = Shop()
    again = pickle.loads(pickle.dumps(shop.price))  # noqa: S301 - our own
    assert isinstance(again.__self__, Shop)


@cached
async def price(item: str) -> int:
    """Be cached."""
    return len(item)


class Shop:
    """Has a cached method."""

    @cached
    async def price(self, item: str) -> int:
        """Be cached."""
        return len(item)


async def test_times_of_those_that_take_anothers_place() -> None:
    """Whether either expires some day or never, the new one has its own time."""
    for policy in POLICIES:
        cache: TTLCache[int] = TTLCache(math.inf, max_size=1, policy=policy)
        for number, ttl in enumerate([math.inf, math.inf, 5, math.inf, 5, 50, 5]):
            cache.set_nowait(number, number, ttl)
            assert_whole(cache)
        await anyio.sleep(5)
        assert len(cache.items()) == 0
        cache.clear_nowait()
        cache.set_nowait("always", 1, math.inf)
        cache.clear_nowait()
        assert_whole(cache)
