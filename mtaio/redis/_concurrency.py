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
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Literal,
    ParamSpec,
    TypeVar,
    TypeVarTuple,
    final,
    overload,
)

import anyio

from mtaio._internal import checks, clock
from mtaio._internal.block import another_task_error
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.copies import uncopied
from mtaio._internal.decorators import AsyncFunction, Decorator, Descriptor
from mtaio._internal.durations import WaitTimes
from mtaio._internal.histogram import HistogramStatistics
from mtaio._internal.limiting import limit_in, run_in
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, SECONDS, snapshot
from mtaio._internal.wait_queue import WaitQueue
from mtaio.exceptions import ConcurrencyLimitError, LimitTimeoutError, StoreError
from mtaio.redis._lease import Holding, Lease
from mtaio.redis._server_task import ServerTask
from mtaio.redis._slots import Answer, Pace, Report, SharedSlots
from mtaio.redis._store import (
    Store,
    check_key,
    check_store,
    own_error,
    start,
    store_left_error,
)

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from mtaio._internal.backend import Waiter

__all__ = ["LEASE", "RedisConcurrencyLimiter", "RedisConcurrencyStatistics"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
C = TypeVar("C")

LEASE: Final = (0.01, 31_536_000.0)
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
    acquired_without_server: int = field(metadata=COUNTER)
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
    wait_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long each of those waits took; None before ``record_durations()``."""
    server_calls: int = field(metadata=COUNTER)
    """Calls to the server."""
    server_failures: int = field(metadata=COUNTER)
    """Calls to the server that failed."""


class _Request:
    """
    What a task in the queue waits for, and what it was woken with.

    Attributes:
        stays: Whether it waits until it has a slot. Else the first answer of the server ends its
            wait: it did not want to wait, or the queue was full when it came.
        once: Whether it did not want to wait.
        slot: The slot that it was given.
        error: What ended its wait.
    """

    __slots__ = ("error", "once", "slot", "stays")

    def __init__(self, *, once: bool, stays: bool) -> None:
        self.once = once
        self.stays = stays
        self.slot: Holding | None = None
        self.error: Exception | None = None


@final
@uncopied
class RedisConcurrencyLimiter:
    """
    A limit on concurrency across processes, with slots that a server leases.

    A process holds each slot on a lease of ``lease`` seconds, and renews all its leases with one
    call, three times in that period. If the process dies, its slots become free when the lease
    expires. If a lease cannot be renewed for nine tenths of its time, its holder is cancelled, and
    `mtaio.exceptions.LeaseLostError` is raised where its block ends.

    It can be created anywhere, and is used inside the block of its store. Every process must pass
    the same key and lease.

    Args:
        store: The server, entered before the first call.
        key: What is limited. Limiters with the same key on the same server share their slots.
        limit: Number of slots for all processes together, at least 1.
        lease: Seconds without a sign of life after which the slots of a process become free. It
            must be longer than any pause of the event loop, the process or the connection that
            holders should survive.
        max_waiting: Maximum number of tasks of this process that wait. Further ones wait for a
            single answer of the server, and are refused with
            `mtaio.exceptions.ConcurrencyLimitError` if they get no slot and the queue is still
            full. 0 for none, None for no limit.
        on_failure: What to do while the server is down. ``"raise"`` raises `StoreError` in the
            tasks that wait. ``"wait"`` lets them wait until it is back. ``"allow"`` lets everything
            run at once, and holders continue without a lease; otherwise, holders continue until
            their lease expires.
        name: Name shown in messages and metrics. Default: ``key``.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``limit`` is less than 1, ``lease`` is not between 0.01 and 31,536,000 (a year),
            ``max_waiting`` is negative, ``key`` is empty, or ``on_failure`` is unknown.

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
    # - _queue holds the tasks that wait; one is woken with its slot, its error, or without either
    #   if it asked once, and with that it has left. _tries are those that the next answer ends;
    # - only the task _serve calls the server, one call at a time, from the first task that asks to
    #   the end of the store's block;
    # - _held are the slots that this process uses, those given to a task that has not resumed
    #   included; the server is sent their number, so it takes back what it granted beyond them;
    # - _wanted is how many tasks wait as far as the server knows; while tasks wait, it is above 0,
    #   or _pace.changed is true;
    # - _until is when the leases are lost, counted from the start of the last successful call.
    __slots__ = (
        "__weakref__",
        "_acquired",
        "_acquired_without_server",
        "_cancelled",
        "_entered",
        "_epoch",
        "_held",
        "_key",
        "_known",
        "_lease",
        "_limit",
        "_listening",
        "_lost",
        "_max_waiting",
        "_members",
        "_name",
        "_number",
        "_on_failure",
        "_pace",
        "_peak",
        "_queue",
        "_rejected",
        "_server",
        "_slots",
        "_store",
        "_timed_out",
        "_total_in_use",
        "_tries",
        "_until",
        "_wait_times",
        "_wanted",
    )

    def __init__(
        self,
        store: Store,
        key: str,
        limit: int,
        *,
        lease: float = 10.0,
        max_waiting: int | None = None,
        on_failure: Literal["raise", "wait", "allow"] = "raise",
        name: str | None = None,
    ) -> None:
        check_store(store)
        check_key(key)
        self._limit = checks.count(
            "limit", limit, way_out="Pass how much may run at once, at least 1."
        )
        way_out = "Pass the seconds of silence after which a process loses its slots."
        self._lease = checks.between("lease", lease, *LEASE, way_out=way_out)
        if max_waiting is not None:
            checks.count(
                "max_waiting",
                max_waiting,
                least=0,
                way_out="Pass how many tasks may wait, 0 for none, or None for no limit.",
            )
        self._on_failure = checks.one_of("on_failure", on_failure, ("raise", "wait", "allow"))
        self._store = store
        self._key = key
        self._slots = SharedSlots(store, key)
        self._max_waiting = max_waiting
        self._name = key if name is None else name
        self._queue: WaitQueue[_Request] = WaitQueue()
        self._server = ServerTask(store, self._queue, self._on_failure)
        self._epoch = 0
        self._number = 0
        self._total_in_use = self._members = 0
        self._peak = self._acquired = self._acquired_without_server = 0
        self._rejected = self._timed_out = self._cancelled = self._lost = 0
        self._wait_times = WaitTimes()
        self._entered: dict[int, list[AbstractAsyncContextManager[Lease]]] = {}
        self._begin()

    def _begin(self) -> None:
        """Have no lease, nothing to tell, and no news of the server: they belong to a loop."""
        self._tries: list[Waiter] = []
        self._held: dict[Holding, None] = {}
        self._until: float = math.inf
        self._wanted = 0
        self._pace = Pace(self._lease)
        self._known = self._listening = False

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name!r}: {len(self._held)} of {self._limit} slots "
            f"in use here, {len(self._queue)} waiting, at {self._store.name}>"
        )

    @property
    def name(self) -> str:
        """Name shown in messages and metrics."""
        return self._name

    @property
    def key(self) -> str:
        """What is limited."""
        return self._key

    @property
    def lease(self) -> float:
        """Seconds without a sign of life after which the slots of a process become free."""
        return self._lease

    @property
    def max_waiting(self) -> int | None:
        """Maximum number of tasks of this process that wait; None for no limit."""
        return self._max_waiting

    @property
    def limit(self) -> int:
        """
        Number of slots; may be changed at any time, in each process separately.

        A process takes no slot while all processes together use at least as many as its own limit.
        A lower limit is therefore kept once every process has it, and a higher one is used by those
        that have it. No task is interrupted. With 0, no task of this process gets a slot. It can be
        set from any thread.
        """
        return self._limit

    @limit.setter
    def limit(self, slots: int) -> None:
        self._limit = checks.count(
            "limit", slots, least=0, way_out="Pass how much may run at once, or 0 to pause."
        )
        self._queue.call_there(self._look_again)

    async def acquire(self, *, timeout: float | None = None) -> Lease:
        """
        Take a slot, after waiting for one behind the tasks of this process that asked before.

        The returned lease must be released. ``async with limiter`` does that, and cancels the block
        if the lease is lost.

        A checkpoint. If it is cancelled, a slot that it was given goes to the next task, or, if
        none waits, back to the server: at once, or when the lease expires if the server cannot be
        reached.

        Args:
            timeout: Maximum seconds to wait; 0 to ask the server once; None for no limit.

        Raises:
            LimitTimeoutError: No slot was free in time. Also a builtin ``TimeoutError``. The
                message says if the server did not answer in that time, or is known to be down.
            ConcurrencyLimitError: The queue is full.
            StoreError: The server is down, with ``on_failure="raise"``. Raised within the store's
                timeout; within ``timeout`` if the previous call failed too.
            ValueError: ``timeout`` is negative or NaN.
            RuntimeError: The store is not entered, or another running event loop uses the limiter.
        """
        return (await self._acquire(timeout)).lease

    async def _acquire(self, timeout: float | None) -> Holding:
        checks.timeout("timeout", timeout)
        asked = clock.now()
        slot = await self._wait(once=timeout == 0, timeout=timeout or None)
        if slot is not None:
            return slot
        what = f"{self!r} had no free slot within {timeout} s"
        failure = self._server.failure
        try:
            msg = self._server.explain(what, asked) or what
        except StoreError:
            self._rejected += 1
            raise
        self._timed_out += 1
        now = anyio.current_time()
        raise LimitTimeoutError(msg, timeout=timeout, deadline=now, name=self.name) from failure

    async def try_acquire(self) -> Lease | None:
        """
        Take a slot if one is free, with one call to the server.

        A checkpoint. If it is cancelled, it holds nothing, as with `acquire`.

        Returns:
            The slot, which is true and must be released; or None.

        Raises:
            StoreError: The server is down, unless ``on_failure="allow"``.
            RuntimeError: As for `acquire`.
        """
        slot = await self._wait(once=True)
        self._rejected += slot is None
        return None if slot is None else slot.lease

    @asynccontextmanager
    async def hold(self, *, timeout: float | None = None) -> AsyncGenerator[Lease]:
        """
        Return a block that holds a slot, as ``async with limiter`` does, but with a timeout.

        Entering the block does what `acquire` does. Leaving it is not a checkpoint.

        Args:
            timeout: Maximum seconds to wait; 0 to ask the server once; None for no limit.

        Raises:
            LeaseLostError: The lease was lost: the block was cancelled, or ended too late. If the
                block itself fails, its error is raised instead.
            LimitTimeoutError, ConcurrencyLimitError, StoreError, ValueError, RuntimeError: As for
                `acquire`.
        """
        slot = await self._acquire(timeout)
        try:
            with slot.enter():
                yield slot.lease
        finally:
            slot.release()
        slot.check()

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
        Release the slot.

        Not a checkpoint.

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

    async def run(self, fn: Callable[[*Ts], Awaitable[T]] | Awaitable[T], /, *args: *Ts) -> T:
        """
        Call ``fn(*args)`` in a slot and return its result.

        A checkpoint. If it is cancelled while it waits, it holds nothing and ``fn`` is not called.

        Args:
            fn: An async function; or, without arguments, an awaitable.
            *args: Positional arguments for ``fn``. For keyword arguments, use `functools.partial`.

        Raises:
            LeaseLostError: As for `hold`.
            ConcurrencyLimitError, StoreError, RuntimeError: As for `acquire`.
            TypeError: ``fn`` did not return an awaitable.
        """
        return await run_in(self.hold(), fn, args)

    @overload
    def __call__(self, fn: Descriptor, /) -> Descriptor: ...
    @overload
    def __call__(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...
    @overload
    def __call__(self, /, *, timeout: float | None = None) -> Decorator: ...
    def __call__(self, fn: Any = None, /, *, timeout: float | None = None) -> Any:
        """
        Decorate an async function or method so that each call holds a slot.

        Use it as ``@limiter`` or ``@limiter(timeout=2)``. The function keeps its name, signature
        and types.

        Args:
            fn: The function, if the decorator is used without parentheses.
            timeout: Maximum seconds to wait; 0 to ask the server once; None for no limit.

        Returns:
            The decorated function, or a decorator.

        Raises:
            ValueError: ``timeout`` is negative or NaN.
            TypeError: What is decorated is not an async function.
        """
        checks.timeout("timeout", timeout)

        block = partial(self.hold, timeout=timeout)
        return limit_in(fn, block, name=type(self).__name__)

    def wrap(self, then: Callable[[C], Awaitable[Any]]) -> Callable[[C], Awaitable[Any]]:
        """
        Return an async function that calls ``then`` while it holds a slot, as `hold` does.

        This makes the limiter a part of a `mtaio.resilience.Pipeline`. A call whose lease is lost
        is cancelled and raises `mtaio.exceptions.LeaseLostError`.
        """

        async def run(call: C) -> Any:
            async with self.hold():
                return await then(call)

        return run

    def record_durations(self) -> None:
        """
        Record a histogram of the waits from now on, as ``wait_duration`` in the statistics.

        A monitor calls it for what it watches; repeated calls have no effect. Not a checkpoint. It
        can be called from any thread.
        """
        self._wait_times.record()

    def statistics(self) -> RedisConcurrencyStatistics:
        """
        Return a snapshot of this process.

        Not a checkpoint. It can be called from any thread.
        """
        return snapshot(
            RedisConcurrencyStatistics,
            self,
            self._server,
            self._wait_times,
            in_use=len(self._held),
            waiting=len(self._queue),
        )

    # The queue

    async def _wait(self, *, once: bool, timeout: float | None = None) -> Holding | None:
        """Wait in the queue; None if no slot was free: at ``once``, or within ``timeout``."""
        if self._server.attach(self):
            self._begin()  # what was held in another event loop is gone
        if self._server.failure is not None and self._on_failure == "allow":
            await checkpoint()
            return self._lend_without_server()
        asked = clock.now()
        request = _Request(once=once, stays=not once and self._room(len(self._queue)) > 0)
        waiter = self._join(request)
        try:
            if timeout is None:
                await waiter
            else:
                with anyio.move_on_after(timeout) as scope:
                    await waiter
                if scope.cancelled_caught:
                    self._leave(waiter, request)
                    return None
        except BaseException:
            self._cancelled += 1
            self._leave(waiter, request)
            raise
        if request.error is not None:
            self._rejected += 1
            raise request.error
        if request.slot is not None:
            self._acquired += 1
            self._wait_times.count(clock.now() - asked)
        elif not once:
            self._rejected += 1
            msg = f"{self!r} lets at most max_waiting={self._max_waiting} wait. Try again later."
            raise ConcurrencyLimitError(msg, name=self.name)
        return request.slot

    def _join(self, request: _Request) -> Waiter:
        """Put the running task at the end of the queue, and have it reported if need be."""
        self._server.start(self._serve)
        waiter = self._queue.join(request)
        if not request.stays:
            self._tries.append(waiter)
        if not (request.stays and self._wanted):
            if not request.stays or self._on_failure == "raise":
                self._pace.retry_now()  # to know at once whether the server is still down
            self._changed()
        return waiter

    def _room(self, waiting: int) -> float:
        """Return how many more tasks may wait when so many do."""
        return math.inf if self._max_waiting is None else self._max_waiting - waiting

    def _end_tries(self, tries: list[Waiter], error: StoreError | None = None) -> None:
        """
        End the wait of tasks that the server's answer gave no slot, in the order of asking.

        A task for which the queue was full stays if there is room now: those before it have got
        slots.

        Args:
            tries: Those that have waited for this answer; some may have left the queue.
            error: What to raise in them, if there was no answer.
        """
        waiters = self._queue.waiters
        waiting = sum(request.stays for request in waiters.values()) if tries else 0
        for waiter in tries:
            request = waiters.get(waiter)
            if request is None:
                continue
            if not request.once and self._room(waiting) > 0:
                request.stays = True
                waiting += 1
            elif error is not None:
                self._refuse(waiter, error)
            else:
                self._queue.wake(waiter)
                self._pace.changed = True

    def _leave(self, waiter: Waiter, request: _Request) -> None:
        """Take a task that was cancelled out of the queue, or pass on what it was woken with."""
        waits = waiter in self._queue.waiters
        if not self._queue.leave(waiter):
            if waits and not self._queue.waiters:
                self._changed()
            return
        slot = request.slot
        if slot is None:
            return
        if slot not in self._held or not self._queue.waiters:
            slot.release()
            return
        del self._held[slot]
        if not self._lend(slot.token):
            self._changed()

    def _lend(self, token: int) -> bool:
        """Give a slot to the first in the queue; return False if there is none."""
        while self._queue.waiters:
            waiter, request = next(iter(self._queue.waiters.items()))
            if self._queue.wake(waiter):  # it resumes later, and finds its slot
                request.slot = slot = self._new_slot(token)
                self._held[slot] = None
                self._peak = max(self._peak, len(self._held))
                return True
        return False

    def _lend_without_server(self) -> Holding:
        slot = self._new_slot(0)
        slot.stand_alone()
        self._acquired += 1
        self._acquired_without_server += 1
        return slot

    def _new_slot(self, token: int) -> Holding:
        text = f"<{type(self).__name__} {self.name!r} at {self._store.name}>"
        return Holding(token, text, self.name, lambda: self._until, self._give_back)

    def _give_back(self, slot: Holding) -> None:
        self._queue.call_there(partial(self._take_back, slot))

    def _take_back(self, slot: Holding) -> None:
        self._lost += slot.lost
        if self._held.pop(slot, slot) is None:
            self._changed()

    def _lose(self, reason: str) -> None:
        """Give up every lease: the server may lend the slots to others."""
        slots, self._held = self._held, {}
        self._lost += len(slots)
        self._epoch += 1  # what was reported under the old name can do no harm
        self._wanted = 0
        self._pace.changed = bool(self._queue.waiters)
        self._until = math.inf
        for slot in slots:
            slot.lose(reason)

    def _refuse(self, waiter: Waiter, error: Exception) -> None:
        """Raise an error in a task that waits; one of its own, for its traceback."""
        self._queue.waiters[waiter].error = own_error(error)
        self._queue.wake(waiter)

    def _refuse_all(self, error: Exception) -> None:
        """Raise an error in every task that waits."""
        while self._queue.waiters:
            self._refuse(next(iter(self._queue.waiters)), error)

    # The server

    def _changed(self) -> None:
        """Have a change reported to the server."""
        self._pace.changed = True
        self._server.wake()

    def _look_again(self) -> None:
        """Have the server asked whether it has slots for the tasks that wait."""
        if self._queue.waiters:
            self._changed()

    @property
    def _held_until(self) -> float:
        """When the leases that are held are lost; ``inf`` without any."""
        return self._until if self._held else math.inf

    async def _serve(self) -> None:
        """Call the server whenever a call is due."""
        process = self._server.process
        try:
            while True:
                while (due := min(self._pace.due(), self._held_until)) > clock.now():
                    await self._server.sleep(due)
                await self._exchange()
        finally:
            # Else it is thrown away with its loop, and no tracer sees where it goes.
            if self._server.is_current(process):  # pragma: no branch - as said
                await self._say_goodbye()

    async def _exchange(self) -> None:
        """
        Call the server once, and act on its answer.

        While the call is under way, tasks join the queue, are cancelled, and give slots back. The
        answer knows nothing of them: they set ``_pace.changed``, and the next call reports them.
        """
        sent = clock.now()
        # 1. Leases that are over are given up first: this call must not report them as held.
        if sent >= self._held_until:
            self._run_out()
        # 2. From here on, a task that asks once waits for the next answer, and a change is one
        #    that this call does not report.
        tries, self._tries = self._tries, []
        self._pace.changed = False
        report = self._report(len(self._held))
        self._wanted = report.waiting
        # 3. The call, for no longer than the leases last. The server may come to know of this
        #    process even if no answer arrives: what it holds has to be given back in the end.
        self._known = True
        try:
            answer = await self._server.call(self._call(report))
        except StoreError as error:
            self._fail(error)
            return
        # 4. What it says of the server.
        self._known = bool(report.held or report.waiting)
        self._total_in_use, self._members = answer.total, answer.members
        # 5. The slots that were held are kept, or lost; only in the first case are there new ones.
        #    The lease counts from when the call was sent: it began at the server later than that.
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
        # 6. The wait of those that wanted one answer alone is over.
        self._end_tries(tries)
        # 7. Those that still wait are to be woken by a message; and when to call next.
        waits = bool(self._queue.waiters)
        if waits and not self._listening:
            self._listening = True
            start(self._store, self._listen)
        self._pace.answered(sent, answer, holds=bool(self._held), waits=waits)

    def _hand_out(self, answer: Answer) -> None:
        """Give the slots that the server granted to the tasks that wait."""
        for number in range(answer.granted):
            if not self._lend(answer.first_token + number):
                self._pace.changed = True  # its task is gone
        if self._queue.waiters and not self._wanted:
            self._pace.changed = True  # these tasks came during the call

    def _report(self, held: int) -> Report:
        """Return what is reported to the server next."""
        self._number += 1
        process = f"{self._server.process}/{self._epoch}"
        waiting = len(self._queue)
        return Report(process, self._number, held, waiting, self._limit, self._lease * 1e6)

    async def _call(self, report: Report) -> Answer:
        """Report to the server, and wait for its answer no longer than the leases last."""
        with anyio.move_on_after(self._until - clock.now() if self._held else None):
            return await self._slots.exchange(report)
        msg = f"{self._store.name} did not answer before the lease of {self!r} ran out."
        raise StoreError(msg, server=self._store.name)

    def _fail(self, error: StoreError) -> None:
        """Deal with a call that failed: the server is down."""
        self._server.failure = error
        self._wanted = 0
        if self._on_failure != "raise":
            self._server.log(self, error)
        if self._on_failure == "raise":
            self._refuse_all(error)
        elif self._on_failure == "allow":
            for waiter, request in [*self._queue.waiters.items()]:
                if self._queue.wake(waiter):
                    request.slot = self._lend_without_server()
                    self._acquired -= 1  # counted by the task
        else:
            self._tries = []
            waiters = self._queue.waiters
            self._end_tries([each for each in waiters if not waiters[each].stays], error)
        self._pace.failed()

    def _run_out(self) -> None:
        """Deal with leases that could not be renewed in time."""
        if self._server.failure is None or self._on_failure != "allow":
            self._lose("it was not renewed in time")
            return
        slots, self._held = self._held, {}
        for slot in slots:
            slot.stand_alone()
        self._lose("")

    async def _listen(self) -> None:
        """Call again whenever the server keeps slots for this process, or messages were missed."""

        def on_message(channel: str, message: bytes) -> None:
            del channel, message
            self._look_again()

        def on_subscribed() -> None:
            self._pace.listen(messages=True)
            self._look_again()

        def on_lost() -> None:
            self._pace.listen(messages=False)
            self._look_again()

        process = self._server.process
        channel = self._slots.channel(process)
        try:
            async with self._store.subscribe([channel], on_message, on_subscribed, on_lost):
                await anyio.sleep_forever()
        finally:
            # Else it is thrown away with its loop, and no tracer sees where it goes.
            if self._server.is_current(process):  # pragma: no branch - as said
                self._listening = False
                self._pace.listen(messages=False)

    async def _say_goodbye(self) -> None:
        """Give everything back, because the store's block ends."""
        self._server.ended()
        self._server.failure = None
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
