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
    """
    How one call of `TaskExecutor.as_completed`, or one item of a `TaskExecutor.stream`, ended.

    After a failure ``value`` is None. ``item`` is set in a stream only.
    """

    index: int
    """Its place among the arguments, or the number of the item, from 0."""
    item: Any = None
    """In a stream, what the function was called with; with several sources, a tuple."""
    value: T | None = None
    """What it returned, if it did not fail."""
    error: Exception | None = None
    """What it raised, or None."""

    def result(self) -> T:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


@final
class TaskExecutor:
    """
    Runs functions, async and plain, many at once under limits.

    Calls that wait for their own work (`run`, `map`, `for_each`, `stream`, `gather`, `race`,
    `as_completed`, `run_in_thread`, `run_in_process`) need nothing but the executor. Tasks that
    go on after the call (`submit`, `start`) live inside ``async with executor:``.

    Slots are handed over first come, first served, item by item, so a short call is not starved
    by a long one. A `run`, `map`, `for_each` or `stream` inside an item of the same executor does
    not wait for that item's slot: the item, which waits, lends it to one nested call after another;
    beyond that, nested calls queue for free slots like any others. An item that awaits a submitted
    task lends its slot as well. The calls of a `gather`, `race` or `as_completed` inside an item
    are part of that item: they take no slots, and may wait for each other.

    An item that keeps working during such a call runs in addition to the limit. A task that an
    item starts in a task group outside itself is not part of the item, and borrows nothing. Items,
    `run` calls and submitted tasks that wait for each other by other means than such calls, say
    through a queue, can wait for ever once the waiting ones hold all slots; so can two executors
    whose items call each other both ways.

    Args:
        max_workers: How many items may run at once across all calls; None for no limit.
        max_pending: How many submitted tasks may wait for a slot beyond ``max_workers``, before
            `submit` waits: 0 for none, None for no limit.
        timeout: Seconds for each item unless a call says otherwise; None for no limit.
        threads: How many worker threads at once; None for no limit; or an
            ``anyio.CapacityLimiter`` to share with others, which belongs to the backend it is first
            used on, and from which nested calls take tokens of their own.
        processes: How many worker processes at once, one for each CPU if omitted; otherwise as
            ``threads``.
        name: A name for messages and metrics.

    Raises:
        ValueError, TypeError: An argument is refused; the message names it and the way out.

    Example:
        ```python
        import anyio

        from mtaio.core import TaskExecutor

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
        self._on_lost: Callable[[str, BaseException], object] | None = None
        self._snapshot = self._read()

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<TaskExecutor{name} max_workers={self._max_workers}>"

    @property
    def max_workers(self) -> int | None:
        """How many items may run at once across all calls; None for no limit."""
        return self._max_workers

    @property
    def name(self) -> str | None:
        """The name given at construction, for messages and metrics."""
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

        A checkpoint when there is no free slot, and for one call in 64. Cancelled while it waits,
        for a slot or a token, it has called nothing. Keyword arguments of ``fn`` go through
        ``functools.partial``.

        Args:
            fn: An async function, a plain one to run in a worker thread, or an awaitable.
            *args: Its arguments.
            timeout: Seconds for the call (each attempt, with ``retry``), not counting the wait for
                a slot, a token or a thread; None for no limit; omitted: the executor's.
            rate: A limiter that the calls share, such as a `mtaio.RateLimiter`: each attempt takes
                a token; or a list of rate limiters, to take one of each.
            retry: Attempts in all, or a `Retry` policy; the slot is kept between them.
            via: For a plain function: the pool that calls it instead of a worker thread, as for
                `map`.

        Returns:
            What ``fn`` returned.

        Raises:
            TimeoutError: It took longer than ``timeout``.
            ValueError, TypeError: An option makes no sense.
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

        A checkpoint. It takes no slot of ``max_workers``. A thread cannot be stopped: when the
        timeout fires, or on cancellation with ``abandon_on_cancel``, it is left to itself and
        keeps its place under the limit until it ends, and on asyncio the program does not end
        before it; otherwise cancellation waits for it. A thread may call back with
        ``anyio.from_thread.run()``; on asyncio, what it calls after its own call was cancelled is
        not cancelled and may never return: see the guide.

        Args:
            fn: The function.
            *args: Its arguments.
            timeout: Seconds for the call, not counting the wait for a thread; None for no limit;
                omitted: the executor's.
            abandon_on_cancel: Whether cancellation leaves the thread behind. With a timeout it
                always does.

        Returns:
            What the function returned; if that is awaitable, its result.

        Raises:
            TimeoutError: It took longer than ``timeout``.
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

        A checkpoint. It takes no slot of ``max_workers``. However it is cancelled, and when the
        timeout fires, it kills the process.

        Args:
            fn: The function; like its arguments and result it must be picklable.
            *args: Its arguments.
            timeout: Seconds for the call, not counting the wait for a process; None for no
                limit; omitted: the executor's.

        Returns:
            What the function returned.

        Raises:
            TimeoutError: It took longer than ``timeout``.
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
        Call ``fn`` with every item, several at once, and return the results as a list.

        A checkpoint. Cancelled, it cancels the items that run, waits for them, and takes no more;
        errors to report (see ``errors``) are then raised in place of the cancellation.

        Args:
            fn: An async function, or a plain one, which then runs in worker threads.
            *iterables: Sync or async iterables, not text or mappings; with several, ``fn`` gets
                one argument from each, until the shortest ends. An async generator is closed at the
                end of the call, and a `Stream` that was not entered is entered and left by it; any
                other iterator may be used afterwards, perhaps a few items further on. `merge`
                makes one source of several.
            ordered: Whether results are in the order of the items, or in that of completion.
            errors: ``"raise"``: at the first error cancel the other items and raise it, bare if it
                is the only one. ``"collect"``: run everything, then raise all errors in one
                group. ``"return"``: put errors where the results would be, with the same note.
            **options: See below.

        Keyword Args:
            limit (int | None): How many items of this call may run at once, within ``max_workers``.
            timeout (float | None): Seconds for each item, or each attempt with ``retry``, not
                counting the wait for a slot, a token or a thread; None for no limit; omitted: the
                executor's.
            rate (float | Rate | Sequence | None): How many items may start per second, evenly
                spaced; a limiter to share with others, such as a `mtaio.RateLimiter` or
                `mtaio.Quota`; or a list of numbers and rate limiters, which all are kept.
            retry (int | Retry | None): Attempts per item in all; or a `Retry` policy.
            via (Via | None): Where a plain function is called instead of in worker threads: any
                ``concurrent.futures.Executor``, an `ExternalPool` around one, or ``"processes"``,
                the executor's own.
            chunksize (int): How many short calls are sent to a pool as one, each still an item of
                its own.
            read_ahead (int): How many items to read from a slow async source before they can begin,
                which are dropped if the call ends early.
            batch (int | None): Call ``fn`` with lists of up to so many items of the one source; for
                the other options, the results and the statistics each is one item.
            within (float | None): Seconds after its first item has come from an async source in
                which a batch begins, full or not; None if it is to be full.
            until (Callable | None): An async function without arguments, such as the ``wait`` of an
                ``anyio.Event``. Once it has returned nothing more is taken from the source; what
                was taken goes on to its end, and the call returns that.
            journal (Journal | None): A file of what is done, which the next run of the program
                does not do again: those items have no call, token or thread.
            on_progress (Progress | None): Called as ``on_progress(done, total)`` after each item;
                ``total`` is None if the sources do not know their length.

        The types are in `mtaio.types`. The guide to the executor says more of each option.

        Returns:
            The results.

        Raises:
            Exception: What ``fn`` raised, with a note naming the item's index and argument.
            ExceptionGroup: Several items failed.
            TimeoutError: An item took longer than ``timeout``.
            OSError: The journal cannot be read, or not be written.
            RuntimeError: Another call has the journal, of this process or another.
            ValueError, TypeError: An option makes no sense, or the journal has a broken line.
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
        Call ``fn`` with every item for its effect: `map` without the list of results.

        Memory stays constant however long the source is. Arguments, errors and cancellation are
        those of `map`; as there are no results, ``errors="return"`` is refused. For a source that
        never ends ``errors`` may be a function, called as ``errors(item, error)`` in the event loop
        with each item that failed (with several sources a tuple); then the call goes on. What it
        raises ends the call.
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
        Return an async context manager that iterates over results as they come.

        ``async with executor.stream(fn, source) as results: async for result in results: ...``

        Not a checkpoint: work starts on entering the block. A consumer that falls behind holds the
        work back. Leaving the block (``break``, an error, cancellation) cancels the items that
        run and waits for them. An error that the consumer has not seen is raised by the block.
        Inside an item of the same executor the block lends that item's slot to its work.

        Args:
            fn: As for `map`.
            *iterables: As for `map`.
            outcomes: Whether to give an `Outcome` for each item instead of the bare value: its
                number, the item, and the value or the error. Then ``errors`` is left out.
            flatten: Whether ``fn`` returns several results, in a list or any other iterable but
                text and mappings, and the stream gives them one by one. Those of an item stay
                together, and the item counts as pending until the last of them is taken. A
                generator is run to its end as a part of the item.
            ordered: Whether results come in the order of the items, or as they are completed.
            max_pending: How many results may wait for the consumer beyond the ``limit`` items that
                run; as many as ``limit`` if omitted; None for no limit. Without a ``limit``, how
                many items may run or wait: 100 if omitted, and at least 1.
            errors: ``"raise"``: results that are ready come first, then the error. ``"collect"``:
                all results first, then all errors in one group. ``"return"``: errors come as
                results. A function: called with each item that failed, and its error.
            **options: As for `map`.

        Raises:
            ValueError, TypeError: An option makes no sense.
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
        Await everything, at most ``limit`` at once, and return the results in the order given.

        A checkpoint. Errors are treated as ``errors`` says, as by `map`; calls that never started
        are closed. Inside an item of the same executor the calls are part of that item, and only
        ``limit`` bounds them.

        Args:
            *calls: Coroutines or other awaitables, or functions without arguments.
            errors: As for `map`.
            limit: How many may run at once, within ``max_workers`` unless inside an item.
            rate: How many may start per second, evenly spaced; or a limiter, as for `map`.

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
        Return the first result; cancel the other calls and wait until they are gone.

        A checkpoint. Calls start in the order given, as many at once as the limits allow, and none
        once there is a result. A call that fails is out of the race. What losers raise while they
        are cancelled is counted in the statistics, and otherwise ignored.

        Args:
            *calls: Awaitables, or functions without arguments; at least one.
            limit: As for `gather`.
            rate: As for `gather`. With ``rate=2`` each call has half a second to win before the
                next one starts.

        Returns:
            The result of the call that was first to succeed.

        Raises:
            Exception: The only call failed.
            ExceptionGroup: All of several calls failed.
            ValueError: No calls.
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
        Return an async context manager that iterates over outcomes as they come.

        ``async with executor.as_completed(a, b) as outcomes: async for outcome in outcomes: ...``

        Not a checkpoint. Leaving the block cancels and awaits what runs, and closes what never
        started. Errors are outcomes like results.

        Args:
            *calls: Awaitables, or functions without arguments.
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
        Start ``fn(*args, **kwargs)`` as a task of its own; wait while too many are unfinished.

        All arguments are those of ``fn``, as with ``concurrent.futures``: this method has no
        options, and never will. For a timeout, a rate or retries submit a function that has them,
        such as one with a `mtaio.Pipeline` around it.

        A checkpoint when ``max_workers + max_pending`` submitted tasks are unfinished, for one call
        in 64, and, in a task that is being cancelled, when the executor no longer takes new work.
        Cancelled while it waits, it has started nothing. The task waits for a slot like any
        item, in the order of submission, and has the executor's timeout. Its failure cancels no
        other task: it is raised by ``await handle``, or by leaving the block if nobody has looked
        at how the task ended.

        An item that submits to its own executor at that limit may have one unfinished task beyond
        it; to submit another it waits for that one, lending it its slot.

        Args:
            fn: An async function, or a plain one to run in a worker thread.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Returns:
            The task's handle.

        Raises:
            RuntimeError: The executor is not entered, or draining.
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
        return TaskHandle(block.submit(call, fn, place))

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
        Start a task as `submit` does, or fail at once. Not a checkpoint.

        In a task that is being cancelled, when the executor no longer takes new work, nothing is
        started and the handle is that of a cancelled task.

        Raises:
            LimitError: ``max_workers + max_pending`` submitted tasks are unfinished.
            RuntimeError: The executor is not entered, or draining.
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
        return TaskHandle(block.submit(call, fn, place))

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
        runs until it is cancelled, which leaving the block does after the submitted work is
        drained. It takes no slot and has no timeout.

        A checkpoint. Cancelled, or if ``fn`` fails before it is ready, nothing is left running and
        the error is raised here. If it fails later it is restarted as ``restart`` allows; after the
        last attempt its error ends the block: everything is cancelled, and the block raises it.

        Args:
            fn: An async function that takes ``task_status``.
            *args: Its positional arguments.
            restart: Attempts in all, or a `Retry` policy; None for no restart. A run that lasted
                longer than the policy's ``wait_max`` restarts the count.

        Returns:
            A handle; ``handle.start_value`` is what the service reported.

        Raises:
            RuntimeError: The executor is not entered or draining, or ``fn`` returned without
                being ready.
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
                f"out: what returns is not restarted."
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
        Run ``fn(*args)`` each ``period`` seconds, or when a `Cron` says so, until the block ends.

        Runs are due at ticks: multiples of the period from now on, by the event loop's clock, which
        no run moves, however long it takes. Where several ticks have passed unnoticed, because the
        event loop was blocked, one run follows, and the others count as skipped. Each run is an
        item: it waits for a slot of ``max_workers``, and ticks that pass meanwhile are those at
        which the run before has not ended.

        A run that fails is logged at ERROR to ``mtaio.core`` and counted, and the next tick comes.
        Leaving the block begins no more runs, and waits for one that is going on as for submitted
        tasks; what cancels the block cancels it. Not a checkpoint.

        Args:
            period: Seconds, or a `Cron`.
            fn: An async function, or a plain one to run in a worker thread.
            *args: Its arguments.
            first: ``"now"`` makes the first run at once, ``"later"`` at the first tick after that;
                by default ``"now"`` for a period, and ``"later"`` for a `Cron`.
            jitter: Each run begins up to so many seconds after its tick, at random, so that many
                processes do not begin together. Less than the period.
            overlap: What happens at a tick if the run before has not ended. ``"skip"``: nothing.
                ``"queue"``: a run follows it at once; however many ticks have passed, one. With
                ``"cancel"`` the old run is cancelled, and when it has ended the new one begins; a
                thread cannot be stopped, and is waited for.
            timeout: Seconds for a run, or each attempt of it, as for `run`.
            retry: Attempts in all, or a `Retry` policy, for each run.
            name: For messages and metrics; None for the function's. With ``leader`` it is what all
                processes call the schedule, and no other schedule of that leader.
            leader: A `mtaio.redis.RedisLeader`, or the like: the process that leads makes the runs,
                and they are cancelled when it leads no more. No tick is run twice, and a tick that
                passed while nobody led is made up for, once. A period's ticks are then multiples of
                it since 1970, by the time of day, as the processes have no other clock in common;
                ``first="now"`` is for the very first run of all of them.

        Returns:
            The task, to be cancelled, and for its statistics.

        Raises:
            RuntimeError: The executor is not entered, or draining.
            ValueError, TypeError: An option makes no sense.
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
        Wait until all submitted tasks have ended; after ``timeout`` seconds cancel those left.

        A checkpoint. Calls of `submit` that wait for a place are drained too. During the drain only
        the tasks that it waits for may submit more, and none once the time is up. Services keep
        running. Cancelled, it leaves the tasks as they are.

        Args:
            timeout: The grace period in seconds; None to wait as long as it takes.

        Returns:
            Whether all of them ended without being cancelled here.

        Raises:
            RuntimeError: The executor is not entered, or a submitted task waits for itself.
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

        Not a checkpoint; the block itself goes on.
        """
        if (block := self._blocks.current) is not None:
            block.cancel()

    # ---- state ----

    def record_durations(self) -> None:
        """
        Keep histograms from now on: how long items run, and how long tasks wait for a slot.

        They are ``run_duration`` and ``wait_duration`` in the statistics. An item counts when it
        ends, with a result, an error, a timeout or a cancellation, if it has begun since; a wait,
        if it has ended since. A monitor calls it for what it watches. Not a checkpoint; from any
        thread. Calling it again changes nothing.
        """
        if self._counters.run_duration is None:
            self._counters.run_duration = Histogram()
        if self._slots is not None:
            self._slots.wait_times.record()

    def statistics(self) -> ExecutorStatistics:
        """
        Return a snapshot of the executor. Not a checkpoint.

        It may be called from any thread. A thread that cannot get consistent figures, because they
        keep changing, gets those of the last call.
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
