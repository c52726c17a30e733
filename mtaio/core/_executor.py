"""
The executor: one object through which work runs, under one limit.

Promise: at most ``max_workers`` items run at once across all its calls; nothing it started
outlives the call or the ``async with`` that started it; it may be made anywhere and used by one
event loop after another, on either backend.

It holds its slots (`Slots`), its limits on threads and processes (`WorkerLimiter`), its counters,
and the block while it is entered (`Block`). `map` and its relatives make a `Pool` and run it.
"""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import call as call_it
from types import FunctionType, TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    TypeVarTuple,
    Unpack,
    cast,
    final,
    get_args,
    overload,
)

import anyio

from mtaio._internal import backend, checks, loops
from mtaio._internal.block import Blocks
from mtaio._internal.callables import (
    close_unstarted,
    is_async,
    is_async_def,
    is_plain_def,
    name_of,
)
from mtaio._internal.cancellation import in_cancelled_task
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint, checkpoint_if_cancelled
from mtaio._internal.durations import recorded
from mtaio._internal.histogram import Histogram
from mtaio._internal.rates import Rate
from mtaio._internal.sentinel import UNSET, Unset
from mtaio._internal.signature import check_takes
from mtaio.core._block import Block
from mtaio.core._compose import (
    as_limiter,
    as_policy,
    check_batch,
    check_call,
    check_errors,
    check_fn,
    check_progress,
    check_shared,
    check_until,
    compose,
    coroutine_maker,
    elements_of,
    giving_elements,
    in_loop,
    one_attempt,
    read_options,
    settle,
)
from mtaio.core._crew import Crew
from mtaio.core._errors import ItemError, annotate, conclude
from mtaio.core._intake import acknowledgement
from mtaio.core._late_binding import check_binding
from mtaio.core._pool import Pool, Sink
from mtaio.core._slots import Slots, here
from mtaio.core._source import open_source, total_of
from mtaio.core._statistics import Counters, ExecutorStatistics
from mtaio.core._stream import Buffer, Stream, closing_sources, discard
from mtaio.core._tasks import Task, TaskHandle, run_item
from mtaio.core._threads import WorkerLimiter, run_in_thread
from mtaio.core._timeouts import Timing
from mtaio.core._types import (
    T1,
    T2,
    T3,
    T4,
    T5,
    T6,
    A,
    AllOptions,
    AnyIterable,
    B,
    C,
    CallLike,
    CallOptions,
    EachOptions,
    MapOptions,
    OnError,
    Options,
    Policy,
    Returned,
    Service0,
    Service1,
    Service2,
    Service3,
    StreamOptions,
    show_options,
)
from mtaio.core._via import Via, calls_via
from mtaio.resilience import Retry

if TYPE_CHECKING:
    from mtaio._internal.leaders import Leader
    from mtaio._internal.periodic import Overlap
    from mtaio._internal.ticks import Cron
    from mtaio.core._journal import Recording
    from mtaio.core._periodic import PeriodicTask
    from mtaio.core._slots import Slot

__all__ = ["Outcome", "TaskExecutor"]

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_UNLIMITED_WINDOW: Final = 100
_READINGS: Final = 100
"""How often another thread tries to read consistent figures."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[T]):
    """How one call of `TaskExecutor.as_completed` or item of `TaskExecutor.stream` ended."""

    index: int
    """Position of the call among the arguments, or number of the item, counted from 0."""
    item: Any = None
    """For a stream, the item that the function was called with; a tuple if there are several
    sources."""
    value: T | None = None
    """What the function returned; None if it failed."""
    error: Exception | None = None
    """The exception that the function raised; None if it succeeded."""

    def result(self) -> T:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


@final
class TaskExecutor:
    """
    Run async and plain functions concurrently under shared limits.

    Calls that wait for their own work (`run`, `map`, `for_each`, `stream`, `gather`, `race`,
    `as_completed`, `run_in_thread`, `run_in_process`) need only the executor. Tasks that outlive
    the call that starts them (`submit`, `start`, `every`) need ``async with executor:``. An
    executor can be created outside an event loop.

    Slots are granted item by item, first come, first served, so a long call does not starve a short
    one. An item that waits for a `run`, `map`, `for_each` or `stream` of its own executor, or for a
    submitted task, lends its slot to that work, one nested call at a time; further nested calls
    queue like any others. The calls of a `gather`, `race` or `as_completed` inside an item are part
    of that item: they take no slots and may wait for each other.

    An item that keeps working while it has lent its slot runs in addition to the limit. A task that
    an item starts in a task group outside itself is not part of the item. Items, `run` calls and
    submitted tasks that wait for each other in other ways, such as through a queue, can deadlock
    once the waiting ones hold all slots. So can two executors whose items call each other.

    Args:
        max_workers: Maximum number of items that run at once across all calls; None for no limit.
        max_pending: Maximum number of submitted tasks that wait for a slot, beyond ``max_workers``,
            before `submit` waits; None for no limit.
        timeout: Seconds for each item, unless a call sets its own; None for no limit.
        threads: Maximum number of worker threads at once; None for no limit. Pass an
            ``anyio.CapacityLimiter`` to share a limit with other code: it belongs to the backend on
            which it is first used, and nested calls take tokens of their own from it.
        processes: Maximum number of worker processes at once, one per CPU if omitted; otherwise as
            ``threads``.
        name: Name shown in messages and metrics.

    Raises:
        ValueError, TypeError: An argument is invalid; the message says what to pass instead.

    Example:
        ```python
        import anyio

        from mtaio import TaskExecutor

        executor = TaskExecutor(max_workers=10)


        async def double(x: int) -> int:
            await anyio.sleep(0.1)
            return 2 * x


        async def main() -> None:
            print(await executor.map(double, range(5), timeout=1.0))


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - constructing it touches no event loop;
    # - _blocks holds the block from entering until it has been left;

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        max_pending: int | None = 0,
        timeout: float | None = None,
        threads: int | anyio.CapacityLimiter | None = 40,
        processes: int | anyio.CapacityLimiter | Unset | None = UNSET,
        name: str | None = None,
    ) -> None:
        if max_workers is not None:
            checks.count(
                "max_workers",
                max_workers,
                way_out="Pass the number of items to run at once, or None for no limit.",
            )
        self._max_workers = max_workers
        self._name = name
        self._slots = None if max_workers is None else Slots(max_workers, self)
        self._threads = WorkerLimiter("threads", threads, self)
        self._processes = WorkerLimiter(
            "processes", (os.cpu_count() or 1) if processes is UNSET else processes, self
        )
        self._counters = Counters()
        self._default_timing = Timing(checks.timeout("timeout", timeout), self._counters, name)
        if max_pending is not None:
            checks.count(
                "max_pending",
                max_pending,
                least=0,
                way_out="Pass how many submitted tasks may wait for a slot, or None for no limit.",
            )
        self._max_pending = max_pending
        self._make_coroutine = coroutine_maker(self._default_timing, self._threads)
        self._calls: int = 0
        self._blocks: Blocks[Block] = Blocks()
        self._on_lost: Callable[[str, Exception], object] | None = None
        self._snapshot = self._read()

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<TaskExecutor{name} max_workers={self._max_workers}>"

    @property
    def max_workers(self) -> int | None:
        """Maximum number of items that run at once across all calls; None for no limit."""
        return self._max_workers

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._name

    # ---- one call ----

    @overload
    async def run(
        self,
        fn: Awaitable[T],
        /,
        *,
        timeout: float | Unset | None = UNSET,
        rate: Rate | Sequence[Rate] | None = None,
    ) -> T: ...
    @overload
    async def run(
        self,
        fn: Callable[[], Returned[T]],
        /,
        *,
        timeout: float | Unset | None = UNSET,
        rate: Rate | Sequence[Rate] | None = None,
        retry: int | Retry | None = None,
        via: Via | None = None,
    ) -> T: ...
    @overload
    async def run(
        self,
        fn: Callable[[A], Returned[T]],
        a: A,
        /,
        *,
        timeout: float | Unset | None = UNSET,
        rate: Rate | Sequence[Rate] | None = None,
        retry: int | Retry | None = None,
        via: Via | None = None,
    ) -> T: ...
    @overload
    async def run(
        self,
        fn: Callable[[A, B], Returned[T]],
        a: A,
        b: B,
        /,
        *,
        timeout: float | Unset | None = UNSET,
        rate: Rate | Sequence[Rate] | None = None,
        retry: int | Retry | None = None,
        via: Via | None = None,
    ) -> T: ...
    @overload
    async def run(
        self,
        fn: Callable[[A, B, C, *Ts], Awaitable[T]],
        a: A,
        b: B,
        c: C,
        /,
        *args: *Ts,
        timeout: float | Unset | None = UNSET,
        rate: Rate | Sequence[Rate] | None = None,
        retry: int | Retry | None = None,
        via: Via | None = None,
    ) -> T: ...
    @overload
    async def run(
        self,
        fn: Callable[[A, B, C, *Ts], Returned[T]],
        a: A,
        b: B,
        c: C,
        /,
        *args: *Ts,
        timeout: float | Unset | None = UNSET,
        rate: Rate | Sequence[Rate] | None = None,
        retry: int | Retry | None = None,
        via: Via | None = None,
    ) -> T: ...
    @overload
    async def run(
        self,
        fn: Callable[[A, *tuple[B, ...]], Returned[T]],
        a: A,
        b: B,
        c: B,
        /,
        *args: B,
        timeout: float | Unset | None = UNSET,
        rate: Rate | Sequence[Rate] | None = None,
        retry: int | Retry | None = None,
        via: Via | None = None,
    ) -> T: ...
    async def run(  # type: ignore[misc] # mypy does not see that Any takes Ts
        self,
        fn: Callable[..., Any] | Awaitable[Any],
        /,
        *args: Any,
        timeout: float | Unset | None = UNSET,
        rate: Rate | Sequence[Rate] | None = None,
        retry: int | Retry | None = None,
        via: Via | None = None,
    ) -> Any:
        """
        Call ``fn(*args)`` in a slot, in the caller's own task, and return its result.

        A checkpoint if no slot is free, and on every 64th call. If it is cancelled while waiting
        for a slot or a token, ``fn`` is not called.

        Args:
            fn: An async function, a plain function (called in a worker thread), or an awaitable.
            *args: Positional arguments for ``fn``. For keyword arguments, use `functools.partial`.
            timeout: Seconds for the call, or for each attempt with ``retry``. The wait for a slot,
                a token or a thread does not count. None for no limit; if omitted, the executor's
                timeout.
            rate: A rate limiter that calls share, such as a `mtaio.RateLimiter`, or a list of them.
                Each attempt takes a token from each.
            retry: Total number of attempts, or a `Retry` policy. The slot is kept between attempts.
            via: The pool that calls a plain function instead of a worker thread; see `map`.

        Returns:
            What ``fn`` returned.

        Raises:
            TimeoutError: The call took longer than ``timeout``.
            ValueError, TypeError: An option is invalid.
        """
        slots, slot = self._slots, None
        try:
            call = self._bind(fn, args, timeout=timeout, rate=rate, retry=retry, via=via)
            self._calls += 1
            if self._calls % FAST_CALLS == 0:
                await checkpoint()
            if slots is not None:
                slot = await slots.acquire(here())
            return await run_item(self._counters, slot, call, fn, own_task=False)
        finally:
            if slots is not None and slot is not None:
                slots.release(slot)
            close_unstarted(fn)  # it was refused, or cancelled in the queue

    @overload
    async def run_in_thread(
        self,
        fn: Callable[[], Returned[T]],
        /,
        *,
        timeout: float | Unset | None = UNSET,
        abandon_on_cancel: bool = False,
    ) -> T: ...
    @overload
    async def run_in_thread(
        self,
        fn: Callable[[A], Returned[T]],
        a: A,
        /,
        *,
        timeout: float | Unset | None = UNSET,
        abandon_on_cancel: bool = False,
    ) -> T: ...
    @overload
    async def run_in_thread(
        self,
        fn: Callable[[A, B], Returned[T]],
        a: A,
        b: B,
        /,
        *,
        timeout: float | Unset | None = UNSET,
        abandon_on_cancel: bool = False,
    ) -> T: ...
    @overload
    async def run_in_thread(
        self,
        fn: Callable[[A, B, C, *Ts], Returned[T]],
        a: A,
        b: B,
        c: C,
        /,
        *args: *Ts,
        timeout: float | Unset | None = UNSET,
        abandon_on_cancel: bool = False,
    ) -> T: ...
    @overload
    async def run_in_thread(
        self,
        fn: Callable[[A, *tuple[B, ...]], Returned[T]],
        a: A,
        b: B,
        c: B,
        /,
        *args: B,
        timeout: float | Unset | None = UNSET,
        abandon_on_cancel: bool = False,
    ) -> T: ...
    async def run_in_thread(  # type: ignore[misc] # pyright: ignore[reportInconsistentOverload] # Any takes Ts
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        timeout: float | Unset | None = UNSET,
        abandon_on_cancel: bool = False,
    ) -> Any:
        """
        Call a plain function in a worker thread, under the executor's limit on threads.

        It takes no slot of ``max_workers``. The function may call back into the event loop with
        ``anyio.from_thread.run()``. On asyncio, a call made that way after the thread's own call
        was cancelled is not cancelled and may never return.

        A checkpoint. A running thread cannot be stopped, so cancellation waits for it, unless
        ``abandon_on_cancel`` is set. An abandoned thread, and one whose call timed out, counts
        against the limit until it ends. On asyncio, the program does not exit before then.

        Args:
            fn: A plain function.
            *args: Positional arguments for ``fn``.
            timeout: Seconds for the call. The wait for a thread does not count. None for no limit;
                if omitted, the executor's timeout.
            abandon_on_cancel: Whether cancellation abandons the thread instead of waiting for it. A
                timeout always abandons it.

        Returns:
            What ``fn`` returned; if that is awaitable, its result.

        Raises:
            TimeoutError: The call took longer than ``timeout``.
        """
        if not is_plain_def(fn):
            check_fn(fn, call="run_in_thread(fn, *args)")
        timing = self._timing(timeout)
        call = partial(fn, *args)
        return await run_in_thread(self._threads, call, timing, abandon_on_cancel=abandon_on_cancel)

    @overload
    async def run_in_process(
        self,
        fn: Callable[[], T],
        /,
        *,
        timeout: float | Unset | None = UNSET,
    ) -> T: ...
    @overload
    async def run_in_process(
        self,
        fn: Callable[[A], T],
        a: A,
        /,
        *,
        timeout: float | Unset | None = UNSET,
    ) -> T: ...
    @overload
    async def run_in_process(
        self,
        fn: Callable[[A, B], T],
        a: A,
        b: B,
        /,
        *,
        timeout: float | Unset | None = UNSET,
    ) -> T: ...
    @overload
    async def run_in_process(
        self,
        fn: Callable[[A, B, C, *Ts], T],
        a: A,
        b: B,
        c: C,
        /,
        *args: *Ts,
        timeout: float | Unset | None = UNSET,
    ) -> T: ...
    @overload
    async def run_in_process(
        self,
        fn: Callable[[A, *tuple[B, ...]], T],
        a: A,
        b: B,
        c: B,
        /,
        *args: B,
        timeout: float | Unset | None = UNSET,
    ) -> T: ...
    async def run_in_process(  # type: ignore[misc] # pyright: ignore[reportInconsistentOverload] # Any takes Ts
        self, fn: Callable[..., Any], /, *args: Any, timeout: float | Unset | None = UNSET
    ) -> Any:
        """
        Call a plain function in a worker process, under the executor's limit on processes.

        It takes no slot of ``max_workers``.

        A checkpoint. If the call is cancelled or times out, the process is killed.

        Args:
            fn: A plain function. It must be picklable, like its arguments and its result.
            *args: Positional arguments for ``fn``.
            timeout: Seconds for the call. The wait for a process does not count. None for no limit;
                if omitted, the executor's timeout.

        Returns:
            What ``fn`` returned.

        Raises:
            TimeoutError: The call took longer than ``timeout``.
            anyio.BrokenWorkerProcess: The process died, could not load the main module, or ``fn``
                raised ``SystemExit`` or the like.
        """
        check_fn(fn, call="run_in_process(fn, *args)")
        if is_async(fn):
            msg = (
                f"fn={fn!r} is an async function: a worker process has no event loop to run it "
                f"in. Use run(), or pass a plain function."
            )
            raise TypeError(msg)
        from mtaio.core._processes import run_in_process  # noqa: PLC0415 - few programs use them

        call = partial(fn, *args)
        return await run_in_process(self._processes, call, self._timing(timeout))

    # ---- the items of a source ----

    @overload
    async def map(
        self,
        fn: Callable[[A], Returned[T]],
        source: AnyIterable[A],
        /,
        *,
        errors: Literal["raise", "collect"] = "raise",
        **options: Unpack[MapOptions],
    ) -> list[T]: ...
    @overload
    async def map(
        self,
        fn: Callable[[A, B], Returned[T]],
        source: AnyIterable[A],
        another: AnyIterable[B],
        /,
        *,
        errors: Literal["raise", "collect"] = "raise",
        **options: Unpack[MapOptions],
    ) -> list[T]: ...
    @overload
    async def map(
        self,
        fn: Callable[..., Returned[T]],
        source: AnyIterable[Any],
        another: AnyIterable[Any],
        third: AnyIterable[Any],
        /,
        *others: AnyIterable[Any],
        errors: Literal["raise", "collect"] = "raise",
        **options: Unpack[MapOptions],
    ) -> list[T]: ...
    @overload
    async def map(
        self,
        fn: Callable[[A], Returned[T]],
        source: AnyIterable[A],
        /,
        *,
        errors: Literal["return"],
        **options: Unpack[MapOptions],
    ) -> list[T | Exception]: ...
    @overload
    async def map(
        self,
        fn: Callable[[A, B], Returned[T]],
        source: AnyIterable[A],
        another: AnyIterable[B],
        /,
        *,
        errors: Literal["return"],
        **options: Unpack[MapOptions],
    ) -> list[T | Exception]: ...
    @overload
    async def map(
        self,
        fn: Callable[..., Returned[T]],
        source: AnyIterable[Any],
        another: AnyIterable[Any],
        third: AnyIterable[Any],
        /,
        *others: AnyIterable[Any],
        errors: Literal["return"],
        **options: Unpack[MapOptions],
    ) -> list[T | Exception]: ...
    @overload
    async def map(
        self,
        fn: Callable[[list[A]], Returned[T]],
        source: AnyIterable[A],
        /,
        *,
        batch: int,
        within: float | None = None,
        errors: Literal["raise", "collect"] = "raise",
        **options: Unpack[MapOptions],
    ) -> list[T]: ...
    @overload
    async def map(
        self,
        fn: Callable[[list[A]], Returned[T]],
        source: AnyIterable[A],
        /,
        *,
        batch: int,
        within: float | None = None,
        errors: Literal["return"],
        **options: Unpack[MapOptions],
    ) -> list[T | Exception]: ...
    @show_options
    async def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: AnyIterable[Any],
        ordered: bool = True,
        errors: Literal["raise", "collect", "return"] = "raise",
        **options: Unpack[AllOptions],
    ) -> list[Any]:
        """
        Call ``fn`` with every item concurrently and return the results as a list.

        A checkpoint. If the call is cancelled, it takes no more items, cancels those that are
        running, and waits for them to end. Errors that were still to be reported (see ``errors``)
        are then raised instead of the cancellation.

        Args:
            fn: An async function, or a plain function (called in worker threads).
            *iterables: Sync or async iterables, but not text or mappings. With several, ``fn`` gets
                one argument from each until the shortest ends; to combine sources into one, use
                `merge`. The call closes an async generator when it ends, and enters and leaves a
                `Stream` that was not entered. Any other iterator may be used afterwards, but may
                have advanced a few items further.
            ordered: Whether results are in the order of the items or in order of completion.
            errors: ``"raise"`` cancels the other items at the first error and raises it, in a group
                only if there are several. ``"collect"`` runs all items, then raises all errors in
                one group. ``"return"`` puts each error in the place of its result. Errors have a
                note that names the item's index and argument.
            **options: See below.

        Keyword Args:
            limit (int | None): Maximum number of items of this call that run at once, within
                ``max_workers``.
            timeout (float | None): Seconds for each item, or for each attempt with ``retry``. The
                wait for a slot, a token or a thread does not count. None for no limit; if omitted,
                the executor's timeout.
            rate (float | Rate | Sequence | None): Maximum number of items that start per second,
                evenly spaced. Or a rate limiter to share with other code, such as a
                `mtaio.RateLimiter` or `mtaio.Quota`; or a list of numbers and rate limiters, all of
                which apply.
            retry (int | Retry | None): Total number of attempts for each item, or a `Retry` policy.
            via (Via | None): The pool that calls a plain function instead of worker threads: a
                ``concurrent.futures.Executor``, an `ExternalPool` around one, or ``"processes"``
                for the executor's own worker processes.
            chunksize (int): How many calls to send to the pool at a time; useful for short calls.
                Each still counts as one item.
            read_ahead (int): How many items to read from a slow async source before they can start.
                They are dropped if the call ends early.
            batch (int | None): Call ``fn`` with lists of at most this many items from a single
                source. The other options, the results and the statistics treat each list as one
                item.
            within (float | None): Seconds after which a batch starts even if it is not full,
                counted from when its first item came from an async source; None to wait until it is
                full.
            until (Callable | None): An async function without arguments, such as
                ``anyio.Event.wait``. Once it returns, the call takes no more items, finishes those
                already taken, and returns their results.
            journal (Journal | None): A file that records finished items, so that the next run of
                the program skips them. Skipped items make no call and take no token or thread.
            on_progress (Progress | None): Called as ``on_progress(done, total)`` after each item;
                ``total`` is None if the sources have no known length.

        The option types are in `mtaio.types`.

        Returns:
            The results.

        Raises:
            Exception: What ``fn`` raised.
            ExceptionGroup: Several items failed.
            TimeoutError: An item took longer than ``timeout``.
            OSError: The journal cannot be read or written.
            RuntimeError: Another call, of this process or another, is using the journal.
            ValueError, TypeError: An option is invalid, or the journal has a malformed line.
        """
        results: list[Any] = []

        def append(_: int, value: Any) -> None:
            results.append(value)

        sink = Sink(results.__setitem__, results=results) if ordered else Sink(append)
        try:
            pool = self._pool(fn, iterables, sink, read_options("map", options, errors))
            await pool.run_recorded()
        finally:
            if not _are_at_hand(iterables):
                discard(iterables)
        return results

    @overload
    async def for_each(
        self,
        fn: Callable[[A], object],
        source: AnyIterable[A],
        /,
        *,
        errors: Literal["raise", "collect"] | OnError[A] = "raise",
        **options: Unpack[EachOptions],
    ) -> None: ...
    @overload
    async def for_each(
        self,
        fn: Callable[[A, B], object],
        source: AnyIterable[A],
        another: AnyIterable[B],
        /,
        *,
        errors: Literal["raise", "collect"] | OnError[tuple[A, B]] = "raise",
        **options: Unpack[EachOptions],
    ) -> None: ...
    @overload
    async def for_each(
        self,
        fn: Callable[..., object],
        source: AnyIterable[Any],
        another: AnyIterable[Any],
        third: AnyIterable[Any],
        /,
        *others: AnyIterable[Any],
        errors: Literal["raise", "collect"] | OnError[tuple[Any, ...]] = "raise",
        **options: Unpack[EachOptions],
    ) -> None: ...
    @overload
    async def for_each(
        self,
        fn: Callable[[list[A]], object],
        source: AnyIterable[A],
        /,
        *,
        batch: int,
        within: float | None = None,
        errors: Literal["raise", "collect"] | OnError[list[A]] = "raise",
        **options: Unpack[EachOptions],
    ) -> None: ...
    @show_options
    async def for_each(
        self,
        fn: Callable[..., object],
        /,
        *iterables: AnyIterable[Any],
        errors: Literal["raise", "collect"] | OnError[Any] = "raise",
        **options: Unpack[AllOptions],
    ) -> None:
        """
        Call ``fn`` with every item concurrently and discard the results.

        Arguments, errors and cancellation are as for `map`, except that ``errors="return"`` is
        refused. Memory use stays constant, whatever the length of the source.

        For a source that does not end, ``errors`` may also be a function. It is called in the event
        loop as ``errors(item, error)`` for each item that failed (a tuple if there are several
        sources), and the call goes on. If the function raises, the call ends with that error.
        """
        try:
            if cast("str", errors) == "return":  # callers may be untyped
                raise ValueError(
                    'for_each() returns nothing, so errors="return" would lose them. Pass '
                    '"collect" to run all items and raise the errors together.'
                )
            passed = read_options("for_each", options, errors)
            pool = self._pool(fn, iterables, Sink(_forget), passed)
            await pool.run_recorded()
        finally:
            if not _are_at_hand(iterables):
                discard(iterables)

    @overload
    def stream(
        self,
        fn: Callable[[A], Returned[T]],
        source: AnyIterable[A],
        /,
        *,
        outcomes: Literal[False] = False,
        flatten: Literal[False] = False,
        errors: Literal["raise", "collect"] | OnError[A] = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        fn: Callable[[A, B], Returned[T]],
        source: AnyIterable[A],
        another: AnyIterable[B],
        /,
        *,
        outcomes: Literal[False] = False,
        flatten: Literal[False] = False,
        errors: Literal["raise", "collect"] | OnError[tuple[A, B]] = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        fn: Callable[..., Returned[T]],
        source: AnyIterable[Any],
        another: AnyIterable[Any],
        third: AnyIterable[Any],
        /,
        *others: AnyIterable[Any],
        outcomes: Literal[False] = False,
        flatten: Literal[False] = False,
        errors: Literal["raise", "collect"] | OnError[tuple[Any, ...]] = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        fn: Callable[[A], Returned[T]],
        source: AnyIterable[A],
        /,
        *,
        outcomes: Literal[False] = False,
        flatten: Literal[False] = False,
        errors: Literal["return"],
        **options: Unpack[StreamOptions],
    ) -> Stream[T | Exception]: ...
    @overload
    def stream(
        self,
        fn: Callable[[A, B], Returned[T]],
        source: AnyIterable[A],
        another: AnyIterable[B],
        /,
        *,
        outcomes: Literal[False] = False,
        flatten: Literal[False] = False,
        errors: Literal["return"],
        **options: Unpack[StreamOptions],
    ) -> Stream[T | Exception]: ...
    @overload
    def stream(
        self,
        fn: Callable[..., Returned[T]],
        source: AnyIterable[Any],
        another: AnyIterable[Any],
        third: AnyIterable[Any],
        /,
        *others: AnyIterable[Any],
        outcomes: Literal[False] = False,
        flatten: Literal[False] = False,
        errors: Literal["return"],
        **options: Unpack[StreamOptions],
    ) -> Stream[T | Exception]: ...
    @overload
    def stream(
        self,
        fn: Callable[[A], Returned[T]],
        source: AnyIterable[A],
        /,
        *,
        outcomes: Literal[True],
        flatten: Literal[False] = False,
        errors: Literal["raise"] = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[Outcome[T]]: ...
    @overload
    def stream(
        self,
        fn: Callable[[A, B], Returned[T]],
        source: AnyIterable[A],
        another: AnyIterable[B],
        /,
        *,
        outcomes: Literal[True],
        flatten: Literal[False] = False,
        errors: Literal["raise"] = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[Outcome[T]]: ...
    @overload
    def stream(
        self,
        fn: Callable[..., Returned[T]],
        source: AnyIterable[Any],
        another: AnyIterable[Any],
        third: AnyIterable[Any],
        /,
        *others: AnyIterable[Any],
        outcomes: Literal[True],
        flatten: Literal[False] = False,
        errors: Literal["raise"] = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[Outcome[T]]: ...
    @overload
    def stream(
        self,
        fn: Callable[[list[A]], Returned[T]],
        source: AnyIterable[A],
        /,
        *,
        batch: int,
        within: float | None = None,
        outcomes: Literal[False] = False,
        flatten: Literal[False] = False,
        errors: Literal["raise", "collect"] | OnError[list[A]] = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        fn: Callable[[list[A]], Returned[T]],
        source: AnyIterable[A],
        /,
        *,
        batch: int,
        within: float | None = None,
        outcomes: Literal[False] = False,
        flatten: Literal[False] = False,
        errors: Literal["return"],
        **options: Unpack[StreamOptions],
    ) -> Stream[T | Exception]: ...
    @overload
    def stream(
        self,
        fn: Callable[[list[A]], Returned[T]],
        source: AnyIterable[A],
        /,
        *,
        batch: int,
        within: float | None = None,
        outcomes: Literal[True],
        flatten: Literal[False] = False,
        errors: Literal["raise"] = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[Outcome[T]]: ...
    @overload
    def stream(
        self,
        fn: Callable[[A], Returned[Iterable[T]]],
        source: AnyIterable[A],
        /,
        *,
        outcomes: Literal[False] = False,
        flatten: Literal[True],
        errors: Literal["raise", "collect"] | OnError[A] = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        fn: Callable[..., Returned[Iterable[T]]],
        source: AnyIterable[Any],
        another: AnyIterable[Any],
        /,
        *others: AnyIterable[Any],
        outcomes: Literal[False] = False,
        flatten: Literal[True],
        errors: Literal["raise", "collect"] | OnError[tuple[Any, ...]] = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        fn: Callable[[list[A]], Returned[Iterable[T]]],
        source: AnyIterable[A],
        /,
        *,
        batch: int,
        within: float | None = None,
        outcomes: Literal[False] = False,
        flatten: Literal[True],
        errors: Literal["raise", "collect"] | OnError[list[A]] = "raise",
        **options: Unpack[StreamOptions],
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        fn: Callable[[A], Returned[Iterable[T]]],
        source: AnyIterable[A],
        /,
        *,
        outcomes: Literal[False] = False,
        flatten: Literal[True],
        errors: Literal["return"],
        **options: Unpack[StreamOptions],
    ) -> Stream[T | Exception]: ...
    @overload
    def stream(
        self,
        fn: Callable[..., Returned[Iterable[T]]],
        source: AnyIterable[Any],
        another: AnyIterable[Any],
        /,
        *others: AnyIterable[Any],
        outcomes: Literal[False] = False,
        flatten: Literal[True],
        errors: Literal["return"],
        **options: Unpack[StreamOptions],
    ) -> Stream[T | Exception]: ...
    @overload
    def stream(
        self,
        fn: Callable[[list[A]], Returned[Iterable[T]]],
        source: AnyIterable[A],
        /,
        *,
        batch: int,
        within: float | None = None,
        outcomes: Literal[False] = False,
        flatten: Literal[True],
        errors: Literal["return"],
        **options: Unpack[StreamOptions],
    ) -> Stream[T | Exception]: ...
    @show_options
    @closing_sources
    def stream(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: AnyIterable[Any],
        outcomes: bool = False,
        flatten: bool = False,
        ordered: bool = False,
        max_pending: int | Unset | None = UNSET,
        errors: Literal["raise", "collect", "return"] | OnError[Any] = "raise",
        **options: Unpack[AllOptions],
    ) -> Stream[Any]:
        """
        Return an async context manager that iterates over results as they become available.

        ``async with executor.stream(fn, source) as results: async for result in results: ...``

        Work starts when the block is entered, and is held back when the consumer falls behind.
        Inside an item of the same executor, the block lends that item's slot to its work.

        Not a checkpoint. Leaving the block, for whatever reason, cancels the running items and
        waits for them to end. An error that the consumer has not received is raised when the block
        is left.

        Args:
            fn: As for `map`.
            *iterables: As for `map`.
            outcomes: Whether to yield an `Outcome` for each item instead of its result. It holds
                the error of an item that failed, so ``errors`` must be left out.
            flatten: Whether ``fn`` returns several results, as a list or any other iterable except
                text and mappings, which the stream yields one by one. The results of an item stay
                together, and the item counts as pending until the last of them is taken. If ``fn``
                returns a generator, it is run to its end as part of the item.
            ordered: Whether results are in the order of the items or in order of completion.
            max_pending: Maximum number of results that wait for the consumer, beyond the ``limit``
                items that run; equal to ``limit`` if omitted; None for no limit. Without a
                ``limit``, the maximum number of items that run or wait: 100 if omitted, and at
                least 1.
            errors: ``"raise"`` yields the results that are ready, then raises the error.
                ``"collect"`` yields all results, then raises all errors in one group. ``"return"``
                yields errors among the results. A function is called with each item that failed and
                its error.
            **options: As for `map`.

        Raises:
            ValueError, TypeError: An option is invalid.
        """
        if max_pending is not UNSET and max_pending is not None:
            way_out = "Pass how many results may wait, None for no limit, or omit it."
            checks.count("max_pending", max_pending, least=0, way_out=way_out)
        if outcomes and errors != "raise":
            msg = (
                f"outcomes=True gives every error with its item, which leaves none for "
                f"errors={errors!r}. Leave out one of them."
            )
            raise ValueError(msg)
        if flatten and outcomes:
            raise ValueError(
                "outcomes=True gives one outcome for each item, and flatten=True several results. "
                'Leave out one of them; errors="return" puts errors among the results.'
            )
        at_once = self._narrowed(options.get("limit"))
        if max_pending is UNSET:
            max_pending = at_once or _UNLIMITED_WINDOW
        waiting = sys.maxsize if max_pending is None else max_pending
        window = max(waiting, 1) if at_once is None else at_once + waiting
        between = Buffer(window, ordered=ordered, flat=flatten)
        if outcomes:
            sink, errors = _sink_of_outcomes(between, many=len(iterables) > 1), "return"
        elif flatten:
            sink = _sink_of_elements(between)
        else:
            sink = Sink(between.put, buffer=between)
        passed = read_options("stream", options, errors)
        pool = self._pool(fn, iterables, sink, passed, flatten=flatten)
        if outcomes:
            pool.fn = _with_args(pool.fn, pool.bare)
            if pool.journal is not None:
                pool.journal.with_args = True
        return Stream(pool, between, on_exit=partial(discard, iterables))

    # ---- several different calls ----

    @overload
    async def gather(
        self,
        a: CallLike[T1],
        b: CallLike[T2],
        /,
        *,
        errors: Literal["raise", "collect"] = "raise",
        **options: Unpack[CallOptions],
    ) -> tuple[T1, T2]: ...
    @overload
    async def gather(
        self,
        a: CallLike[T1],
        b: CallLike[T2],
        c: CallLike[T3],
        /,
        *,
        errors: Literal["raise", "collect"] = "raise",
        **options: Unpack[CallOptions],
    ) -> tuple[T1, T2, T3]: ...
    @overload
    async def gather(
        self,
        a: CallLike[T1],
        b: CallLike[T2],
        c: CallLike[T3],
        d: CallLike[T4],
        /,
        *,
        errors: Literal["raise", "collect"] = "raise",
        **options: Unpack[CallOptions],
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    async def gather(
        self,
        a: CallLike[T1],
        b: CallLike[T2],
        c: CallLike[T3],
        d: CallLike[T4],
        e: CallLike[T5],
        /,
        *,
        errors: Literal["raise", "collect"] = "raise",
        **options: Unpack[CallOptions],
    ) -> tuple[T1, T2, T3, T4, T5]: ...
    @overload
    async def gather(
        self,
        a: CallLike[T1],
        b: CallLike[T2],
        c: CallLike[T3],
        d: CallLike[T4],
        e: CallLike[T5],
        f: CallLike[T6],
        /,
        *,
        errors: Literal["raise", "collect"] = "raise",
        **options: Unpack[CallOptions],
    ) -> tuple[T1, T2, T3, T4, T5, T6]: ...
    @overload
    async def gather(
        self,
        *calls: CallLike[T],
        errors: Literal["raise", "collect"] = "raise",
        **options: Unpack[CallOptions],
    ) -> tuple[T, ...]: ...
    @overload
    async def gather(
        self,
        a: CallLike[T1],
        b: CallLike[T2],
        /,
        *,
        errors: Literal["return"],
        **options: Unpack[CallOptions],
    ) -> tuple[T1 | Exception, T2 | Exception]: ...
    @overload
    async def gather(
        self,
        a: CallLike[T1],
        b: CallLike[T2],
        c: CallLike[T3],
        /,
        *,
        errors: Literal["return"],
        **options: Unpack[CallOptions],
    ) -> tuple[T1 | Exception, T2 | Exception, T3 | Exception]: ...
    @overload
    async def gather(
        self,
        a: CallLike[T1],
        b: CallLike[T2],
        c: CallLike[T3],
        d: CallLike[T4],
        /,
        *,
        errors: Literal["return"],
        **options: Unpack[CallOptions],
    ) -> tuple[T1 | Exception, T2 | Exception, T3 | Exception, T4 | Exception]: ...
    @overload
    async def gather(
        self,
        a: CallLike[T1],
        b: CallLike[T2],
        c: CallLike[T3],
        d: CallLike[T4],
        e: CallLike[T5],
        /,
        *,
        errors: Literal["return"],
        **options: Unpack[CallOptions],
    ) -> tuple[T1 | Exception, T2 | Exception, T3 | Exception, T4 | Exception, T5 | Exception]: ...
    @overload
    async def gather(
        self,
        a: CallLike[T1],
        b: CallLike[T2],
        c: CallLike[T3],
        d: CallLike[T4],
        e: CallLike[T5],
        f: CallLike[T6],
        /,
        *,
        errors: Literal["return"],
        **options: Unpack[CallOptions],
    ) -> tuple[
        T1 | Exception,
        T2 | Exception,
        T3 | Exception,
        T4 | Exception,
        T5 | Exception,
        T6 | Exception,
    ]: ...
    @overload
    async def gather(
        self, *calls: CallLike[T], errors: Literal["return"], **options: Unpack[CallOptions]
    ) -> tuple[T | Exception, ...]: ...
    async def gather(
        self,
        *calls: CallLike[Any],
        errors: Literal["raise", "collect", "return"] = "raise",
        limit: int | None = None,
        rate: float | Rate | Sequence[float | Rate] | None = None,
    ) -> tuple[Any, ...]:
        """
        Run several calls concurrently and return their results in the order of the arguments.

        Inside an item of the same executor, the calls are part of that item, and only ``limit``
        applies to them.

        A checkpoint. If it is cancelled, it cancels the running calls and waits for them to end.
        Coroutines that were never started are closed.

        Args:
            *calls: Coroutines or other awaitables, or functions without arguments.
            errors: As for `map`.
            limit: Maximum number of calls that run at once, within ``max_workers`` unless inside an
                item.
            rate: Maximum number of calls that start per second, evenly spaced; or rate limiters, as
                for `map`.

        Returns:
            The results.
        """
        results: list[Any] = []
        try:
            sink = Sink(results.__setitem__, results=results)
            passed = _options_of_calls(limit, rate, errors)
            await self._pool_of_calls(calls, sink, passed).run()
        finally:
            _close(calls)
        return tuple(results)

    @overload
    async def race(
        self,
        a: CallLike[T1],
        b: CallLike[T2],
        /,
        **options: Unpack[CallOptions],
    ) -> T1 | T2: ...
    @overload
    async def race(
        self,
        a: CallLike[T1],
        b: CallLike[T2],
        c: CallLike[T3],
        /,
        **options: Unpack[CallOptions],
    ) -> T1 | T2 | T3: ...
    @overload
    async def race(
        self,
        a: CallLike[T1],
        b: CallLike[T2],
        c: CallLike[T3],
        d: CallLike[T4],
        /,
        **options: Unpack[CallOptions],
    ) -> T1 | T2 | T3 | T4: ...
    @overload
    async def race(self, *calls: CallLike[T], **options: Unpack[CallOptions]) -> T: ...
    async def race(
        self,
        *calls: CallLike[Any],
        limit: int | None = None,
        rate: float | Rate | Sequence[float | Rate] | None = None,
    ) -> Any:
        """
        Return the first result, after cancelling the other calls and waiting for them to end.

        Calls start in the order of the arguments, as many at once as the limits allow; none start
        once there is a result. A call that fails drops out. Errors that other calls raise while
        they are being cancelled are counted in the statistics and otherwise ignored.

        A checkpoint.

        Args:
            *calls: Coroutines or other awaitables, or functions without arguments; at least one.
            limit: As for `gather`.
            rate: As for `gather`. With ``rate=2``, the next call starts half a second after the one
                before.

        Returns:
            The result of the first call to succeed.

        Raises:
            Exception: The only call failed.
            ExceptionGroup: All of several calls failed.
            ValueError: No calls were given.
        """
        if not calls:
            raise ValueError("race() of no calls has no winner. Pass at least one.")
        winners: list[Any] = []
        failures: list[ItemError] = []

        def finish(_index: int, value: Any) -> None:
            winners.append(value)
            pool.stop()  # noqa: F821 - deleted when all calls have ended

        def drop_out(index: int, call: Any, error: Exception) -> None:
            annotate(error, None, index, call, many=False)
            failures.append((index, error))

        try:
            options = _options_of_calls(limit, rate, "return")
            pool = self._pool_of_calls(calls, Sink(finish, drop_out), options)
            try:
                await pool.run()
            finally:
                del pool  # its sink refers to it: else only the garbage collector ends that
        finally:
            _close(calls)
        if not winners:
            conclude(failures)
        return winners[0]

    def as_completed(
        self,
        *calls: CallLike[T],
        limit: int | None = None,
        rate: float | Rate | Sequence[float | Rate] | None = None,
    ) -> Stream[Outcome[T]]:
        """
        Return an async context manager that iterates over the outcomes of calls as they complete.

        ``async with executor.as_completed(a, b) as outcomes: async for outcome in outcomes: ...``

        A call that fails has an outcome like any other. Not a checkpoint. Leaving the block cancels
        the running calls, waits for them to end, and closes coroutines that were never started.

        Args:
            *calls: Coroutines or other awaitables, or functions without arguments.
            limit: As for `gather`.
            rate: As for `gather`.
        """
        buffer = Buffer(len(calls), ordered=False)

        def put_value(index: int, value: Any) -> None:
            buffer.put(index, Outcome(index=index, value=value))

        def put_error(index: int, _call: Any, error: Exception) -> None:
            buffer.put(index, Outcome(index=index, error=error))

        close_all = partial(_close, calls)
        try:
            options = _options_of_calls(limit, rate, "return")
            pool = self._pool_of_calls(calls, Sink(put_value, put_error), options)
        except BaseException:
            close_all()
            raise
        return Stream(pool, buffer, on_exit=close_all)

    # ---- tasks that go on after the call ----

    async def __aenter__(self) -> Self:
        self._blocks.vacate(self)
        block = Block(self, self._slots, self._max_pending, self._counters, self._on_lost)
        await block.enter()
        self._blocks.current = block
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        block = self._blocks.leaving(exc)
        if block is None:
            return None
        try:
            return None if block.is_over() else await block.leave(exc)
        finally:
            self._blocks.current = None

    @overload
    async def submit(
        self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskHandle[T]: ...
    @overload
    async def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskHandle[T]: ...
    async def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskHandle[Any]:
        """
        Start ``fn(*args, **kwargs)`` as a task, and wait first if too many tasks are unfinished.

        All arguments are passed to ``fn``, as with ``concurrent.futures``. For a timeout, a rate
        limit or retries, submit a function that has them, such as one decorated with a
        `mtaio.Pipeline`. The executor's timeout applies.

        Tasks get their slots in the order of submission. A task that fails does not cancel others.
        Its error is raised by ``await handle``, or, if nobody looked at how the task ended, when
        the block is left.

        A checkpoint if ``max_workers + max_pending`` submitted tasks are unfinished, on every 64th
        call, and, in a task that is being cancelled, if the executor takes no new work. If it is
        cancelled while waiting, nothing was started. At that limit, an item that submits to its own
        executor may have one unfinished task beyond it; to submit another, it waits for that one
        and lends it its slot.

        Args:
            fn: An async function, or a plain function (called in a worker thread).
            *args: Positional arguments for ``fn``.
            **kwargs: Keyword arguments for ``fn``.

        Returns:
            A handle to the task.

        Raises:
            RuntimeError: The executor is not entered, or is draining.
        """
        block = self._blocks.current
        if block is None or not block.is_current() or block.refusal("submit"):
            block = await self._open_block("submit")
        call = self._attempt(fn, args, kwargs)
        self._calls += 1
        place: Slot | None = None
        yields = self._calls % FAST_CALLS == 0
        if yields or block.is_limited:
            place = await block.join(yields=yields)
            if block.refusal("submit", joined=True):  # things may have changed during the wait
                try:
                    await block.check_open("submit", joined=True)
                except BaseException:
                    if place is not None:
                        place.slots.release(place)
                    raise
        return block.submit(call, fn, place)

    @overload
    def submit_nowait(
        self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskHandle[T]: ...
    @overload
    def submit_nowait(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskHandle[T]: ...
    def submit_nowait(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> TaskHandle[Any]:
        """
        Start a task as `submit` does, but raise an error instead of waiting.

        Not a checkpoint. In a task that is being cancelled, if the executor takes no new work,
        nothing is started and the returned handle is that of a cancelled task.

        Raises:
            LimitError: ``max_workers + max_pending`` submitted tasks are unfinished.
            RuntimeError: The executor is not entered, or is draining.
        """
        block = self._blocks.current
        if in_cancelled_task() and (block is None or block.refusal("submit_nowait")):
            # It cannot raise the cancellation, which comes at the next checkpoint.
            loop = loops.current_loop()
            task = Task(name_of(fn), loop, backend.of(loop))
            task.abandon()
            return TaskHandle(task)
        block = self._blocks.entered(self, "submit_nowait()")
        refusal = block.refusal("submit_nowait")
        if refusal is not None:
            raise refusal
        call = self._attempt(fn, args, kwargs)
        place = block.join_nowait(self._name)
        return block.submit(call, fn, place)

    @overload
    async def start(
        self, fn: Service0[T, S], /, *, restart: int | Retry | None = None
    ) -> TaskHandle[T, S]: ...
    @overload
    async def start(
        self, fn: Service1[A, T, S], a: A, /, *, restart: int | Retry | None = None
    ) -> TaskHandle[T, S]: ...
    @overload
    async def start(
        self, fn: Service2[A, B, T, S], a: A, b: B, /, *, restart: int | Retry | None = None
    ) -> TaskHandle[T, S]: ...
    @overload
    async def start(
        self,
        fn: Service3[A, B, C, T, S],
        a: A,
        b: B,
        c: C,
        /,
        *,
        restart: int | Retry | None = None,
    ) -> TaskHandle[T, S]: ...
    @overload
    async def start(
        self,
        fn: Callable[..., Awaitable[T]],
        a: Any,
        b: Any,
        c: Any,
        d: Any,
        /,
        *args: Any,
        restart: int | Retry | None = None,
    ) -> TaskHandle[T, Any]: ...
    async def start(
        self,
        fn: Callable[..., Awaitable[Any]],
        /,
        *args: Any,
        restart: int | Retry | None = None,
    ) -> TaskHandle[Any, Any]:
        """
        Start a service and wait until it is ready.

        ``fn(*args, task_status=…)`` calls ``task_status.started(value)`` when it is ready, then
        runs until it is cancelled. Leaving the block cancels it, after the submitted tasks have
        ended. A service takes no slot and has no timeout.

        If ``fn`` fails after it was ready, it is restarted as ``restart`` allows. After the last
        attempt, its error cancels everything in the block and is raised when the block is left.

        A checkpoint. If the call is cancelled, or ``fn`` fails before it is ready, nothing is left
        running; the error of ``fn`` is raised here.

        Args:
            fn: An async function that takes ``task_status``.
            *args: Positional arguments for ``fn``.
            restart: Total number of attempts, or a `Retry` policy; None for no restart. A run that
                lasts longer than the policy's ``wait_max`` resets the count.

        Returns:
            A handle; its ``start_value`` is the value that the service reported.

        Raises:
            RuntimeError: The executor is not entered or is draining, or ``fn`` returned before it
                was ready.
            TaskCancelledError: The executor was cancelled or left before ``fn`` was ready.
        """
        block = await self._open_block("start")
        check_fn(fn, call="start(fn, *args)")
        if not is_async(fn):
            msg = (
                f"fn={fn!r} is not an async function: a service must be async to be cancellable. "
                f"Write it with 'async def', or pass a function that returns to submit()."
            )
            raise TypeError(msg)
        policy = as_policy(restart, name="restart")
        if policy is not None and policy.until is not None:
            msg = (
                f"restart={policy} has until=..., and a service has no result to judge. Leave it "
                f"out: a service that returns is not restarted."
            )
            raise ValueError(msg)
        return TaskHandle(await block.start(name_of(fn), partial(in_loop(fn), *args), policy))

    def every(
        self,
        period: float | Cron,
        fn: Callable[[*Ts], object],
        /,
        *args: *Ts,
        first: Literal["now", "later"] | None = None,
        jitter: float = 0.0,
        overlap: Overlap = "skip",
        timeout: float | Unset | None = UNSET,
        retry: int | Retry | None = None,
        name: str | None = None,
        leader: Leader | None = None,
    ) -> PeriodicTask:
        """
        Run ``fn(*args)`` every ``period`` seconds, or on a `Cron` schedule, until the block ends.

        Runs are due at ticks, multiples of the period from now on by the event loop's clock,
        however long the runs take. If several ticks have passed because the event loop was blocked,
        one run follows and the other ticks count as skipped. Each run is an item that waits for a
        slot of ``max_workers``; ``overlap`` decides about ticks that pass while a run waits or
        runs.

        A run that fails is logged at ERROR to ``mtaio.core`` and counted, and the schedule goes on.
        When the block is left, no more runs begin, and a run in progress is waited for like a
        submitted task; cancelling the block cancels it.

        Not a checkpoint.

        Args:
            period: Seconds between ticks, or a `Cron`.
            fn: An async function, or a plain function (called in a worker thread).
            *args: Positional arguments for ``fn``.
            first: ``"now"`` starts the first run at once, ``"later"`` at the next tick. The default
                is ``"now"`` for a period and ``"later"`` for a `Cron`.
            jitter: Maximum random delay of each run in seconds, less than the period, so that many
                processes do not start at the same moment.
            overlap: What happens at a tick if the previous run has not ended. ``"skip"`` skips the
                tick. ``"queue"`` starts one run right after the previous one, however many ticks
                have passed. ``"cancel"`` cancels the previous run and starts the new one when it
                has ended; a thread cannot be stopped and is waited for.
            timeout: Seconds for each run, or for each attempt with ``retry``; see `run`.
            retry: Total number of attempts for each run, or a `Retry` policy.
            name: Name shown in messages and metrics; the function's if None. With ``leader``, all
                processes must use the same name, and each schedule of that leader its own.
            leader: A `mtaio.redis.RedisLeader` or similar. Only the process that leads makes the
                runs; they are cancelled when it loses the leadership. No tick is run twice, and if
                ticks passed while no process led, one run makes up for them. The ticks of a period
                are then multiples of it since 1970 by the time of day, as processes share no other
                clock, and ``first="now"`` applies to the very first run of all of them.

        Returns:
            The periodic task, to stop or cancel it and for its statistics.

        Raises:
            RuntimeError: The executor is not entered, or is draining.
            ValueError, TypeError: An option is invalid.
        """
        from mtaio._internal.periodic import (  # noqa: PLC0415 - few programs do so
            Periodic,
            Schedule,
        )
        from mtaio.core._periodic import PeriodicTask  # noqa: PLC0415 - likewise

        block = self._blocks.entered(self, "every()")
        refusal = block.refusal("every")
        if refusal is not None:
            raise refusal
        schedule = Schedule(period, first, jitter, overlap, leader)
        checks.title("name", name)
        way_out = "every(period, fn, *args)"
        check_fn(fn, call=way_out)
        shown = [f"{each!r:.30}" for each in args]
        check_takes("fn", fn, *shown, way_out=f"Pass its arguments after it: {way_out}.")
        self._bind(fn, args, timeout=timeout, rate=None, retry=retry, via=None)  # which checks them
        run = partial(self.run, fn, *args, timeout=timeout, retry=retry)
        periodic = Periodic(name_of(fn) if name is None else name, schedule, run)
        return PeriodicTask(periodic, block.repeat(periodic))

    async def drain(self, timeout: float | None = None) -> bool:
        """
        Wait until all submitted tasks have ended; after ``timeout`` seconds cancel the rest.

        This includes calls of `submit` that are still waiting. Meanwhile only the tasks that are
        being drained may submit more, and after the timeout none may. Services keep running.

        A checkpoint. If it is cancelled, the tasks are left as they are.

        Args:
            timeout: Seconds to wait; None for no limit.

        Returns:
            Whether all tasks ended without being cancelled by this call.

        Raises:
            RuntimeError: The executor is not entered, or the caller is a submitted task.
        """
        block = self._blocks.entered(self, "drain()")
        checks.timeout("timeout", timeout)
        if block.contains_caller():
            raise RuntimeError(
                "drain() was called inside a submitted task, which would wait for itself. Call it "
                "where the executor was entered."
            )
        return await block.drain(timeout)

    def cancel(self) -> None:
        """
        Cancel all submitted tasks, services and periodic tasks.

        The block itself goes on. Not a checkpoint.
        """
        if (block := self._blocks.current) is not None:
            block.cancel()

    # ---- state ----

    def record_durations(self) -> None:
        """
        Record histograms of how long items run and how long tasks wait for a slot, from now on.

        They are ``run_duration`` and ``wait_duration`` in the statistics. An item is recorded when
        it ends, in whatever way, if it started after this call; a wait is recorded if it ended
        after this call. A monitor calls it for what it watches; repeated calls have no effect.

        Not a checkpoint. It can be called from any thread.
        """
        if self._counters.run_duration is None:
            self._counters.run_duration = Histogram()
        if self._slots is not None:
            self._slots.wait_times.record()

    def statistics(self) -> ExecutorStatistics:
        """
        Return a snapshot of the executor.

        Not a checkpoint. It can be called from any thread; if the figures keep changing so fast
        that a thread cannot read a consistent set, it gets those of the last call.
        """
        counters = self._counters
        for _ in range(_READINGS):
            version = counters.version
            snapshot = self._read()
            # Twice the same, and most of them only grow: so they all held at one moment.
            if version % 2 == 0 and version == counters.version and snapshot == self._read():
                self._snapshot = snapshot
                return snapshot
            time.sleep(0)  # pragma: no cover - in another thread alone: let the loop's go on
        return self._snapshot  # pragma: no cover - as above

    def _read(self) -> ExecutorStatistics:
        counters, slots, block = self._counters, self._slots, self._blocks.current
        waits = None if slots is None else slots.wait_times
        totals = counters.totals()
        in_flight = totals.in_flight
        return ExecutorStatistics(
            max_workers=self._max_workers,
            in_flight=in_flight,
            in_use=0 if slots is None else slots.in_use,
            waiting=0 if slots is None else len(slots.queue),
            peak=max(counters.peak, in_flight),
            started=totals.started,
            succeeded=totals.succeeded,
            failed=totals.failed,
            cancelled=totals.cancelled,
            timed_out=counters.timed_out,
            retried=counters.retried,
            waits=0 if slots is None else slots.waits,
            wait_seconds=0.0 if waits is None else waits.wait_seconds,
            max_wait_seconds=0.0 if waits is None else waits.max_wait_seconds,
            wait_duration=None if waits is None else recorded(waits.wait_duration),
            run_duration=recorded(counters.run_duration),
            submitted=0 if block is None else len(block.tasks),
            services=0 if block is None else len(block.services),
            threads_in_use=self._threads.busy,
            threads_waiting=self._threads.waiting,
            processes_in_use=self._processes.busy,
            processes_waiting=self._processes.waiting,
        )

    # ---- how calls are put together ----

    def _timing(self, timeout: float | Unset | None) -> Timing:
        if timeout is UNSET:
            return self._default_timing
        return Timing(checks.timeout("timeout", timeout), self._counters, self._name)

    def _attempt(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[], Awaitable[Any]]:
        """Return what calls ``fn`` once, with the executor's timeout; refuse what cannot be."""
        attempt: Callable[..., Awaitable[Any]] = fn
        plain = not is_async_def(fn)
        if plain:
            check_fn(fn, call="submit(fn, *args)")
        if plain or self._default_timing.timeout is not None:
            attempt = one_attempt(fn, self._default_timing, self._threads)
        return partial(attempt, *args, **kwargs) if args or kwargs else attempt

    def _bind(
        self,
        fn: Callable[..., Any] | Awaitable[Any],
        args: tuple[Any, ...],
        *,
        timeout: float | Unset | None,
        rate: Rate | Sequence[Rate] | None,
        retry: int | Retry | None,
        via: Via | None,
    ) -> Callable[[], Awaitable[Any]]:
        """Return what `run` awaits in its slot."""
        timing = self._timing(timeout)
        limiter = policy = None
        if rate is not None or retry is not None:
            check_shared(rate)
            limiter, policy = as_limiter(rate), as_policy(retry)
        if via is not None:
            work = calls_via(cast("Callable[..., Any]", fn), via, self._processes, timing)
            timing = self._timing(None)
        elif not inspect.isawaitable(fn):
            check_fn(fn)
            work = fn
        elif args or retry is not None:
            what = "arguments for it" if args else f"retry={retry!r}: it can be awaited once"
            msg = (
                f"run() got the awaitable {fn!r} together with {what}. Pass the function and its "
                f"arguments, or the awaitable alone."
            )
            raise TypeError(msg)
        else:
            work, args = settle, (fn,)
        if limiter is None and policy is None:
            return partial(one_attempt(work, timing, self._threads), *args)
        call, _ = compose(
            work,
            timing=timing,
            rate=limiter,
            retry=policy,
            threads=self._threads,
            counters=self._counters,
            taken=False,
        )
        return partial(call, *args)

    def _narrowed(self, limit: int | None) -> int | None:
        if limit is None:
            return self._max_workers
        checks.count(
            "limit", limit, way_out="Pass the number of items this call may run at once, or None."
        )
        return limit if self._max_workers is None else min(limit, self._max_workers)

    def _pool(
        self,
        fn: Callable[..., Any],
        iterables: tuple[AnyIterable[Any], ...],
        sink: Sink,
        options: Options,
        *,
        subject: object = UNSET,
        flatten: bool = False,
    ) -> Pool:
        check_fn(fn, flatten=flatten)
        at_once = self._narrowed(options.limit)
        if options.read_ahead != 0:
            way_out = "Pass how many items to read before they can begin, or leave it out."
            checks.count("read_ahead", options.read_ahead, least=0, way_out=way_out)
        batch, within = options.batch, options.within
        if batch is not None or within is not None:
            check_batch(batch, within, len(iterables))
        if options.until is not None:
            check_until(options.until)
        total = None
        if options.on_progress is not None:
            check_progress(options.on_progress)
            total = total_of(iterables, batch)  # which may be slow: asked for only if it is used
        timing = self._timing(options.timeout)
        work = giving_elements(fn, is_pickled=options.via is not None) if flatten else fn
        if options.via is not None:
            work = calls_via(work, options.via, self._processes, timing, options.chunksize)
            timing = self._timing(None)
        elif options.chunksize != 1:
            msg = (
                f"chunksize={options.chunksize!r} is for calls that are sent to a pool, and via= "
                f"is not given. Pass via=pool, or leave it out."
            )
            raise ValueError(msg)
        rate, retry = as_limiter(options.rate), as_policy(options.retry)
        at_hand = _are_at_hand(iterables)
        answers = None if at_hand else acknowledgement(iterables, options, fn)
        journal = _recording(options, sink, many=len(iterables) > 1, flatten=flatten)
        made = partial(
            compose,
            work,
            timing=timing,
            rate=rate,
            retry=retry,
            threads=self._threads,
            counters=self._counters,
            watched=answers is None and journal is None,
        )
        call, watched = made(taken=subject is not None and answers is None)
        call = _recorded(call, journal)
        if answers is not None:
            call = answers.around(call, _recorded(made(taken=True)[0], journal))
        crew = None
        if rate is None and retry is None and not is_async(work):
            # An item holds its thread to its end, so more workers would only wait for threads.
            at_once = self._threads.narrowed(at_once)
            needs_loop = (
                options.on_progress is not None or sink.buffer is not None or journal is not None
            )
            if not needs_loop and timing.timeout is None and self._threads.is_own and at_hand:
                crew = Crew(fn, self._threads)
        return Pool(
            call,
            open_source(
                iterables,
                options.read_ahead,
                batch=batch,
                within=within,
                ends=options.until is not None,
                # Each item of a source with acknowledgement has to come to its answer.
                journal=journal if answers is None else None,
            ),
            sink=sink,
            subject=fn if subject is UNSET else subject,
            many=len(iterables) > 1,
            limit=at_once,
            slots=self._slots,
            counters=self._counters,
            options=options,
            timing=watched,
            total=total,
            crew=crew,
            bare=None if answers is None else answers.bare,
            journal=journal,
        )

    def _pool_of_calls(
        self, calls: tuple[CallLike[Any], ...], sink: Sink, options: Options
    ) -> Pool:
        make = self._make_coroutine
        if len(calls) > 1:
            first: Any = calls[0]
            second: Any = calls[1]
            if (
                type(first) is type(second) is FunctionType
                and first.__code__ is second.__code__
                and first is not second
            ):
                check_binding(first, second)
        if all(map(is_async_def, calls)):  # nothing to check
            if self._default_timing.timeout is None:
                make = cast("Callable[[Any], Coroutine[Any, Any, Any]]", call_it)
        else:
            for number, call in enumerate(calls):
                check_call(number, call)
        # An iterator: a tuple of coroutines would be refused, as it is where a user passes it.
        source = iter(calls)
        check_errors(cast("Policy", options.errors))
        if options.rate is None:  # as `_pool` does with these options, for a fifth of the time
            pool = Pool(
                make,
                source,
                sink=sink,
                subject=None,
                many=False,
                limit=self._narrowed(options.limit),
                slots=self._slots,
                counters=self._counters,
                options=options,
            )
        else:

            async def made(call: Any) -> Any:
                return await make(call)

            # With its own limit, not the pool's watch: that counts the wait for a thread as well.
            pool = self._pool(made, (source,), sink, options, subject=None)
        pool.limit_inside = options.limit
        pool.calls = len(calls)
        return pool

    async def _open_block(self, method: str) -> Block:
        if self._blocks.current is None:
            await checkpoint_if_cancelled()  # the block has just been left, and its task not yet
        block = self._blocks.entered(self, f"{method}()")
        await block.check_open(method)
        return block


def _recording(options: Options, sink: Sink, *, many: bool, flatten: bool) -> Recording | None:
    if options.journal is None:
        return None
    from mtaio.core._journal import record  # noqa: PLC0415 - few programs have one

    values = sink.put is not _forget
    batched = options.batch is not None
    elements = elements_of if flatten and not batched else None
    return record(options.journal, many=many, values=values, batched=batched, elements=elements)


def _sink_of_outcomes(between: Buffer, *, many: bool) -> Sink:
    def put_value(index: int, given: tuple[tuple[Any, ...], Any]) -> None:
        args, value = given
        item = args if many else args[0]
        between.put(index, Outcome(index=index, item=item, value=value))

    def put_error(index: int, item: Any, error: Exception) -> None:
        between.put(index, Outcome(index=index, item=item, error=error))

    return Sink(put_value, put_error, buffer=between)


def _sink_of_elements(between: Buffer) -> Sink:
    def put_error(index: int, _item: Any, error: Exception) -> None:
        between.put_elements(index, (error,))

    return Sink(between.put_elements, put_error, buffer=between)


def _recorded(
    call: Callable[..., Coroutine[Any, Any, Any]], journal: Recording | None
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return ``call`` with its item recorded after it."""
    return call if journal is None else journal.around(call)


def _with_args(
    fn: Callable[..., Coroutine[Any, Any, Any]], bare: Callable[[Any], Any] | None
) -> Callable[..., Coroutine[Any, Any, tuple[tuple[Any, ...], Any]]]:
    """Return ``fn`` with the arguments added to the result, each ``bare``."""

    async def call(*args: Any) -> tuple[tuple[Any, ...], Any]:
        result = await fn(*args)
        return args if bare is None else (bare(args[0]),), result

    return call


def _options_of_calls(
    limit: int | None, rate: float | Rate | Sequence[float | Rate] | None, errors: Policy
) -> Options:
    if limit is None and rate is None and errors in _PLAIN:
        return _PLAIN[errors]
    return Options(limit=limit, rate=rate, errors=errors, timeout=None)


_PLAIN: Final[dict[str, Options]] = {
    errors: Options(errors=errors, timeout=None) for errors in get_args(Policy)
}
"""Most calls have these options. Without a timeout: each call has the executor's already."""


_AT_HAND: Final = frozenset({list, tuple, range})


def _are_at_hand(sources: tuple[object, ...]) -> bool:
    """Return whether to take items from these sources runs no code but Python's own."""
    return all(type(each) in _AT_HAND for each in sources)


def _forget(_index: int, _value: Any) -> None:
    pass


def _close(calls: tuple[CallLike[Any], ...]) -> None:
    """Close the coroutines among ``calls`` that never started."""
    for call in calls:
        if not isinstance(call, FunctionType):  # most are
            close_unstarted(call)
