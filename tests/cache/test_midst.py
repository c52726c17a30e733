"""What the code of keys, tags, finalisers and signal handlers can do in the midst of a change."""

# ruff: noqa: D102 - only __call__, which the class explains

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import itertools
import logging
import math
import os
import pickle
import random
import re
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio._internal import clock
from mtaio.cache import EvictionPolicy, TTLCache, cached
from mtaio.cache._boarding import NOTHING
from mtaio.cache._course import HAS_GIL
from mtaio.cache._flight import RUNNING, Flight, State
from mtaio.testing import assert_quiescent, run
from tests.cache.whole import assert_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

POLICIES = pytest.mark.parametrize("policy", [*EvictionPolicy])


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


def made(policy: EvictionPolicy, *, laden: bool, error_ttl: float = 5) -> TTLCache[int]:
    """Return a full cache of keys that are compared."""
    weigher = (lambda _, value: value % 2 + 1) if laden else None
    cache: TTLCache[int] = TTLCache(10, 8, policy=policy, weigher=weigher, error_ttl=error_ttl)
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


@pytest.mark.parametrize("laden", [False, True], ids=["plain", "weighed"])
@pytest.mark.parametrize("name", OPERATIONS)
@POLICIES
def test_keys_that_raise(policy: EvictionPolicy, name: str, *, laden: bool) -> None:
    """
    Wherever the code of a key or a tag raises, the error passes, and the cache is whole.

    What a heavier value should have put out may still be there then; the next change makes room.
    """
    for number in itertools.count(1):
        cache = made(policy, laden=laden)
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


@pytest.mark.parametrize("inner", OPERATIONS)
@pytest.mark.parametrize("outer", OPERATIONS)
@POLICIES
def test_keys_that_change_the_cache(policy: EvictionPolicy, outer: str, inner: str) -> None:
    """What the code of a key asks for in the midst of a change is done, after that change."""
    for number in itertools.count(1):
        cache = made(policy, laden=False)
        Odd.act = act = NthCall(number, lambda cache=cache: OPERATIONS[inner](cache))  # type: ignore[misc] # mypy sees no type for the default
        OPERATIONS[outer](cache)
        Odd.act = None
        assert_whole(cache)
        if act.left > 0:
            break
        if inner == "set" and outer not in {"set many", "set with tags"}:
            assert Odd(100) in cache or outer == "clear"
        if inner == "clear" and outer.startswith(("delete", "touch", "end", "inv", "get", "con")):
            assert len(cache) == 0


def test_answers_in_the_midst_of_a_change() -> None:
    """What is only put off is answered as if it were done."""
    cache = made(EvictionPolicy.FIFO, laden=False)
    answers: list[object] = []
    names = ["delete", "delete many", "touch", "end", "invalidate", "get", "contains"]

    def ask() -> None:
        answers.extend(OPERATIONS[name](cache) for name in names)

    with cache._gate:
        ask()
        assert len(cache) == 8
        assert cache.statistics().size == 8
        assert cache.get_nowait(Odd(999), "none") == "none"
    assert answers == [True, 2, True, True, 3, 4, True]
    assert len(cache) == 4
    assert_whole(cache)


def test_changes_that_had_to_wait_and_fail_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An error of what was put off has nobody to go to but the log; the rest is done."""
    cache: TTLCache[int] = TTLCache(10)
    with cache._gate:
        key = Odd(1)
        cache.delete_nowait(key)
        cache.set_nowait("other", 1)
        Odd.act = NthCall(1, explode)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.records[0].getMessage().startswith("a change of a cache failed that a finaliser")
    assert cache.items() == [("other", 1)]


async def test_loads_in_the_midst_of_a_change_are_refused() -> None:
    """A load cannot be put off: it is an error that says what to do, and nothing has begun."""
    cache: TTLCache[int] = TTLCache(10, policy="lru")

    async def load() -> int:
        return 1

    with cache._gate, pytest.raises(RuntimeError, match=r"^a finaliser, a signal handler or a key"):
        await cache.get_or_set("key", load)
    with (
        cache._gate,
        pytest.raises(RuntimeError, match=r"^a finaliser, a signal handler"),
        cache._gate,
    ):
        pass
    assert cache.statistics().loads == 0
    assert await cache.get_or_set("key", load) == 1
    assert_quiescent(cache)


CHANGED = r"^<TTLCache .*> gave up 1 values whose keys were changed while they were in it, such as"


@pytest.mark.parametrize("policy", [*EvictionPolicy])
@pytest.mark.parametrize("laden", [False, True], ids=["plain", "weighed"])
@pytest.mark.parametrize("how", ["other hash", "no hash", "another's"])
@pytest.mark.parametrize("way", ["evicted", "expired", "invalidated"])
def test_a_key_that_was_changed(
    policy: EvictionPolicy, way: str, how: str, caplog: pytest.LogCaptureFixture, *, laden: bool
) -> None:
    """When its value has to go it goes, the log tells, and no other key is any worse for it."""
    heard: list[tuple[Any, int, str]] = []
    moment = 0.0
    with clock.reading_from(lambda: moment):
        cache: TTLCache[int] = TTLCache(
            5,
            3,
            policy=policy,
            weigher=(lambda _, value: value) if laden else None,
            on_removed=lambda key, value, cause: heard.append((key, value, str(cause))),
        )
        key = Odd(0)
        cache.set_nowait(key, 1, 1, tags=["tag"])
        cache.set_nowait(Odd(1), 1)
        cache.set_nowait("there", 1)
        key.number = {"other hash": 2, "no hash": None, "another's": 1}[how]  # type: ignore[assignment] # the point
        if way == "evicted":
            cache.set_nowait("new", 1)
        elif way == "expired":
            moment = 3.0
            cache.set_nowait("new", 1)
        else:
            assert cache.invalidate_tag_nowait("tag") in {0, 1}
            cache.set_nowait("new", 1)
        assert set(cache) >= {"new"}
        assert len(cache) <= 3
        assert_whole(cache)
        moment = 20.0
        while cache.expire_slice(moment, 2):
            pass
        assert len(cache) == 0
        assert_whole(cache)
    assert sorted((value, key is None) for key, value, _ in heard) == [(1, False)] * 4
    gone = [record.getMessage() for record in caplog.records]
    assert len(gone) <= 1
    if how != "another's":
        assert re.match(CHANGED, gone[0])


async def test_a_key_that_was_changed_in_an_entered_cache(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The block goes on, with what expires and with what is loaded."""
    cache: TTLCache[int] = TTLCache(1)
    async with cache:
        key = Odd(0)
        cache.set_nowait(key, 1)
        cache.set_nowait("there", 1)
        key.number = None  # type: ignore[assignment] # the point
        await anyio.sleep(3)
        assert len(cache) == 0
        assert await cache.get_or_set("other", soon) == 1
    assert len(caplog.records) == 1
    assert_whole(cache)


class Cyclic:
    """Garbage that only the collector finds, and whose end changes a cache."""

    def __init__(self, end: Callable[[], object]) -> None:
        self.me = self
        self.end = end

    def __del__(self) -> None:
        self.end()


@POLICIES
def test_finalisers_that_change_the_cache(policy: EvictionPolicy) -> None:
    """With the collector running all the time, finalisers change the cache and never break it."""
    chance = random.Random(5)  # noqa: S311 - reproducible
    cache: TTLCache[object] = TTLCache(10, 20, policy=policy)
    ends: list[Callable[[], object]] = [
        lambda: cache.set_nowait(chance.randrange(40), 1, tags={chance.randrange(3)}),
        lambda: cache.delete_nowait(chance.randrange(40)),
        lambda: cache.touch_nowait(chance.randrange(40), 5),
        lambda: cache.invalidate_tag_nowait(chance.randrange(3)),
        lambda: cache.get_nowait(chance.randrange(40)),
        cache.items,
    ]
    ended = 0

    def count(end: Callable[[], object]) -> None:
        nonlocal ended
        ended += 1
        end()

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
    assert ended > 500
    assert_whole(cache)


if sys.platform != "win32":  # where there are no timers, and no fork

    def test_signal_handlers_that_change_the_cache() -> None:
        """A handler between any two steps of a change is as good as one that runs after."""
        cache: TTLCache[int] = TTLCache(10, 20)
        handled = 0

        def handle(*_: object) -> None:
            nonlocal handled
            handled += 1
            cache.set_nowait(handled % 40, handled, tags={"tag"})
            if handled % 7 == 0:
                cache.clear_nowait()
            if handled % 5 == 0:
                cache.invalidate_tag_nowait("tag")

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
        assert_whole(cache)

    # It has threads, which is the point.
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_fork_catches_no_change_half_done() -> None:
        """A fork waits for the change of another thread, and both processes have it whole."""
        cache = made(EvictionPolicy.S3FIFO, laden=False)
        within, go_on, forked = threading.Event(), threading.Event(), threading.Event()

        def stop() -> None:
            within.set()
            go_on.wait()

        def change() -> None:
            Odd.act = NthCall(3, stop)
            cache.set_nowait(Odd(100), 100, tags={"tag"})
            forked.wait()

        def let_go() -> None:
            while cache._gate.held.acquire(blocking=False):  # until somebody has it: the change
                cache._gate.held.release()
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


class Never:
    """Waits for nobody, so that no event loop has to clean up behind it."""

    def __await__(self) -> Any:
        yield


async def never() -> int:
    """Load, without end."""
    await Never()
    raise AssertionError


async def soon() -> int:
    """Load at once."""
    return 1


def begun_apart(call: Any) -> tuple[contextvars.Context, Any]:
    """Begin a call in a context of its own, lest the next be in its course; return both."""
    context = contextvars.copy_context()
    context.run(call.send, None)  # driven by hand, so that it outlasts its loop
    return context, call


def test_loads_whose_loop_is_over(backend: str) -> None:
    """A load that its loop never ended is in no account, and neither when it is closed later."""
    cache: TTLCache[int] = TTLCache(60)
    calls: list[Any] = []

    async def begin() -> None:
        for key in ("key", "other"):
            call: Any = cache.get_or_set(key, never)
            call.send(None)  # driven by hand, so that no loop ends it
            calls.append(call)

    run(begin, backend=backend)
    assert cache.statistics().in_flight == 2
    with cache._gate:
        calls.pop().close()
        assert cache.statistics().in_flight == 2
    assert cache.statistics().in_flight == 1
    run(lambda: cache.get_or_set("third", soon), backend=backend)
    assert cache.statistics().in_flight == 0
    run(lambda: cache.get_or_set("key", soon), backend=backend)
    calls.pop().close()
    assert len(cache) == 2
    assert_quiescent(cache)
    assert_whole(cache)


def test_loads_of_a_loop_that_came_between() -> None:
    """What another loop leaves behind is forgotten by the next load, also of the loop before it."""
    cache: TTLCache[int] = TTLCache(60)
    calls: list[Any] = []

    async def begin() -> None:
        call: Any = cache.get_or_set("key", never)
        call.send(None)  # driven by hand, so that no loop ends it
        calls.append(call)

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        first.run_until_complete(cache.refresh("other", soon))
        second.run_until_complete(begin())
        second.close()
        assert cache.statistics().in_flight == 1
        first.run_until_complete(cache.refresh("other", soon))
        assert cache.statistics().in_flight == 0
    finally:
        first.close()
        second.close()
    calls.pop().close()
    assert_quiescent(cache)


@pytest.mark.parametrize("way", ["set", "delete", "clear", "tag"])
def test_a_change_overtakes_the_loads_of_all_loops(backend: str, way: str) -> None:
    """What several loops load at once for one key was all read before, and none of it is stored."""
    cache: TTLCache[int] = TTLCache(60)
    calls: list[tuple[contextvars.Context, Any]] = []

    async def late() -> int:
        await Never()
        return 7

    async def begin() -> None:
        call: Any = cache.get_or_set("key", late, tags=["tag"])
        calls.append(begun_apart(call))

    async def both() -> None:
        await begin()
        await anyio.to_thread.run_sync(lambda: anyio.run(begin, backend=backend))
        if way == "set":
            cache.set_nowait("key", 1)
        elif way == "tag":
            cache.invalidate_tag_nowait("tag")
        else:
            getattr(cache, f"{way}_nowait")(*(["key"] if way == "delete" else []))
        for context, call in calls:
            with pytest.raises(StopIteration, match=r"^7$"):
                context.run(call.send, None)

    anyio.run(both, backend=backend)
    assert cache.items() == ([("key", 1)] if way == "set" else [])
    assert_quiescent(cache)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["older first", "younger first"])
def test_loads_of_several_loops_end_in_any_order(backend: str, order: tuple[int, int]) -> None:
    """One that fails takes only itself out of the table, wherever it stands, and nothing stays."""
    cache: TTLCache[int] = TTLCache(60)
    calls: list[tuple[contextvars.Context, Any]] = []

    async def fail() -> int:
        await Never()
        raise LookupError

    async def begin() -> None:
        call: Any = cache.get_or_set("key", fail)
        calls.append(begun_apart(call))

    async def both() -> None:
        await begin()
        await anyio.to_thread.run_sync(lambda: anyio.run(begin, backend=backend))
        for left, number in zip((1, 0), order, strict=True):
            context, call = calls[number]
            with pytest.raises(LookupError):
                context.run(call.send, None)
            assert cache.statistics().in_flight == left
            assert len(cache._flights.table) == left

    anyio.run(both, backend=backend)
    assert_quiescent(cache)


async def test_a_load_that_is_closed_by_hand() -> None:
    """Whoever waits for a load whose coroutine is closed leads in its place."""
    cache: TTLCache[int] = TTLCache(60)
    call: Any = cache.get_or_set("key", never)
    contextvars.copy_context().run(call.send, None)  # else all that follows is in its course
    answers: list[int] = []

    async def ask() -> None:
        answers.append(await cache.get_or_set("key", soon))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.sleep(1)
        assert answers == []
        call.close()
    assert answers == [1]
    assert_quiescent(cache)


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt], ids=["error", "other"])
async def test_a_load_that_ends_in_the_midst_of_a_change(error: type[BaseException]) -> None:
    """The end of a coroutine that is closed then, whatever it raises, is noted after the change."""
    cache: TTLCache[int] = TTLCache(60)

    async def stubborn() -> int:
        try:
            await Never()
        finally:
            raise error

    call: Any = cache.get_or_set("key", stubborn)
    call.send(None)
    with cache._gate:
        with pytest.raises(error):
            call.close()
        assert cache.statistics().in_flight == 1
    statistics = cache.statistics()
    assert (statistics.in_flight, statistics.load_failures) == (0, int(error is LookupError))
    assert_quiescent(cache)


async def test_a_load_that_is_driven_in_the_midst_of_a_change() -> None:
    """A value that comes then is stored after the change."""
    cache: TTLCache[int] = TTLCache(60)

    async def load() -> int:
        await Never()
        return 7

    call: Any = cache.get_or_set("key", load)
    context = contextvars.copy_context()
    context.run(call.send, None)
    with cache._gate:
        with pytest.raises(StopIteration):
            context.run(call.send, None)
        assert "key" not in cache
    assert cache.get_nowait("key") == 7
    assert_quiescent(cache)
    assert_whole(cache)


def test_waiters_that_are_closed_by_hand() -> None:
    """One that waits and is closed is not counted any more, and takes nobody's load with it."""

    async def main() -> None:
        cache: TTLCache[int] = TTLCache(60)
        first: Any = cache.get_or_set("key", never)
        contextvars.copy_context().run(first.send, None)
        second: Any = cache.get_or_set("key", never)
        contextvars.copy_context().run(second.send, None)
        assert cache.statistics().waiting == 1
        second.close()
        assert (cache.statistics().waiting, cache.statistics().in_flight) == (0, 1)
        first.close()
        assert_quiescent(cache)

    run(main, backend="asyncio")  # trio's events wake the task, which here is that of the test


@pytest.mark.parametrize("left", [False, True], ids=["entered", "left"])
async def test_a_load_of_a_block_that_is_closed_by_hand(*, left: bool) -> None:
    """The task of a load that is closed, as it is when its loop is over, is noted once."""
    cache: TTLCache[int] = TTLCache(60)
    async with cache:
        flight = Flight()
        flight.cache, flight.key, flight.factory = cache, "key", never
        flight.args, flight.kwargs = (), NOTHING
        flight.ttl, flight.tags = 60, frozenset()
        flight.event = flight.company = flight.other = flight.outer = None
        flight.state, flight.wanted, flight.waiters = RUNNING, True, 0
        cache._board(flight)
        flight.call = never()
        task: Any = cache._run(flight)
        contextvars.copy_context().run(task.send, None)
        assert cache.statistics().in_flight == 1
        if left:
            flight.state = State.CLOSED
        task.close()
        assert cache.statistics().in_flight == 0
    assert_quiescent(cache)


# Without it a load that nobody else asks for begins without the lock.
ERROR_TTL = pytest.mark.parametrize("error_ttl", [0, 5], ids=["", "errors kept"])


@ERROR_TTL
@pytest.mark.parametrize("name", ["set", "delete", "clear"])
async def test_keys_that_change_the_cache_during_a_load(name: str, error_ttl: float) -> None:
    """What a key asks for where a load begins or ends is done right after."""
    for number in itertools.count(1):
        cache = made(EvictionPolicy.S3FIFO, laden=False, error_ttl=error_ttl)
        Odd.act = act = NthCall(number, lambda cache=cache: OPERATIONS[name](cache))  # type: ignore[misc] # mypy sees no type for the default
        assert await cache.get_or_set(Odd(200), soon) == 1
        Odd.act = None
        assert_whole(cache)
        assert_quiescent(cache)
        if act.left > 0:
            break
        if name == "set":
            assert Odd(100) in cache
    assert number > 3


@ERROR_TTL
@pytest.mark.parametrize("fails", [False, True], ids=["lands", "fails"])
async def test_keys_that_raise_during_a_load(*, fails: bool, error_ttl: float) -> None:
    """Wherever its key raises, a load ends, whoever waits is told, and the cache is whole."""

    async def load() -> int:
        await anyio.sleep(1)
        if fails:
            raise LookupError
        return 1

    for number in itertools.count(1):
        cache = made(EvictionPolicy.S3FIFO, laden=False, error_ttl=error_ttl)
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


async def test_times_of_those_that_take_anothers_place() -> None:
    """Whether either expires some day or never, the new one has its own time."""
    for policy in EvictionPolicy:
        cache: TTLCache[int] = TTLCache(math.inf, 1, policy=policy)
        for number, ttl in enumerate([math.inf, math.inf, 5, math.inf, 5, 50, 5]):
            cache.set_nowait(number, number, ttl)
            assert_whole(cache)
        await anyio.sleep(5)
        assert len(cache.items()) == 0


async def test_methods_of_a_cache_that_may_not_change() -> None:
    """Asking for the method of an object is no error where only a call of it would be one."""

    async def hear(*_: object) -> None:
        raise AssertionError

    class Lonely:
        @cached(cache=TTLCache[int](on_removed=hear))
        async def ask(self) -> int:
            """Be cached."""
            return 1

    for _ in range(3):
        lonely = Lonely()
        assert lonely.ask.cache.statistics().size == 0
    with pytest.raises(RuntimeError, match=r"^<TTLCache .*> has an async on_removed, and is not"):
        await lonely.ask()
    async with lonely.ask.cache:
        assert await lonely.ask() == 1
        lonely = Lonely()
        assert await lonely.ask() == 1


async def test_a_load_that_fails_after_its_key_was_changed() -> None:
    """The error of a load that a change overtook goes to who waited, and is not kept."""
    cache: TTLCache[int] = TTLCache(60, error_ttl=5)

    async def fail() -> int:
        cache.delete_nowait("key")
        raise LookupError

    for _ in range(2):
        with pytest.raises(LookupError):
            await cache.get_or_set("key", fail)
    assert (cache.statistics().loads, len(cache)) == (2, 0)
    assert_whole(cache)


class Visitor:
    """Another thread, which comes once, when it is called, and does something to a cache."""

    def __init__(self, cache: TTLCache[int], change: str) -> None:
        self.cache = cache
        self.thread = threading.Thread(target=getattr(self, change))
        self.go_on = threading.Event()

    def __call__(self) -> None:
        if self.cache._gate.free:  # else it would have to wait
            self.thread.start()
            while self.thread.is_alive() and not self.cache._flights.table:
                pass

    def leave(self) -> bool:
        """Let it come to its end, and tell whether it came."""
        self.go_on.set()
        came = self.thread.ident is not None
        if came:
            self.thread.join()
        return came

    def load(self) -> None:
        async def wait() -> int:
            await anyio.to_thread.run_sync(self.go_on.wait)
            return 2

        async def main() -> None:
            assert await self.cache.get_or_set(Odd(200), wait, tags={"tag"}) == 2

        anyio.run(main)

    def set(self) -> None:
        self.cache.set_nowait(Odd(200), 3, tags={"tag"})

    def delete(self) -> None:
        self.cache.delete_nowait(Odd(200))

    def clear(self) -> None:
        self.cache.clear_nowait()

    def tag(self) -> None:
        self.cache.invalidate_tag_nowait("tag")


@pytest.mark.skipif(not HAS_GIL, reason="no load begins without the lock where there is no GIL")
@pytest.mark.parametrize("change", ["load", "set", "delete", "clear", "tag"])
async def test_another_thread_comes_where_a_load_begins(change: str) -> None:
    """Between the look-up and the beginning of a load anything may be done by another thread."""
    for number in itertools.count(1):
        cache = made(EvictionPolicy.S3FIFO, laden=False, error_ttl=0)
        visitor = Visitor(cache, change)
        Odd.act = act = NthCall(number, visitor)
        answer = await cache.get_or_set(Odd(200), soon)
        Odd.act = None
        cache.set_nowait(Odd(200), 9)
        came = visitor.leave()
        assert cache.get_nowait(Odd(200)) == 9, "what was loaded meanwhile came in its place"
        assert answer == 1 or (change == "set" and answer == 3)
        assert cache.statistics().loads == (answer == 1) + (change == "load" and came)
        assert_whole(cache)
        assert not cache._flights.table
        assert cache.statistics().in_flight == 0
        if act.left > 0:
            break
    assert number > 3
