"""
How much may run at once, in all processes together: slots that a server lends.

Promise: never more than ``limit`` slots are lent, and those of a process that is not heard of for
its lease are free again; within a process tasks get them in the order of asking, and processes that
wait are served in turn. The work of a holder whose lease is lost is cancelled before the server
lends the slot to another.
Cost: one call to the server at a time for each process, which tells of all slots that were given
back and asks for all that are wanted; one task in the store's block, and a connection that listens
once a task had to wait. While nothing changes, three calls in each lease.
Why no queue at the server: docs/en/design/redis.md.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar, overload
from uuid import uuid4

import anyio

from mtaio._internal import checks, clock, loops
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.decorators import AsyncFunction, Decorator, Descriptor, decorate
from mtaio._internal.statistics import COUNTER, GAUGE, LIMIT
from mtaio.exceptions import ConcurrencyLimitError, StoreError
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.redis._lease import Lease
from mtaio.redis._slots import EXCHANGE, PROMISE, Answer, channel_of, keys_of
from mtaio.redis._store import check_key

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from mtaio.redis._store import Store

__all__ = ["RedisConcurrencyLimiter", "RedisConcurrencyStatistics"]

P = ParamSpec("P")
R = TypeVar("R")

_SAFE: Final = 0.9
"""The part of the lease after which a holder that could not renew it stops."""

_BEAT: Final = 1 / 3
"""The part of the lease after which it is renewed."""

_LOOK: Final = 1.0
"""Seconds after which a process that waits asks again, although it was not called."""

_DEAF: Final = (0.02, 0.32)
"""The same while it cannot be called: the first, and the most."""

_RETRY: Final = (0.05, 1.0)
"""Seconds after a call that failed: the first, and the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisConcurrencyStatistics:
    """The state of a `RedisConcurrencyLimiter`, and what it has done in this process."""

    limit: int = field(metadata=LIMIT)
    """Slots there are now, for all processes."""
    in_use: int = field(metadata=GAUGE)
    """Slots that this process holds."""
    total_in_use: int = field(metadata=GAUGE)
    """Slots that all processes held when the server was last heard."""
    members: int = field(metadata=GAUGE)
    """Processes that held slots or waited for some when the server was last heard."""
    waiting: int = field(metadata=GAUGE)
    """Tasks of this process that wait."""
    peak: int = field(metadata=GAUGE)
    """The most slots that this process held at once."""
    acquired: int = field(metadata=COUNTER)
    """Slots given to tasks."""
    granted_without_server: int = field(metadata=COUNTER)
    """Those among them that were given without the server, because it was down."""
    rejected: int = field(metadata=COUNTER)
    """Requests refused: by ``try_acquire``, because the queue was full, or for want of a server."""
    timed_out: int = field(metadata=COUNTER)
    """Requests that ended in a timeout of their own."""
    cancelled: int = field(metadata=COUNTER)
    """Waits that were cancelled."""
    lost: int = field(metadata=COUNTER)
    """Leases that were lost before they were given back."""
    wait_seconds: float = field(metadata=COUNTER)
    """Seconds that tasks waited for the slots they got, all together."""
    max_wait_seconds: float = field(metadata=GAUGE)
    """Seconds that the longest of those waits took."""
    calls: int = field(metadata=COUNTER)
    """Calls to the server."""
    failed_calls: int = field(metadata=COUNTER)
    """Those among them that failed."""


class _Waiter:
    """A task in the queue; with ``once``, until the server has been asked."""

    __slots__ = ("answered", "error", "lease", "once")

    def __init__(self, *, once: bool) -> None:
        self.once = once
        self.answered = anyio.Event()
        self.lease: Lease | None = None
        self.error: Exception | None = None


class RedisConcurrencyLimiter:
    """
    Limits how much runs at once in all processes together, by slots that a server lends.

    A process holds its slots for ``lease`` seconds and says three times in each lease that it still
    does, for all of them at once. One that dies has given them back when its lease has run out. A
    holder that could not renew its lease is cancelled, at nine tenths of the lease, and
    `mtaio.exceptions.LeaseLostError` is raised where its block ends.

    Made anywhere, and used inside the block of its store. Every process passes the same key and
    lease.

    Args:
        store: The server, entered before the first call.
        key: What is limited. Limiters of one key on one server share their slots.
        limit: Slots for all processes together, at least 1.
        lease: Seconds after which the slots of a process that is not heard of are free. More than
            the event loop, the process and the way to the server may ever stand still.
        max_waiters: How many tasks of this process may wait; those beyond ask the server once, and
            are refused with `mtaio.exceptions.ConcurrencyLimitError` if no slot is free. 0 for none
            at all, None (the default) for no limit.
        on_failure: What to do while the server is down. ``"closed"`` raises `StoreError` in the
            tasks that wait; ``"wait"`` has them wait until it is back; ``"open"`` lets everything
            run at once, and what runs go on. With the first two, those that hold a slot go on until
            their lease runs out.
        name: For messages and the monitor. Default: ``key``.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: ``limit`` is less than 1, ``lease`` not more than 0 or infinite, ``max_waiters``
            negative, ``key`` empty, or ``on_failure`` unknown.

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

    # Invariants:
    # - only the task _serve calls the server, one call at a time, and it is there while there is
    #   anything to tell;
    # - _leases are the slots that this process uses, those given to a task that has not resumed
    #   included; the server is told their number, so what it granted beyond them goes back;
    # - _changed says that the server does not know how things stand;
    # - _wanted is how many tasks wait as far as the server knows; while tasks wait, it is above 0,
    #   or _changed is true;
    # - _until is when the leases are lost, by the time at which the last successful call was sent.
    __slots__ = (
        "__weakref__",
        "_acquired",
        "_again",
        "_calls",
        "_cancelled",
        "_capacity",
        "_changed",
        "_deaf",
        "_down",
        "_due",
        "_entered",
        "_epoch",
        "_failed_calls",
        "_free",
        "_hears",
        "_identity",
        "_key",
        "_keys",
        "_known",
        "_lease",
        "_leases",
        "_listening",
        "_look_after",
        "_loop",
        "_lost",
        "_max_wait_seconds",
        "_max_waiters",
        "_members",
        "_name",
        "_number",
        "_on_failure",
        "_peak",
        "_queue",
        "_rejected",
        "_retry",
        "_serving",
        "_store",
        "_timed_out",
        "_total",
        "_tries",
        "_until",
        "_wait_seconds",
        "_wanted",
        "_woken",
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
        check_key(key)
        self._capacity = checks.count(
            "limit", limit, way_out="Pass how much may run at once, at least 1."
        )
        way_out = "Pass the seconds after which a process that is silent has lost its slots."
        if not 0 < checks.number("lease", lease, way_out=way_out) < math.inf:
            msg = f"lease={lease!r} is not a finite number greater than 0. {way_out}"
            raise ValueError(msg)
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
        self._keys = keys_of(key)
        self._lease = lease
        self._max_waiters = max_waiters
        self._name = name
        self._identity = ""
        self._epoch = 0
        self._number = 0
        self._loop: object = None
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
        self._changed = False
        self._wanted = 0
        self._again: float = 0.0
        self._due: float = math.inf
        self._look_after: float = 0.0
        self._retry = _RETRY[0]
        self._down = False
        self._known = False
        self._woken: anyio.Event | None = None
        self._serving = self._listening = self._hears = False
        self._deaf = _DEAF[0]

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name!r}: {len(self._leases)} of {self._capacity} slots "
            f"in use here, {len(self._queue)} waiting, at {self._store.name}>"
        )

    @property
    def name(self) -> str:
        """The name given to the limiter, or its key."""
        return self._key if self._name is None else self._name

    @property
    def key(self) -> str:
        """What is limited."""
        return self._key

    @property
    def lease(self) -> float:
        """Seconds after which the slots of a process that is not heard of are free."""
        return self._lease

    @property
    def max_waiters(self) -> int | None:
        """How many tasks of this process may wait; None for no limit."""
        return self._max_waiters

    @property
    def capacity(self) -> int:
        """
        How many slots there are; may be changed at any time, in each process for itself.

        A process takes no slot while as many are in use as it knows of; so a limit is lowered once
        all processes know it, and raised by those that do. No task is interrupted. 0 lets no task
        of this process in.
        """
        return self._capacity

    @capacity.setter
    def capacity(self, slots: int) -> None:
        self._capacity = checks.count(
            "capacity", slots, least=0, way_out="Pass how much may run at once, or 0."
        )
        if self._queue:
            self._tell()

    async def acquire(self, *, timeout: float | None = None) -> Lease:
        """
        Take a slot; wait for one behind all tasks of this process that asked before.

        A checkpoint. Cancelled, it leaves what it had been given to the next task; if none waits,
        the slot goes back to the server at once, or with the lease if that cannot be reached. What
        it returns is given back by its ``release()``; ``async with`` does that, and cancels the
        block when the lease is lost.

        Args:
            timeout: Seconds to wait at most; 0 to ask the server once; None for no limit.

        Raises:
            TimeoutError: (`mtaio.exceptions.TimeoutError`) No slot came free in time.
            ConcurrencyLimitError: The queue is full.
            StoreError: The server is down, with ``on_failure="closed"``; after its timeout at most.
            ValueError: ``timeout`` is negative or NaN.
            RuntimeError: The store is not entered, or another running event loop uses the limiter.
        """
        checks.timeout("timeout", timeout)
        lease = None
        if timeout != 0:
            with anyio.move_on_after(timeout):
                lease = await self._wait(once=False)
        else:
            lease = await self._wait(once=True)
        if lease is not None:
            return lease
        self._timed_out += 1
        msg = f"{self!r} had no free slot within {timeout} s"
        raise MTAIOTimeoutError(msg, timeout=timeout, deadline=anyio.current_time(), name=self.name)

    async def try_acquire(self) -> Lease | None:
        """
        Take a slot if one is free: one call to the server.

        A checkpoint. Cancelled, it holds nothing, as `acquire`.

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
        Hold a slot in a block, as ``async with limiter`` does; for a timeout.

        Its end is no checkpoint, and gives the slot back.

        Args:
            timeout: As for `acquire`.

        Raises:
            LeaseLostError: The lease was lost: the block was cancelled, or ended too late. Another
                error of the block goes out in its place.
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
            LeaseLostError: The lease was lost, and the block did not fail otherwise.
            RuntimeError: Another task entered the block.
        """
        task = anyio.get_current_task().id
        blocks = self._entered.get(task)
        if blocks is None:
            msg = f"{self!r} was entered in another task. Enter and leave the block in one task."
            raise RuntimeError(msg)
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
            timeout: Seconds that a call waits for its slot, as for `acquire`.

        Returns:
            The limited function, or a decorator that makes it.

        Raises:
            ValueError: ``timeout`` is negative or NaN.
            TypeError: What is decorated is not an async function.
        """
        checks.timeout("timeout", timeout)

        def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
            async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                async with self.hold(timeout=timeout):
                    return await fn(*args, **kwargs)

            return limited

        decorator = decorate(around, name=f"{type(self).__name__}.limit")
        return decorator if fn is None else decorator(fn)

    def statistics(self) -> RedisConcurrencyStatistics:
        """Return the state and what was done so far. Not a checkpoint; from any thread."""
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
        if self._down and self._on_failure == "open":
            await checkpoint()
            return self._lend_without_server()
        asked = clock.now()
        full = self._max_waiters is not None and len(self._queue) >= self._max_waiters
        patient, once = not once, once or full
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
        if waiter.lease is None and full and patient:
            self._rejected += 1
            msg = f"{self!r} lets at most max_waiters={self._max_waiters} wait. Try again later."
            raise ConcurrencyLimitError(msg, name=self.name)
        if waiter.lease is not None:
            waited = clock.now() - asked
            self._acquired += 1
            self._wait_seconds += waited
            self._max_wait_seconds = max(self._max_wait_seconds, waited)
        return waiter.lease

    def _attach(self) -> None:
        """Make sure that what is held belongs to the running loop."""
        loop = loops.current_loop()
        if loop is not self._loop:
            if self._serving and not loops.is_over(self._loop):
                raise loops.two_loops_error(self)
            self._begin()
            self._identity = uuid4().hex  # not before: a fork would have it too
            self._loop = loop

    def _join(self, *, once: bool) -> _Waiter:
        if not self._serving:
            self._store.start(self._serve)
            self._serving = True
        waiter = _Waiter(once=once)
        self._queue[waiter] = None
        if once:
            self._tries.append(waiter)
        if once or not self._wanted:
            if self._on_failure == "closed":
                self._again = 0.0  # to be told at once that the server is down
            self._tell()
        return waiter

    def _leave(self, waiter: _Waiter) -> None:
        """Take a task that was cancelled out of the queue, or pass on what it was given."""
        lease = waiter.lease
        if lease is None:
            if waiter in self._queue:
                del self._queue[waiter]
                if not self._queue:
                    self._tell()
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
        self._lost += lease.lost
        if self._leases.pop(lease, lease) is None:
            self._tell()

    def _lose(self, reason: str) -> None:
        """Take it that the server lends the slots to others."""
        leases, self._leases = self._leases, {}
        self._lost += len(leases)
        self._epoch += 1  # what was told under the old name can do no harm
        self._wanted = 0
        self._changed = bool(self._queue)
        self._until = math.inf
        for lease in leases:
            lease.lose(reason)

    def _refuse(self, waiter: _Waiter, error: Exception) -> None:
        """Raise an error in a task that waits; one of its own, for its traceback."""
        del self._queue[waiter]
        waiter.error = (
            StoreError(str(error), server=error.server)
            if isinstance(error, StoreError)
            else RuntimeError(str(error))
        )
        waiter.answered.set()

    def _refuse_all(self, error: Exception) -> None:
        """Raise an error in every task that waits."""
        while self._queue:
            self._refuse(next(iter(self._queue)), error)

    # The server

    def _tell(self) -> None:
        """Have the server told how things stand."""
        self._changed = True
        if self._woken is not None:
            self._woken.set()

    def _look_again(self) -> None:
        if self._queue:
            self._tell()

    async def _serve(self) -> None:
        """Tell the server how things stand whenever that has changed, and in each lease."""
        try:
            while True:
                await self._until_due()
                await self._exchange()
        finally:
            await self._say_goodbye()

    async def _until_due(self) -> None:
        """Wait until the server has to be called."""
        while True:
            due = self._again if self._changed else self._due
            if self._leases:
                due = min(due, self._until)
            left = due - clock.now()
            if left <= 0:
                return
            self._woken = woken = anyio.Event()
            with anyio.move_on_after(None if left == math.inf else left):
                await woken.wait()
            self._woken = None

    async def _exchange(self) -> None:
        """Call the server once, and do what follows from its answer."""
        sent = clock.now()
        if self._leases and sent >= self._until:
            self._run_out()
        tries, self._tries = self._tries, []
        self._changed = False
        self._number += 1
        told = self._told()
        self._wanted = wanted = len(self._queue)
        try:
            answer = await self._call(told)
        except StoreError as error:
            self._fail(error, tries)
            return
        self._known = told[2:4] != [0, 0]
        self._down = False
        self._retry = _RETRY[0]
        self._again = 0.0
        self._total, self._members = answer.total, answer.members
        received = clock.now()
        until = sent + _SAFE * self._lease
        if not answer.in_force:
            self._lose("the server no longer knows of it")
        elif received >= until:  # this process stood still
            self._lose("it was not renewed in time")
            self._tell()
        else:
            self._until = until
            for number in range(answer.granted):
                if self._queue:
                    self._lend(answer.first_token + number)
                else:
                    self._changed = True  # its task is gone
        for waiter in tries:
            if self._queue.pop(waiter, waiter) is None:
                waiter.answered.set()
                self._changed = True
        if answer.in_force and received < until:
            self._wanted = wanted - answer.granted
            self._changed |= bool(self._queue) and not self._wanted  # they came during the call
        self._plan(sent, answer)

    async def _call(self, told: list[str | int | float]) -> Answer:
        """Run the script, for no longer than the leases last."""
        self._calls += 1
        self._known = True
        with anyio.move_on_after(self._until - clock.now() if self._leases else None):
            return Answer(*await self._store.script(EXCHANGE, self._keys, told))
        msg = f"{self._store.name} did not answer before the lease of {self!r} ran out."
        raise StoreError(msg, server=self._store.name)

    def _told(self) -> list[str | int | float]:
        """Return what the script is called with."""
        return [
            *(f"{self._identity}/{self._epoch}", self._number, len(self._leases)),
            *(len(self._queue), self._capacity, self._lease * 1e6, PROMISE * 1e6),
        ]

    def _plan(self, sent: float, answer: Answer) -> None:
        """Decide when to call again if nothing changes."""
        due = math.inf
        if self._leases:
            due = sent + self._lease * _BEAT
        if answer.ask_again:
            due = min(due, clock.now() + answer.ask_again / 1e6 + 0.001)
        if answer.kept:
            self._look_after = clock.now() + PROMISE + 0.001
        if self._look_after > clock.now():
            due = min(due, self._look_after)
        if self._queue:
            due = min(due, sent + min(self._lease * _BEAT, _LOOK))
            if not self._listening:
                self._listening = True
                self._store.start(self._listen)
            if not self._hears:
                due = min(due, sent + self._deaf)
                self._deaf = min(2 * self._deaf, _DEAF[1])
        self._due = due

    def _fail(self, error: StoreError, tries: list[_Waiter]) -> None:
        """Do what is to be done while the server is down."""
        self._failed_calls += 1
        self._down = True
        self._changed = True
        self._wanted = 0
        if self._on_failure == "closed":
            self._refuse_all(error)
        elif self._on_failure == "open":
            while self._queue:
                waiter, _ = self._queue.popitem(last=False)
                waiter.lease = self._lend_without_server()
                self._acquired -= 1  # counted by the task
                waiter.answered.set()
        else:
            for waiter in [waiter for waiter in tries if waiter in self._queue]:
                self._refuse(waiter, error)
        self._again = clock.now() + min(self._retry, self._lease / 20)
        self._retry = min(2 * self._retry, _RETRY[1])

    def _run_out(self) -> None:
        """Do what is to be done when the leases could not be renewed in time."""
        if not (self._down and self._on_failure == "open"):
            self._lose("it was not renewed in time")
            return
        leases, self._leases = self._leases, {}
        for lease in leases:
            lease.stand_alone()
        self._lose("")

    async def _listen(self) -> None:
        """Hear when slots are kept for this process."""

        def on_message(channel: str, message: bytes) -> None:
            del channel, message
            self._look_again()

        def on_subscribed() -> None:
            self._hears = True
            self._look_again()

        def on_lost() -> None:
            self._hears = False
            self._deaf = _DEAF[0]
            self._look_again()

        channel = channel_of(self._key, self._identity)
        try:
            async with self._store.subscribe([channel], on_message, on_subscribed, on_lost):
                await anyio.sleep_forever()
        finally:
            self._listening = self._hears = False

    async def _say_goodbye(self) -> None:
        """Give back everything, because the store's block ends."""
        self._serving = self._down = False
        msg = f"{self._store!r} was left while {self!r} was in use."
        self._refuse_all(RuntimeError(msg))
        told = self._told()
        told[1:4] = [self._number + 1, 0, 0]
        self._number += 1
        self._lose("the block of its store was left")
        self._changed = False
        if not self._known:
            return
        with (
            anyio.move_on_after(min(1.0, self._store.timeout), shield=True),
            suppress(StoreError),
        ):
            await self._store.script(EXCHANGE, self._keys, told)
