"""`cached` on plain functions: one load for all threads that ask, and what may go wrong in it."""

from __future__ import annotations

import gc
import inspect
import os
import pickle
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import pytest
from anyio import to_thread

from mtaio.cache import BoundPlainCached, PlainCached, TTLCache, cached
from mtaio.cache._load import request
from mtaio.cache._threads import ThreadFetcher, Threads
from mtaio.testing import assert_quiescent
from tests.cache.whole import assert_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

anything: Any = cached
"""`cached`, called as no type checker lets one."""


def until(there: Callable[[], object]) -> None:
    """Wait until something is so that other threads bring about."""
    pause = threading.Event()
    for _ in range(60_000):
        if there():
            return
        pause.wait(0.001)
    pytest.fail("it did not come about")  # pragma: no cover - a failure


class Caller:
    """
    A thread that makes a call, and keeps what comes of it.

    Args:
        call: The call.
    """

    def __init__(self, call: Callable[[], object]) -> None:
        self.outcome: object = None
        self._call = call
        self._thread = threading.Thread(target=self._make, daemon=True)
        self._thread.start()

    def _make(self) -> None:
        try:
            self.outcome = self._call()
        except BaseException as error:  # noqa: BLE001 - looked at in the test
            self.outcome = error

    def end(self) -> object:
        """Return the outcome."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.outcome


class Slow:
    """
    A function that stands still until it is told how to end.

    Args:
        ends: What ends each of its calls in turn; an exception is raised.
    """

    def __init__(self, *ends: object) -> None:
        self.calls = 0
        self.go_on = threading.Event()
        self._ends = [*ends]

    def __call__(self, _: object = None) -> object:
        """Be the function."""
        self.calls += 1
        end = self._ends.pop(0)
        assert self.go_on.wait(60)
        if isinstance(end, BaseException):
            raise end
        return end

    def __repr__(self) -> str:
        return "<Slow>"


def ask_in_threads(fetch: Callable[[int], object], slow: Slow, number: int = 4) -> list[object]:
    """Have threads make one call at the same time, and return what came of it for each."""
    look: Any = fetch
    callers = [Caller(lambda: fetch(1)) for _ in range(number)]
    until(lambda: look.cache.statistics().waiting == number - 1)
    assert look.is_loading(1)
    assert not look.contains(1)
    slow.go_on.set()
    outcomes = [caller.end() for caller in callers]
    assert_quiescent(look.cache)
    assert_whole(look.cache)
    return outcomes


# Calls.


def test_equal_calls_are_one() -> None:
    """A plain function stays plain, and a second call with the same arguments is a hit."""
    calls: list[object] = []

    @cached
    def fetch(number: int, *, deep: bool = False) -> str:
        """Fetch it."""
        calls.append((number, deep))
        return f"{number} {deep}"

    assert (fetch(1), fetch(1), fetch(1, deep=True), fetch(1, deep=True)) == (
        *("1 False", "1 False"),
        *("1 True", "1 True"),
    )
    assert calls == [(1, False), (1, True)]
    now = fetch.cache.statistics()
    assert (now.hits, now.misses, now.loads, now.in_flight) == (2, 2, 2, 0)
    assert isinstance(fetch, PlainCached)
    assert not inspect.iscoroutinefunction(fetch)
    assert str(inspect.signature(fetch)) == "(number: 'int', *, deep: 'bool' = False) -> 'str'"
    assert fetch.__doc__ == "Fetch it."
    assert fetch.contains(1)
    assert fetch.invalidate(1)
    assert not fetch.invalidate(1)
    assert not fetch.contains(1)
    assert not fetch.is_loading(1)
    assert fetch.refresh(1) == "1 False"
    assert len(calls) == 3
    with pytest.raises(TypeError, match=r"^too many positional arguments$"):
        fetch.contains(1, True)  # type: ignore[call-arg] # noqa: FBT003 - the point
    with pytest.raises(TypeError, match=r"^key=\(\[\],\) cannot be hashed: "):
        fetch([])  # type: ignore[arg-type] # the point


class Shop:
    """Has plain methods."""

    @cached(tags=lambda _, item: {str(item)})
    def price(self, item: str) -> object:
        """Return something new."""
        return [item]

    @cached
    @classmethod
    def kind(cls) -> object:
        """Return something new of the class."""
        return [cls]

    @cached
    @staticmethod
    def place() -> object:
        """Return something new of nobody."""
        return []


def test_methods() -> None:
    """They keep objects apart and alive no longer than they are, as async ones do."""
    north, south = Shop(), Shop()
    first = north.price("tea")
    for _ in range(5):
        assert north.price("tea") is first
    with pytest.raises(TypeError, match=r"\[\].* cannot be hashed: "):
        north.price([])  # type: ignore[arg-type] # the point
    assert north.price(item="tea") is not first
    assert south.price("tea") is not first
    assert north.price.contains("tea")
    assert not north.price.is_loading("tea")
    assert north.price.invalidate("tea")
    assert not north.price.contains("tea")
    again = north.price.refresh("tea")
    assert north.price("tea") is again
    assert north.price.cache.invalidate_tag_nowait("tea") == 3
    kind: Any = Shop
    sub: Any = type("Sub", (Shop,), {})
    assert kind.kind() is kind.kind() is not sub.kind()
    assert kind.place() is kind().place()
    assert isinstance(north.price, BoundPlainCached)
    south.price("tea")
    del south
    gc.collect()
    north.price("milk")
    assert len(north.price.cache) == 1


def test_bound_methods() -> None:
    """A method of an object is the same each time, and looks like the method."""
    shop = Shop()
    price: Any = shop.price
    assert price == shop.price != Shop().price
    assert price != shop
    assert len({price, shop.price}) == 1
    assert str(inspect.signature(price)) == "(item: 'str') -> 'object'"
    assert price.__get__(Shop()) is price
    assert repr(price).startswith("<cached <function Shop.price at 0x")
    assert price.__self__ is shop
    assert pickle.loads(pickle.dumps(price)).__func__ is Shop.price  # noqa: S301 - our own
    assert pickle.loads(pickle.dumps(Shop.price)) is Shop.price  # noqa: S301 - our own


async def test_time_is_that_of_the_event_loop() -> None:
    """Called in an event loop, or in its threads, results last for its time."""

    @cached(ttl=lambda result: result, keep=lambda result: result != 3)
    def fetch(number: int) -> int:
        return number

    for number in (1, 2, 3):
        assert await to_thread.run_sync(fetch, number) == fetch(number) == number
    assert [fetch.contains(number) for number in (1, 2, 3)] == [True, True, False]
    await anyio.sleep(1)
    assert [fetch.contains(number) for number in (1, 2, 3)] == [False, True, False]


# Threads.


def test_threads_share_a_load() -> None:
    """One thread makes the call, and the others get its result; it is all one load."""
    slow = Slow(result := object())
    fetch = cached(slow)
    assert ask_in_threads(fetch, slow) == [result] * 4
    now = fetch.cache.statistics()
    assert (slow.calls, now.loads, now.misses) == (1, 1, 4)
    assert fetch(1) is result


def test_threads_share_an_error() -> None:
    """An error is raised to all who waited for it, and the next call is made anew."""
    slow = Slow(error := LookupError("none"), result := object())
    fetch = cached(slow)
    assert ask_in_threads(fetch, slow) == [error] * 4
    assert fetch.cache.statistics().failed == 1
    assert fetch(1) is result


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_interruption_is_not_shared(interrupt: type[BaseException]) -> None:
    """If the thread that loads is interrupted, another one makes the call for those who wait."""
    slow = Slow(interrupt(), result := object())
    fetch = cached(slow)
    outcomes = ask_in_threads(fetch, slow)
    assert sorted(map(type, outcomes), key=str) == sorted([interrupt, *[object] * 3], key=str)
    assert outcomes.count(result) == 3
    now = fetch.cache.statistics()
    assert (slow.calls, now.loads, now.cancelled, now.misses) == (2, 2, 1, 4)


def test_kept_errors_and_old_results() -> None:
    """``error_ttl`` and ``stale_if_error`` are for plain functions, too."""
    slow = Slow(error := LookupError("none"))
    slow.go_on.set()
    fetch = cached(cache=TTLCache(60, error_ttl=60))(slow)
    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            fetch(1)
        assert caught.value is error
    assert fetch.cache.statistics().loads == 1
    old = Slow("old", LookupError("none"))
    served: Any = cached(cache=TTLCache(0.001, stale_if_error=60))(old)
    old.go_on.set()
    served(1)
    until(lambda: not served.contains(1))
    old.go_on.clear()
    assert ask_in_threads(served, old) == ["old"] * 4
    assert served.cache.statistics().served_stale == 4
    with pytest.raises(IndexError):
        served.refresh(1)


def test_changes_during_a_call() -> None:
    """A call whose key was changed answers its callers, and its result is not kept."""
    slow = Slow(1, 2)
    fetch = cached(slow)
    first = Caller(lambda: fetch(1))
    until(lambda: fetch.is_loading(1))
    assert not fetch.invalidate(1)
    assert not fetch.is_loading(1)
    other = Caller(lambda: fetch.refresh(1))
    until(lambda: slow.calls == 2)
    third = Caller(lambda: fetch(1))
    until(lambda: fetch.cache.statistics().waiting)
    slow.go_on.set()
    assert (first.end(), other.end(), third.end(), fetch(1)) == (1, 2, 2, 2)
    assert_quiescent(fetch.cache)


@pytest.mark.skipif(sys.platform == "win32", reason="a thread cannot be interrupted there")
def test_one_that_waits_is_interrupted() -> None:
    """It leaves, and the others get the result all the same."""
    slow = Slow("result")
    fetch = cached(slow)
    callers = [Caller(lambda: fetch(1))]
    until(lambda: fetch.is_loading(1))
    callers.append(Caller(lambda: fetch(1)))
    main = threading.get_ident()

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        until(lambda: fetch.cache.statistics().waiting == 1)

        def strike() -> None:
            until(lambda: fetch.cache.statistics().waiting == 2)
            if sys.platform != "win32":
                signal.pthread_kill(main, signal.SIGINT)

        striker = Caller(strike)
        with pytest.raises(KeyboardInterrupt):
            fetch(1)
    finally:
        signal.signal(signal.SIGINT, before)
    striker.end()
    assert fetch.cache.statistics().waiting == 1
    slow.go_on.set()
    assert [caller.end() for caller in callers] == ["result"] * 2
    assert_quiescent(fetch.cache)


@pytest.mark.parametrize("started", [True, False])
def test_interrupted_before_its_call(monkeypatch: pytest.MonkeyPatch, *, started: bool) -> None:
    """An interruption between the start of a load and its call leaves no load that nobody runs."""
    fetch = cached(str)
    decide = ThreadFetcher._decide

    def struck(self: ThreadFetcher, *args: Any, **kwargs: Any) -> NoReturn:
        if started:
            decide(self, *args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ThreadFetcher, "_decide", struck)
        with pytest.raises(KeyboardInterrupt):
            fetch(1)
    assert fetch.cache.statistics().cancelled == started
    assert fetch(1) == "1"
    assert_quiescent(fetch.cache)


def test_load_that_ends_before_its_end_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that joins a load at the last moment has its result."""
    slow = Slow("result")
    fetch = cached(slow)
    decide = ThreadFetcher._decide
    caller = Caller(lambda: fetch(1))
    until(lambda: fetch.is_loading(1))

    def delayed(self: ThreadFetcher, *args: Any, **kwargs: Any) -> Any:
        decided = decide(self, *args, **kwargs)
        slow.go_on.set()
        caller.end()
        return decided

    monkeypatch.setattr(ThreadFetcher, "_decide", delayed)
    assert fetch(1) == "result"
    assert fetch.cache.statistics().loads == 1
    assert_quiescent(fetch.cache)


# Calls that would wait for themselves.

OWN = r"^the load of key=\(.*,\) in <TTLCache .* asked for its own key"


def test_function_that_calls_itself() -> None:
    """Recursion with other arguments works; with the same ones it is refused."""

    @cached
    def factorial(number: int) -> int:
        return number * factorial(number - 1) if number else 1

    @cached
    def endless(number: int) -> int:
        return endless(number)

    assert factorial(50) == 50 * factorial(49)
    with pytest.raises(RuntimeError, match=OWN):
        endless(3)
    assert_quiescent(endless.cache)


def test_threads_that_would_wait_for_each_other() -> None:
    """A circle through threads and caches is an error in one of them, and ends the others."""
    turns = threading.Barrier(3)

    def ask(name: int) -> object:
        turns.wait(60)
        return functions[(name + 1) % 3]((name + 1) % 3)

    functions = [cached(ask), cached(ask), cached(ask)]
    callers = [Caller(lambda name=name: functions[name](name)) for name in range(3)]  # type: ignore[misc] # mypy cannot infer it
    for caller in callers:
        with pytest.raises(RuntimeError, match=OWN):
            raise caller.end()  # type: ignore[misc] # it is one
    for fetch in functions:
        assert_quiescent(fetch.cache)


def test_circle_of_others_and_one_that_is_over() -> None:
    """A chain that ends in a circle of others, or whose loads have ended, is no circle of ours."""
    threads, me = Threads(), threading.get_ident()
    ours, mine, over = (request(None, key, 1.0, frozenset(), threads) for key in range(3))
    ours.thread, mine.thread, over.thread = 1, me, 2
    threads._waits[1] = ours
    assert threads.enter_wait(ours)
    threads._waits[2] = mine
    assert not threads.enter_wait(over)
    over.state = "loaded"
    assert threads.enter_wait(over)
    threads.leave_wait()
    assert me not in threads._waits


def test_threads_that_wait_in_a_row() -> None:
    """A thread that loads may wait for another one that does."""
    slow = Slow("result")
    inner = cached(slow)
    outer = cached(lambda key: inner(key))  # noqa: PLW0108 - another function
    callers = [Caller(lambda: inner(1))]
    until(lambda: inner.is_loading(1))
    callers.append(Caller(lambda: outer(1)))
    until(lambda: inner.cache.statistics().waiting)
    callers.append(Caller(lambda: outer(1)))
    until(lambda: outer.cache.statistics().waiting)
    slow.go_on.set()
    assert [caller.end() for caller in callers] == ["result"] * 3


# Beside async functions, and forks.


async def test_async_and_plain_functions_share_a_cache() -> None:
    """What one has loaded the other finds; while both load, each has a load of its own."""
    cache: TTLCache[Any] = TTLCache(60)
    slow = Slow("plain")
    plain = cached(cache=cache, key=lambda key: key)(slow)

    @cached(cache=cache, key=lambda key: key)
    async def fetch(key: int) -> str:
        await anyio.sleep(1)
        return f"async {key}"

    async with cache:
        caller = Caller(lambda: plain(1))
        until(lambda: slow.calls)
        assert plain.is_loading(1)
        assert fetch.is_loading(1)  # it is one key
        assert cache.is_loading(1)
        assert await fetch(1) == "async 1"
        assert cache.statistics().in_flight == 1
        assert not plain.is_loading(1)  # its result will not be kept
        slow.go_on.set()
        assert caller.end() == "plain"
    assert await fetch(1) == plain(1) == "async 1"  # the load that has ended first
    await fetch(2)
    assert plain(2) == "async 2"
    assert_quiescent(cache)


async def test_async_listener_of_a_plain_function() -> None:
    """A listener that has to be awaited is called in the block, and a load outside is refused."""
    heard: list[object] = []

    async def hear(*removal: object) -> None:
        heard.append(removal)

    fetch = cached(cache=TTLCache(60, on_removed=hear), key=str)(str)
    with pytest.raises(RuntimeError, match=r"^<TTLCache .*> has an async on_removed, but is not"):
        fetch(1)
    async with fetch.cache:
        assert await to_thread.run_sync(fetch, 1) == "1"
        assert fetch.invalidate(1)
    assert heard == [("1", "1", "deleted")]


if sys.platform != "win32":

    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_fork_has_no_calls_of_other_threads() -> None:
        """In the child the key can be loaded again; the loads of the parent go on."""
        slow = Slow("parent", "child")
        fetch = cached(slow)
        caller = Caller(lambda: fetch(1))
        until(lambda: fetch.is_loading(1))
        child = os.fork()
        if child == 0:  # pragma: no cover - another process, which ends without a word
            signal.alarm(30)
            code = 1
            try:
                assert not fetch.is_loading(1)
                slow.go_on.set()
                slow._ends = ["child"]
                assert fetch(1) == fetch(1) == "child"
                assert fetch.cache.statistics().in_flight == 0
                assert_whole(fetch.cache)
                code = 0
            finally:
                os._exit(code)
        slow.go_on.set()
        assert caller.end() == "parent"
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert_quiescent(fetch.cache)

    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_fork_within_a_call() -> None:
        """The call goes on in both processes, also if the child has called others meanwhile."""

        @cached
        def fetch(number: int) -> int:
            if number:
                return number
            child = os.fork()
            fetch(1)
            return child

        if not (child := fetch(0)):  # pragma: no cover - another process, as above
            signal.alarm(30)
            code = 1
            try:
                assert fetch.cache.statistics().in_flight == 0
                assert_whole(fetch.cache)
                code = 0
            finally:
                os._exit(code)
        assert fetch(0) == child
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert_quiescent(fetch.cache)


# Refusals.


def numbers() -> Generator[int]:
    """Yield, once."""
    yield 1


async def later() -> int:
    """Return, once."""
    return 1


async def stream() -> Any:
    """Yield, once."""
    yield 1


@pytest.mark.parametrize("fn", [numbers, stream, staticmethod(numbers)], ids=["def", "async", "in"])
def test_generator_functions_are_refused(fn: Any) -> None:
    """What they return is empty for the second caller."""
    with pytest.raises(TypeError, match=r"^@cached cannot decorate <.*: what it returns can be it"):
        cached(fn)


class Foreign:
    """Is awaitable, as what a compiled async function returns is, and no coroutine of Python's."""

    def __await__(self) -> Generator[None]:
        """Return at once."""
        yield from ()


@pytest.mark.parametrize("fn", [numbers, later, stream, Foreign])
def test_what_can_be_used_once_is_refused(fn: Any) -> None:
    """A plain function that returns it is told so, and nothing is kept."""
    fetch = cached(lambda: fn())  # noqa: PLW0108 - a plain function is the point
    for _ in range(2):
        with pytest.raises(
            TypeError, match=r"^<function .* returned <.* which can be used only once"
        ):
            fetch()
    assert fetch.cache.statistics().failed == 2


def test_caches_that_refresh_in_the_background_are_refused() -> None:
    """There is no event loop to do so."""
    for options in ({"refresh_ahead": 0.5}, {"stale_while_revalidate": 5}):
        cache: TTLCache[Any] = TTLCache(60, **options)
        with pytest.raises(ValueError, match=r"^cache=<TTLCache .*> refreshes in the background"):
            cached(cache=cache)(time.sleep)
