"""
Reading the tasks of an event loop that may be busy, blocked, or this one.

Promise: the loop whose tasks are read is not held up for longer than it takes to read
`_MOST_IN_LOOP` of them, ten to twenty milliseconds, and an answer comes while it is blocked, too.
Cost: where it has more tasks, or does not answer, a thread for each reading.

In the loop nothing changes while its tasks are read, so what is read is of one moment. A thread
reads what is there while the loop goes on, and gives it its turn every few milliseconds: that is
how the interpreter shares its lock. So few tasks are read in the loop, and many in a thread.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import anyio

from mtaio._internal import clock, loops
from mtaio._internal.gil import has_gil
from mtaio._internal.task_tree import read, read_from_anywhere

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio._internal.task_tree import TaskTree

__all__ = ["TaskReader"]

T = TypeVar("T")

_MOST_IN_LOOP: Final = 1000
_PATIENCE: Final = 0.25
"""Seconds that the loop has to answer, before a thread does."""


class TaskReader:
    """
    Reads the tasks of a loop, in any other or in the same one.

    Args:
        loop: That loop, as `loops.current_loop` returned it.
    """

    # Invariant: _asked is set while a call in the loop is pending, so that a blocked loop finds one
    # of them, and not one for each request. It is set in the loop that asks, and cleared in the
    # one that is asked.
    __slots__ = ("_asked", "_loop")

    def __init__(self, loop: object) -> None:
        self._loop: Final = loop
        self._asked = False

    async def read(self, show: Callable[[TaskTree], T]) -> T:
        """
        Return what ``show`` makes of the tree; called in a thread where there are many tasks.

        A checkpoint, unless this is the loop and it has few tasks; cancelled, it leaves nothing
        behind but a call or a thread that ends by itself.
        """
        if loops.is_current(self._loop):
            tree = self._few()
        else:
            tree = await self._read_there()
        return await self._read_in_thread(show) if tree is None else show(tree)

    # ---- in the loop that is read ----------------------------------------------------------------

    def _few(self) -> TaskTree | None:
        """Return the tree, unless there are many tasks."""
        # A virtual clock would run away from a thread, and without the interpreter's lock a thread
        # sees next to nothing.
        is_best_here = not (clock.is_real() and has_gil())
        if is_best_here or loops.count_tasks(self._loop) <= _MOST_IN_LOOP:
            return read(self._loop)
        return None

    def _answer(self, answer: _Answer[TaskTree | None]) -> None:
        self._asked = False
        tree = None
        with suppress(Exception):  # it would end trio; a thread tries once more
            tree = self._few()
        answer.give(tree)

    # ---- in the loop that asks -------------------------------------------------------------------

    async def _read_there(self) -> TaskTree | None:
        """Return the tree read in the loop; None if it has many tasks, or does not answer."""
        if self._asked:
            return None
        self._asked = True
        answer: _Answer[TaskTree | None] = _Answer(None)
        if not loops.call_in(self._loop, partial(self._answer, answer)):
            return None
        with anyio.move_on_after(_PATIENCE):
            await answer.given.wait()
        return answer.value

    async def _read_in_thread(self, show: Callable[[TaskTree], T]) -> T:
        answer: _Answer[T | Exception] = _Answer(RuntimeError())

        def read() -> None:
            try:
                answer.give(show(read_from_anywhere(self._loop, 0)))
            except Exception as error:  # noqa: BLE001 - raised where it is waited for
                answer.give(error)

        threading.Thread(target=read, name="mtaio.monitoring tasks", daemon=True).start()
        await answer.given.wait()
        if isinstance(answer.value, Exception):
            raise answer.value
        return answer.value


class _Answer(Generic[T]):
    """What one loop waits for, and another one or a thread gives; made in the loop that waits."""

    __slots__ = ("_loop", "given", "value")

    def __init__(self, value: T) -> None:
        self._loop: Final = loops.current_loop()
        self.value: T = value
        self.given: Final = anyio.Event()

    def give(self, value: T) -> None:
        """Give it, from any thread; it is dropped if that loop is over."""
        loops.call_in(self._loop, partial(self._set, value))

    def _set(self, value: T) -> None:
        self.value = value
        self.given.set()
