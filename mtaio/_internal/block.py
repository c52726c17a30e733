"""
The ``async with`` block of an object: entered once at a time, and left where it was entered.

Promise: entering what is entered already, leaving it in another task, and using it in another event
loop are refused, with a message that names the object and the way out, before anything happens. A
block whose event loop is over, or that a forked child has inherited, cannot be left any more: its
object may be entered again. Leaving what is not entered does nothing.

An object keeps its `Blocks`, and makes an `OwnedBlock` each time that it is entered::

    async def __aenter__(self) -> Self:
        before = self._blocks.vacate(self)   # refuses, or returns what was never left
        block = OwnedBlock(self)
        await block.enter()                  # its task group, if it starts tasks
        self._blocks.current = block
        return self

    async def __aexit__(self, exc_type, exc, traceback) -> None:
        block = self._blocks.leaving(exc)    # refuses in another task
        if block is None:                    # there is nothing to leave
            return
        try:
            if not block.is_over():
                await block.leave(exc)
        finally:
            self._blocks.current = None

What is done between these steps, such as waiting for work in flight, is the object's own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import anyio

from mtaio._internal import backend, loops

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from anyio.abc import TaskGroup

__all__ = [
    "Blocks",
    "Entered",
    "Left",
    "OwnedBlock",
    "another_loop_error",
    "another_task_error",
    "entered_before_error",
]


class Entered(Protocol):
    """One block of an object, from entering to leaving: an `OwnedBlock`, or what holds one."""

    def is_over(self) -> bool:
        """Return whether it can no longer be left."""
        ...

    def is_current(self) -> bool:
        """Return whether its event loop is running here."""
        ...

    def check_task(self) -> None:
        """Raise ``RuntimeError`` if the running task is not the one that entered."""
        ...


B = TypeVar("B", bound=Entered)


class Blocks(Generic[B]):
    """
    The blocks of one object, of which one at a time is entered.

    Attributes:
        current: The one that was entered and not left.
    """

    # Invariant: _abandoned counts the blocks that were never left because their loop is over. The
    # coroutine of each is still there, suspended in its body. When the garbage collector closes
    # it, the body ends with GeneratorExit and __aexit__ is called, in whatever task runs then, and
    # perhaps while another block is entered, which must not be left in its place.
    __slots__ = ("_abandoned", "current")

    def __init__(self) -> None:
        self.current: B | None = None
        self._abandoned = 0

    def vacate(self, owner: object) -> B | None:
        """
        Make way for a new block of ``owner``.

        Returns:
            The block that was never left, and cannot be any more; nearly always None.

        Raises:
            RuntimeError: It is entered already.
        """
        before = self.current
        if before is not None:
            if not before.is_over():
                msg = (
                    f"{owner!r} is already entered. Enter it once, around everything that uses it, "
                    f"or make another."
                )
                raise RuntimeError(msg)
            self._abandoned += 1
            self.current = None
        return before

    def leaving(self, exc: BaseException | None) -> B | None:
        """
        Return the block that is to be left, whose body ended with ``exc``; None if there is none.

        If it is over, nothing of it runs any more, and there is nothing to wait for.

        Raises:
            RuntimeError: It was entered in another task.
        """
        if self._abandoned and isinstance(exc, GeneratorExit):
            self._abandoned -= 1
            return None
        block = self.current
        if block is not None and not block.is_over():
            block.check_task()
        return block

    def entered(self, owner: object, call: str) -> B:
        """
        Return the current block of ``owner``, in whose event loop this has to be.

        Args:
            owner: The object.
            call: What was called, for the message.

        Raises:
            RuntimeError: It is not entered, or was entered in another event loop.
        """
        block = self.current
        if block is not None and block.is_current():
            return block
        if block is None or block.is_over():
            msg = (
                f"{owner!r} is not entered, and {call} works only inside its block. Write "
                f"'async with' around the code that uses it."
            )
            raise RuntimeError(msg)
        raise another_loop_error(owner, call)


class OwnedBlock:
    """
    One block, from entering to leaving; made in the task that enters it.

    It has a task group, for those that start tasks: `enter` and `leave` are the group's. How the
    group ended is returned and not raised, so that the owner decides how its block ends.

    Args:
        owner: The object whose block it is, for messages.

    Attributes:
        loop: The event loop, as `loops.current_loop` returned it.
        half: Its backend.
        task: The id of the task that entered, which is the parent of those in the group.
    """

    __slots__ = ("_group", "_owner", "_process", "_running_loop", "half", "loop", "task")

    def __init__(self, owner: object) -> None:
        self.loop: object = loops.current_loop()
        self.half: backend.Backend = backend.of(self.loop)
        self._running_loop = self.half.running_loop
        self._owner = owner
        self.task: int = anyio.get_current_task().id
        self._process = os.getpid()
        self._group: TaskGroup

    def is_over(self) -> bool:
        """Return whether it can no longer be left: its loop is over, or this is a fork."""
        return self._process != os.getpid() or loops.is_over(self.loop)

    def is_current(self) -> bool:
        """Return whether its event loop is running here."""
        return self._process == os.getpid() and self._running_loop() is self.loop

    def check_task(self) -> None:
        """Raise ``RuntimeError`` if the running task is not the one that entered."""
        if anyio.get_current_task().id != self.task:
            raise another_task_error(self._owner)

    # ---- its task group ----

    async def enter(self) -> None:
        """Enter the task group. Not a checkpoint."""
        self._group = anyio.create_task_group()
        await self._group.__aenter__()

    def start(
        self, fn: Callable[..., Coroutine[Any, Any, Any]], *args: Any, name: str | None = None
    ) -> anyio.TaskHandle[Any]:
        """Start a task in the group."""
        start_soon: Callable[..., anyio.TaskHandle[Any]] = self._group.start_soon
        return start_soon(fn, *args, name=name)

    def start_coroutine(
        self, coroutine: Coroutine[Any, Any, Any], name: str
    ) -> anyio.TaskHandle[Any]:
        """Start a task in the group that runs ``coroutine``. Closed if the group takes none."""
        return self._group.create_task(coroutine, name=name)

    async def start_ready(self, fn: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
        """Start a task in the group and wait until it calls ``task_status.started()``."""
        return await self._group.start(fn)

    def cancel(self) -> None:
        """Cancel every task in the group, and what waits in its body."""
        self._group.cancel_scope.cancel()

    async def leave(self, reason: BaseException | None) -> Left:
        """Leave the group, whose body ended with ``reason``, in the task that entered it."""
        kind, trace = (None, None) if reason is None else (type(reason), reason.__traceback__)
        try:
            answer = await self._group.__aexit__(kind, reason, trace)
            # trio's answer is True when there was nothing to swallow, too.
            return Left(swallowed=bool(answer) and reason is not None)
        except BaseExceptionGroup as errors:
            return Left(raised=errors, errors=errors.exceptions)
        except BaseException as error:  # noqa: BLE001 - returned
            return Left(raised=error)
        finally:
            del reason, trace  # which may hold this frame


class Left(NamedTuple):
    """How a task group ended."""

    swallowed: bool = False
    """Whether it took what its body ended with for its own cancellation, which ends there."""
    raised: BaseException | None = None
    """What it raised: that again, a cancellation from outside, or a group of errors."""
    errors: tuple[BaseException, ...] = ()
    """The errors in that group."""


# ---- what is said --------------------------------------------------------------------------------


def another_task_error(owner: object) -> RuntimeError:
    """Return what is raised where another task than the one that entered a block leaves it."""
    return RuntimeError(
        f"{owner!r} was entered in another task. Enter and leave it in the same task, with 'async "
        f"with': cancellation and errors go to the task that entered it."
    )


def another_loop_error(owner: object, call: str) -> RuntimeError:
    """Return what is raised where another loop than the one that entered a block uses it."""
    return RuntimeError(
        f"{owner!r} was entered in another event loop, and {call} works only there. Call it from a "
        f"worker thread of that loop with anyio.from_thread.run(), or give each loop an object of "
        f"its own."
    )


def entered_before_error(owner: object, way_out: str) -> RuntimeError:
    """Return what is raised where an object that serves one block is entered for another."""
    return RuntimeError(f"{owner!r} was entered before, and can be entered only once. {way_out}")
