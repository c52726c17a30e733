"""
The task group that an object owns between entering and leaving its ``async with`` block.

Promise: it is left in the task that entered it, or refuses with a message that says why; how it
ended is returned and not raised, so that its owner decides what the end of the block is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from mtaio._internal import loops

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Left", "OwnedGroup", "another_task_error", "check_task"]


def check_task(owner: object, task: int) -> None:
    """Raise ``RuntimeError`` if the running task is not the one with the id ``task``."""
    if anyio.get_current_task().id != task:
        raise another_task_error(owner)


def another_task_error(owner: object) -> RuntimeError:
    """Return what is raised where another task than the one that entered a block leaves it."""
    return RuntimeError(
        f"{owner!r} was entered in another task. Enter and leave it in one, with async with: what "
        f"is cancelled, and whose errors are seen, depends on the task."
    )


class Left(NamedTuple):
    """How a task group ended."""

    swallowed: bool = False
    """Whether it took what its body ended with for its own cancellation, which ends there."""
    raised: BaseException | None = None
    """What it raised: that again, a cancellation from outside, or a group of errors."""
    errors: tuple[BaseException, ...] = ()
    """The errors in that group."""


class OwnedGroup:
    """
    The task group of one block; made in the task that enters it.

    Args:
        owner: The object whose block it is, for messages.

    Attributes:
        loop: The event loop, as `loops.current_loop` returned it.
    """

    __slots__ = ("_group", "_owner", "_process", "_task", "loop")

    def __init__(self, owner: object) -> None:
        self.loop: object = loops.current_loop()
        self._owner = owner
        self._task = anyio.get_current_task().id
        self._process = os.getpid()
        self._group = anyio.create_task_group()

    def is_over(self) -> bool:
        """Return whether the block can no longer be left: its loop is over, or this is a fork."""
        return self._process != os.getpid() or loops.is_over(self.loop)

    def is_current(self) -> bool:
        """Return whether the block's loop is running here."""
        return self._process == os.getpid() and loops.is_current(self.loop)

    async def enter(self) -> None:
        """Enter the group."""
        await self._group.__aenter__()

    def start(
        self, fn: Callable[..., Coroutine[Any, Any, Any]], *args: Any, name: str | None = None
    ) -> anyio.TaskHandle[Any]:
        """Start a task in the group."""
        start_soon: Callable[..., anyio.TaskHandle[Any]] = self._group.start_soon
        return start_soon(fn, *args, name=name)

    async def start_ready(self, fn: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
        """Start a task in the group and wait until it calls ``task_status.started()``."""
        return await self._group.start(fn)

    def cancel(self) -> None:
        """Cancel every task in the group, and what waits in its body."""
        self._group.cancel_scope.cancel()

    def check_task(self) -> None:
        """Raise ``RuntimeError`` if another task than the one that entered wants to leave."""
        check_task(self._owner, self._task)

    async def leave(self, reason: BaseException | None) -> Left:
        """Leave the group, whose body ended with ``reason``."""
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
