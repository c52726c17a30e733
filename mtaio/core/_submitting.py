"""
Tasks that go on beside the caller: submitted work and supervised services.

Promise: they live inside ``async with executor:``, in the event loop that entered it; whoever
submits more than there is room for waits.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

import anyio

from mtaio._internal import checks, loops
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio.core._base import ExecutorBase
from mtaio.core._block import Block, Places
from mtaio.core._call import check_fn, in_loop, is_async, name_of
from mtaio.core._handle import TaskHandle
from mtaio.core._retry import as_policy
from mtaio.core._service import Service
from mtaio.core._slots import Slot, here
from mtaio.core._submitted import Submitted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from mtaio.core._retry import Retry

P = ParamSpec("P")
T = TypeVar("T")


class Submitting(ExecutorBase):
    """The part of `TaskExecutor` whose tasks outlive the call that starts them."""

    # Invariants:
    # - _block is there from entering until it has been left;
    # - _abandoned counts blocks that were never left, because their event loop was closed.

    def __init__(self, max_workers: int | None, max_pending: int, **options: Any) -> None:
        super().__init__(max_workers, **options)
        self._max_pending = checks.count(
            "max_pending",
            max_pending,
            least=0,
            way_out="Pass how many submitted tasks may wait for a slot beyond max_workers.",
        )
        self._block: Block | None = None
        self._abandoned = 0

    async def __aenter__(self) -> Self:
        if self._block is not None:
            if not loops.is_over(self._block.loop):
                msg = (
                    f"{self!r} is entered already. Enter it once, where it is made, and pass it "
                    f"on; or make another."
                )
                raise RuntimeError(msg)
            self._abandoned += 1
        slots = self._slots
        places = None if slots is None else Places(slots.limit + self._max_pending, slots)
        self._block = Block(places)
        await self._block.group.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        if self._abandoned and isinstance(exc, GeneratorExit):
            self._abandoned -= 1  # its coroutine is thrown away; what runs now is another block
            return None
        block = self._block
        if block is None or loops.is_over(block.loop):
            self._block = None
            return None
        try:
            return await block.leave(exc)
        finally:
            self._block = None

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

        A checkpoint when ``max_workers + max_pending`` submitted tasks are unfinished, and for one
        call in 64. Cancelled while it waits, it has started nothing. The task waits for a slot
        like any item, in the order of submission, and has the executor's timeout. Its failure
        cancels nobody: it is raised by ``await handle``, or by leaving the block if nobody did.

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
        if self._block is not None and self._block.cuts_caller_short():
            await checkpoint()  # it has been cancelled, and learns it here rather than by refusal
        block = self._open_block("submit")
        check_fn(fn)
        block.joining += 1
        try:
            self._calls += 1
            if self._calls % FAST_CALLS == 0:
                await checkpoint()
            place = None if block.places is None else await self._place(block.places)
        finally:
            block.joining -= 1
        return self._launch(block, fn, args, kwargs, place)

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

        Raises:
            anyio.WouldBlock: ``max_workers + max_pending`` submitted tasks are unfinished.
            RuntimeError: The executor is not entered, or draining.
        """
        block = self._open_block("submit_nowait")
        check_fn(fn)
        place = None
        if block.places is not None:
            place = block.places.acquire_nowait(None)
            if place is None:
                raise anyio.WouldBlock
        return self._launch(block, fn, args, kwargs, place)

    async def start(
        self,
        fn: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        restart: int | Retry | None = None,
    ) -> TaskHandle[T]:
        """
        Start a service and wait until it is ready.

        ``fn(*args, task_status=…)`` calls ``task_status.started(value)`` when it is ready, then
        goes on until it is cancelled, which leaving the block does after the submitted work is
        drained. It takes no slot and has no timeout.

        A checkpoint. Cancelled, or if ``fn`` fails before it is ready, nothing is left running and
        the error is raised here. If it fails later it is started again as ``restart`` allows; when
        that is used up its error ends the block: everything is cancelled, and the block raises it.

        Args:
            fn: An async function that takes ``task_status``.
            *args: Its positional arguments.
            restart: Attempts in all, or a `Retry` policy; None for no restart. A run that lasted
                longer than the policy's ``wait_max`` begins the count anew.

        Returns:
            A handle; ``handle.start_value`` is what the service reported.

        Raises:
            RuntimeError: The executor is not entered or draining, or ``fn`` returned without
                being ready.
            TaskCancelledError: The executor was cancelled or left before ``fn`` was ready.
        """
        block = self._open_block("start")
        check_fn(fn)
        if not is_async(fn):
            msg = f"fn={fn!r} is not an async function: a service has to be one, to be cancelled."
            raise TypeError(msg)
        policy = as_policy(restart, name="restart")
        service = Service(name_of(fn), block, partial(in_loop(fn), *args), policy)
        try:
            with service.enclosed():
                await block.group.start(service.run)
        except BaseException:
            service.cancel()  # it may have become ready at the moment we were cancelled
            service.leave()
            raise
        return TaskHandle(service)

    async def drain(self, timeout: float | None = None) -> bool:
        """
        Wait until all submitted tasks have ended; after ``timeout`` seconds cancel those left.

        A checkpoint. Calls of `submit` that wait for room are drained too. Meanwhile only tasks
        that are part of what is drained may submit more, and nobody once the time is up. Services
        go on. Cancelled, it leaves the tasks as they are.

        Args:
            timeout: The period of grace in seconds; None to wait as long as it takes.

        Returns:
            Whether everything came to its own end.

        Raises:
            RuntimeError: The executor is not entered, or a submitted task waits for itself.
        """
        block = self._entered_block("drain")
        checks.timeout("timeout", timeout)
        if block.encloses_caller():
            raise RuntimeError(
                "drain() was called inside a submitted task, which would wait for itself. Call it "
                "where the executor was entered."
            )
        return await block.drain(timeout)

    def cancel(self) -> None:
        """Cancel all submitted tasks and services. No checkpoint; the block itself goes on."""
        if self._block is not None:
            self._block.cancel()

    # ---- admission ----

    def _entered_block(self, method: str) -> Block:
        block = self._block
        if block is None or loops.is_over(block.loop):
            msg = (
                f"{method}() needs somewhere for its task to live: write "
                f"'async with executor:' around it. {self!r} is not entered."
            )
            raise RuntimeError(msg)
        if not loops.is_current(block.loop):
            msg = (
                f"{self!r} was entered in another event loop. Submit to it from there, for "
                f"example with anyio.from_thread.run(), or give each loop an executor of its own."
            )
            raise RuntimeError(msg)
        return block

    def _open_block(self, method: str) -> Block:
        block = self._entered_block(method)
        self._check_open(block, method, joined=False)
        return block

    def _check_open(self, block: Block, method: str, *, joined: bool) -> None:
        state = block.refuses(joined=joined)
        if state is not None:
            msg = (
                f"{self!r} is {state} and takes no new work. {method}() before that, or have a "
                f"task that is waited for do it."
            )
            raise RuntimeError(msg)

    async def _place(self, places: Places) -> Slot:
        link = here()
        item = None if self._slots is None else self._slots.enclosing(link)
        if item is None:
            return await places.acquire(link)
        while (place := places.acquire_nowait(None)) is None:
            if item.child is None or item.child.ended.is_set():
                return places.force()
            await item.child.wait()
        return place

    def _launch(
        self,
        block: Block,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: Slot | None,
    ) -> TaskHandle[Any]:
        task = Submitted(name_of(fn), block, place)
        try:
            # Things may have changed while we waited.
            self._check_open(block, "submit", joined=True)
            if self._slots is not None:
                task.queue_up(self._slots)
                item = self._slots.enclosing(here())
                if item is not None:
                    item.child = task
            call = self._bind(fn, args, kwargs, self._default_timing)
            task.coroutine = task.run(self._item, call, fn)
            task.cancellable = block.group.create_task(task.coroutine, name=task.name)
        except BaseException:
            task.leave()
            raise
        return TaskHandle(task)
