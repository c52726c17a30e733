"""
How much may run at once: slots that are handed over first come, first served.

Promise: never more than ``limit`` slots are in use (after it was lowered: no new ones until
enough have come back), tasks get them in the order they asked, and a slot given to a task
that is cancelled before it can use it goes to the next.
Cost: one counter while slots are free; one place in the queue for each task that waits.

Why not on ``anyio.CapacityLimiter``: docs/en/design/concurrency.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, TypeVarTuple, final, overload

import anyio

from mtaio._internal import checks
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.copies import uncopied
from mtaio._internal.decorators import AsyncFunction, Decorator, Descriptor
from mtaio._internal.durations import WaitTimes
from mtaio._internal.histogram import HistogramStatistics
from mtaio._internal.limiting import closed_error, limit, run_in
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, SECONDS, snapshot
from mtaio._internal.wait_queue import WaitQueue
from mtaio.exceptions import ConcurrencyLimitError, LimitClosedError, LimitTimeoutError

if TYPE_CHECKING:
    from mtaio._internal.backend import Waiter

__all__ = ["ConcurrencyLimiter", "ConcurrencyStatistics"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyStatistics:
    """The state of a `ConcurrencyLimiter`, and what it has done so far."""

    limit: int = field(metadata=LIMIT)
    """The number of slots."""
    in_use: int = field(metadata=GAUGE)
    """
    Slots taken; for a while more than `limit` after the limit was lowered.

    On a Python without the GIL, another thread may see one more than there are, for the moment in
    which a task asks for a slot.
    """
    waiting: int = field(metadata=GAUGE)
    """Tasks in the queue."""
    peak: int = field(metadata=GAUGE)
    """The most slots that were taken at once."""
    acquired: int = field(metadata=COUNTER)
    """Slots given out, with or without a wait."""
    rejected: int = field(metadata=COUNTER)
    """Calls refused: by ``acquire_nowait``, or because the queue was full or the limiter closed."""
    timed_out: int = field(metadata=COUNTER)
    """Calls whose own timeout ran out."""
    cancelled: int = field(metadata=COUNTER)
    """Waits that were cancelled."""
    wait_seconds: float = field(metadata=COUNTER)
    """Total seconds that tasks waited for the slots they got."""
    max_wait_seconds: float = field(metadata=GAUGE)
    """The longest of those waits, in seconds."""
    wait_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long each of those waits took; None before ``record_durations()``."""


@uncopied
@final
class ConcurrencyLimiter:
    """
    A limit on how many tasks do something at once.

    Use it as ``async with limiter:``, as a decorator, or with `run` or `acquire`. It can be created
    at module level and used by one event loop after another, on either backend. Slots do not belong
    to tasks: a task may hold several, and another task may release them. `acquire_nowait`,
    `try_acquire` and `release` may be called from any thread; on a Python without the GIL, only
    from the thread of its event loop.

    Do not subclass it, as its methods do not call each other; use it as an attribute of your own
    class.

    Args:
        limit: Number of slots, at least 1.
        max_waiting: Maximum number of tasks that wait for a slot; further ones are refused at once
            with `mtaio.exceptions.ConcurrencyLimitError`. 0 for none, None for no limit.
        name: Name shown in messages and metrics.

    Raises:
        ValueError: ``limit`` is less than 1, or ``max_waiting`` is negative.
        TypeError: ``limit`` or ``max_waiting`` is not an int.

    Example:
        ```python
        import anyio

        from mtaio import ConcurrencyLimiter

        limiter = ConcurrencyLimiter(2)


        async def work(number: int) -> None:
            async with limiter:
                await anyio.sleep(0.01)
                print(number, limiter.statistics().in_use)


        async def main() -> None:
            async with anyio.create_task_group() as group:
                for number in range(6):
                    group.start_soon(work, number)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - _in_use counts the slots held, including those handed to tasks that were woken and have not
    #   resumed yet;
    # - while a task waits, _in_use >= _limit: hence a free slot means an empty queue, and no
    #   task can overtake another; where other threads break it for a moment, whoever sees the
    #   queue then hands the slot over;
    # - _waiters is the dict of _queue, which is only read here, to save a call;
    # - once _closed, it stays so, and _limit is 0, so that no slot is given out; a task that is
    #   woken and finds itself in the queue was not given one;
    # - _returned counts slots in use that were given back while tasks waited, and that their
    #   loop has not handed on yet, as other threads give back too;
    # - _in_use changes by one in statements that call nothing, between which alone the GIL may
    #   change hands: a slot is taken by counting it first, looking whether that was too many, and
    #   if so counting it back. A look before the count would do only until coverage or a debugger
    #   calls something at each line. Counters of what was done may miss one there;
    # - a call of acquire() that finds _acquired at _yield_at or beyond yields.
    __slots__ = (
        "__weakref__",
        "_acquired",
        "_cancelled",
        "_closed",
        "_in_use",
        "_limit",
        "_max_waiting",
        "_name",
        "_peak",
        "_queue",
        "_rejected",
        "_returned",
        "_timed_out",
        "_wait_times",
        "_waiters",
        "_yield_at",
    )

    def __init__(
        self,
        limit: int,
        *,
        max_waiting: int | None = None,
        name: str | None = None,
    ) -> None:
        checks.count("limit", limit, way_out="Pass how much may run at once, at least 1.")
        if max_waiting is not None:
            checks.count(
                "max_waiting",
                max_waiting,
                least=0,
                way_out="Pass how many tasks may wait, 0 for none, or None for no limit.",
            )
        self._start(limit, max_waiting, name, WaitTimes())

    def _start(
        self, limit: int, max_waiting: int | None, name: str | None, wait_times: WaitTimes
    ) -> None:
        self._limit = limit
        self._max_waiting = max_waiting
        self._name = name
        self._queue = WaitQueue[None]()
        self._waiters = self._queue.waiters
        self._closed = False
        self._in_use = 0
        self._peak = 0
        self._acquired = 0
        self._yield_at = FAST_CALLS - 1
        self._rejected = 0
        self._returned = 0
        self._timed_out = 0
        self._cancelled = 0
        self._wait_times = wait_times

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return (
            f"<ConcurrencyLimiter{name}: {self._in_use} of {self._limit} slots in use, "
            f"{len(self._waiters)} waiting>"
        )

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._name

    @property
    def max_waiting(self) -> int | None:
        """Maximum number of tasks that wait for a slot; None for no limit."""
        return self._max_waiting

    @property
    def limit(self) -> int:
        """
        Number of slots; may be changed at any time.

        If it is raised, waiting tasks get the new slots in their order. If it is lowered, no task
        is interrupted; the change takes effect as slots are released. At 0, no task gets a slot
        until it is raised.
        """
        return self._limit

    @limit.setter
    def limit(self, slots: int) -> None:
        checks.count(
            "limit", slots, least=0, way_out="Pass how much may run at once, or 0 to pause."
        )
        if not self._closed:  # nothing is called between, so that no other thread closes it there
            self._limit = slots
        if self._waiters:
            self._queue.call_there(self._hand_over)

    def close(self) -> None:
        """
        Refuse everything from now on, to shut down the program or what the limiter guards.

        Tasks that wait, and all later calls, get a `mtaio.exceptions.LimitClosedError` at once.
        Tasks that hold a slot continue and release it as usual. A closed limiter cannot be
        reopened; its `limit` stays 0. Repeated calls have no effect. Not a checkpoint. It can be
        called from any thread.
        """
        self._closed = True
        self._limit = 0
        if self._waiters:
            self._queue.call_there(self._turn_away)

    async def acquire(self, *, timeout: float | None = None) -> None:
        """
        Take a slot; if all are taken, wait in the queue for one.

        A checkpoint if no slot is free, and otherwise on every 64th call. If it is cancelled, it
        holds nothing; a slot that it had just been given goes to the next task.

        Args:
            timeout: Maximum seconds to wait; 0 to not wait at all; None for no limit.

        Raises:
            LimitTimeoutError: No slot was free in time. Also a builtin ``TimeoutError``.
            LimitClosedError: The limiter is closed, or was closed during the wait.
            ConcurrencyLimitError: The queue is full.
            ValueError: ``timeout`` is negative or NaN.
            RuntimeError: Tasks of another event loop are waiting.
        """
        if timeout is not None:
            checks.timeout("timeout", timeout)
        in_use = self._in_use = self._in_use + 1
        acquired = self._acquired
        if in_use > self._limit or acquired >= self._yield_at:
            self._in_use -= 1
            rest = self._acquire(timeout)
            if rest is not None:
                await rest
                return
            # The wait is written out here: a coroutine of its own would cost as much as the rest.
            asked = self._queue.time()
            waiter = self._queue.join(None)
            if self._in_use < self._limit and self._take():
                # Another thread gave a slot back as this task joined, and saw nobody wait.
                self._queue.leave(waiter)
                await self._yield_with_slot()
                return
            try:
                if not self._closed:  # else by another thread as this task joined
                    await waiter
            except BaseException:
                self._cancelled += 1
                if self._queue.leave(waiter):
                    self.release()
                raise
            if self._closed and waiter in self._waiters:
                raise self._turned_away(waiter)
            self._count_wait(self._queue.time() - asked)
            return
        if in_use > self._peak:  # noqa: PLR1730 - max() would cost a tenth of the whole
            self._peak = in_use
        self._acquired = acquired + 1

    def acquire_nowait(self) -> None:
        """
        Take a slot if one is free, or raise.

        Not a checkpoint. It can be called from any thread.

        Raises:
            ConcurrencyLimitError: All slots are taken.
            LimitClosedError: The limiter is closed.
        """
        in_use = self._in_use = self._in_use + 1
        if in_use > self._limit:
            self._in_use -= 1
            self._look_again()
            if self._returned:
                self._queue.call_there(self._take_back)
                if self._in_use < self._limit:  # the loop had ended before it handed them on
                    self.acquire_nowait()
                    return
            self._rejected += 1
            if self._closed:
                raise closed_error(self, self._name)
            msg = f"{self!r} has no free slot now. acquire() waits for one."
            raise ConcurrencyLimitError(msg, name=self._name)
        if in_use > self._peak:  # noqa: PLR1730 - max() would cost a tenth of the whole
            self._peak = in_use
        self._acquired += 1

    def try_acquire(self) -> bool:
        """
        Take a slot if one is free, and return whether it did.

        Not a checkpoint. It can be called from any thread.

        Raises:
            LimitClosedError: The limiter is closed.
        """
        try:
            self.acquire_nowait()
        except ConcurrencyLimitError:
            return False
        return True

    def release(self) -> None:
        """
        Release a slot, and hand it to the first task in the queue if there is one.

        Not a checkpoint. It can be called from any thread; the slot is then handed over in the
        event loop of the waiting task.

        Raises:
            RuntimeError: No slot is in use.
        """
        if self._in_use <= self._returned:
            msg = f"cannot release a slot of {self!r}. Call release() once for each acquire()."
            raise RuntimeError(msg)
        if not self._waiters:
            self._in_use -= 1
            if self._waiters:
                self._look_again()
        elif self._returned or not self._queue.runs_here():
            self._returned += 1
            self._queue.call_there(self._take_back)
        elif self._in_use > self._limit or not self._queue.wake_next():
            self._in_use -= 1

    async def __aenter__(self) -> None:
        """Take a slot as `acquire` does."""
        # acquire() once more: calling it would cost an eighth of the whole block.
        in_use = self._in_use = self._in_use + 1
        acquired = self._acquired
        if in_use > self._limit or acquired >= self._yield_at:
            self._in_use -= 1
            await self.acquire()
            return
        if in_use > self._peak:  # noqa: PLR1730 - max() would cost a tenth of the whole
            self._peak = in_use
        self._acquired = acquired + 1

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Release the slot.

        Not a checkpoint.
        """
        if self._in_use > self._returned and not self._waiters:
            self._in_use -= 1  # what release() does in the loop of those who wait, without the call
        else:
            self.release()

    async def run(self, fn: Callable[[*Ts], Awaitable[T]] | Awaitable[T], /, *args: *Ts) -> T:
        """
        Call ``fn(*args)`` in a slot and return its result.

        A checkpoint if `acquire` or the call is one. If it is cancelled while it waits, it holds
        nothing and ``fn`` is not called.

        Args:
            fn: An async function; or, without arguments, an awaitable.
            *args: Positional arguments for ``fn``. For keyword arguments, use `functools.partial`.

        Raises:
            ConcurrencyLimitError: The queue is full.
            LimitClosedError: The limiter is closed, or was closed during the wait.
            TypeError: ``fn`` did not return an awaitable.
            RuntimeError: Tasks of another event loop are waiting.
        """
        return await run_in(self, fn, args)

    @overload
    def __call__(self, fn: Descriptor, /) -> Descriptor: ...

    @overload
    def __call__(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...

    @overload
    def __call__(self, /, *, timeout: float | None = ...) -> Decorator: ...

    def __call__(self, fn: Any = None, /, *, timeout: float | None = None) -> Any:
        """
        Decorate an async function or method so that each call holds a slot.

        Use it as ``@limiter`` or ``@limiter(timeout=2)``. The function keeps its name, signature
        and types.

        Args:
            fn: The function, if the decorator is used without parentheses.
            timeout: Maximum seconds to wait; 0 to not wait at all; None for no limit.

        Returns:
            The decorated function, or a decorator.

        Raises:
            ValueError: ``timeout`` is negative or NaN.
            TypeError: What is decorated is not an async function.
        """
        checks.timeout("timeout", timeout)

        return limit(
            fn,
            self.acquire if timeout is None else lambda: self.acquire(timeout=timeout),
            self.release,
            name="ConcurrencyLimiter",
        )

    def record_durations(self) -> None:
        """
        Record a histogram of the waits from now on, as ``wait_duration`` in the statistics.

        A monitor calls it for what it watches; repeated calls have no effect. Not a checkpoint. It
        can be called from any thread.
        """
        self._wait_times.record()

    def statistics(self) -> ConcurrencyStatistics:
        """
        Return a snapshot of the limiter.

        Not a checkpoint. It can be called from any thread.
        """
        return snapshot(
            ConcurrencyStatistics,
            self,
            self._wait_times,
            in_use=self._in_use - self._returned,
            waiting=len(self._waiters),
        )

    def _acquire(self, timeout: float | None) -> Coroutine[Any, Any, None] | None:
        """
        Return what `acquire` has to await where all are taken, or it is time to yield.

        None if it has to wait in the queue, which is then ready for it.
        """
        if self._returned:
            self._queue.call_there(self._take_back)
        if self._closed:
            self._rejected += 1
            return self._refuse(closed_error(self, self._name))
        if self._in_use < self._limit and self._take():
            return self._yield_with_slot()
        self._queue.attach(self)
        if self._max_waiting is not None and len(self._waiters) >= self._max_waiting:
            self._rejected += 1
            msg = f"{self!r} lets at most max_waiting={self._max_waiting} wait. Try again later."
            return self._refuse(ConcurrencyLimitError(msg, name=self._name))
        if timeout is None:
            return None
        if timeout == 0:
            return self._refuse(self._timeout_error(timeout, anyio.current_time()))
        return self._wait_within(timeout)

    async def _refuse(self, error: Exception) -> None:
        """Raise after a yield, if it is time for one, without having taken a slot."""
        if self._acquired < self._yield_at:
            self._yield_at -= 1
        else:
            self._yield_at = self._acquired + FAST_CALLS - 1
            await checkpoint()
        raise error

    def _count_wait(self, seconds: float) -> None:
        """Count a slot that was handed over after so long a wait, which was a checkpoint."""
        self._acquired += 1
        self._yield_at = self._acquired + FAST_CALLS - 1
        self._wait_times.count(seconds)

    async def _wait_within(self, timeout: float) -> None:
        """Wait for so many seconds at most, in the queue, which is ready for it."""
        asked = self._queue.time()
        waiter = self._queue.join(None)
        if (
            self._in_use < self._limit and self._take()
        ):  # as in `acquire`; with a slot, no time runs out
            self._queue.leave(waiter)
            await self._yield_with_slot()
            return
        with anyio.move_on_after(timeout) as scope:
            try:
                if not self._closed:
                    await waiter
            except BaseException:
                self._cancelled += 1
                if self._queue.leave(waiter):
                    self.release()
                raise
            if self._closed and waiter in self._waiters:
                raise self._turned_away(waiter)
        if scope.cancelled_caught:
            self._cancelled -= 1  # it has timed out
            raise self._timeout_error(timeout, scope.deadline)
        self._count_wait(self._queue.time() - asked)

    async def _yield_with_slot(self) -> None:
        """Let others run, after a slot was taken, so that no task can overtake this one."""
        self._peak = max(self._peak, self._in_use)
        try:
            await checkpoint()
        except BaseException:
            self.release()
            raise
        self._acquired += 1
        self._yield_at = self._acquired + FAST_CALLS - 1

    def _take(self) -> bool:
        """Count a slot as in use, and return whether it was free."""
        in_use = self._in_use = self._in_use + 1
        if in_use <= self._limit:
            return True
        self._in_use -= 1
        self._look_again()
        return False

    def _look_again(self) -> None:
        """Hand a slot that was counted back to a task that joined the queue before it was."""
        if self._waiters and self._in_use < self._limit:
            self._queue.call_there(self._hand_over)

    def _take_back(self) -> None:
        """Pass on the slots that were given back; in the event loop of the tasks that wait."""
        while self._returned:
            self._returned -= 1
            if self._in_use > self._limit or not self._queue.wake_next():
                self._in_use -= 1

    def _hand_over(self) -> None:
        """Hand free slots to the tasks that have waited longest."""
        while self._waiters and self._take():
            if not self._queue.wake_next():
                self._in_use -= 1
        self._peak = max(self._peak, self._in_use)

    def _turn_away(self) -> None:
        """Wake all who wait, and leave them in the queue; in their event loop."""
        for waiter in list(self._waiters):
            waiter.wake()

    def _turned_away(self, waiter: Waiter) -> LimitClosedError:
        """Leave the queue; return the error for a task that waited when the limiter was closed."""
        self._queue.leave(waiter)
        self._rejected += 1
        return closed_error(self, self._name)

    def _timeout_error(self, timeout: float, moment: float) -> LimitTimeoutError:
        self._timed_out += 1
        msg = f"{self!r} had no free slot within {timeout} s"
        return LimitTimeoutError(msg, timeout=timeout, deadline=moment, name=self._name)
