"""
Loads: one at a time for each key, in the first caller's task or in the cache's own.

Promise: one load for each key, however many ask; a caller that is cancelled takes nobody with it;
an error goes to those who waited for that load, once; what a load brings is stored before anybody
is told, unless the key was changed meanwhile.
Why there are two modes, and what each costs: docs/en/design/caching.md.
"""

from __future__ import annotations

import inspect
import math
import reprlib
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio

from mtaio._internal import checks, deadline, loops
from mtaio._internal.clock import now
from mtaio._internal.coop import FAST_CALLS, checkpoint
from mtaio._internal.unset import UNSET, Unset
from mtaio.cache._entry import Failure, Laden
from mtaio.cache._flight import LOADING, Flight, State
from mtaio.cache._memory import Memory, check_hashable
from mtaio.cache._policies import HOT
from mtaio.cache._store import NO_TAGS, unhashable
from mtaio.exceptions import CacheClosedError, StrayCancellationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterable

    from mtaio.cache._block import Block
    from mtaio.cache._options import Options

__all__ = ["Loading"]

T = TypeVar("T")

_FACTORY = "Pass an async function of no arguments, such as lambda: fetch(key)."


class Order:
    """
    What a caller asked to be loaded.

    Args:
        key: The key.
        factory: The loader.
        ttl: Seconds to live.
        tags: The tags of the value.
    """

    __slots__ = ("factory", "key", "tags", "ttl")

    def __init__(
        self,
        key: Hashable,
        factory: Callable[[], Awaitable[Any]],
        ttl: float,
        tags: frozenset[Hashable],
    ) -> None:
        self.key: Hashable = key
        self.factory: Callable[[], Awaitable[Any]] = factory
        self.ttl: float = ttl
        self.tags: frozenset[Hashable] = tags


class Loading(Memory[T]):
    """
    The operations of `TTLCache` that load.

    Args:
        options: The arguments of `TTLCache`, checked.
    """

    # Invariants:
    # - _block is the block in which loads run, None while the cache is not entered;
    # - a flight that ends has its result, is in no table, and then rings its event, in that order.
    __slots__ = ("_block", "_error_ttl", "_refreshing")

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._block: Block | None = None
        self._error_ttl: float = options.error_ttl
        self._refreshing: bool = options.refreshing

    async def get_or_set(
        self,
        key: Hashable,
        factory: Callable[[], Awaitable[T]],
        *,
        ttl: float | Unset = UNSET,
        tags: Iterable[Hashable] = (),
    ) -> T:
        """
        Return the value of ``key``; if there is none, load it, once for all who ask meanwhile.

        Not a checkpoint if there is a value. A load suspends as its factory does, and one in 64 is
        a checkpoint in any case. While a load of the key is in progress in this event loop, other
        callers wait for it. In an entered cache the load runs in the cache's task group: each
        caller may be cancelled, and the load is only when nobody waits any more. Else the first
        caller runs it: if that one is cancelled, another who waits begins it again.

        Args:
            key: Any object that can be hashed.
            factory: Called without arguments; what it returns is awaited.
            ttl: Seconds for which the value is kept, as for `set_nowait`.
            tags: Names under which `invalidate_tag` finds the value.

        Raises:
            Exception: What ``factory`` raised, to everybody who waited for that load. It is not
                kept, unless the cache has an ``error_ttl``.
            CacheClosedError: The cache was entered, and was left during the load.
            RuntimeError: The load was asked for by its own factory, directly or through other
                loads; or the cache has to be entered, for its options or its async listener.
            TypeError, ValueError: As `set_nowait`; or ``factory`` is not an async function.
        """
        try:
            entry = self._lookup(key)
        except TypeError as error:
            raise unhashable(key, error) from error
        if entry is not None and entry.fresh > now():
            value: T = entry.value  # after fresh: see Entry
            score = entry.score
            if score < HOT:
                entry.score = score + 1
            self._hits += 1
            return value
        if ttl is UNSET and not tags:
            return await self._load(Order(key, factory, self._default_ttl, NO_TAGS))
        return await self._load(Order(key, factory, self._ttl_of(ttl), self._tags_of(tags)))

    async def refresh(
        self,
        key: Hashable,
        factory: Callable[[], Awaitable[T]],
        *,
        ttl: float | Unset = UNSET,
        tags: Iterable[Hashable] = (),
    ) -> T:
        """
        Load the value of ``key`` anew, and return it.

        Until it is there, everybody else is served the old value, and if the load fails it stays.
        A load of that key which began earlier answers those who wait for it, and stores nothing;
        those who ask from now on share this one. Suspends, runs and is cancelled as the load of
        `get_or_set` is.

        Args:
            key: As for `get_or_set`.
            factory: As for `get_or_set`.
            ttl: As for `get_or_set`.
            tags: As for `get_or_set`.

        Raises:
            BaseException: As `get_or_set`.
        """
        check_hashable(key)
        order = Order(key, factory, self._ttl_of(ttl), self._tags_of(tags))
        return await self._load(order, anew=True)

    def _hit(self, key: Hashable) -> Any:
        """Return the value that may be served without more ado, or UNSET."""
        entry = self._lookup(key)
        if entry is not None and entry.fresh > now():
            value = entry.value  # after fresh: see Entry
            score = entry.score
            if score < HOT:
                entry.score = score + 1
            self._hits += 1
            return value
        return UNSET

    async def _load(self, order: Order, *, anew: bool = False) -> T:
        """Find the value after all, or wait for a load, or be the one who loads."""
        loop = loops.current_loop()
        block = self._block_for(order, loop)
        counted = False
        while True:
            with self._lock:
                flight, begun, found = self._board(loop, order, block, anew=anew, counted=counted)
            counted = True
            if begun and block is not None:
                assert flight is not None  # noqa: S101 - for the type checkers: it has begun
                block.start(self._run, flight, order, loop)
            if found is not UNSET:
                if type(found) is Failure:
                    raise found.error.with_traceback(found.traceback)
                return cast("T", found)
            assert flight is not None  # noqa: S101 - for the type checkers: nothing was found
            if begun and block is None:
                return await self._lead(flight, order, loop)
            await self._wait(flight, loop)
            if flight.state is State.LANDED:
                return cast("T", flight.value)
            if flight.error is not None:
                raise flight.error.with_traceback(flight.traceback)
            if flight.state is State.CLOSED:
                msg = f"{self!r} was left while key={reprlib.repr(order.key)} was loaded"
                raise CacheClosedError(msg, name=self._name)
            anew = False  # its leader was cancelled: somebody has to lead, if nobody does yet

    def _block_for(self, order: Order, loop: object) -> Block | None:
        """Return the block in which the load runs, None for the caller's task; or refuse."""
        checks.callable_("factory", order.factory, way_out=_FACTORY)
        self._check_audible()
        flight = LOADING.get()
        while flight is not None:
            if flight.cache is self and flight.state is State.RUNNING and flight.key == order.key:
                msg = (
                    f"the load of key={reprlib.repr(order.key)} in {self!r} asked for that very "
                    f"key, and would wait for itself. Have it compute the value by other means."
                )
                raise RuntimeError(msg)
            flight = flight.outer
        block = self._block
        if block is not None and block.loop is loop:
            return block
        if self._refreshing:
            msg = (
                f"{self!r} refreshes in the background, and is not entered in this event loop. Use "
                f"'async with cache:' around what uses it, or leave out stale_while_revalidate and "
                f"refresh_ahead."
            )
            raise RuntimeError(msg)
        return None

    # Under the lock.

    def _board(
        self, loop: object, order: Order, block: Block | None, *, anew: bool, counted: bool
    ) -> tuple[Flight | None, bool, Any]:
        """
        Decide what comes of a call.

        Returns:
            The flight to wait for, or that refreshes; whether it has begun with this call; and the
            value or `Failure` to answer with, or UNSET.
        """
        if anew:
            self._flights.disown(order.key)
            return self._begin(loop, order, block), True, UNSET
        flight = self._flights.find(loop, order.key)
        moment = now()
        entry = self._entries.get(order.key)
        if entry is None or moment >= entry.expires:
            if not counted:
                self._misses += 1
            if flight is None:
                return self._begin(loop, order, block), True, UNSET
            return flight, False, UNSET
        self._use(entry, moment)
        if type(entry.value) is Failure or type(entry) is not Laden or moment < entry.renew:
            return None, False, entry.value
        if flight is not None:
            return None, False, entry.value
        return self._begin(loop, order, block, kept=True), True, entry.value

    def _begin(
        self, loop: object, order: Order, block: Block | None, *, kept: bool = False
    ) -> Flight:
        flight = Flight(self, order.key, order.tags, kept=kept)
        if block is not None:
            flight.scope = anyio.CancelScope()
            flight.company = block.flights
            flight.company.add(flight)
        self._flights.add(loop, flight)
        self._flights.loads += 1
        self._flights.running += 1
        return flight

    # A load, from its beginning to its end.

    async def _lead(self, flight: Flight, order: Order, loop: object) -> T:
        """Load in the caller's own task; if that is cancelled, let another caller lead."""
        token = LOADING.set(flight)
        try:
            if self._flights.loads % FAST_CALLS == 0:
                await checkpoint()
            return await self._call(flight, order)
        except Exception as error:
            self._failed(flight, order, error)
            raise
        finally:
            LOADING.reset(token)
            self._end(flight, loop)

    async def _run(self, flight: Flight, order: Order, loop: object) -> None:
        """Load in a task of the block."""
        LOADING.set(flight)
        deadline.enter(math.inf, alone=True)  # who asked first sets no limit for the others
        scope = flight.scope
        assert scope is not None  # noqa: S101 - for the type checkers: it runs in a block
        try:
            with scope:
                if not scope.cancel_called:
                    await self._call(flight, order)
        except Exception as error:  # noqa: BLE001 - raised by those who wait
            self._failed(flight, order, error)
        except BaseException as error:
            if not is_stray(error):
                raise
            self._failed(flight, order, stray(error, order.factory))
        finally:
            if flight.state is State.RUNNING and not scope.cancel_called:
                flight.state = State.CLOSED
            self._end(flight, loop)

    async def _call(self, flight: Flight, order: Order) -> T:
        began = now()
        try:
            call = order.factory()
            if type(call) is not CoroutineType and not inspect.isawaitable(call):
                msg = f"factory={order.factory!r} returned {call!r}, which cannot be awaited. "
                raise TypeError(msg + _FACTORY)
            value: T = await call
            weight = self._weigh(order.key, value)
        finally:
            self._flights.seconds += now() - began
        if flight.state is not State.RUNNING:  # the block was left, and nobody waits
            return value
        flight.value = value
        flight.state = State.LANDED
        gone = None
        with self._lock:
            if flight.wanted:
                ttl = self._spread(order.ttl)
                gone = self._put(order.key, value, ttl, weight, order.tags)
        self._deliver(gone)
        return value

    def _failed(self, flight: Flight, order: Order, error: Exception) -> None:
        """Note that a load failed, for those who wait and for those who come."""
        gone = None
        with self._lock:
            self._flights.failures += 1
            if flight.wanted and flight.state is State.RUNNING:
                moment = now()
                entry = self._entries.get(order.key)
                if entry is not None and moment < entry.expires:
                    if type(entry) is Laden:
                        entry.renew = moment + self._error_ttl
                elif self._error_ttl:
                    gone = self._put_failure(order.key, error, self._error_ttl)
        if flight.state is State.RUNNING:
            flight.fail(error)
        self._deliver(gone)
        if flight.scope is not None and not flight.waiters:
            from logging import getLogger  # noqa: PLC0415 - most loads have somebody who waits

            getLogger("mtaio.cache").warning(
                "%r: nobody waited for the load of key=%r, which failed",
                self,
                order.key,
                exc_info=error,
            )

    def _end(self, flight: Flight, loop: object) -> None:
        with self._lock:
            self._flights.discard(loop, flight)
            self._flights.running -= 1
        if flight.state is State.RUNNING:
            flight.state = State.ABORTED
        if flight.company is not None:
            flight.company.discard(flight)
        if flight.event is not None:
            flight.event.set()

    async def _wait(self, flight: Flight, loop: object) -> None:
        """Wait for the end of a flight; the last who leaves early cancels it."""
        if flight.state is not State.RUNNING:  # its task ran at once: asyncio can be told to
            await checkpoint()
            return
        if flight.event is None:
            flight.event = anyio.Event()
        flight.waiters += 1
        self._flights.waiting += 1
        try:
            await flight.event.wait()
        finally:
            self._flights.waiting -= 1
            flight.waiters -= 1
            alone = not flight.waiters and flight.state is State.RUNNING
            if alone and flight.scope is not None and not flight.kept:
                with self._lock:
                    self._flights.discard(loop, flight)
                flight.scope.cancel()


def is_stray(error: BaseException) -> bool:
    """Tell whether a load raised the backend's cancellation although nobody had cancelled it."""
    cancelled = anyio.current_effective_deadline() == -math.inf
    return isinstance(error, anyio.get_cancelled_exc_class()) and not cancelled


def stray(error: BaseException, factory: object) -> StrayCancellationError:
    """Return the failure that stands for such a cancellation."""
    failure = StrayCancellationError(
        f"the loader {factory!r} raised {type(error).__name__} although nothing here was "
        f"cancelled. Look for a task that cancels itself, or an await on a task that somebody "
        f"else cancelled."
    )
    failure.__cause__ = error
    return failure
