"""
Tasks that go on beside the caller: submitted work and supervised services.

Promise: they live inside ``async with executor:`` and nowhere else. Leaving the block drains the
work, then ends the services; an error leaves no survivors; a failure that nobody awaited is
raised by the block.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import anyio

from mtaio._internal import checks, loops
from mtaio._internal.coop import FAST_CALLS, checkpoint
from mtaio.core._base import ExecutorBase
from mtaio.core._bell import Bell
from mtaio.core._call import check_fn, in_loop, is_async, name_of
from mtaio.core._failures import conclude, is_cancelled, stray
from mtaio.core._handle import TASK, TaskHandle, TaskStatus
from mtaio.core._retry import as_policy
from mtaio.core._service import Service
from mtaio.core._slots import CURRENT, Slots

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from anyio.abc import TaskGroup

    from mtaio.core._retry import Retry
    from mtaio.core._slots import Slot, Waiter

T = TypeVar("T")

_MOST_UNSEEN = 1000
"""Failures kept for the end of the block; beyond that they are counted only."""


class Submitting(ExecutorBase):
    """The part of `TaskExecutor` whose tasks outlive the call that starts them."""

    # Invariants:
    # - _group is there between entering and leaving the block, and belongs to _loop;
    # - _tasks are the submitted tasks that have not ended, each in a place of _places;
    # - _unseen are handles of failed tasks that nobody has looked at.

    def __init__(self, max_workers: int | None, max_pending: int, **options: Any) -> None:
        super().__init__(max_workers, **options)
        checks.count(
            "max_pending",
            max_pending,
            least=0,
            way_out="Pass how many submitted tasks may wait for a slot beyond max_workers.",
        )
        self._places = None if max_workers is None else Slots(max_workers + max_pending)
        self._group: TaskGroup | None = None
        self._loop: object = None
        self._draining = 0
        self._tasks: OrderedDict[TaskHandle[Any], None] = OrderedDict()
        self._services: OrderedDict[TaskHandle[Any], None] = OrderedDict()
        self._unseen: OrderedDict[TaskHandle[Any], None] = OrderedDict()
        self._forgotten = 0
        self._quiet = Bell()

    async def __aenter__(self) -> Self:
        if self._group is not None and not loops.is_over(self._loop):
            msg = (
                f"{self!r} is entered already. Enter it once, where it is made, and pass it on; "
                f"or make another."
            )
            raise RuntimeError(msg)
        self._loop = loops.current_loop()
        self._tasks.clear()
        self._services.clear()
        self._unseen.clear()
        self._forgotten = 0
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        group, swallowed = cast("TaskGroup", self._group), False
        escaped: tuple[BaseException, ...] = ()
        error = exc if exc is not None else await self._wind_down()
        try:
            swallowed = await _leave(group, error)
        except BaseExceptionGroup as errors:
            escaped = errors.exceptions
        except BaseException:
            if not self._unseen:
                raise
        finally:
            self._group = None
        self._report(escaped)
        if exc is None and error is not None and not swallowed and not escaped:
            raise error
        return swallowed

    async def _wind_down(self) -> BaseException | None:
        """Drain, then end the services; return what prevented it."""
        try:
            await self._until_idle()
        except BaseException as error:  # noqa: BLE001 - the task group has to see it first
            return error
        for service in self._services:
            service.cancel()
        return None

    async def _until_idle(self) -> None:
        while self._tasks:
            await self._quiet.wait()

    def _report(self, escaped: tuple[BaseException, ...]) -> None:
        unseen = [handle.exception() for handle in list(self._unseen)]
        errors = [error for error in unseen if error is not None]
        if self._forgotten and errors:
            errors[-1].add_note(f"{self._forgotten} more submitted tasks failed after this one")
        conclude([*enumerate(errors)], escaped)

    async def submit(
        self, fn: Callable[..., Awaitable[T] | T], /, *args: Any, **kwargs: Any
    ) -> TaskHandle[T]:
        """
        Start ``fn(*args, **kwargs)`` as a task of its own; wait while too many are unfinished.

        A checkpoint when ``max_workers + max_pending`` submitted tasks are unfinished, and for one
        call in 64. Cancelled while it waits, it has started nothing. The task waits for a slot
        like any item, in the order of submission, and has the executor's timeout. Its failure
        cancels nobody: it is raised by ``await handle``, or by leaving the block if nobody did.

        A task that submits to its own executor at that limit may have one unfinished task beyond
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
        self._check_open("submit")
        check_fn(fn)
        self._calls += 1
        if self._calls % FAST_CALLS == 0:
            await checkpoint()
        place = self._place_nowait()
        if place is None and self._places is not None:
            place = await self._wait_for_place(self._places)
        return self._launch(fn, args, kwargs, place)

    def submit_nowait(
        self, fn: Callable[..., Awaitable[T] | T], /, *args: Any, **kwargs: Any
    ) -> TaskHandle[T]:
        """
        Start a task as `submit` does, or fail at once. Not a checkpoint.

        Raises:
            anyio.WouldBlock: ``max_workers + max_pending`` submitted tasks are unfinished.
            RuntimeError: The executor is not entered, or draining.
        """
        self._check_open("submit_nowait")
        check_fn(fn)
        place = self._place_nowait()
        if place is None and self._places is not None:
            raise anyio.WouldBlock
        return self._launch(fn, args, kwargs, place)

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
            RuntimeError: The executor is not entered, or ``fn`` returned without being ready.
        """
        group = self._check_open("start")
        check_fn(fn)
        if not is_async(fn):
            msg = f"fn={fn!r} is not an async function: a service has to be one, to be cancelled."
            raise TypeError(msg)
        handle: TaskHandle[T] = TaskHandle(name_of(fn))
        service = Service(handle, partial(in_loop(fn), *args), as_policy(restart))
        self._services[handle] = None
        try:
            await group.start(service.run)
        except BaseException:
            self._services.pop(handle, None)
            raise
        return handle

    async def drain(self, timeout: float | None = None) -> bool:
        """
        Wait until all submitted tasks have ended; after ``timeout`` seconds cancel those left.

        A checkpoint. Meanwhile only tasks that are part of what is drained may submit more.
        Services go on. Cancelled, it leaves the tasks as they are.

        Args:
            timeout: The period of grace in seconds; None to wait as long as it takes.

        Returns:
            Whether everything came to its own end.

        Raises:
            RuntimeError: The executor is not entered, or a submitted task waits for itself.
        """
        self._check_open("drain", draining_too=True)
        checks.timeout("timeout", timeout)
        if TASK.get() in self._tasks:
            raise RuntimeError(
                "drain() was called inside a submitted task, which would wait for itself. Call it "
                "where the executor was entered."
            )
        self._draining += 1
        try:
            await checkpoint()
            with anyio.move_on_after(timeout):
                await self._until_idle()
            if not self._tasks:
                return True
            for task in self._tasks:
                task.cancel()
            await self._until_idle()
            return False
        finally:
            self._draining -= 1

    def cancel(self) -> None:
        """Cancel all submitted tasks and services. No checkpoint; the block itself goes on."""
        for handle in (*self._tasks, *self._services):
            handle.cancel()

    # ---- admission ----

    def _check_open(self, method: str, *, draining_too: bool = False) -> TaskGroup:
        if self._group is None or loops.is_over(self._loop):
            msg = (
                f"{method}() needs somewhere for its task to live: write "
                f"'async with executor:' around it. {self!r} is not entered."
            )
            raise RuntimeError(msg)
        if loops.current_loop() is not self._loop:
            msg = (
                f"{self!r} was entered in another event loop. Submit to it from there, for "
                f"example with anyio.from_thread.run(), or give each loop an executor of its own."
            )
            raise RuntimeError(msg)
        if self._draining and not draining_too and TASK.get() not in self._tasks:
            msg = f"{self!r} is draining and takes no new work. Submit before drain(), or after it."
            raise RuntimeError(msg)
        return self._group

    def _place_nowait(self) -> Slot | None:
        return None if self._places is None else self._places.acquire_nowait(None)

    async def _wait_for_place(self, places: Slots) -> Slot:
        slot = None if self._slots is None else self._slots.enclosing(CURRENT.get())
        if slot is None:
            return await places.acquire(None)
        while (place := places.acquire_nowait(None)) is None:
            if slot.child is None or slot.child.done:
                return places.force()
            await slot.child.wait()
        return place

    # ---- a task's life ----

    def _launch(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: Slot | None,
    ) -> TaskHandle[Any]:
        slots = self._slots
        try:
            group = self._check_open("submit")  # it may have been left while we waited
        except RuntimeError:
            if place is not None:
                place.slots.release(place)
            raise
        slot = None if slots is None else slots.acquire_nowait(None)
        waiter = None if slots is None or slot is not None else slots.enqueue(None)
        handle: TaskHandle[Any] = TaskHandle(
            name_of(fn), slots=slots, waiter=waiter, on_seen=self._on_seen
        )
        self._tasks[handle] = None
        around = None if slots is None else slots.enclosing(CURRENT.get())
        if around is not None:
            around.child = handle
        call = self._bind(fn, args, kwargs, self._default_timing)
        task = self._run_task(handle, call, slot, waiter, place)
        handle.set_task(group.create_task(task, name=handle.name))
        return handle

    async def _run_task(
        self,
        handle: TaskHandle[Any],
        call: Callable[[], Awaitable[Any]],
        slot: Slot | None,
        waiter: Waiter | None,
        place: Slot | None,
    ) -> None:
        TASK.set(handle)
        CURRENT.set(None)  # it does not run inside the item that submitted it
        try:
            if waiter is not None and self._slots is not None:
                slot, waiter = await self._slots.wait_for(waiter), None
            handle.set_running()
            handle.end(TaskStatus.SUCCEEDED, result=await self._item(slot, call))
        except Exception as error:  # noqa: BLE001 - kept for whoever awaits the handle
            self._failed(handle, error)
        except BaseException as error:
            if isinstance(error, anyio.get_cancelled_exc_class()) and not is_cancelled():
                self._failed(handle, stray(error, handle))
            else:
                handle.end(TaskStatus.CANCELLED, error=error)
                raise
        finally:
            self._tasks.pop(handle, None)
            if not self._tasks:
                self._quiet.ring_all()
            if slot is not None:
                slot.slots.release(slot)
            if place is not None:
                place.slots.release(place)

    def _failed(self, handle: TaskHandle[Any], error: Exception) -> None:
        if len(self._unseen) < _MOST_UNSEEN:
            self._unseen[handle] = None
        else:
            self._forgotten += 1
        handle.end(TaskStatus.FAILED, error=error)

    def _on_seen(self, handle: TaskHandle[Any]) -> None:
        self._unseen.pop(handle, None)


async def _leave(group: TaskGroup, error: BaseException | None) -> bool:
    if error is None:
        return bool(await group.__aexit__(None, None, None))
    return bool(await group.__aexit__(type(error), error, error.__traceback__))
