"""
The executor: one object through which work runs, under one limit.

Promise: at most ``max_workers`` items run at once across all its calls; nothing it started
outlives the call or the ``async with`` that started it; it may be made anywhere and used by one
event loop after another, on either backend.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from mtaio._internal.callables import close_unstarted
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.sentinel import UNSET, Unset
from mtaio.core._call import check_fn, is_async, settle
from mtaio.core._joining import Joining
from mtaio.core._mapping import Mapping
from mtaio.core._processes import run_in_process
from mtaio.core._slots import here
from mtaio.core._statistics import ExecutorStatistics
from mtaio.core._submitting import Submitting
from mtaio.core._threads import run_in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import anyio

    from mtaio.core._timing import Timing

T = TypeVar("T")


class TaskExecutor(Mapping, Joining, Submitting):
    """
    Runs functions, async and plain, many at once under limits.

    Calls that wait for their own work (`run`, `map`, `for_each`, `stream`, `gather`, `race`,
    `as_completed`, `run_in_thread`, `run_in_process`) need nothing but the executor. Tasks that
    go on beside the caller (`submit`, `start`) live inside ``async with executor:``.

    Slots are handed over in the order of asking, item by item, so a short call is not starved by
    a long one. A call made inside an item of the same executor makes progress whatever the limit:
    the item, which waits, lends it its slot. So does an item that awaits a submitted task. (An
    item that goes on working beside such a call is at work in addition. A task that it starts in a
    task group outside itself is not part of it, and queues like anybody. Two executors whose items
    call each other crosswise can block each other; let one call the other.)

    Args:
        max_workers: How many items may run at once across all calls; None for no limit.
        max_pending: How many submitted tasks may wait for a slot beyond ``max_workers``, before
            `submit` waits.
        timeout: Seconds for each item unless a call says otherwise; None for no limit.
        thread_limiter: How many worker threads at once, 40 if omitted; or an
            ``anyio.CapacityLimiter`` to share with others, which belongs to one event loop, and
            from which nested calls take tokens of their own.
        process_limiter: How many worker processes at once, one for each CPU if omitted; or an
            ``anyio.CapacityLimiter``.
        name: A name for messages and metrics.

    Raises:
        ValueError, TypeError: A value that makes no sense, named with the way out.

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

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        max_pending: int = 0,
        timeout: float | None = None,
        thread_limiter: int | anyio.CapacityLimiter | None = None,
        process_limiter: int | anyio.CapacityLimiter | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            max_workers,
            max_pending,
            timeout=timeout,
            thread_limiter=thread_limiter,
            process_limiter=process_limiter,
            name=name,
        )

    @overload
    async def run(self, fn: Awaitable[T], /, *, timeout: float | Unset | None = UNSET) -> T: ...
    @overload
    async def run(
        self,
        fn: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        timeout: float | Unset | None = UNSET,
        **kwargs: Any,
    ) -> T: ...
    @overload
    async def run(
        self,
        fn: Callable[..., T],
        /,
        *args: Any,
        timeout: float | Unset | None = UNSET,
        **kwargs: Any,
    ) -> T: ...
    async def run(
        self,
        fn: Callable[..., Any] | Awaitable[Any],
        /,
        *args: Any,
        timeout: float | Unset | None = UNSET,
        **kwargs: Any,
    ) -> Any:
        """
        Call ``fn(*args, **kwargs)`` in a slot, in the caller's own task, and return its result.

        A checkpoint when there is no free slot, and for one call in 64. Cancelled while it waits,
        it has called nothing.

        Args:
            fn: An async function, a plain one to run in a worker thread, or an awaitable.
            *args: Its arguments.
            timeout: Seconds for the call, not counting the wait for a slot; None for no limit;
                omitted: the executor's. (For an ``fn`` with an argument of this name use
                ``functools.partial``.)
            **kwargs: Its keyword arguments.

        Returns:
            What ``fn`` returned.

        Raises:
            TimeoutError: It took longer than ``timeout``.
        """
        slots, slot = self._slots, None
        try:
            call = self._bind_run(fn, args, kwargs, self._timing(timeout))
            self._calls += 1
            if self._calls % FAST_CALLS == 0:
                await checkpoint()
            if slots is not None:
                slot = await slots.acquire(here())
            return await self._item(slot, call)
        finally:
            if slots is not None and slot is not None:
                slots.release(slot)
            close_unstarted(fn)  # it was refused, or cancelled in the queue

    @overload
    async def run_in_thread(
        self,
        fn: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        timeout: float | Unset | None = UNSET,
        abandon_on_cancel: bool = False,
    ) -> T: ...
    @overload
    async def run_in_thread(
        self,
        fn: Callable[..., T],
        /,
        *args: Any,
        timeout: float | Unset | None = UNSET,
        abandon_on_cancel: bool = False,
    ) -> T: ...
    async def run_in_thread(
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
        keeps its place under the limit until it ends; else cancellation waits for it. Have a
        long function call ``anyio.from_thread.check_cancelled()`` now and then, above all before
        it calls back with ``anyio.from_thread.run()``: left behind, on asyncio, that may hang.

        Args:
            fn: The function.
            *args: Its arguments.
            timeout: Seconds for the call, not counting the wait for a thread; None for no limit;
                omitted: the executor's.
            abandon_on_cancel: Whether cancellation leaves the thread behind. With a timeout it
                always does.

        Returns:
            What the function returned; if that can be awaited, what came of it.

        Raises:
            TimeoutError: It took longer than ``timeout``.
        """
        check_fn(fn)
        timing = self._timing(timeout)
        call = partial(fn, *args)
        return await run_in_thread(self._threads, call, timing, abandon_on_cancel=abandon_on_cancel)

    async def run_in_process(
        self, fn: Callable[..., T], /, *args: Any, timeout: float | Unset | None = UNSET
    ) -> T:
        """
        Call a plain function in a worker process, under the executor's limit on processes.

        A checkpoint. It takes no slot of ``max_workers``. Cancelled, or when the timeout fires, it
        kills the process.

        Args:
            fn: The function; like its arguments and result it must be picklable.
            *args: Its arguments.
            timeout: Seconds for the call, not counting the wait for a process; None for no
                limit; omitted: the executor's.

        Returns:
            What the function returned.

        Raises:
            TimeoutError: It took longer than ``timeout``.
        """
        check_fn(fn)
        if is_async(fn):
            msg = (
                f"fn={fn!r} is an async function: a worker process has no event loop to run it "
                f"in. Use run(), or pass a plain function."
            )
            raise TypeError(msg)
        call = partial(fn, *args)
        return cast("T", await run_in_process(self._processes, call, self._timing(timeout)))

    def statistics(self) -> ExecutorStatistics:
        """Return a picture of the executor at this moment. Not a checkpoint."""
        counters, slots, block = self._counters, self._slots, self._block
        started, finished = counters.all_started(), counters.all_finished()
        return ExecutorStatistics(
            max_workers=self._max_workers,
            running=started - finished,
            in_use=0 if slots is None else slots.in_use,
            waiting=0 if slots is None else len(slots.queue),
            peak=counters.peak,
            started=started,
            succeeded=finished - counters.failed - counters.cancelled,
            failed=counters.failed,
            cancelled=counters.cancelled,
            timed_out=counters.timed_out,
            retried=counters.retried,
            slot_waits=0 if slots is None else slots.waits,
            slot_wait_seconds=0.0 if slots is None else slots.wait_seconds,
            submitted=0 if block is None else len(block.tasks),
            services=0 if block is None else len(block.services),
            threads=self._threads.busy,
            threads_waiting=self._threads.waiting,
            processes=self._processes.busy,
            processes_waiting=self._processes.waiting,
        )

    def _bind_run(
        self,
        fn: Callable[..., Any] | Awaitable[Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timing: Timing,
    ) -> Callable[[], Awaitable[Any]]:
        if not inspect.isawaitable(fn):
            check_fn(fn)
            return self._bind(fn, args, kwargs, timing)
        if args or kwargs:
            msg = (
                f"run() got the awaitable {fn!r} together with arguments for it. Pass the "
                f"function and its arguments, or the awaitable alone."
            )
            raise TypeError(msg)
        return self._bind(settle, (fn,), {}, timing)
