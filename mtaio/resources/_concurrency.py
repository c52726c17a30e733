"""
How much may run at once: slots that are handed over in the order of asking.

Promise: never more than ``limit`` slots are in use (after the capacity was lowered: no new ones
until enough have come back), nobody who asks later is served earlier, and a slot given to a task
that is cancelled before it can use it goes to the next.
Cost: one counter while slots are free; one event for each task that waits.

Why not on ``anyio.CapacityLimiter``: docs/en/design/concurrency.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

import anyio

from mtaio._internal import checks
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.clock import now
from mtaio.exceptions import ConcurrencyLimitError
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.resources._decorate import decorate
from mtaio.resources._statistics import ConcurrencyStatistics
from mtaio.resources._turns import TurnQueue

if TYPE_CHECKING:
    from types import TracebackType

    from mtaio.resources._decorate import AsyncFunction, Decorator, Descriptor

__all__ = ["ConcurrencyLimiter"]

P = ParamSpec("P")
R = TypeVar("R")


class ConcurrencyLimiter:
    """
    Limits how much runs at once, across any number of tasks.

    Made anywhere, used by one event loop after another, on either backend. A slot belongs to
    whoever took it, not to a task: one task may hold several, and another may give them back.

    Args:
        limit: Slots, at least 1.
        max_waiters: How many tasks may wait; those beyond are refused at once with
            `mtaio.exceptions.ConcurrencyLimitError`. 0 lets nobody wait, None (the default)
            everybody.
        name: Named in errors.

    Raises:
        ValueError: ``limit`` is less than 1, or ``max_waiters`` is negative.
        TypeError: One of them is not an int.

    Example:
        ```python
        import anyio

        from mtaio.resources import ConcurrencyLimiter

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
    # - _in_use counts the slots held, those that were handed over and not yet picked up included;
    # - whoever is in _queue has no slot; whoever is called out of it, by _pass_on, has one;
    # - while somebody is in _queue, _in_use >= _capacity: hence a free slot means an empty queue,
    #   and nobody can overtake it;
    # - _quick counts the calls of acquire() that did not wait; every FAST_CALLS-th of them yields.
    __slots__ = (
        "__weakref__",
        "_cancelled",
        "_capacity",
        "_high_water",
        "_in_use",
        "_max_waiters",
        "_name",
        "_other",
        "_queue",
        "_quick",
        "_rejected",
        "_timed_out",
        "_wait_max",
        "_wait_total",
    )

    def __init__(
        self, limit: int, *, max_waiters: int | None = None, name: str | None = None
    ) -> None:
        self._capacity = checks.count(
            "limit", limit, way_out="Pass how much may run at once, at least 1."
        )
        if max_waiters is not None:
            checks.count(
                "max_waiters",
                max_waiters,
                least=0,
                way_out="Pass how many tasks may wait, 0 for nobody, or None for no limit.",
            )
        self._max_waiters = max_waiters
        self._name = name
        self._queue = TurnQueue()
        self._in_use = 0
        self._high_water = 0
        self._quick = 0
        self._other = 0  # what must be added to _quick to get the slots given out
        self._rejected = 0
        self._cancelled = 0
        self._timed_out = 0
        self._wait_total = 0.0
        self._wait_max = 0.0

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return (
            f"<ConcurrencyLimiter{name}: {self._in_use} of {self._capacity} slots in use, "
            f"{len(self._queue)} waiting>"
        )

    @property
    def name(self) -> str | None:
        """The name given in errors."""
        return self._name

    @property
    def max_waiters(self) -> int | None:
        """How many tasks may wait; None for no limit."""
        return self._max_waiters

    @property
    def capacity(self) -> int:
        """
        How many slots there are; may be changed at any time.

        Raised, it lets waiters in, in their order. Lowered, it takes effect as slots come back;
        nobody is interrupted. 0 lets nobody in until it is raised.
        """
        return self._capacity

    @capacity.setter
    def capacity(self, slots: int) -> None:
        checks.count("capacity", slots, least=0, way_out="Pass how much may run at once, or 0.")
        self._queue.reach(self)
        self._capacity = slots
        self._pass_on()

    async def acquire(self, *, timeout: float | None = None) -> None:
        """
        Take a slot; wait for one in the queue if all are taken.

        Returns at once while slots are free, but one call in 64 is a checkpoint all the same.
        Cancelled, it holds nothing, and what it had been given goes to the next.

        Args:
            timeout: Seconds to wait at most; 0 for not at all; None for no limit.

        Raises:
            TimeoutError: (`mtaio.exceptions.TimeoutError`) No slot came free in time.
            ConcurrencyLimitError: The queue is full.
            ValueError: ``timeout`` is negative or NaN.
            RuntimeError: Tasks of another event loop are waiting.
        """
        if timeout is not None:
            checks.timeout("timeout", timeout)
        in_use = self._in_use + 1
        if in_use > self._capacity:
            await self._wait_turn(timeout)
            return
        self._in_use = in_use
        if in_use > self._high_water:  # noqa: PLR1730 - max() would cost a tenth of the whole
            self._high_water = in_use
        self._quick = quick = self._quick + 1
        if not quick % FAST_CALLS:
            await self._yield_with_slot()

    def acquire_nowait(self) -> None:
        """
        Take a slot if one is free. Not a checkpoint.

        Raises:
            ConcurrencyLimitError: All slots are taken.
        """
        in_use = self._in_use + 1
        if in_use > self._capacity:
            self._rejected += 1
            msg = f"{self!r} has no free slot"
            raise ConcurrencyLimitError(msg, name=self._name)
        self._in_use = in_use
        if in_use > self._high_water:  # noqa: PLR1730 - max() would cost a tenth of the whole
            self._high_water = in_use
        self._other += 1

    def release(self) -> None:
        """
        Give a slot back, to the first in the queue if there is one. Not a checkpoint.

        Raises:
            RuntimeError: No slot is in use, or the tasks that wait belong to another event loop.
        """
        if not self._in_use:
            msg = f"cannot release a slot of {self!r}. Call release() once for each acquire()."
            raise RuntimeError(msg)
        if self._queue:
            self._queue.reach(self)  # refused before anything has changed
            self._in_use -= 1
            self._pass_on()
        else:
            self._in_use -= 1

    async def __aenter__(self) -> None:
        """Take a slot as `acquire` does."""
        # acquire() once more: calling it would cost an eighth of the whole block.
        in_use = self._in_use + 1
        if in_use > self._capacity:
            await self._wait_turn(None)
            return
        self._in_use = in_use
        if in_use > self._high_water:  # noqa: PLR1730 - max() would cost a tenth of the whole
            self._high_water = in_use
        self._quick = quick = self._quick + 1
        if not quick % FAST_CALLS:
            await self._yield_with_slot()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the slot back. Not a checkpoint."""
        in_use = self._in_use
        if in_use and not self._queue:
            self._in_use = in_use - 1  # what release() does, without the call
        else:
            self.release()

    @overload
    def limit(self, fn: Descriptor, /) -> Descriptor: ...

    @overload
    def limit(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...

    @overload
    def limit(self, /, *, timeout: float | None = ...) -> Decorator: ...

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
                await self.acquire(timeout=timeout)
                try:
                    return await fn(*args, **kwargs)
                finally:
                    self.release()

            return limited

        decorator = decorate(around, name="ConcurrencyLimiter.limit")
        return decorator if fn is None else decorator(fn)

    def statistics(self) -> ConcurrencyStatistics:
        """Return the state and what was done so far. Not a checkpoint."""
        return ConcurrencyStatistics(
            limit=self._capacity,
            in_use=self._in_use,
            waiting=len(self._queue),
            high_water=self._high_water,
            acquired=self._quick + self._other,
            rejected=self._rejected,
            timed_out=self._timed_out,
            cancelled=self._cancelled,
            wait_seconds_total=self._wait_total,
            wait_seconds_max=self._wait_max,
        )

    async def _yield_with_slot(self) -> None:
        """Let others run. The slot is kept, lest somebody overtake a call that must yield."""
        try:
            await checkpoint()
        except BaseException:
            self._other -= 1
            self.release()
            raise

    async def _wait_turn(self, timeout: float | None) -> None:
        """Take a slot although all are taken."""
        self._queue.open_for(self)
        if self._max_waiters is not None and len(self._queue) >= self._max_waiters:
            await self._answer_at_once()
            self._rejected += 1
            msg = f"{self!r} lets at most max_waiters={self._max_waiters} wait"
            raise ConcurrencyLimitError(msg, name=self._name)
        if timeout == 0:
            await self._answer_at_once()
            raise self._timeout_error(timeout, anyio.current_time())
        asked = now()
        turn = self._queue.join()
        if timeout is None:
            await self._wait_for(turn)
        else:
            with anyio.move_on_after(timeout) as scope:
                await self._wait_for(turn)
            if scope.cancelled_caught:
                self._cancelled -= 1
                raise self._timeout_error(timeout, scope.deadline)
        waited = now() - asked
        self._other += 1
        self._wait_total += waited
        self._wait_max = max(self._wait_max, waited)

    async def _wait_for(self, turn: anyio.Event) -> None:
        try:
            await turn.wait()
        except BaseException:
            self._cancelled += 1
            if turn.is_set():  # handed a slot, then hit before it could resume
                self.release()
            else:
                self._queue.leave(turn)
            raise

    async def _answer_at_once(self) -> None:
        """Count a call that gets no slot without waiting, and let others run now and then."""
        self._quick += 1
        self._other -= 1
        if not self._quick % FAST_CALLS:
            await checkpoint()

    def _timeout_error(self, timeout: float, moment: float) -> MTAIOTimeoutError:
        self._timed_out += 1
        msg = f"{self!r} had no free slot within {timeout} s"
        return MTAIOTimeoutError(msg, timeout=timeout, deadline=moment, name=self._name)

    def _pass_on(self) -> None:
        """Hand free slots to the first in the queue."""
        while self._queue and self._in_use < self._capacity:
            self._in_use += 1
            self._queue.call_first()
        self._high_water = max(self._high_water, self._in_use)
