"""
The loads in flight of one cache, and each step in the life of a load: see `mtaio.cache._load`.

Promise: one load in flight for each key and event loop, and each is counted once when it starts and
once when it ends, however that comes about. The value of a load is stored before any caller gets
it, unless the key has changed since. A load is removed from the table only if it is the one there.
Cost: a load that only one caller asks for takes the lock twice.
`mtaio.cache._fetching` decides which load a call joins, and runs a load in its caller's task;
`mtaio.cache._background` runs one in the block.
"""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from mtaio._internal import loops
from mtaio._internal.callables import close_unstarted
from mtaio._internal.sentinel import UNSET
from mtaio.cache._config import check_loaded, seconds_for
from mtaio.cache._entry import Failure
from mtaio.cache._load import (
    ABORTED,
    ABSENT,
    CLOSED,
    FAILED,
    LOADED,
    RUNNING,
    Load,
    is_over,
    together,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from mtaio._internal.histogram import Histogram
    from mtaio.cache._background import Background
    from mtaio.cache._config import Config
    from mtaio.cache._listeners import Notifier
    from mtaio.cache._load import State
    from mtaio.cache._lock import ChangeLock
    from mtaio.cache._store import Store

__all__ = ["Loads"]


class Loads:
    """
    The loads of one cache, and what those who start and run them need of it.

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
    # - a load that ends has its result, leaves the table, and then wakes those who wait, in that
    #   order;
    # - abandoned loads are counted as soon as another one starts, or statistics are taken.
    __slots__ = (
        "_error_ttl",
        "_look_again",
        "abandoned",
        "block",
        "cancelled",
        "failed",
        "guarded",
        "last_loop",
        "load_duration",
        "loaded",
        "lock",
        "name",
        "notifier",
        "owner",
        "refreshing",
        "seconds",
        "served_stale",
        "sparing",
        "started",
        "store",
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
        self.owner: object = owner
        self.name: str | None = config.name
        self.store: Store = store
        self.lock: ChangeLock = lock
        self.notifier: Notifier | None = notifier
        self._error_ttl = config.error_ttl
        self.refreshing: bool = config.refreshing
        """Whether there are loads that no caller waits for."""
        self.sparing: bool = config.stale_if_error > 0
        """Whether an old value is served in place of an error."""
        self._look_again: int = 0
        """How many loads there have to be before loops that are over are looked for again."""
        self.last_loop: int = 0
        """The id of the event loop in which a load started last, while others did; else 0."""
        self.abandoned: deque[tuple[Load, object]] = deque()
        self.block: Background | None
        """Where loads run while the cache is entered."""
        self.guarded: bool
        """Whether more than the table and the store has to be looked at before a load starts."""
        self.run_in(None)
        self.table: dict[Hashable, Load] = {}
        self.started: int = 0
        self.loaded: int = 0
        self.failed: int = 0
        self.cancelled: int = 0
        self.served_stale: int = 0
        """How many calls got an old value because a load had failed."""
        self.seconds: float = 0.0
        self.load_duration: Histogram | None = None
        self.waiting: int = 0
        """How many tasks and threads wait for a load in another one, once for each load."""

    def run_in(self, block: Background | None) -> None:
        """Have loads run in a block, None for their callers' tasks."""
        self.block = block
        self.guarded = block is not None or self.refreshing or self.notifier is not None

    @property
    def in_flight(self) -> int:
        """How many loads are in progress."""
        return self.started - self.loaded - self.failed - self.cancelled

    def deliver(self, _gone: object) -> None:
        """Call the listener; ``_gone`` lived until now, and is dropped outside the lock."""
        if self.notifier is not None:
            self.notifier.deliver()

    # ---- a load starts, under the lock ----
    # Where nothing is in flight, `Fetcher` does the same to the table and the count by itself.

    def find(self, loop: object, key: Hashable) -> Load | None:
        """Return the load that a caller in ``loop`` may join."""
        load = self.table.get(key)
        while load is not None and not (load.loop is loop and load.state is RUNNING):
            load = load.other
        return load

    def is_loading(self, key: Hashable) -> bool:
        """Return whether a load of ``key`` is in flight, in whatever event loop, and wanted."""
        load = self.table.get(key)
        while load is not None:
            if load.state is RUNNING and load.loop is not None and not is_over(load.loop):
                return True
            load = load.other
        return False

    def start(self, load: Load) -> list[Load]:
        """Add a load to those in flight, and return those that were given up for good."""
        table, key = self.table, load.key
        lost: list[Load] = []
        self.count_abandoned()
        if id(load.loop) != self.last_loop:  # loads keep theirs alive
            lost = self._prune()
            self.last_loop = id(load.loop)
        other: Load | None = table.setdefault(key, load)
        if other is not load:
            while other is not None and other.state is not RUNNING:  # the key's code had raised
                other = other.other
            load.other = other
            table[key] = load
        self.started += 1
        return lost

    # ---- it ends with a value ----

    def succeed(self, load: Load, value: Any) -> None:
        """Store the loaded value, then wake the callers."""
        store = self.store
        given = load.ttl
        ttl = given if isinstance(given, float) else seconds_for(given, value)
        weight: float = 1
        if not store.plain:
            ttl, weight = store.spread(ttl), store.weigh(load.key, value)
        gone = None
        lock = self.lock
        acquire, release, tells = lock.acquire, lock.release, store.tells
        acquire()
        if lock.changing:
            lock.refuse()
        lock.changing = True
        try:
            moment = tells()
            if moment == math.inf:
                moment = store.now()
            if not load.wanted:
                self._discard(load)
            else:
                first = self.table.pop(load.key, None)
                if first is not load or load.other is not None:  # other loops load it too
                    _forget(first)
                gone = store.put(load.key, value, ttl, moment, weight, load.tags)
            self.loaded += 1
            self._took(moment - load.started)
            if load.waiting is not None or load.in_block:
                if load.state is RUNNING:  # else its block was left
                    load.state = LOADED
                load.result = value
                self._end(load)
            else:
                load.state = LOADED
                load.loop = load.call = load.dependents = None
        finally:
            lock.changing = False
            release()
        if self.notifier is not None:
            self.deliver(gone)

    def _took(self, seconds: float) -> None:
        """Count how long a load took that has ended with a value or an error, under the lock."""
        self.seconds += seconds
        if self.load_duration is not None:
            self.load_duration.observe(seconds)

    def succeed_many(self, load: Load, values: object) -> None:
        """Store the values loaded for several keys, each by itself, then wake the callers."""
        brought = check_loaded(values)
        for each in load.siblings:
            try:
                value = brought.get(each.key, UNSET)
                if value is UNSET:
                    self._leave_out(each)
                else:
                    self.succeed(each, value)
            except Exception as error:  # noqa: BLE001 - raised by those who wait
                self.fail(each, error, alone=True)

    def _leave_out(self, load: Load) -> None:
        """Note that there is no value for a load, and drop the one that was there."""
        with self.lock:
            self.loaded += 1
            self._took(self.store.now() - load.started)
            if load.state is RUNNING:  # as in `succeed`
                load.state = ABSENT
            self._discard(load)
            entry = self.store.lookup(load.key) if load.wanted else None
            gone = self.store.take(() if entry is None else (entry,))
        self._end(load)
        self.deliver(gone)

    # ---- or with an error ----

    def fail(self, load: Load, error: Exception, *, alone: bool = False) -> None:
        """Note that a load failed, and, unless it did so ``alone``, those it ends with."""
        loads = (load,) if alone else together(load)
        nobody_waits = load.in_block and not any(each.waiters for each in loads)
        noted = [self._fail_one(each, error) for each in loads]
        if nobody_waits and any(noted):  # one line is enough
            from logging import getLogger  # noqa: PLC0415 - most loads have somebody who waits

            getLogger("mtaio.cache").warning(
                "%r: the load of key=%r failed, and nobody waited for it",
                self.owner,
                load.key,
                exc_info=error,
            )

    def _fail_one(self, load: Load, error: Exception) -> bool:
        """Note it for present and later callers; return whether the load was not over."""
        if self._has_ended(load):
            return False
        gone = None
        try:
            with self.lock:
                moment = self.store.now()
                self.failed += 1
                self._took(moment - load.started)
                if load.state is RUNNING:
                    load.result = Failure(error)
                    load.state = FAILED
                self._discard(load)
                if load.wanted:
                    gone = self._keep_failure(load, error, moment)
        finally:
            self._end(load)
        self.deliver(gone)
        return True

    def _keep_failure(self, load: Load, error: Exception, moment: float) -> object:
        """Keep an error for ``error_ttl``, or the value that is there; return what had to go."""
        entry = self.store.entries.get(load.key)
        if entry is not None and moment < entry.expires:
            if self.refreshing or self.sparing:
                self.store.postpone_renewal(entry, self._error_ttl, moment)
        elif self._error_ttl:
            keep = self.store.put_failure
            return keep(load.key, error, self._error_ttl, moment, tags=load.tags)
        return None

    # ---- or without either ----

    def cancel(self, load: Load, state: State) -> None:
        """Note that a load was cancelled, and those it ends with, unless they are over."""
        for each in together(load):
            if self._has_ended(each):
                continue
            try:
                with self.lock:
                    self.cancelled += 1
                    if each.state is RUNNING:
                        each.state = state
                    self._discard(each)
            finally:
                self._end(each)

    def abandon(self, load: Load) -> None:
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
            if each.waiting is not None:
                loops.call_in(loop, partial(_wake, each))

    def never_ran(self, load: Load) -> None:
        """Note the end of a load whose task was cancelled natively before its first step."""
        load.coroutine.close()
        close_unstarted(load.call)
        if load.loop is not None:  # else its loader raised GeneratorExit, and it is counted
            with self.lock:
                self.cancelled += 1
        self._end(load)

    def close(self, load: Load) -> None:
        """End a load for its callers, as its block is being left; it may still clean up."""
        if load.state is RUNNING:
            load.state = CLOSED
            self.detach(load)
            _wake(load)

    def _has_ended(self, load: Load) -> bool:
        """Return whether the end of a load was noted before: a listener may raise afterwards."""
        if load.loop is not None and self.lock.inside():
            self.abandon(load)  # a finaliser closes its coroutine, which raises something else
        return load.loop is None

    def _end(self, load: Load) -> None:
        """Wake the callers of a load that is over, and let go of what it no longer needs."""
        load.loop = load.call = load.dependents = None
        if load.in_block and self.block is not None:
            self.block.running.pop(load, None)
        _wake(load)

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

    # ---- its value is not wanted any more ----

    def detach(self, load: Load) -> None:
        """Let no caller join a load, and do not store its value; takes the lock."""
        load.wanted = False
        with self.lock:
            self._discard(load)

    def forget(self, key: Hashable) -> None:
        """Let no caller join the loads of ``key``, and do not store their values."""
        _forget(self.table.pop(key, None))

    def forget_all(self) -> None:
        """Forget every load."""
        while self.table:
            _forget(self.table.popitem()[1])

    def forget_tagged(self, tag: Hashable) -> None:
        """Forget the loads with values that would carry ``tag``."""
        for load in self.all():
            if tag in load.tags:
                self.forget(load.key)

    def all(self) -> list[Load]:
        """Return the loads that may be joined."""
        found: list[Load] = []
        for first in self.table.values():
            load: Load | None = first
            while load is not None:
                found.append(load)
                load = load.other
        return found

    # ---- its event loop is over ----

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
        found = self.all()
        self._look_again = self.started + len(found)  # not each time, where loops alternate
        running = {load.loop for load in found} - {None}  # None: its key's code had raised
        over = {loop for loop in running if is_over(loop)}
        lost = [load for load in found if load.loop in over]
        self.give_up(lost)
        return lost

    def _give_up(self, load: Load, loop: object) -> None:
        self.cancelled += 1
        self._discard(load)
        if load.waiting is not None and is_over(loop):  # nor do those end who wait for it
            self.waiting -= load.waiters - (not load.in_block)
            load.waiters = 0
        load.loop = load.dependents = None
        if load.in_block and self.block is not None:
            self.block.running.pop(load, None)


def _wake(load: Load) -> None:
    """Wake those who wait for the end of a load; called in its event loop, or thread."""
    if load.waiting:
        waiters = [*load.waiting]
        load.waiting.clear()
        for waiter in waiters:
            waiter.wake()


def _forget(load: Load | None) -> None:
    """Do not store the values of a chain of loads."""
    while load is not None:
        load.wanted = False
        load = load.other
