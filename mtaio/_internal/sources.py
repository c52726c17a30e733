"""
What a function returns to be iterated: opened, and closed again however the iteration ends.

Promise: whatever was opened is closed once, innermost first; also where the task is being cancelled
and where the opening itself fails. Closing has `GRACE` seconds, in which no cancel scope around the
task interrupts it.

There are three kinds of streams, and a function may be async and return one of them:

- an async iterator, above all an async generator. It is closed with its ``aclose``;
- an async iterable, whose iterator is closed, and then itself, as far as they can be;
- an async context manager whose value is one of these: it is left as ``async with`` would.

A stream that holds a cancel scope or a task group open from one item to the next, as no generator
should (PEP 789), ties itself to the task that opened it and to the scopes there. `Source.is_scoped`
tells; such a stream is closed without a scope of ours, which would be left before it.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, final

import anyio

from mtaio._internal import backend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = [
    "END",
    "GRACE",
    "Source",
    "interrupted_error",
    "is_generator",
    "scope_error",
    "within_grace",
]

GRACE: Final = 5.0
"""Seconds for which clean-up may go on in a task that is being cancelled."""

END: Final = object()
"""Stands for the item after the last."""


async def within_grace(close: Callable[[], Awaitable[object]], what: str) -> None:
    """Await ``close()`` behind a shield; in time, or it is interrupted and that is logged."""
    deadline = anyio.current_time() + GRACE
    with anyio.CancelScope(deadline=deadline, shield=True) as scope:
        await close()
    if scope.cancelled_caught:
        from logging import getLogger  # noqa: PLC0415 - most things are closed in time

        logger = getLogger("mtaio")
        logger.warning("%s took more than %g s, and was interrupted", what, GRACE)


def is_generator(iterator: object) -> bool:
    """Return whether it is an async generator: closed by us, and over once it has raised."""
    return inspect.isasyncgen(iterator)


def interrupted_error(name: str, way_out: str) -> RuntimeError:
    """Return the error for the next item of a generator that was cancelled as it made one."""
    return RuntimeError(
        f"the stream of {name} was cancelled while it waited for an item. That ends a generator, "
        f"so the stream cannot continue. Limit the time of each item with {way_out}, or of the "
        f"whole block."
    )


def scope_error(name: str, limited_by: object) -> RuntimeError:
    """Return the error for a stream that holds a scope open where only a part of it is limited."""
    return RuntimeError(
        f"the stream of {name} holds a cancel scope or a task group open while it hands out an "
        f"item, so {limited_by} cannot limit a step of it: scopes have to be left in the reverse "
        f"order. A generator must not yield inside a timeout block or a task group. Other streams "
        f"can be entered first, and passed to timeouts.each(...)."
    )


@final
class Source:
    """
    One stream, from its opening until it is closed.

    Args:
        name: Whose stream it is, for messages.

    Attributes:
        next: Returns an awaitable of the next item; there is none before `start`.
        is_generator: Whether the iterator is an async generator, which cannot go on after an error.
        is_scoped: Whether it holds a cancel scope open.
    """

    # Invariant: _exit is the __aexit__ of what has been entered, _closers are what closes the rest,
    # in the order in which to call them, that of a generator first; both are given up when closing
    # begins.
    __slots__ = (
        "_closers",
        "_exit",
        "_iterator",
        "is_generator",
        "is_scoped",
        "name",
        "next",
    )

    next: Callable[[], Awaitable[Any]]

    def __init__(self, name: str) -> None:
        self.name: str = name
        self._closers: list[Callable[[], Any]] = []
        self._exit: Callable[..., Awaitable[object]] | None = None
        self._iterator: Any = None
        self.is_generator: bool = False
        self.is_scoped: bool = False

    async def start(self, made: Any) -> Any:
        """
        Open ``made``, which a function has returned, and return its first item, or `END`.

        Where it fails or is cancelled, what was opened is still to be closed.

        Raises:
            TypeError: It is not a stream.
        """
        before = backend.innermost_scope()
        try:
            await self._open(made)
            try:
                return await self.next()
            except StopAsyncIteration:
                return END
        finally:
            self.is_scoped = backend.innermost_scope() is not before

    async def _open(self, made: Any) -> None:
        if not _is_block(made) and not _is_iterable(made):
            pending: object = made
            if not inspect.isawaitable(pending):
                raise _not_a_stream(self.name, pending)
            made = await made
        if _is_block(made):
            entered: Any = await made.__aenter__()
            self._exit = made.__aexit__
            made = entered
        if not _is_iterable(made):
            raise _not_a_stream(self.name, made)
        self._iterator = iterator = aiter(made)
        self.is_generator = is_generator(iterator)
        self.next = iterator.__anext__
        if self.is_generator:
            self._closers.append(iterator.aclose)
        if self._exit is None and not is_generator(made):
            close = getattr(made, "aclose", None) or getattr(iterator, "aclose", None)
            if close is not None:
                self._closers.append(close)

    async def close(self, error: BaseException | None = None) -> None:
        """
        Close it, after ``error`` if its iteration ended with one. Once; then it does nothing.

        Raises:
            BaseException: What closing raises, unless that is ``error`` again.
        """
        if self.is_generator and self._closers and self._iterator.ag_frame is None:
            del self._closers[0]  # it has come to its end
        if self._exit is None and not self._closers:
            return
        if self.is_scoped:
            await self._close(error)
        else:
            await within_grace(lambda: self._close(error), f"closing the stream of {self.name}")

    async def close_scoped(self) -> None:
        """Close it in a task in which it holds a scope open, found out too late."""
        self.is_scoped = True
        await self.close()

    async def _close(self, error: BaseException | None) -> None:
        leave, self._exit = self._exit, None
        closers, self._closers = self._closers, []
        try:
            for close in closers:
                closing = close()
                if inspect.isawaitable(closing):
                    await closing
        except BaseException as failure:
            error = failure
            raise
        finally:
            if leave is not None:
                await _leave(leave, error)


async def _leave(leave: Callable[..., Awaitable[object]], error: BaseException | None) -> None:
    """Leave an async context manager; what it raises again, or would swallow, is not news."""
    if error is None:
        await leave(None, None, None)
        return
    try:
        await leave(type(error), error, error.__traceback__)
    except BaseException as failure:
        if failure is not error:
            raise


def _is_block(made: object) -> bool:
    return hasattr(type(made), "__aenter__") and hasattr(type(made), "__aexit__")


def _is_iterable(made: object) -> bool:
    return hasattr(type(made), "__aiter__")


def _not_a_stream(name: str, made: object) -> TypeError:
    return TypeError(
        f"{name} returned {made!r}, which cannot be iterated with 'async for'. Pass an async "
        f"generator function, or a function that returns an async iterable or an async context "
        f"manager around one."
    )
