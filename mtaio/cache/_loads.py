"""
Loads in progress: one for each key and event loop, however many callers ask.

Promise: the value of a load is stored before any caller gets it, unless the key has changed since;
an error goes once to the callers that waited for that load; a cancellation is never shared. A load
is removed from the table only if it is the one there; one that was disowned answers its callers,
is joined by no others, and stores nothing.
Cost: a load that only one caller asks for takes the lock twice.
Why there are two ways to run a load, and what each costs: docs/en/design/caching.md.
"""

from __future__ import annotations

import math
import reprlib
import sys
from collections import deque
from contextlib import suppress
from contextvars import ContextVar
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

import anyio

from mtaio._internal import clock, deadlines, loops
from mtaio._internal.callables import close_unstarted
from mtaio._internal.cancellation import raise_failure
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint, checkpoint_if_cancelled
from mtaio._internal.sentinel import UNSET
from mtaio.cache._config import check_awaitable, check_loaded, seconds_for, unhashable
from mtaio.cache._cycles import LOADING, Asker, asker_of, is_awaited
from mtaio.cache._entry import Failure
from mtaio.cache._load import (
    ABORTED,
    ABSENT,
    CLOSED,
    FAILED,
    LOADED,
    RUNNING,
    JointLoad,
    Load,
    State,
    together,
)
from mtaio.exceptions import CacheClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable

    from mtaio.cache._background import Background
    from mtaio.cache._config import Config, Lifetime
    from mtaio.cache._listeners import Notifier
    from mtaio.cache._lock import ChangeLock
    from mtaio.cache._store import Store

__all__ = ["NO_KEYWORDS", "Loads"]

NO_KEYWORDS: Final[dict[str, Any]] = {}
"""The keyword arguments of a factory that takes none."""

# Bound here: Python looks up a method of an imported name again for each call.
_current_load: Final = LOADING.get
_enter_load: Final = LOADING.set
_leave_load: Final = LOADING.reset

_COROUTINE: type = CoroutineType
_NO_DEADLINE: Final = deadlines.Deadline(math.inf, None, alone=True)
"""In place of the first caller's, which does not limit the other callers."""


class Loads:
    """
    The loads of one cache.

    Args:
        owner: The cache.
        config: Its arguments.
        store: What it holds.
        lock: What is held to change that.
        notifier: Reports removals to the listener; None without one.
    """

    # Invariants:
    # - table has the loads that may be joined, by key; those for one key, of several event loops,
    #   form a chain, and all of them are RUNNING, unless removing one has failed: the code of a
    #   key may raise;
    # - a load that ends has its result, leaves the table, and then sets its event, in that order;
    # - abandoned loads are counted as soon as another one starts, or statistics are taken.
    __slots__ = (
        "_error_ttl",
        "_guarded",
        "_last_loop",
        "_left",
        "_lock",
        "_look_again",
        "_name",
        "_notifier",
        "_owner",
        "_refreshing",
        "_sparing",
        "_store",
        "abandoned",
        "block",
        "cancelled",
        "failed",
        "loaded",
        "seconds",
        "served_stale",
        "started",
        "table",
        "waiting",
    )

    def __init__(
        self,
        owner: object,
        config: Config,
        store: Store,
        lock: ChangeLock,
        notifier: Notifier | None,
    ) -> None:
        self._owner = owner
        self._name = config.name
        self._error_ttl = config.error_ttl
        self._refreshing = config.refreshing
        self._sparing = config.stale_if_error > 0
        self._store = store
        self._lock = lock
        self._notifier = notifier
        self.abandoned: deque[tuple[Load, object]] = deque()
        self._last_loop: int = 0
        """The id of the event loop in which a load started last, while others did; else 0."""
        self._left: int = FAST_CALLS - 1
        """How many loads may start in their callers' tasks before one yields."""
        self._look_again: int = 0
        """How many loads there have to be before loops that are over are looked for again."""
        self.block: Background | None
        """Where loads run while the cache is entered."""
        self.run_in(None)
        self.table: dict[Hashable, Load] = {}
        self.started: int = 0
        self.loaded: int = 0
        self.failed: int = 0
        self.cancelled: int = 0
        self.seconds: float = 0.0
        self.served_stale: int = 0
        self.waiting: int = 0

    def run_in(self, block: Background | None) -> None:
        """Have loads run in a block, None for their callers' tasks."""
        self.block = block
        # Whether more than the table and the store has to be looked at before a load starts.
        self._guarded: bool = block is not None or self._refreshing or self._notifier is not None

    @property
    def in_flight(self) -> int:
        """How many loads are in progress."""
        return self.started - self.loaded - self.failed - self.cancelled

    # Asking.

    async def fetch(  # noqa: C901, PLR0912, PLR0915, PLR0917 - without calls
        self,
        key: Hashable,
        factory: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        ttl: Lifetime,
        tags: frozenset[Hashable],
        refresh: bool = False,  # noqa: FBT001, FBT002 - keyword-only, it would slow down each call
    ) -> Any:
        """Answer a call that finds no fresh value, or that wants a new one."""
        loop = running_loop()
        store, lock = self._store, self._lock
        acquire, release = lock.acquire, lock.release
        asker = None if _current_load() is None else asker_of(loop, self._owner, key)
        again = False
        renewing = refresh
        while True:
            guarded = self._guarded
            if guarded and self._refuses(loop):
                await checkpoint_if_cancelled()  # the block was left, and this task is to end too
            load = Load()
            load.owner = self._owner
            load.key = key
            load.ttl = ttl
            load.tags = tags
            load.loop = loop
            load.state = RUNNING
            load.call = load.event = load.other = load.askers = None
            load.waiters = 1
            load.in_block = False
            load.wanted = True
            acquire()
            if lock.changing:
                lock.refuse()
            lock.changing = True
            try:
                load.started = store.tells()
                if load.started == math.inf:
                    load.started = store.now()
                if not (self.table or guarded or refresh) and key not in store.entries:
                    # There is nothing to join, and no value.
                    self.table[key] = load
                    self._last_loop = 0
                    self.started += 1
                    if not again:
                        store.misses += 1
                    break
                other, found, _lost = self._join(load, refresh=refresh, again=again)
            except TypeError as error:
                raise unhashable(key, error) from error
            finally:
                lock.changing = False
                release()
            del _lost  # here, outside the lock
            if other is load:
                if not load.in_block:
                    break
                self._start(load, factory, args, kwargs)
            if found is UNSET and other is not None:
                await self._wait(other, asker)
                if other.state is ABORTED or other.state is ABSENT:
                    # Its caller was cancelled, or now loads only other keys: another has to load.
                    refresh, again = False, True
                    continue
                closed = other.state is CLOSED
                found = Failure(self._closed_error(key)) if closed else other.result
                if self._sparing and not (closed or renewing):
                    found = self._instead(other)
            if type(found) is not Failure:
                return found
            raised, trace = found.error, found.traceback
            # They have the error, whose traceback has this frame.
            del load, other, found, asker
            try:
                raise raised.with_traceback(trace)
            finally:
                del raised, trace
        if asker is not None:
            load.askers = {asker: None}
        token = _enter_load(load)
        try:
            if self._left:
                self._left -= 1
            else:
                self._left = FAST_CALLS - 1
                await checkpoint()
            call = factory(*args, **kwargs) if kwargs else factory(*args)  # ** makes a dict
            if type(call) is not _COROUTINE:
                check_awaitable(factory, call)
            load.call = call
            try:
                value = await call
            except BaseException as error:
                raise_failure(error, factory)
                raise
            self._succeed(load, value)
        except BaseException as error:
            with suppress(ValueError):  # the garbage collector closes it in any context
                _leave_load(token)
            if isinstance(error, Exception):
                if self._fail(load, error) and self._sparing and not renewing:
                    value = self._instead(load)
                    if type(value) is not Failure:
                        other = None  # the error's traceback has this frame
                        del load, token, asker
                        return value
            elif isinstance(error, GeneratorExit):
                self._abandon(load)
            else:
                self._cancel(load, ABORTED)
            other = None  # as above
            del load, token, asker
            raise
        _leave_load(token)
        return value

    async def fetch_many(
        self,
        keys: list[Any],
        factory: Callable[[list[Any]], Awaitable[Any]],
        ttl: Lifetime,
        tags: frozenset[Hashable],
    ) -> dict[Any, Any]:
        """Return the values of ``keys``; load together those that nobody has loaded or loads."""
        loop = running_loop()
        asker: Asker | None = None
        if _current_load() is not None:
            for key in keys:
                asker = asker_of(loop, self._owner, key)
        found: dict[Any, Any] = {}
        wanted: list[Any] = keys
        again = False
        while wanted:
            if self._guarded and self._refuses(loop):
                await checkpoint_if_cancelled()  # as in fetch
            started, awaited = self._join_many(wanted, loop, ttl, tags, found, again=again)
            await self._bring(started, awaited, factory, asker)
            wanted, again = [], True
            for key, load in awaited.items():
                if load.state is ABORTED:  # as in fetch
                    wanted.append(key)
                elif load.state is CLOSED:
                    found[key] = Failure(self._closed_error(key))
                elif load.state is not ABSENT:
                    found[key] = self._instead(load) if self._sparing else load.result
            del started, awaited
        failed = [key for key in keys if type(found.get(key)) is Failure]
        if failed:
            raised, trace = found[failed[0]].error, found[failed[0]].traceback
            del found, asker  # as in fetch
            try:
                raise raised.with_traceback(trace)
            finally:
                del raised, trace
        return found

    async def _bring(
        self,
        started: list[JointLoad],
        awaited: dict[Any, Load],
        factory: Callable[[list[Any]], Awaitable[Any]],
        asker: Asker | None,
    ) -> None:
        """Load together what starts now, and wait for the ends of the loads that are awaited."""
        here = bool(started) and not started[0].in_block
        run_here = set[Load](started if here else ())
        # At once: a load remembers its result only if somebody waits for it.
        joined = [load for load in awaited.values() if load not in run_here]
        ends = dict.fromkeys([self._enlist(load, asker) for load in joined])
        left = True
        try:
            if here:
                await self._load_here(started, factory, asker)
            elif started:
                self._start(started[0], factory, ([load.key for load in started],), NO_KEYWORDS)
            for end in ends:
                await end.wait()
            left = False
        except GeneratorExit:
            left = False  # as in _wait
            raise
        finally:
            for load in joined:
                self._resign(load, asker, left=left)

    async def _load_here(
        self,
        started: list[JointLoad],
        factory: Callable[[list[Any]], Awaitable[Any]],
        asker: Asker | None,
    ) -> None:
        """Load several keys in the task of their caller, which finds errors in the loads."""
        first = started[0]
        if asker is not None:
            for load in started:
                load.askers = {asker: None}
        token = _enter_load(first)
        try:
            if self._left:
                self._left -= 1
            else:
                self._left = FAST_CALLS - 1
                await checkpoint()
            call = factory([load.key for load in started])
            if type(call) is not _COROUTINE:
                check_awaitable(factory, call, several=True)
            first.call = call
            try:
                values = await call
            except BaseException as error:
                raise_failure(error, factory)
                raise
            self._succeed_many(first, values)
        except Exception as error:  # noqa: BLE001 - raised by those who wait
            self._fail(first, error)
        except GeneratorExit:
            self._abandon(first)
            raise
        except BaseException:
            self._cancel(first, ABORTED)
            raise
        finally:
            with suppress(ValueError):  # as in fetch
                _leave_load(token)

    def _join_many(
        self,
        keys: list[Any],
        loop: object,
        ttl: Lifetime,
        tags: frozenset[Hashable],
        found: dict[Any, Any],
        *,
        again: bool,
    ) -> tuple[list[JointLoad], dict[Any, Load]]:
        """
        Decide how to answer a call for several keys, in one step.

        Returns:
            The loads that start now, and each load to wait for, by its key. Values and kept errors
            that are there are put into ``found``.
        """
        started: list[JointLoad] = []
        awaited: dict[Any, Load] = {}
        lost: list[object] = []
        try:
            with self._lock:
                moment = self._store.now()
                for key in keys:
                    load = JointLoad()
                    load.owner = self._owner
                    load.key = key
                    load.ttl = ttl
                    load.tags = tags
                    load.loop = loop
                    load.state = RUNNING
                    load.call = load.event = load.other = load.askers = None
                    load.waiters = 1
                    load.in_block = False
                    load.wanted = True
                    load.siblings = ()
                    load.started = moment
                    other, value, given_up = self._join(load, refresh=False, again=again)
                    lost.append(given_up)  # until it is outside the lock
                    if other is load:
                        started.append(load)
                    if value is not UNSET:
                        found[key] = value
                    elif other is not None:  # pragma: no branch - for the type checkers
                        awaited[key] = other
        except BaseException:  # the code of a key
            for load in started:
                self._cancel(load, ABORTED)
            raise
        if started:
            event, siblings = anyio.Event(), tuple(started)
            for load in started:
                load.event, load.siblings = event, siblings
                if load.in_block:
                    load.scope = started[0].scope
        return started, awaited

    def _join(
        self, load: Load, *, refresh: bool, again: bool
    ) -> tuple[Load | None, Any, list[Load] | None]:
        """
        Decide how to answer a call, under the lock.

        Args:
            load: What is asked for.
            refresh: Whether it is to be loaded even if there is a value.
            again: Whether the call was counted before.

        Returns:
            The load to wait for, or that refreshes in the background, ``load`` if it starts now;
            the value or `Failure` to answer with, or UNSET; and what is to be dropped.
        """
        key, loop, moment = load.key, load.loop, load.started
        store = self._store
        other = entry = None
        if not refresh:
            other = self._find(loop, key)
            entry = store.lookup(key)
            if entry is not None and moment >= entry.expires:
                entry = None
            elif entry is not None and self._sparing and store.is_spare(entry, moment):
                if store.is_due(entry, moment):
                    entry = None
                else:  # a load has failed not long ago: see error_ttl
                    self.served_stale += 1
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
            self.disown(key)
        lost = self._add(load)
        self.started += 1
        if block is not None:
            load.in_block = True
            load.scope = anyio.CancelScope()
            load.kept = found is not UNSET
            load.waiters = int(not load.kept)  # its caller is about to wait
            block.loads.add(load)
        return load, found, lost

    def _block_for(self, loop: object) -> Background | None:
        """Return the block in which a load runs, None for the caller's task; or refuse."""
        if self._notifier is not None:
            self._notifier.check()
        block = self.block
        if block is not None and block.group.loop is loop and not block.leaving:
            return block
        if self._refreshing:
            msg = (
                f"{self._owner!r} refreshes in the background, but is not entered in this event "
                f"loop. Use 'async with cache:' around code that uses it, or leave out "
                f"stale_while_revalidate and refresh_ahead."
            )
            raise RuntimeError(msg)
        return None

    def _refuses(self, loop: object) -> bool:
        """Return whether `_block_for` refuses."""
        if self._notifier is not None and self._notifier.mute:
            return True
        if not self._refreshing:
            return False
        block = self.block
        return block is None or block.group.loop is not loop or block.leaving

    async def _wait(self, load: Load, asker: Asker | None) -> None:
        """
        Wait for the end of a load; the last to leave early cancels it, if it runs in a block.

        A kept load is waited for as well: there was a value when it started, but there is none for
        this caller, so it is now a load like any other. Otherwise one that hangs would block its
        key for good.
        """
        if load.state is not RUNNING:  # its task ran at once: asyncio can be told to
            await checkpoint()
            return
        event = self._enlist(load, asker)
        left = True
        try:
            await event.wait()
            left = False
        except GeneratorExit:
            left = False  # nothing can be cancelled any more
            raise
        finally:
            self._resign(load, asker, left=left)

    def _enlist(self, load: Load, asker: Asker | None) -> anyio.Event:
        """Count one more caller of a load, and return the event that is set at its end."""
        event = load.event
        if event is None:
            event = load.event = anyio.Event()
        load.kept = False
        load.waiters += 1
        with self._lock.held:  # other threads wait for other loads of the same cache
            self.waiting += 1
        if asker is not None:
            load.askers = load.askers or {}
            load.askers[asker] = None
        return event

    def _resign(self, load: Load, asker: Asker | None, *, left: bool) -> None:
        """Count one caller less, which was told of the end of the load or ``left`` early."""
        with self._lock.held:
            self.waiting -= load.waiters > 0  # else its loop was given up, and with it this
        load.waiters -= 1
        if asker is not None:
            (load.askers or {}).pop(asker, None)
        if left and load.in_block and not load.is_over() and not is_awaited(load):
            for each in together(load):
                self._detach(each)
            load.scope.cancel()

    def _closed_error(self, key: Hashable) -> CacheClosedError:
        msg = f"{self._owner!r} was closed while loading key={reprlib.repr(key)}"
        return CacheClosedError(msg, name=self._name)

    # Loading in a task of the block.

    def _start(
        self,
        load: Load,
        factory: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """
        Start the task of a load.

        The factory is called here and now: it may be a lambda whose variables have other values
        when that task runs, and by then nobody may be in the call that gave it.
        """
        block = self.block
        assert block is not None  # noqa: S101 - for the type checkers: see `_join`
        token = _enter_load(load)
        try:
            load.factory = factory
            load.call = factory(*args, **kwargs)
            if type(load.call) is not _COROUTINE:
                check_awaitable(factory, load.call, several=bool(load.siblings))
        except BaseException as error:
            if not isinstance(error, Exception):
                self._cancel(load, ABORTED)
                raise
            self._fail(load, error)
        else:
            load.coroutine = self._run(load)
            for each in load.siblings:
                each.call, each.coroutine = load.call, load.coroutine
            block.group.start(_itself, load.coroutine, name="mtaio.cache load")
        finally:
            for each in load.siblings or (load,):
                each.waiters -= each.waiters > 0
            _leave_load(token)
            del load, token  # as in fetch

    async def _run(self, load: Load) -> None:
        """Load, in a task of the block."""
        _enter_load(load)
        deadlines.current.set(_NO_DEADLINE)
        call = load.call
        assert call is not None  # noqa: S101 - for the type checkers: it has started
        try:
            with load.scope:
                if not load.scope.cancel_called:
                    try:
                        value = await call
                    except GeneratorExit:  # here: the scope will raise something else for it
                        self._abandon(load)
                        raise
                    except BaseException as error:
                        raise_failure(error, load.factory, own_task=True)
                        raise
                    if load.siblings:
                        self._succeed_many(load, value)
                    else:
                        self._succeed(load, value)
                    return
                close_unstarted(call)
        except Exception as error:  # noqa: BLE001 - raised by those who wait
            self._fail(load, error)
            del load, call  # as in fetch
            return
        except BaseException:
            self._cancel(load, CLOSED)
            raise
        self._cancel(load, ABORTED)

    # The end of a load.

    def _succeed(self, load: Load, value: Any) -> None:
        """Store the loaded value, then wake the callers."""
        store = self._store
        given = load.ttl
        ttl = given if isinstance(given, float) else seconds_for(given, value)
        weight: float = 1
        if not store.plain:
            ttl, weight = store.spread(ttl), store.weigh(load.key, value)
        gone = None
        lock = self._lock
        acquire, release = lock.acquire, lock.release
        acquire()
        if lock.changing:
            lock.refuse()
        lock.changing = True
        try:
            moment = store.tells()
            if moment == math.inf:
                moment = store.now()
            if not load.wanted:
                self._discard(load)
            else:
                first = self.table.pop(load.key, None)
                if first is not load or load.other is not None:  # other loops load it too
                    _disown(first)
                gone = store.put(load.key, value, ttl, moment, weight, load.tags)
            self.loaded += 1
            self.seconds += moment - load.started
            if load.event is not None or load.in_block:
                if load.state is RUNNING:  # else its block was left
                    load.state = LOADED
                load.result = value
                self._close(load)
            else:
                load.state = LOADED
                load.loop = load.call = load.askers = None
        finally:
            lock.changing = False
            release()
        if self._notifier is not None:
            self.deliver(gone)

    def _succeed_many(self, load: Load, values: object) -> None:
        """Store the values loaded for several keys, each by itself, then wake the callers."""
        brought = check_loaded(values)
        for each in load.siblings:
            try:
                value = brought.get(each.key, UNSET)
                if value is UNSET:
                    self._leave_out(each)
                else:
                    self._succeed(each, value)
            except Exception as error:  # noqa: BLE001 - as in _run
                self._fail(each, error, alone=True)

    def _leave_out(self, load: Load) -> None:
        """Note that there is no value for a load, and drop the one that was there."""
        with self._lock:
            self.loaded += 1
            self.seconds += self._store.now() - load.started
            if load.state is RUNNING:  # as in _succeed
                load.state = ABSENT
            self._discard(load)
            entry = self._store.lookup(load.key) if load.wanted else None
            gone = self._store.take(() if entry is None else (entry,))
        self._close(load)
        self.deliver(gone)

    def _fail(self, load: Load, error: Exception, *, alone: bool = False) -> bool:
        """
        Note that a load failed, and, unless it did so ``alone``, those it ends with.

        Returns:
            Whether one of them was not over.
        """
        loads = (load,) if alone else together(load)
        unheard = load.in_block and not any(each.waiters for each in loads)
        noted = [self._fail_one(each, error) for each in loads]
        if unheard and any(noted):  # one line is enough
            from logging import getLogger  # noqa: PLC0415 - most loads have somebody who waits

            getLogger("mtaio.cache").warning(
                "%r: the load of key=%r failed, and nobody waited for it",
                self._owner,
                load.key,
                exc_info=error,
            )
        return any(noted)

    def _fail_one(self, load: Load, error: Exception) -> bool:
        """Note it for present and later callers; return whether the load was not over."""
        if self._has_ended(load):
            return False
        gone = None
        try:
            with self._lock:
                moment = self._store.now()
                self.failed += 1
                self.seconds += moment - load.started
                if load.state is RUNNING:
                    load.result = Failure(error)
                    load.state = FAILED
                self._discard(load)
                if load.wanted:
                    gone = self._keep_failure(load, error, moment)
        finally:
            self._close(load)
        self.deliver(gone)
        return True

    def _keep_failure(self, load: Load, error: Exception, moment: float) -> object:
        """Keep an error for ``error_ttl``, or the value that is there; return what had to go."""
        entry = self._store.entries.get(load.key)
        if entry is not None and moment < entry.expires:
            if self._refreshing or self._sparing:
                self._store.postpone_renewal(entry, self._error_ttl, moment)
        elif self._error_ttl:
            keep = self._store.put_failure
            return keep(load.key, error, self._error_ttl, moment, tags=load.tags)
        return None

    def _instead(self, load: Load) -> Any:
        """Return what a load ended with, or, if it failed, the value that is still held."""
        failure = load.result
        if type(failure) is not Failure:
            return failure
        with self._lock:
            entry, moment = self._store.lookup(load.key), self._store.now()
            if entry is None or type(entry.value) is Failure or moment >= entry.expires:
                return failure
            self.served_stale += 1
            value = entry.value
        if not failure.told:
            failure.told = True
            from logging import getLogger  # noqa: PLC0415 - as in `_fail`

            getLogger("mtaio.cache").warning(
                "%r: the load of key=%r failed, and its old value was served",
                self._owner,
                load.key,
                exc_info=failure.error,
            )
        return value

    def _cancel(self, load: Load, state: State) -> None:
        """Note that a load was cancelled, and those it ends with, unless they are over."""
        for each in together(load):
            if self._has_ended(each):
                continue
            try:
                with self._lock:
                    self.cancelled += 1
                    if each.state is RUNNING:
                        each.state = state
                    self._discard(each)
            finally:
                self._close(each)

    def _abandon(self, load: Load) -> None:
        """
        Note that a load, and those it ends with, will never finish: its coroutine is being closed.

        That is mostly the garbage collector's work, when the event loop is over. So this may be any
        thread, and the middle of a change: nothing is changed here.
        """
        for each in together(load):
            if each.state is RUNNING:
                each.state = ABORTED
            loop, each.loop = each.loop, None
            if loop is None:
                continue
            self.abandoned.append((each, loop))
            if each.event is not None:
                loops.call_in(loop, each.event.set)

    def _has_ended(self, load: Load) -> bool:
        """Return whether the end of a load was noted before: a listener may raise afterwards."""
        if load.loop is not None and self._lock.inside():
            self._abandon(load)  # a finaliser closes its coroutine, which raises something else
        return load.loop is None

    def never_ran(self, load: Load) -> None:
        """Note the end of a load whose task was cancelled natively before its first step."""
        load.coroutine.close()
        close_unstarted(load.call)
        if load.loop is not None:  # else its loader raised GeneratorExit, and it is counted
            with self._lock:
                self.cancelled += 1
        self._close(load)

    def _close(self, load: Load) -> None:
        """Wake the callers of a load that is over, and let go of what it no longer needs."""
        load.loop = load.call = load.askers = None
        if load.in_block and self.block is not None:
            self.block.loads.discard(load)
        if load.event is not None:
            load.event.set()

    def deliver(self, _gone: object) -> None:
        """Tell the listener; ``_gone`` lived until now, and is dropped outside the lock."""
        if self._notifier is not None:
            self._notifier.deliver()

    # The table, changed under the lock.

    def _find(self, loop: object, key: Hashable) -> Load | None:
        """Return the load that a caller in ``loop`` may join."""
        load = self.table.get(key)
        while load is not None and not (load.loop is loop and load.state is RUNNING):
            load = load.other
        return load

    def _add(self, load: Load) -> list[Load]:
        """Add a load to those that run, and return those that were given up for good."""
        table, key = self.table, load.key
        lost: list[Load] = []
        self.count_abandoned()
        if id(load.loop) != self._last_loop:  # loads keep theirs alive
            lost = self._prune()
            self._last_loop = id(load.loop)
        other: Load | None = table.setdefault(key, load)
        if other is not load:
            while other is not None and other.state is not RUNNING:  # the key's code had raised
                other = other.other
            load.other = other
            table[key] = load
        return lost

    def _discard(self, load: Load) -> None:
        """Let no caller join a load any more."""
        table, key = self.table, load.key
        first = table.get(key)
        if first is load:
            if load.other is None:
                del table[key]
            else:
                table[key] = load.other
            return
        while first is not None:
            if first.other is load:
                first.other = load.other
                return
            first = first.other

    def close(self, load: Load) -> None:
        """End a load for its callers, as its block is being left; it may still clean up."""
        if load.state is RUNNING:
            load.state = CLOSED
            self._detach(load)
            if load.event is not None:
                load.event.set()

    def _detach(self, load: Load) -> None:
        """Let no caller join a load, and do not store its value; takes the lock."""
        load.wanted = False
        with self._lock:
            self._discard(load)

    def disown(self, key: Hashable) -> None:
        """Let no caller join the loads of ``key``, and do not store their values."""
        _disown(self.table.pop(key, None))

    def disown_all(self) -> None:
        """Disown every load."""
        while self.table:
            _disown(self.table.popitem()[1])

    def disown_tagged(self, tag: Hashable) -> None:
        """Disown the loads with values that would carry ``tag``."""
        for load in self._all():
            if tag in load.tags:
                self.disown(load.key)

    def _all(self) -> list[Load]:
        found: list[Load] = []
        for first in self.table.values():
            load: Load | None = first
            while load is not None:
                found.append(load)
                load = load.other
        return found

    def count_abandoned(self) -> None:
        """Count as ended the loads that were noted as abandoned."""
        while self.abandoned:
            self._give_up(*self.abandoned.popleft())

    def give_up(self, lost: Iterable[Load]) -> None:
        """Count as ended those loads that never will, because their loop is over."""
        for load in lost:
            if load.loop is not None:
                self._give_up(load, load.loop)

    def _prune(self) -> list[Load]:
        """Give up the loads of loops that are over."""
        if self.started < self._look_again:
            return []
        found = self._all()
        self._look_again = self.started + len(found)  # not each time, where loops alternate
        running = {load.loop for load in found} - {None}  # None: its key's code had raised
        over = {loop for loop in running if loops.is_over(loop)}
        lost = [load for load in found if load.loop in over]
        self.give_up(lost)
        return lost

    def _give_up(self, load: Load, loop: object) -> None:
        self.cancelled += 1
        self._discard(load)
        if load.event is not None and loops.is_over(loop):  # then nor do those end who wait for it
            self.waiting -= load.waiters - (not load.in_block)
            load.waiters = 0
        load.loop = load.askers = None
        if load.in_block and self.block is not None:
            self.block.loads.discard(load)


def _itself(coroutine: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
    return coroutine


def _disown(load: Load | None) -> None:
    while load is not None:
        load.wanted = False
        load = load.other


_RUNNING_LOOP: Final[ContextVar[tuple[object, Callable[[], object]] | None]] = ContextVar(
    "mtaio.cache.loop", default=None
)
"""The event loop in which this context last was, and a function that returns it if it is."""


_modules: Final = sys.modules


def running_loop() -> object:
    """
    Return the running event loop, for a fifth of what `loops.current_loop` costs.

    Its clock has then been looked at, so that ``clock.read`` is right in this context.
    """
    known = _RUNNING_LOOP.get()
    if known is not None:
        loop, ask = known
        try:
            if ask() is loop and ("trio" not in _modules or not _in_guest(loop)):
                return loop
        except RuntimeError:  # it is trio's, and this is not trio
            pass
    loop = loops.current_loop()
    _RUNNING_LOOP.set((loop, loops.asker_of(loop)))
    _enter_load(_current_load())  # a context changes a variable that it has in less time
    clock.now()
    return loop


def _in_guest(loop: object) -> bool:
    """Return whether this is a task of a trio that runs as a guest of ``loop``, one of asyncio."""
    # Where trio runs a task it says so to sniffio. Asking itself costs ten times as much elsewhere.
    try:
        if _modules["sniffio"].thread_local.name != "trio":
            return False
    except (KeyError, AttributeError):  # pragma: no cover - it is there, or being imported
        pass
    ask = getattr(getattr(sys.modules.get("trio"), "lowlevel", None), "in_trio_task", None)
    return ask is not None and hasattr(loop, "is_closed") and ask()
