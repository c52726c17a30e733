"""
How much may run at once across all processes: slots lent by a server.

Promise: never more than ``limit`` slots are lent, and the slots of a process that is silent for its
lease become free. Within a process tasks get slots in the order of asking; processes that wait take
turns. A holder whose lease is lost is cancelled before the server lends the slot to another.
Cost: one task in the store's block, which makes one call at a time for all slots that the process
gives back or asks for, and three calls in each lease while nothing changes; a connection for
messages once a task had to wait.
Why the server keeps no queue of tasks: docs/en/design/redis.md.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, ParamSpec, TypeVar, overload

import anyio

from mtaio._internal import checks, clock
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.copies import uncopied
from mtaio._internal.limiting import limit_in
from mtaio._internal.scope import another_task_error
from mtaio._internal.statistics import COUNTER, GAUGE, LIMIT
from mtaio.exceptions import ConcurrencyLimitError, StoreError
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.redis._arguments import between, check_key, check_store
from mtaio.redis._lease import Lease
from mtaio.redis._member import Member
from mtaio.redis._outage import Outage
from mtaio.redis._pace import Pace
from mtaio.redis._slots import Answer, Report, SharedSlots
from mtaio.redis._store import own_error, store_left_error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from mtaio._internal.decorators import AsyncFunction, Decorator, Descriptor
    from mtaio.redis._store import Store

__all__ = ["RedisConcurrencyLimiter", "RedisConcurrencyStatistics"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")

_LEASE: Final = (0.01, 31_536_000.0)
"""Seconds of a lease, least and most: in less no server can be called three times."""

_SAFE: Final = 0.9
"""The part of the lease after which a holder that could not renew it stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisConcurrencyStatistics:
    """The state of a `RedisConcurrencyLimiter`, and what it has done in this process."""

    limit: int = field(metadata=LIMIT)
    """The current number of slots, for all processes together."""
    in_use: int = field(metadata=GAUGE)
    """Slots that this process holds."""
    total_in_use: int = field(metadata=GAUGE)
    """Slots that all processes held at the server's last answer."""
    members: int = field(metadata=GAUGE)
    """Processes that held slots or waited for some at the server's last answer."""
    waiting: int = field(metadata=GAUGE)
    """Tasks of this process in the queue."""
    peak: int = field(metadata=GAUGE)
    """The most slots that this process held at once."""
    acquired: int = field(metadata=COUNTER)
    """Slots given to tasks."""
    granted_without_server: int = field(metadata=COUNTER)
    """Those of `acquired` that were given without the server, because it was down."""
    rejected: int = field(metadata=COUNTER)
    """Requests refused: by ``try_acquire``, because the queue was full, or because the server was
    down."""
    timed_out: int = field(metadata=COUNTER)
    """Requests that ended in their own timeout."""
    cancelled: int = field(metadata=COUNTER)
    """Waits that were cancelled."""
    lost: int = field(metadata=COUNTER)
    """Leases lost before they were given back."""
    wait_seconds: float = field(metadata=COUNTER)
    """Seconds that tasks waited for the slots they got, in total."""
    max_wait_seconds: float = field(metadata=GAUGE)
    """Seconds of the longest of those waits."""
    calls: int = field(metadata=COUNTER)
    """Calls to the server."""
    failed_calls: int = field(metadata=COUNTER)
    """Calls to the server that failed."""


class _Waiter:
    """
    A task in the queue.

    Attributes:
        stays: Whether it waits until it has a slot. Else the first answer of the server ends its
            wait: it did not want to wait, or the queue was full when it came.
        once: Whether it did not want to wait.
        answered: Set when the wait is over.
        lease: The slot that it was given.
        error: What ended its wait.
    """

    __slots__ = ("answered", "error", "lease", "once", "stays")

    def __init__(self, *, once: bool, stays: bool) -> None:
        self.once = once
        self.stays = stays
        self.answered = anyio.Event()
        self.lease: Lease | None = None
        self.error: Exception | None = None


@uncopied
class RedisConcurrencyLimiter:
    """
    Limits how much runs at once across all processes, by slots that a server lends.

    A process holds each slot on a lease of ``lease`` seconds, and renews all its leases by one
    call, three times in that period. If it dies, its slots become free when the lease has run out.
    A holder whose lease cannot be renewed is cancelled after nine tenths of it, and
    `mtaio.exceptions.LeaseLostError` is raised where its block ends.

    May be created anywhere; used inside the block of its store. Every process has to pass the same
    key and lease.

    Args:
        store: The server, entered before the first call.
        key: What is limited. Limiters with the same key on the same server share their slots.
        limit: Slots for all processes together, at least 1.
        lease: Seconds of silence after which the slots of a process become free. Longer than any
            pause of the event loop, the process or the connection that holders have to survive.
        max_waiters: How many tasks of this process may wait. Those beyond ask the server once, and
            are refused with `mtaio.exceptions.ConcurrencyLimitError` if they get no slot and there
            is still no room in the queue. 0 lets no task wait; None (the default) sets no limit.
        on_failure: What to do while the server is down. ``"closed"`` raises `StoreError` in the
            tasks that wait. ``"wait"`` lets them wait until it is back. ``"open"`` lets everything
            run at once, and holders go on without a lease. With the other two, holders go on until
            their lease runs out.
        name: The name in messages and in the monitor. Default: ``key``.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``limit`` is less than 1, ``lease`` is not between 0.01 and 31,536,000 (a year),
            ``max_waiters`` is negative, ``key`` is empty, or ``on_failure`` is unknown.

    Example:
        ```python
        import anyio

        from mtaio.redis import RedisConcurrencyLimiter, RedisStore

        store = RedisStore("redis://127.0.0.1:6379/0")
        limiter = RedisConcurrencyLimiter(store, "reports", 2)


        async def work(number: int) -> None:
            async with limiter as lease:
                print(number, lease.token)


        async def main() -> None:
            async with store, anyio.create_task_group() as group:
                for number in range(4):
                    group.start_soon(work, number)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    kind: ClassVar[Literal["limiter"]] = "limiter"

    # Invariants:
    # - only the task _serve calls the server, one call at a time, and it runs while there is
    #   anything to tell;
    # - _leases are the slots that this process uses, those given to a task that has not resumed
    #   included; the server is told their number, so it takes back what it granted beyond them;
    # - _wanted is how many tasks wait as far as the server knows; while tasks wait, it is above 0,
    #   or _pace.changed is true;
    # - _until is when the leases are lost, counted from the start of the last successful call.
    __slots__ = (
        "__weakref__",
        "_acquired",
        "_calls",
        "_cancelled",
        "_capacity",
        "_entered",
        "_epoch",
        "_failed_calls",
        "_failure",
        "_free",
        "_heard",
        "_key",
        "_known",
        "_lease",
        "_leases",
        "_listening",
        "_lost",
        "_max_wait_seconds",
        "_max_waiters",
        "_member",
        "_members",
        "_name",
        "_number",
        "_on_failure",
        "_outage",
        "_pace",
        "_peak",
        "_pending",
        "_queue",
        "_rejected",
        "_serving",
        "_slots",
        "_store",
        "_timed_out",
        "_total",
        "_tries",
        "_until",
        "_wait_seconds",
        "_wanted",
    )

    def __init__(
        self,
        store: Store,
        key: str,
        limit: int,
        *,
        lease: float = 10.0,
        max_waiters: int | None = None,
        on_failure: Literal["closed", "wait", "open"] = "closed",
        name: str | None = None,
    ) -> None:
        check_store(store)
        check_key(key)
        self._capacity = checks.count(
            "limit", limit, way_out="Pass how much may run at once, at least 1."
        )
        way_out = "Pass the seconds of silence after which a process loses its slots."
        self._lease = between("lease", lease, *_LEASE, way_out=way_out)
        if max_waiters is not None:
            checks.count(
                "max_waiters",
                max_waiters,
                least=0,
                way_out="Pass how many tasks may wait, 0 for none, or None for no limit.",
            )
        self._on_failure = checks.one_of("on_failure", on_failure, ("closed", "wait", "open"))
        self._store = store
        self._key = key
        self._slots = SharedSlots(store, key)
        self._max_waiters = max_waiters
        self._name = key if name is None else name
        self._member = Member()
        self._epoch = 0
        self._number = 0
        self._total = self._members = 0
        self._peak = self._acquired = self._free = self._rejected = self._timed_out = 0
        self._cancelled = self._lost = self._calls = self._failed_calls = 0
        self._wait_seconds = self._max_wait_seconds = 0.0
        self._entered: dict[int, list[AbstractAsyncContextManager[Lease]]] = {}
        self._begin()

    def _begin(self) -> None:
        """Have no task, no lease and no waiter."""
        self._queue: OrderedDict[_Waiter, None] = OrderedDict()
        self._tries: list[_Waiter] = []
        self._leases: dict[Lease, None] = {}
        self._until: float = math.inf
        self._wanted = 0
        self._pace = Pace(self._lease)
        self._failure: StoreError | None = None
        self._outage = Outage(self._on_failure)
        self._pending = False
        self._heard = -math.inf
        self._known = False
        self._serving = self._listening = False

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name!r}: {len(self._leases)} of {self._capacity} slots "
            f"in use here, {len(self._queue)} waiting, at {self._store.name}>"
        )

    @property
    def name(self) -> str:
        """The name given to the limiter, or its key."""
        return self._name

    @property
    def key(self) -> str:
        """What is limited."""
        return self._key

    @property
    def lease(self) -> float:
        """Seconds of silence after which the slots of a process become free."""
        return self._lease

    @property
    def max_waiters(self) -> int | None:
        """How many tasks of this process may wait; None for no limit."""
        return self._max_waiters

    @property
    def capacity(self) -> int:
        """
        The number of slots; may be changed at any time, in each process separately.

        A process takes no slot while at least as many as its own limit are in use by all. So a
        lower limit is kept once every process has it; a higher one is used by those that have it.
        No task is interrupted. With 0, no task of this process gets a slot.
        May be set from any thread.
        """
        return self._capacity

    @capacity.setter
    def capacity(self, slots: int) -> None:
        self._capacity = checks.count(
            "capacity", slots, least=0, way_out="Pass how much may run at once, or 0."
        )
        self._member.call_there(self._look_again)

    async def acquire(self, *, timeout: float | None = None) -> Lease:
        """
        Take a slot; wait for one behind every task of this process that asked earlier.

        A checkpoint. If it is cancelled, a slot that it was given goes to the next task; if none
        waits, back to the server: at once, or with the lease if the server cannot be reached. The
        lease that is returned has to be released; ``async with limiter`` does that, and cancels the
        block when the lease is lost.

        Args:
            timeout: The most seconds to wait; 0 to ask the server once; None for no limit.

        Raises:
            TimeoutError: (`mtaio.exceptions.TimeoutError`) No slot became free in time. Its message
                says so if the server has not answered in that time, or is known to be down.
            ConcurrencyLimitError: The queue is full.
            StoreError: The server is down, with ``on_failure="closed"``. Raised within the store's
                timeout; within ``timeout`` if the call before failed too.
            ValueError: ``timeout`` is negative or NaN.
            RuntimeError: The store is not entered, or another running event loop uses the limiter.
        """
        checks.timeout("timeout", timeout)
        asked = clock.now()
        lease = None
        if timeout != 0:
            with anyio.move_on_after(timeout):
                lease = await self._wait(once=False)
        else:
            lease = await self._wait(once=True)
        if lease is not None:
            return lease
        msg = f"{self!r} had no free slot within {timeout} s"
        if self._failure is not None:
            if self._on_failure == "closed":
                self._rejected += 1
                raise own_error(self._failure, msg)
            msg = f"{msg}: {self._failure}"
        elif self._pending and self._heard <= asked:
            msg = f"{msg}: {self._store.name} has not answered yet."
        self._timed_out += 1
        now = anyio.current_time()
        raise MTAIOTimeoutError(
            msg, timeout=timeout, deadline=now, name=self.name
        ) from self._failure

    async def try_acquire(self) -> Lease | None:
        """
        Take a slot if one is free, by one call to the server.

        A checkpoint. If it is cancelled, it holds nothing, as with `acquire`.

        Returns:
            The slot, or None.

        Raises:
            ConcurrencyLimitError, StoreError, RuntimeError: As for `acquire`.
        """
        lease = await self._wait(once=True)
        self._rejected += lease is None
        return lease

    @asynccontextmanager
    async def hold(self, *, timeout: float | None = None) -> AsyncGenerator[Lease]:
        """
        Hold a slot in a block, as ``async with limiter`` does, but with a timeout.

        Leaving the block is not a checkpoint.

        Args:
            timeout: As for `acquire`.

        Raises:
            LeaseLostError: The lease was lost: the block was cancelled, or ended too late. If the
                block itself fails, its error is raised instead.
            TimeoutError, ConcurrencyLimitError, StoreError, ValueError, RuntimeError: As for
                `acquire`.
        """
        lease = await self.acquire(timeout=timeout)
        try:
            with lease.enter():
                yield lease
        finally:
            lease.release()
        lease.check()

    async def __aenter__(self) -> Lease:
        """Hold a slot in the block, as `hold` does."""
        block = self.hold()
        lease = await block.__aenter__()
        self._entered.setdefault(anyio.get_current_task().id, []).append(block)
        return lease

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Give the slot back. Not a checkpoint.

        Raises:
            LeaseLostError: The lease was lost, and the block itself did not fail.
            RuntimeError: Another task entered the block.
        """
        task = anyio.get_current_task().id
        blocks = self._entered.get(task)
        if blocks is None:
            raise another_task_error(self)
        block = blocks.pop()
        if not blocks:
            del self._entered[task]
        await block.__aexit__(exc_type, exc_value, traceback)  # nothing is swallowed

    @overload
    def limit(self, fn: Descriptor, /) -> Descriptor: ...
    @overload
    def limit(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...
    @overload
    def limit(self, /, *, timeout: float | None = None) -> Decorator: ...
    def limit(self, fn: Any = None, /, *, timeout: float | None = None) -> Any:
        """
        Let every call of an async function hold a slot: ``@limiter.limit``.

        The function keeps its signature; methods may be decorated too.

        Args:
            fn: The function.
            timeout: The most seconds that a call waits for its slot, as for `acquire`.

        Returns:
            The limited function, or a decorator that makes it.

        Raises:
            ValueError: ``timeout`` is negative or NaN.
            TypeError: What is decorated is not an async function.
        """
        checks.timeout("timeout", timeout)

        block = partial(self.hold, timeout=timeout)
        return limit_in(fn, block, name=f"{type(self).__name__}.limit")

    __call__ = limit
    """``@limiter`` is ``@limiter.limit``."""

    def wrap(self, then: Callable[[C], Awaitable[Any]]) -> Callable[[C], Awaitable[Any]]:
        """
        Return an async function that calls ``then`` while it holds a slot, as `hold` does.

        With it the limiter is a part of a `mtaio.resilience.Pipeline`. A call whose lease is lost
        is cancelled, and raises `mtaio.exceptions.LeaseLostError`.
        """

        async def run(call: C) -> Any:
            async with self.hold():
                return await then(call)

        return run

    def statistics(self) -> RedisConcurrencyStatistics:
        """Return the state and the counters. Not a checkpoint; any thread may call it."""
        return RedisConcurrencyStatistics(
            limit=self._capacity,
            in_use=len(self._leases),
            total_in_use=self._total,
            members=self._members,
            waiting=len(self._queue),
            peak=self._peak,
            acquired=self._acquired,
            granted_without_server=self._free,
            rejected=self._rejected,
            timed_out=self._timed_out,
            cancelled=self._cancelled,
            lost=self._lost,
            wait_seconds=self._wait_seconds,
            max_wait_seconds=self._max_wait_seconds,
            calls=self._calls,
            failed_calls=self._failed_calls,
        )

    # The queue

    async def _wait(self, *, once: bool) -> Lease | None:
        """Wait in the queue; return None if ``once`` and no slot was free."""
        self._attach()
        if self._failure is not None and self._on_failure == "open":
            await checkpoint()
            return self._lend_without_server()
        asked = clock.now()
        waiter = self._join(once=once)
        try:
            await waiter.answered.wait()
        except BaseException:
            self._cancelled += 1
            self._leave(waiter)
            raise
        if waiter.error is not None:
            self._rejected += 1
            raise waiter.error
        if waiter.lease is not None:
            waited = clock.now() - asked
            self._acquired += 1
            self._wait_seconds += waited
            self._max_wait_seconds = max(self._max_wait_seconds, waited)
        elif not once:
            self._rejected += 1
            msg = f"{self!r} lets at most max_waiters={self._max_waiters} wait. Try again later."
            raise ConcurrencyLimitError(msg, name=self.name)
        return waiter.lease

    def _attach(self) -> None:
        """Forget what was held in another event loop."""
        if self._member.attach(self, busy=self._serving):
            self._begin()

    def _join(self, *, once: bool) -> _Waiter:
        """Put the running task at the end of the queue, and have the server told if need be."""
        if not self._serving:
            self._store.start(self._serve)
            self._serving = True
        stays = not once and self._room(len(self._queue)) > 0
        waiter = _Waiter(once=once, stays=stays)
        self._queue[waiter] = None
        if not stays:
            self._tries.append(waiter)
        if not (stays and self._wanted):
            if not stays or self._on_failure == "closed":
                self._pace.hurry()  # to be told at once that the server is down
            self._pace.change()
        return waiter

    def _room(self, waiting: int) -> float:
        """Return how many more tasks may wait beside so many."""
        return math.inf if self._max_waiters is None else self._max_waiters - waiting

    def _end_tries(self, tries: list[_Waiter], error: StoreError | None = None) -> None:
        """
        End the wait of tasks that the server's answer gave no slot, in the order of asking.

        A task for which the queue was full stays if there is room now: those before it have got
        slots.

        Args:
            tries: Those that have waited for this answer; some may have left the queue.
            error: What to raise in them, if there was no answer.
        """
        waiting = sum(waiter.stays for waiter in self._queue) if tries else 0
        for waiter in tries:
            if waiter not in self._queue:
                continue
            if not waiter.once and self._room(waiting) > 0:
                waiter.stays = True
                waiting += 1
            elif error is not None:
                self._refuse(waiter, error)
            else:
                del self._queue[waiter]
                waiter.answered.set()
                self._pace.changed = True

    def _leave(self, waiter: _Waiter) -> None:
        """Take a task that was cancelled out of the queue, or pass on what it was given."""
        lease = waiter.lease
        if lease is None:
            if waiter in self._queue:
                del self._queue[waiter]
                if not self._queue:
                    self._pace.change()
        elif lease in self._leases and self._queue:
            del self._leases[lease]
            self._lend(lease.token)
        else:
            lease.release()

    def _lend(self, token: int) -> None:
        """Give a slot to the first in the queue."""
        waiter, _ = self._queue.popitem(last=False)
        lease = self._new_lease(token)
        self._leases[lease] = None
        self._peak = max(self._peak, len(self._leases))
        waiter.lease = lease
        waiter.answered.set()

    def _lend_without_server(self) -> Lease:
        lease = self._new_lease(0)
        lease.stand_alone()
        self._acquired += 1
        self._free += 1
        return lease

    def _new_lease(self, token: int) -> Lease:
        text = f"<{type(self).__name__} {self.name!r} at {self._store.name}>"
        return Lease(token, text, self.name, lambda: self._until, self._give_back)

    def _give_back(self, lease: Lease) -> None:
        self._member.call_there(partial(self._take_back, lease))

    def _take_back(self, lease: Lease) -> None:
        self._lost += lease.lost
        if self._leases.pop(lease, lease) is None:
            self._pace.change()

    def _lose(self, reason: str) -> None:
        """Give up every lease: the server may lend the slots to others."""
        leases, self._leases = self._leases, {}
        self._lost += len(leases)
        self._epoch += 1  # what was told under the old name can do no harm
        self._wanted = 0
        self._pace.changed = bool(self._queue)
        self._until = math.inf
        for lease in leases:
            lease.lose(reason)

    def _refuse(self, waiter: _Waiter, error: Exception) -> None:
        """Raise an error in a task that waits; one of its own, for its traceback."""
        del self._queue[waiter]
        waiter.error = own_error(error)
        waiter.answered.set()

    def _refuse_all(self, error: Exception) -> None:
        """Raise an error in every task that waits."""
        while self._queue:
            self._refuse(next(iter(self._queue)), error)

    # The server

    def _look_again(self) -> None:
        """Have the server asked whether it has slots for the tasks that wait."""
        if self._queue:
            self._pace.change()

    @property
    def _held_until(self) -> float:
        """When the leases that are held are lost; ``inf`` without any."""
        return self._until if self._leases else math.inf

    async def _serve(self) -> None:
        """Call the server whenever a call is due."""
        name = self._member.name
        try:
            while True:
                while (due := min(self._pace.due(), self._held_until)) > clock.now():
                    await self._pace.wakeup.sleep(due)
                await self._exchange()
        finally:
            if self._member.is_here(name):
                await self._say_goodbye()

    async def _exchange(self) -> None:
        """Call the server once, and act on its answer."""
        sent = clock.now()
        if sent >= self._held_until:
            self._run_out()
        tries, self._tries = self._tries, []
        self._pace.changed = False
        report = self._report(len(self._leases))
        self._wanted = report.waiting
        self._pending = True
        try:
            answer = await self._call(report)
        except StoreError as error:
            self._pending = False
            self._fail(error)
            return
        self._pending = False
        self._known = bool(report.held or report.waiting)
        self._heard = clock.now()
        self._failure = None
        self._total, self._members = answer.total, answer.members
        until = sent + _SAFE * self._lease
        if not answer.in_force:
            self._lose("the server no longer knows of it")
        elif clock.now() >= until:  # this process stood still
            self._lose("it was not renewed in time")
            self._pace.changed = True
        else:
            self._until = until
            self._wanted = report.waiting - answer.granted
            self._hand_out(answer)
        self._end_tries(tries)
        if self._queue and not self._listening:
            self._listening = True
            self._store.start(self._listen)
        self._pace.answered(sent, answer, holds=bool(self._leases), waits=bool(self._queue))

    def _hand_out(self, answer: Answer) -> None:
        """Give the slots that the server granted to the tasks that wait."""
        for number in range(answer.granted):
            if self._queue:
                self._lend(answer.first_token + number)
            else:
                self._pace.changed = True  # its task is gone
        if self._queue and not self._wanted:
            self._pace.changed = True  # these tasks came during the call

    def _report(self, held: int) -> Report:
        """Return what the server is told next."""
        self._number += 1
        process = f"{self._member.name}/{self._epoch}"
        waiting = len(self._queue)
        return Report(process, self._number, held, waiting, self._capacity, self._lease * 1e6)

    async def _call(self, report: Report) -> Answer:
        """Tell the server, and wait for its answer no longer than the leases last."""
        self._calls += 1
        self._known = True
        with anyio.move_on_after(self._until - clock.now() if self._leases else None):
            return await self._slots.exchange(report)
        msg = f"{self._store.name} did not answer before the lease of {self!r} ran out."
        raise StoreError(msg, server=self._store.name)

    def _fail(self, error: StoreError) -> None:
        """Deal with a call that failed: the server is down."""
        self._failed_calls += 1
        self._failure = error
        self._wanted = 0
        if self._on_failure != "closed":
            self._outage.tell(self, error)
        if self._on_failure == "closed":
            self._refuse_all(error)
        elif self._on_failure == "open":
            while self._queue:
                waiter, _ = self._queue.popitem(last=False)
                waiter.lease = self._lend_without_server()
                self._acquired -= 1  # counted by the task
                waiter.answered.set()
        else:
            self._tries = []
            self._end_tries([waiter for waiter in self._queue if not waiter.stays], error)
        self._pace.failed()

    def _run_out(self) -> None:
        """Deal with leases that could not be renewed in time."""
        if self._failure is None or self._on_failure != "open":
            self._lose("it was not renewed in time")
            return
        leases, self._leases = self._leases, {}
        for lease in leases:
            lease.stand_alone()
        self._lose("")

    async def _listen(self) -> None:
        """Ask again whenever the server keeps slots for this process, or messages were missed."""

        def on_message(channel: str, message: bytes) -> None:
            del channel, message
            self._look_again()

        def on_subscribed() -> None:
            self._pace.hear(hears=True)
            self._look_again()

        def on_lost() -> None:
            self._pace.hear(hears=False)
            self._look_again()

        name = self._member.name
        channel = self._slots.channel(name)
        try:
            async with self._store.subscribe([channel], on_message, on_subscribed, on_lost):
                await anyio.sleep_forever()
        finally:
            if self._member.is_here(name):  # pragma: no branch - else thrown away with its loop
                self._listening = False
                self._pace.hear(hears=False)

    async def _say_goodbye(self) -> None:
        """Give everything back, because the store's block ends."""
        self._serving = self._pending = False
        self._failure = None
        self._refuse_all(store_left_error(self._store, self))
        report = self._report(0)
        self._lose("the block of its store was left")
        if not self._known:
            return
        with (
            anyio.move_on_after(min(1.0, self._store.timeout), shield=True),
            suppress(StoreError),
        ):
            await self._slots.exchange(report)
