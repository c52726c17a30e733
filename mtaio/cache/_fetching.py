"""
Answering a call that finds no fresh value: by a load in flight, or by one that starts for it.

Promise: one load for all callers that want its key in an event loop; its loader is called once, and
how that ends is noted once, whatever happens; an error goes once to the callers that waited for
that load; a cancellation is never shared. One load in 64 is a checkpoint, even if its loader never
suspends.
Cost: a load that only one caller wants is one coroutine, and takes the lock twice. Each caller that
waits for another's load costs a `Waiter`, which it leaves in constant time.

What is decided is decided in one step, under the lock of the cache: whether there is a value, a
load in flight to join, or one that starts. A load runs in the task of its caller, here, or in one
of the cache's block, in `mtaio.cache._background`. What happens to loads is in
`mtaio.cache._loads`. Why there are two ways to run one, and what each costs:
docs/en/design/caching.md.
"""

from __future__ import annotations

import math
import reprlib
from contextlib import suppress
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

import anyio

from mtaio._internal import backend, spans
from mtaio._internal.backend import known_loop
from mtaio._internal.cancellation import raise_failure
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint, checkpoint_if_cancelled
from mtaio._internal.loops import look
from mtaio._internal.sentinel import UNSET
from mtaio.cache._config import check_awaitable, unhashable
from mtaio.cache._cycles import LOADING, Dependent, dependent_in, is_awaited
from mtaio.cache._entry import Failure
from mtaio.cache._load import (
    ABORTED,
    ABSENT,
    CLOSED,
    FAILED,
    RUNNING,
    Load,
    request,
    together,
)
from mtaio.exceptions import CacheClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable

    from mtaio._internal.backend import Waiter
    from mtaio.cache._background import Background
    from mtaio.cache._config import Lifetime
    from mtaio.cache._loads import Loads

__all__ = ["NO_KEYWORDS", "Fetcher"]

NO_KEYWORDS: Final[dict[str, Any]] = {}
"""The keyword arguments of a loader that takes none."""

# Bound here: Python looks up a method of an imported name again for each call.
_current_load: Final = LOADING.get
_enter_load: Final = LOADING.set
_leave_load: Final = LOADING.reset

_COROUTINE: type = CoroutineType


class Fetcher:
    """
    Answers the calls of one cache.

    Args:
        loads: Its loads in flight, and with them the rest of the cache.
    """

    __slots__ = ("_left", "loads")

    def __init__(self, loads: Loads) -> None:
        self.loads: Loads = loads
        self._left: int = FAST_CALLS - 1
        """How many loads may start in their callers' tasks before one yields."""

    # ---- one key ----

    def fetch(  # noqa: PLR0917 - each miss calls it, and keywords take longer
        self,
        key: Hashable,
        loader: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        ttl: Lifetime,
        tags: frozenset[Hashable],
        refresh: bool = False,  # noqa: FBT001, FBT002 - as above
    ) -> Coroutine[Any, Any, Any]:
        """
        Answer a call that finds no fresh value, or that wants a new one; to be awaited at once.

        A plain function, which decides what to await. So most calls, for which a load starts in
        their own task, take one coroutine, that of the load; the others take `_answer`.

        1. Find out which event loop this is: a load is joined within its own loop alone.
        2. If this code is part of another load, that one will depend on this. If it would so wait
           for itself, refuse.
        3. If the block that the cache needs was left, this task may be about to end as well. It has
           to look before it is refused, which takes an ``await``: `_answer` decides then.
        4. Decide under the lock whether to wait for a load, to return a value or to load. `join`
           does that, except for a plain miss: with no load in flight, no block, no listener and
           no value there is nothing to look at, and the load starts.
        5. Return the coroutine that does what was decided.
        """
        loop = known_loop() or look()
        loads = self.loads
        owner, store, lock = loads.owner, loads.store, loads.lock
        dependent = None if _current_load() is None else dependent_in(loop, owner, (key,))
        load = Load()  # as `request` makes it
        load.owner = owner
        load.key = key
        load.ttl = ttl
        load.tags = tags
        load.loop = loop
        load.state = RUNNING
        load.call = load.waiting = load.other = load.dependents = None
        load.waiters = 1
        load.in_block = False
        load.wanted = True
        load.siblings = ()
        guarded = loads.guarded
        if guarded and self._refuses(loop):
            return self._answer(None, UNSET, load, loader, args, kwargs, dependent, refresh)
        acquire, release, tells = lock.acquire, lock.release, store.tells
        acquire()
        if lock.changing:
            lock.refuse()
        lock.changing = True
        try:
            moment = tells()
            load.started = store.now() if moment == math.inf else moment
            if loads.table or guarded or refresh or key in store.entries:
                joined, found, _lost = self.join(load, refresh=refresh, again=False)
            else:
                joined, found = load, UNSET
                loads.table[key] = load
                loads.last_loop = 0
                loads.started += 1
                store.misses += 1
        except TypeError as error:
            raise unhashable(key, error) from error
        finally:
            lock.changing = False
            release()
        if joined is not load or load.in_block:
            return self._answer(joined, found, load, loader, args, kwargs, dependent, refresh)
        if loads.sparing and not refresh:
            return self._run_sparing(load, loader, args, kwargs, dependent)
        return self._run_here(load, loader, args, kwargs, dependent)

    async def _answer(  # noqa: PLR0917 - what `fetch` knows
        self,
        joined: Load | None,
        found: Any,
        load: Load,
        loader: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        dependent: Dependent | None,
        refresh: bool,  # noqa: FBT001 - as in `fetch`
    ) -> Any:
        """
        Answer a call whose load does not start in its own task, or not at first.

        1. A load that was put into the block is started there.
        2. If there is a value or a kept error, that is the answer; a load that was started then is
           a refresh, which goes on by itself.
        3. Otherwise the call waits for the end of the load that it has joined.
        4. If that brought nothing, because the caller that ran it was cancelled or it now loads
           only other keys, all is decided again; the first of those who waited loads. This is a
           loop: the same may happen to the next load.
        5. The others return the value, or raise the error or what stands for it.

        Args:
            joined: The load to wait for, ``load`` if that is to start in the block.
            found: The value or `Failure` to answer with, UNSET if there is none. If both are
                missing, nothing has been decided yet.
            load: The request of this call.
            loader: Makes the value.
            args: Its arguments.
            kwargs: Its arguments by name.
            dependent: This task, if it is part of another load.
            refresh: Whether a new value is wanted.
        """
        loop = load.loop
        again = False
        while True:
            if joined is None and found is UNSET:
                if self.loads.guarded and self._refuses(loop):
                    await checkpoint_if_cancelled()  # the block was left: this task may be to end
                joined, found = self._decide(load, refresh=refresh and not again, again=again)
                if joined is load and not load.in_block:
                    spare = self.loads.sparing and not refresh
                    run = self._run_sparing if spare else self._run_here
                    running = run(load, loader, args, kwargs, dependent)
                    del joined, load, dependent  # an error's traceback will have this frame
                    return await running
            if joined is load:
                self._start_in_block(load, loader, args, kwargs)
            if found is UNSET and joined is not None:
                await self._wait(joined, dependent)
                if joined.state is ABORTED or joined.state is ABSENT:
                    load = request(self.loads.owner, load.key, load.ttl, load.tags, loop)
                    joined, again = None, True
                    continue
                found = self.outcome(joined, spare=self.loads.sparing and not refresh)
            if type(found) is not Failure:
                return found
            raised, trace = found.error, found.traceback
            # They have the error, whose traceback has this frame.
            del joined, found, load, dependent
            try:
                raise raised.with_traceback(trace)
            finally:
                del raised, trace

    async def _run_here(
        self,
        load: Load,
        loader: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        dependent: Dependent | None,
    ) -> Any:
        """
        Run a load that has started in the task of its caller; return its value or raise its error.

        With siblings, what is returned is what the loader brought.
        """
        if dependent is not None:
            _note(load, dependent)
        token = _enter_load(load)
        try:
            if self._left:
                self._left -= 1
            else:
                self._left = FAST_CALLS - 1
                await checkpoint()
            call = loader(*args, **kwargs) if kwargs else loader(*args)  # ** makes a dict
            if type(call) is not _COROUTINE:
                check_awaitable(loader, call, several=bool(load.siblings))
            load.call = call
            try:
                value = await (call if spans.hook is None else spans.wait("load", loader, call))
            except BaseException as error:
                raise_failure(error, loader)
                raise
            if load.siblings:
                self.loads.succeed_many(load, value)
            else:
                self.loads.succeed(load, value)
        except BaseException as error:
            with suppress(ValueError):  # the garbage collector closes it in any context
                _leave_load(token)
            if isinstance(error, Exception):
                self.loads.fail(load, error)
            elif isinstance(error, GeneratorExit):
                self.loads.abandon(load)
            else:
                self.loads.cancel(load, ABORTED)
            del load, token, dependent  # the error's traceback has this frame
            raise
        _leave_load(token)
        return value

    def _start_in_block(
        self,
        load: Load,
        loader: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Start the task of a load that is to run in the block."""
        block = self.loads.block
        assert block is not None  # noqa: S101 - for the type checkers: it is to run there
        block.start_load(load, loader, args, kwargs)

    async def _run_sparing(
        self,
        load: Load,
        loader: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        dependent: Dependent | None,
    ) -> Any:
        """Run a load in this task; if it fails, return the old value where that is still held."""
        try:
            return await self._run_here(load, loader, args, kwargs, dependent)
        except Exception:
            value = self.spared(load) if load.state is FAILED else UNSET
            del load, dependent  # the error's traceback has this frame
            if value is UNSET:
                raise
            return value

    def _decide(self, load: Load, *, refresh: bool, again: bool) -> tuple[Load | None, Any]:
        """Do as `join`, in one step, under the lock."""
        with self.loads.lock:
            load.started = self.loads.store.now()
            joined, found, _lost = self.join(load, refresh=refresh, again=again)
        return joined, found  # and drop what was lost, outside the lock

    def join(
        self, load: Load, *, refresh: bool, again: bool
    ) -> tuple[Load | None, Any, list[Load] | None]:
        """
        Decide how a call is answered, under the lock.

        Args:
            load: The request.
            refresh: Whether to load even if there is a value.
            again: Whether the call was counted before.

        Returns:
            The load to wait for, or that refreshes in the background, ``load`` if it starts now;
            the value or `Failure` to answer with, or UNSET; and what is to be dropped.
        """
        key, loop, moment = load.key, load.loop, load.started
        loads, store = self.loads, self.loads.store
        other = entry = None
        if not refresh:
            other = loads.find(loop, key)
            entry = store.lookup(key)
            if entry is not None and moment >= entry.expires:
                entry = None
            elif entry is not None and self.loads.sparing and store.is_spare(entry, moment):
                if store.is_due(entry, moment):
                    entry = None
                else:  # a load has failed not long ago: see error_ttl
                    self.loads.served_stale += 1
        wanted = entry is None or store.is_due(entry, moment)
        block = self._block_for(loop) if wanted else None  # it may refuse: before we count
        found: Any = UNSET
        if entry is not None:
            store.use(entry, moment)
            store.hits -= again  # the call was counted as a miss
            found = entry.value
        elif not (again or refresh):
            store.misses += 1
        if other is not None or not wanted:
            return other, found, None
        if refresh:
            loads.forget(key)
        lost = loads.start(load)
        if block is not None:
            load.in_block = True
            load.scope = anyio.CancelScope()
            load.kept = found is not UNSET
            load.waiters = int(not load.kept)  # its caller is about to wait
            block.running[load] = None
        return load, found, lost

    def _block_for(self, loop: object) -> Background | None:
        """Return the block in which a load runs, None for the caller's task; or refuse."""
        if self.loads.notifier is not None:
            self.loads.notifier.check()
        block = self.loads.block
        if block is not None and block.group.loop is loop and not block.leaving:
            return block
        if self.loads.refreshing:
            msg = (
                f"{self.loads.owner!r} refreshes in the background, but is not entered in this "
                f"event loop. Use 'async with cache:' around code that uses it, or leave out "
                f"stale_while_revalidate and refresh_ahead."
            )
            raise RuntimeError(msg)
        return None

    def _refuses(self, loop: object) -> bool:
        """Return whether `_block_for` refuses."""
        if self.loads.notifier is not None and self.loads.notifier.mute:
            return True
        if not self.loads.refreshing:
            return False
        block = self.loads.block
        return block is None or block.group.loop is not loop or block.leaving

    # ---- several keys ----

    def fetch_many(
        self,
        keys: list[Any],
        loader: Callable[[list[Any]], Awaitable[Any]],
        ttl: Lifetime,
        tags: frozenset[Hashable],
    ) -> Coroutine[Any, Any, dict[Any, Any]]:
        """
        Return the values of ``keys``; load together those that nobody has loaded or loads.

        To be awaited at once, as `fetch`.
        """
        loop = look()
        within = _current_load() is not None
        dependent = dependent_in(loop, self.loads.owner, keys) if within else None
        return self._answer_many(keys, loader, ttl, tags, loop, dependent)

    async def _answer_many(  # noqa: PLR0917 - what `fetch_many` knows
        self,
        keys: list[Any],
        loader: Callable[[list[Any]], Awaitable[Any]],
        ttl: Lifetime,
        tags: frozenset[Hashable],
        loop: object,
        dependent: Dependent | None,
    ) -> dict[Any, Any]:
        """Do as `_answer` for each key, but load in one call, and wait for all that are awaited."""
        found: dict[Any, Any] = {}
        wanted: list[Any] = keys
        again = False
        while wanted:
            if self.loads.guarded and self._refuses(loop):
                await checkpoint_if_cancelled()  # as in `_answer`
            started, awaited = self._decide_many(wanted, loop, ttl, tags, found, again=again)
            await self._run_and_wait(started, awaited, loader, loop, dependent)
            wanted, again = [], True
            for key, load in awaited.items():
                if load.state is ABORTED:  # as in `_answer`
                    wanted.append(key)
                elif load.state is not ABSENT:
                    found[key] = self.outcome(load, spare=self.loads.sparing)
            del started, awaited
        failed = [key for key in keys if type(found.get(key)) is Failure]
        if failed:
            raised, trace = found[failed[0]].error, found[failed[0]].traceback
            del found, dependent  # as in `_answer`
            try:
                raise raised.with_traceback(trace)
            finally:
                del raised, trace
        return found

    def _decide_many(
        self,
        keys: list[Any],
        loop: object,
        ttl: Lifetime,
        tags: frozenset[Hashable],
        found: dict[Any, Any],
        *,
        again: bool,
    ) -> tuple[list[Load], dict[Any, Load]]:
        """
        Decide how to answer a call for several keys, in one step.

        Returns:
            The loads that start now, and each load to wait for, by its key. Values and kept errors
            that are there are put into ``found``.
        """
        started: list[Load] = []
        awaited: dict[Any, Load] = {}
        lost: list[object] = []
        try:
            with self.loads.lock:
                moment = self.loads.store.now()
                for key in keys:
                    load = request(self.loads.owner, key, ttl, tags, loop)
                    load.started = moment
                    joined, value, given_up = self.join(load, refresh=False, again=again)
                    lost.append(given_up)  # until it is outside the lock
                    if joined is load:
                        started.append(load)
                    if value is not UNSET:
                        found[key] = value
                    elif joined is not None:  # pragma: no branch - for the type checkers
                        awaited[key] = joined
        except BaseException:  # the code of a key
            for load in started:
                self.loads.cancel(load, ABORTED)
            raise
        if started:
            waiting, siblings = dict[Any, None](), tuple(started)
            for load in started:
                load.waiting, load.siblings = waiting, siblings
                if load.in_block:
                    load.scope = started[0].scope
        return started, awaited

    async def _run_and_wait(
        self,
        started: list[Load],
        awaited: dict[Any, Load],
        loader: Callable[[list[Any]], Awaitable[Any]],
        loop: object,
        dependent: Dependent | None,
    ) -> None:
        """Load together what starts now, and wait for the ends of the loads that are awaited."""
        here = bool(started) and not started[0].in_block
        run_here = set[Load](started if here else ())
        # At once: a load remembers its result only if somebody waits for it.
        joined = [load for load in awaited.values() if load not in run_here]
        waiter = backend.of(loop).new_waiter(loop)
        for load in joined:
            self._enter_wait(load, waiter, dependent)
        left = True
        try:
            if started:
                arguments = ([load.key for load in started],)
                if here:
                    with suppress(Exception):  # it is in the loads, for those who wait
                        await self._run_here(started[0], loader, arguments, NO_KEYWORDS, dependent)
                else:
                    self._start_in_block(started[0], loader, arguments, NO_KEYWORDS)
            suspended = here
            for load in joined:
                while load.state is RUNNING:  # it is woken at the end of each
                    _park(load, waiter)
                    await waiter
                    suspended = True
            if joined and not suspended:  # they ended when they began: as an eager task
                await checkpoint()
            left = False
        except GeneratorExit:
            left = False  # as in `_wait`
            raise
        finally:
            for load in joined:
                self._leave_wait(load, waiter, dependent, left=left)

    # ---- waiting for a load ----

    async def _wait(self, load: Load, dependent: Dependent | None) -> None:
        """
        Wait for the end of a load; the last to leave early cancels it, if it runs in a block.

        A kept load is waited for as well: there was a value when it started, but there is none for
        this caller, so it is now a load like any other. Otherwise one that hangs would block its
        key for good.
        """
        if load.state is not RUNNING:  # its task ran at once: an eager one of asyncio's
            await checkpoint()
            return
        loop = load.loop
        waiter = backend.of(loop).new_waiter(loop)
        self._enter_wait(load, waiter, dependent)
        left = True
        try:
            await waiter
            left = False
        except GeneratorExit:
            left = False  # nothing can be cancelled any more
            raise
        finally:
            self._leave_wait(load, waiter, dependent, left=left)

    def _enter_wait(self, load: Load, waiter: Waiter, dependent: Dependent | None) -> None:
        """Count one more caller of a load, which is woken at its end."""
        _park(load, waiter)
        load.kept = False
        load.waiters += 1
        with self.loads.lock.held:  # other threads wait for other loads of the same cache
            self.loads.waiting += 1
        if dependent is not None:
            load.dependents = load.dependents or {}
            load.dependents[dependent] = None

    def _leave_wait(
        self, load: Load, waiter: Waiter, dependent: Dependent | None, *, left: bool
    ) -> None:
        """Count one caller less, which was woken at the end of the load or ``left`` early."""
        with self.loads.lock.held:
            self.loads.waiting -= load.waiters > 0  # else its loop was given up, and with it this
        load.waiters -= 1
        (load.waiting or {}).pop(waiter, None)
        if dependent is not None:
            (load.dependents or {}).pop(dependent, None)
        if left and load.in_block and not load.is_over() and not is_awaited(load):
            for each in together(load):
                self.loads.detach(each)
            load.scope.cancel()

    def outcome(self, load: Load, *, spare: bool) -> Any:
        """
        Return what a caller that waited for a load gets: a value or a `Failure`.

        Args:
            load: It has ended with either, or its block was left.
            spare: Whether the caller gets the old value in place of an error.
        """
        if load.state is CLOSED:
            msg = f"{self.loads.owner!r} was closed while loading key={reprlib.repr(load.key)}"
            return Failure(CacheClosedError(msg, name=self.loads.name))
        if spare and type(load.result) is Failure:
            value = self.spared(load)
            if value is not UNSET:
                return value
        return load.result

    def spared(self, load: Load) -> Any:
        """Return the value that is still held for a load that failed, UNSET if there is none."""
        failure: Failure = load.result
        with self.loads.lock:
            entry, moment = self.loads.store.lookup(load.key), self.loads.store.now()
            if entry is None or type(entry.value) is Failure or moment >= entry.expires:
                return UNSET
            self.loads.served_stale += 1
            value = entry.value
        if not failure.logged:
            failure.logged = True
            from logging import getLogger  # noqa: PLC0415 - most loads do not fail

            getLogger("mtaio.cache").warning(
                "%r: the load of key=%r failed, and its old value was served",
                self.loads.owner,
                load.key,
                exc_info=failure.error,
            )
        return value


def _park(load: Load, waiter: Waiter) -> None:
    """Have a task woken at the end of a load."""
    if load.waiting is None:
        load.waiting = {}
    load.waiting[waiter] = None


def _note(load: Load, dependent: Dependent) -> None:
    """Note that the task that runs a load is part of another one, which so depends on it."""
    for each in together(load):
        each.dependents = {dependent: None}
