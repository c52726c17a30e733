"""
What is left of a tier, beside the handler that has suspended.

Promise: each async handler goes on in a task of its own, and all have ended when this returns. A
cancellation ends them; a ``BaseException`` of one ends the others, and is raised as it is.

A task group must be open before a handler begins: one that has suspended may be inside scopes of
its own, and a scope opened then would close in the wrong order. Hence the two ways.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from mtaio._internal.callables import close_unstarted
from mtaio._internal.cancellation import is_cancelled, without_cancellation
from mtaio.events._batch import Batch
from mtaio.events._begin import begin
from mtaio.exceptions import StrayCancellationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from contextvars import Context

    from mtaio.events._home import Home
    from mtaio.events._listener import Listener

__all__ = ["Beside"]


class Walk(Protocol):
    """What calls one listener after another."""

    def __call__(
        self, listeners: Iterator[Listener], *, apart: bool = ...
    ) -> Coroutine[Any, Any, None]:
        """Call them; ``apart`` in a task that nobody but us can cancel."""
        ...


class Beside:
    """
    The tasks of one tier.

    Args:
        walk: What to do with listeners.
        name: The name of the event, for messages.

    Invariants:
    - ``_cancel`` is there before any task is, and cancels all of them;
    - ``_fatal`` are the ``BaseException``s, cancellation apart, that ended one;
    - ``_unfinished`` counts, in a group, the walks that have not come to their end, and
      ``_started`` are the tasks of those that were given one.
    """

    __slots__ = ("_cancel", "_fatal", "_name", "_started", "_unfinished", "_walk")

    def __init__(self, walk: Walk, name: str) -> None:
        self._walk = walk
        self._name = name
        self._cancel: Callable[[], None]
        self._fatal: list[BaseException] = []
        self._unfinished = 1
        self._started: list[anyio.TaskHandle[Any]] = []

    async def in_group(self, listeners: Iterator[Listener]) -> Exception | None:
        """
        Walk through a tier in a task group; once a handler suspends, the rest gets tasks.

        Returns:
            What to report if it was cut short.
        """
        try:
            return await self._group(listeners, copy_context())  # before a handler changes it
        finally:
            self._started.clear()  # they hold errors, which hold frames, which hold this

    async def _group(self, listeners: Iterator[Listener], context: Context) -> Exception | None:
        try:
            async with anyio.create_task_group() as group:
                self._cancel = group.cancel_scope.cancel
                await self._guarded(self._in_group(group.start_soon, listeners, context))
        except BaseException:
            self._raise_fatal()
            raise
        self._raise_fatal()
        if not self._unfinished:
            return None
        for handle in self._started:
            close_unstarted(handle.coro)
        # On asyncio a group may end as if all were well when it is cancelled as its tasks end.
        await checkpoint_if_cancelled()
        return StrayCancellationError(
            f"handlers of {self._name!r} were cancelled although the emit was not. Look for what "
            f"cancels tasks that are not its own, such as all of asyncio.all_tasks()."
        )

    async def in_block(
        self,
        home: Home,
        first: Awaitable[None],
        listeners: Iterator[Listener],
        *,
        context: Context,
        deadline: float,
    ) -> Exception | None:
        """
        Give what is left tasks in the emitter's block, then go on with the handler that suspended.

        Args:
            home: The block.
            first: The rest of the walk that has suspended.
            listeners: What it has not come to.
            context: The emit's context when the tier began.
            deadline: Its deadline then, in the event loop's clock.

        Returns:
            What to report if the tasks were cut short.
        """
        parts = list(_parts(listeners))
        if not parts:
            await first
            return None
        batch = Batch(home, parts, self._run, context=context, deadline=deadline)
        self._cancel = batch.cancel
        try:
            await first
            cut_short = await batch.wait()
        except GeneratorExit:
            batch.cancel()  # nothing can be waited for any more
            raise
        except BaseException:
            await batch.end()
            self._raise_fatal()
            raise
        self._raise_fatal()
        return cut_short

    async def _in_group(
        self,
        start: Callable[..., anyio.TaskHandle[Any]],
        listeners: Iterator[Listener],
        context: Context,
    ) -> None:
        first = begin(self._walk(listeners))
        if first is not None:
            for part in _parts(listeners):
                self._unfinished += 1
                self._started.append(context.run(start, self._run, part))
            await first

    async def _run(self, part: Iterator[Listener]) -> None:
        """Walk through a part of the rest, in a task of its own."""
        await self._guarded(self._walk(part, apart=True))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
            self._unfinished -= 1
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            raise
        except BaseException as error:
            if not self._note_fatal(error):
                raise
            self._cancel()

    def _note_fatal(self, error: BaseException) -> bool:
        """Keep what is to be raised at the end, bare; return False for a cancellation."""
        # A nursery of trio's raises its cancellation in a group. One that was asked for goes no
        # further than the scope that asked for it.
        rest = without_cancellation(error)
        if rest is None and is_cancelled():
            return False
        self._fatal.append(error if rest is None else rest)
        return True

    def _raise_fatal(self) -> None:
        fatal, self._fatal = self._fatal, []
        try:
            if len(fatal) == 1:
                raise fatal[0]
            if fatal:
                msg = f"handlers of {self._name!r} ended for good"
                raise BaseExceptionGroup(msg, fatal) from None
        finally:
            del fatal  # the error holds this frame: else they keep each other alive


def _parts(listeners: Iterator[Listener]) -> Iterator[Iterator[Listener]]:
    """Cut what is left of a tier into what gets a task: no plain handler waits for an async one."""
    part: list[Listener] = []
    for listener in listeners:
        part.append(listener)
        if listener.is_async:
            yield iter(part)
            part = []
    if part:
        yield iter(part)
