"""
Loads of plain functions: one for all threads that want the same key at the same time.

Promise: the first thread that asks runs the load, and the others wait for its end; they get its
value or its error. If an exception that is no `Exception` ends it, such as a ``KeyboardInterrupt``,
that is its thread's alone: one of those who wait loads then. A thread that would wait for itself,
at once or through the loads of other threads, gets an error instead. In the child of a fork, loads
of threads that do not exist there are forgotten.
Cost: a load takes the lock of the cache twice; a thread that waits, a lock of its own.

These loads are in the table of all loads, where the threads of the process stand in the place of an
event loop: so a changed key, statistics and kept errors are what they are for other loads, and one
cache may hold the results of async and of plain functions. They never wait for each other: a thread
that waits would stop its event loop, and what that loads.
"""

from __future__ import annotations

import os
from inspect import isawaitable
from threading import Lock, get_ident
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from mtaio._internal import clock, spans
from mtaio._internal.callables import close_unstarted
from mtaio._internal.sentinel import UNSET
from mtaio.cache._config import unhashable
from mtaio.cache._cycles import own_key_error
from mtaio.cache._entry import Failure
from mtaio.cache._load import ABORTED, FAILED, Load, NoLoop, request

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from mtaio.cache._config import Lifetime
    from mtaio.cache._fetching import Fetcher
    from mtaio.cache._loads import Loads

__all__ = ["ThreadFetcher", "Threads"]


class Threads(NoLoop):
    """
    The threads of this process, in the place of an event loop; and which load each waits for.

    A load has one thread that runs it, and a thread waits for one load at most, so what would end
    up waiting for itself is found by following a chain.
    """

    __slots__ = ("_waits",)

    here: ClassVar[Threads]
    """Those of this process; a fork has others."""

    def __init__(self) -> None:
        self._waits: dict[int, Load] = {}  # no lock: a finaliser may wait in the middle of anything

    def is_over(self) -> bool:
        """Return whether they are those of the process that this one was forked from."""
        return self is not Threads.here

    def enter_wait(self, load: Load) -> bool:
        """
        Note that this thread waits for a load; return False if it would wait for itself.

        1. Note it before looking: of several threads that close a circle, the last one sees it.
        2. Follow the chain: the load, its thread, the load that this one waits for, and so on. It
           may end in a circle of others, which those find.
        3. If it leads back here, all of its loads have to be running still: then none of the
           threads has gone on meanwhile, since each waits for the next load.
        """
        me = get_ident()
        self._waits[me] = load
        chain = [load]
        while chain[-1].thread != me:
            following = self._waits.get(chain[-1].thread)
            if following is None or following in chain:
                return True
            chain.append(following)
        return any(each.is_over() for each in chain)

    def leave_wait(self) -> None:
        """Note that this thread waits no longer."""
        self._waits.pop(get_ident(), None)

    @classmethod
    def renew(cls) -> None:
        """Begin anew, in the child of a fork."""
        cls.here = cls()


Threads.renew()
if hasattr(os, "register_at_fork"):  # pragma: no branch - there is no fork on Windows
    os.register_at_fork(after_in_child=Threads.renew)


class _Waiter:
    """A thread that waits to be woken, once."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()

    def wait(self) -> None:
        """Wait until `wake`."""
        self._lock.acquire()

    def wake(self) -> None:
        """Have it go on."""
        self._lock.release()


class ThreadFetcher:
    """
    Answers the calls of plain functions that find no fresh value.

    Args:
        fetcher: That of the cache.
    """

    __slots__ = ("_fetcher", "_loads")

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._loads: Loads = fetcher.loads

    def fetch(  # noqa: PLR0917 - as `Fetcher.fetch`
        self,
        key: Hashable,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        ttl: Lifetime,
        tags: frozenset[Hashable],
        refresh: bool = False,  # noqa: FBT001, FBT002 - as above
    ) -> Any:
        """
        Answer a call that finds no fresh value, or that wants a new one; wait for that.

        1. Decide under the lock whether to return a value, to wait for a load or to load.
        2. What interrupts the thread meanwhile, a signal handler's exception, must not leave a load
           that nobody runs: it is ended if it has started.
        3. A load that was interrupted has no outcome: whoever waited for it decides again.
        """
        again = False
        spare = self._loads.sparing and not refresh
        while True:
            joined = None
            load = request(self._loads.owner, key, ttl, tags, Threads.here)
            load.thread = get_ident()
            try:
                joined, found, waiter = self._decide(
                    load, refresh=refresh and not again, again=again
                )
                if joined is load:
                    return self._run(load, fn, args, kwargs, spare=spare)
            except BaseException as error:
                if not isinstance(error, Exception):
                    self._end_interrupted(load)
                del joined, load  # the error's traceback has this frame
                raise
            if joined is not None and waiter is not None:
                self._wait(joined, waiter)
                if joined.state is ABORTED:
                    again = True
                    continue
                found = self._fetcher.outcome(joined, spare=spare)
            if type(found) is not Failure:
                return found
            raised, trace = found.error, found.traceback
            del joined, found, load  # as above
            try:
                raise raised.with_traceback(trace)
            finally:
                del raised, trace

    def _decide(
        self, load: Load, *, refresh: bool, again: bool
    ) -> tuple[Load | None, Any, _Waiter | None]:
        """
        Do as `Fetcher.join`; if a load is to be waited for, join it in the same step.

        A plain miss is written out, as it is there: nothing else has to be looked at.
        """
        waiter = None
        loads, store, key = self._loads, self._loads.store, load.key
        with loads.lock:
            tells = clock.reader()
            load.started = tells() if tells is store.timed_by else store.now()
            try:
                if not (loads.table or loads.guarded or refresh or key in store.entries):
                    loads.table[key] = load
                    loads.last_loop = 0
                    loads.started += 1
                    store.misses += not again
                    return load, UNSET, None
                joined, found, _lost = self._fetcher.join(load, refresh=refresh, again=again)
            except TypeError as error:
                raise unhashable(key, error) from error
            if joined is not None and joined is not load and found is UNSET:
                waiter = _Waiter()
                joined.waiting = joined.waiting or {}
                joined.waiting[waiter] = None
                joined.waiters += 1
                loads.waiting += 1
        return joined, found, waiter

    def _run(
        self,
        load: Load,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        spare: bool,
    ) -> Any:
        """Run a load that has started; return its value, the old one, or raise its error."""
        try:
            if spans.hook is None:
                value = fn(*args, **kwargs)
            else:
                value = spans.call("load", fn, fn, *args, **kwargs)
            _check_value(fn, value)
            if load.loop is not None:  # else this is a fork, which has given it up
                self._loads.succeed(load, value)
        except BaseException as error:
            if isinstance(error, Exception):
                self._loads.fail(load, error)
            else:
                self._loads.cancel(load, ABORTED)
            value = self._fetcher.spared(load) if spare and load.state is FAILED else UNSET
            del load  # as in `fetch`
            if value is UNSET:
                raise
        return value

    def _end_interrupted(self, load: Load) -> None:
        """End a load that has started, and that the thread was interrupted before it ran."""
        with self._loads.lock.held:
            left = load in self._loads.all()
        if left:
            self._loads.cancel(load, ABORTED)

    def _wait(self, load: Load, waiter: _Waiter) -> None:
        """Wait for the end of a load that was joined."""
        threads = load.loop
        try:
            if isinstance(threads, Threads):  # else it is over
                try:
                    if not threads.enter_wait(load):
                        raise own_key_error(load.owner, load.key)
                    waiter.wait()
                finally:
                    threads.leave_wait()
        finally:
            with self._loads.lock.held:
                self._loads.waiting -= load.waiters > 0
                load.waiters -= 1
                (load.waiting or {}).pop(waiter, None)


_ONCE: Final = frozenset({GeneratorType, AsyncGeneratorType})


def _check_value(fn: object, value: object) -> None:
    """Raise ``TypeError`` for what can be used once, and not by all callers."""
    if type(value) in _ONCE or isawaitable(value):
        close_unstarted(value)
        msg = (
            f"{fn!r} returned {value!r}, which can be used only once, not by every caller. Make it "
            f"an async function, or return a list."
        )
        raise TypeError(msg)
