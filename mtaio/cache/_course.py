"""
How a load runs, and what comes of its end.

Promise: what a load brings is stored before anybody is told, unless the key was changed meanwhile;
an error goes to those who waited for that load, once; a cancellation is never shared.
Why there are two modes, and what each costs: docs/en/design/caching.md.
"""

from __future__ import annotations

import inspect
import math
import sys
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from mtaio._internal import checks, clock, deadlines, loops
from mtaio._internal.callables import close_unstarted
from mtaio._internal.cancellation import Stray, classify, stray_error
from mtaio._internal.checkpoints import checkpoint
from mtaio.cache._batch import Batch
from mtaio.cache._entry import Failure, Laden
from mtaio.cache._flight import ABORTED, CLOSED, FAILED, LANDED, LOADING, RUNNING, Flight, State
from mtaio.cache._listeners import AsyncNotices

if TYPE_CHECKING:
    from mtaio.cache._block import Block
    from mtaio.cache._options import Options

__all__ = ["HAS_GIL", "Course", "check_awaitable", "check_factory"]

T = TypeVar("T")

HAS_GIL: Final[bool] = getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether one thread runs at a time."""

FACTORY: Final = "Pass an async function of no arguments, such as lambda: fetch(key)."


class Course(Batch[T]):
    """
    The part of `TTLCache` that runs loads.

    Args:
        options: The arguments of `TTLCache`, checked.
    """

    # Invariants:
    # - _block is the block in which loads run, None while the cache is not entered;
    # - a flight that ends has its result, is in no table, and then rings its event, in that order.
    __slots__ = ("_block", "_error_ttl", "_refreshing", "_straight")

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._error_ttl: float = options.error_ttl
        self._refreshing: bool = options.refreshing
        self._settle(None)

    def _settle(self, block: Block | None) -> None:
        """Note in which block loads run, None for their callers' tasks."""
        self._block: Block | None = block
        self._mute = block is None and isinstance(self._notices, AsyncNotices)
        # Whether a call that finds no value, and nobody who loads, may begin a load without the
        # lock: not if it is more than a look at the table that tells what is to be done. Without
        # the GIL the counts need the lock.
        self._straight: bool = (
            block is None
            and not self._mute
            and self._swift
            and not self._refreshing
            and not self._error_ttl
            and HAS_GIL
        )

    def _depart(self, flight: Flight, block: Block) -> None:
        """
        Begin a load in a task of the block.

        The factory is called here and now: it may be a lambda whose variables have other values
        when that task runs, and by then nobody may be in the call that gave it.
        """
        token = LOADING.set(flight)
        flight.waiters += not flight.kept  # whose caller is about to wait
        try:
            flight.call = flight.factory(*flight.args, **flight.kwargs)
            check_awaitable(flight.factory, flight.call)
        except BaseException as error:
            if not isinstance(error, Exception):
                self._end(flight, ABORTED)
                raise
            self._failed(flight, error)
        else:
            flight.coroutine = self._run(flight)
            block.load(flight)
        finally:
            flight.waiters -= not flight.kept
            LOADING.reset(token)
            del flight, token  # as in _fetch

    async def _run(self, flight: Flight) -> None:
        """Load in a task of the block."""
        LOADING.set(flight)
        deadlines.enter(math.inf, alone=True)  # who asked first sets no limit for the others
        try:
            with flight.scope:
                if not flight.scope.cancel_called:
                    try:
                        value: T = await flight.call
                    except GeneratorExit:  # here: the scope will raise something else for it
                        self._abandoned(flight)
                        raise
                    self._land(flight, value)
                    return
                close_unstarted(flight.call)
        except Exception as error:  # noqa: BLE001 - raised by those who wait
            self._failed(flight, error)
            del flight  # as in _fetch
            return
        except BaseException as error:
            if isinstance(classify(error), Stray):
                self._failed(flight, stray_error(error, f"the loader {flight.factory!r}"))
                del flight
                return
            self._end(flight, CLOSED)
            raise
        self._end(flight, ABORTED)

    def _land(self, flight: Flight, value: T) -> None:
        """Store what was loaded, then tell those who wait."""
        ttl = flight.ttl
        weight: float = 1
        if not self._simple:
            ttl, weight = self._spread(ttl), self._weigh(flight.key, value)
        flights = self._flights
        table = flights.table
        key = flight.key
        gate = self._gate
        if not gate.free and gate.postpone(self._land, flight, value):
            return  # a finaliser drives its coroutine, of all things
        gone = None
        gate.acquire()
        gate.free = False
        try:
            moment = clock.read()
            if flight.other is None and table.get(key) is flight:
                del table[key]  # what discard() does, without the call
            else:
                flights.discard(flight)
            if flight.wanted:
                gone = self._put(key, value, ttl, moment, weight, flight.tags)
            flights.ended += 1
            flights.seconds += moment - flight.began
            if flight.state is not RUNNING:  # its block was left
                self._tell(flight)
            else:
                flight.state = LANDED
                if flight.event is not None or flight.company is not None:
                    flight.result = value
                    self._tell(flight)
        finally:
            gate.free = True
            gate.release()
            if gate.later:
                gate.catch_up()
        if self._notices is not None:
            self._deliver(gone)

    def _fallen(self, flight: Flight, error: BaseException) -> None:
        """Note with what a load ended in its caller's own task."""
        if isinstance(error, Exception):
            self._failed(flight, error)
        elif isinstance(error, GeneratorExit):
            self._abandoned(flight)
        else:
            self._end(flight, ABORTED)

    def _failed(self, flight: Flight, error: Exception) -> None:
        """Note that a load failed, for those who wait and for those who come, unless it is over."""
        if self._gate.postpone(self._failed, flight, error) or is_over(flight):
            return
        flights = self._flights
        lonely = flight.company is not None and not flight.waiters
        gone = None
        try:
            with self._gate:
                moment = clock.read()
                flights.ended += 1
                flights.seconds += moment - flight.began
                flights.failures += 1
                if flight.state is RUNNING:
                    flight.result = Failure(error)
                    flight.state = FAILED
                flights.discard(flight)
                if flight.wanted:
                    gone = self._keep_failure(flight, error, moment)
        finally:
            self._tell(flight)
        self._deliver(gone)
        if lonely:
            from logging import getLogger  # noqa: PLC0415 - most loads have somebody who waits

            getLogger("mtaio.cache").warning(
                "%r: nobody waited for the load of key=%r, which failed",
                self,
                flight.key,
                exc_info=error,
            )

    def _keep_failure(self, flight: Flight, error: Exception, moment: float) -> object:
        """Keep an error for ``error_ttl``, or the value that is there; return what had to go."""
        entry = self._entries.get(flight.key)
        if entry is not None and moment < entry.expires:
            if type(entry) is Laden and self._refreshing:
                entry.renew = max(entry.renew, moment + self._error_ttl)
        elif self._error_ttl:
            keep = self._put_failure
            return keep(flight.key, error, self._error_ttl, moment, tags=flight.tags)
        return None

    def _end(self, flight: Flight, state: State) -> None:
        """Note that a load was cancelled, unless it is over: a listener may raise afterwards."""
        if self._gate.postpone(self._end, flight, state) or is_over(flight):
            return
        try:
            with self._gate:
                self._flights.ended += 1
                if flight.state is RUNNING:
                    flight.state = state
                self._flights.discard(flight)
        finally:
            self._tell(flight)

    def _abandoned(self, flight: Flight) -> None:
        """
        Note that nobody runs a load any more: its coroutine is being closed.

        That is mostly the garbage collector's work, when the event loop is over; so this may be any
        thread, and any moment, one in the midst of a change included.
        """
        if self._gate.postpone(self._abandoned, flight) or is_over(flight):
            return
        with self._gate:
            self._flights.ended += 1
            if flight.state is RUNNING:
                flight.state = ABORTED
            self._flights.discard(flight)
        if flight.company is not None:
            flight.company.discard(flight)
        if flight.event is not None and not loops.call_in(flight.loop, flight.event.set):
            flight.loop = None  # which is over, and so nobody waits
            with self._gate.held:
                self._flights.waiting -= flight.waiters

    def _tell(self, flight: Flight) -> None:
        """Wake those who wait for a flight that is over."""
        if flight.company is not None:
            flight.company.discard(flight)
        if flight.event is not None:
            flight.event.set()

    async def _wait(self, flight: Flight) -> None:
        """
        Wait for the end of a flight; the last who leaves early cancels it.

        Also one that is kept: there was a value when it began, but none for who waits now, so with
        him it is a load like any other. Else one that hangs would block its key for ever.
        """
        if flight.state is not RUNNING:  # its task ran at once: asyncio can be told to
            await checkpoint()
            return
        if flight.event is None:
            flight.event = anyio.Event()
        flight.waiters += 1
        with self._gate.held:  # other threads wait for other flights of the same cache
            self._flights.waiting += 1
        outer = flight.outer
        shares = outer is not None and flight.company is not None and LOADING.get() is outer
        if shares:
            flight.sharers += 1
        left = True
        try:
            await flight.event.wait()
            left = False
        except GeneratorExit:
            left = False  # nothing can be cancelled any more
            raise
        finally:
            with self._gate.held:
                self._flights.waiting -= flight.loop is not None
            flight.waiters -= 1
            if shares:
                flight.sharers -= 1
                if not flight.sharers:  # others may still wait, but outer goes on without it
                    flight.outer = None
            alone = left and not flight.waiters and flight.state is RUNNING
            if alone and flight.company is not None:
                self.detach(flight)
                flight.scope.cancel()


def is_over(flight: Flight) -> bool:
    """Tell whether a load counts no more: it has ended, or was given up."""
    if flight.state is RUNNING:
        return flight.loop is None
    company = flight.company  # while its block is being left it may still run
    return company is None or flight not in company or flight.loop is None


def check_factory(factory: object) -> None:
    """Raise ``TypeError`` unless a factory can be called; most often, it has been."""
    if not callable(factory):
        close_unstarted(factory)
        checks.callable_("factory", factory, way_out=FACTORY)


def check_awaitable(factory: object, call: object) -> None:
    """Raise ``TypeError`` unless what a factory returned can be awaited."""
    if not inspect.isawaitable(call):
        msg = f"factory={factory!r} returned {call!r}, which cannot be awaited. {FACTORY}"
        raise TypeError(msg)
