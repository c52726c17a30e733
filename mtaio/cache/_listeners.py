"""
Calls of ``on_removed``, for each value that leaves a cache.

Promise: the listener is called once for each value that leaves, after the operation that removed it
and outside the lock; what it raises is logged, and changes nothing in the cache.
Cost: nothing without a listener.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Hashable
from threading import get_ident
from typing import Any, Final, TypeAlias

import anyio

from mtaio._internal import checks, loops
from mtaio._internal.callables import close_unstarted, is_async
from mtaio._internal.cancellation import Stray, classify, is_cancellation
from mtaio.cache._store import RemovalCause

__all__ = ["AsyncNotifier", "Listener", "Notifier", "notifier_of"]

BACKLOG: Final = 10_000
"""How many removals may wait for an async listener; any more are dropped, and counted."""


Listener: TypeAlias = Callable[[Any, Any, RemovalCause], Any]

_Removal: TypeAlias = tuple[Hashable, object, RemovalCause]


class Notifier:
    """
    Calls a plain listener for what was removed, in the thread that removed it.

    Args:
        listener: The user's function.
        owner: The cache, for messages.
    """

    __slots__ = ("_calling", "_listener", "_owner", "dropped", "mute", "pending")

    def __init__(self, listener: Listener, owner: object) -> None:
        self._listener = listener
        self._owner = owner
        self._calling: set[int] = set()
        self.mute: bool = False
        """Whether the listener cannot be called, so that nothing may be removed."""
        self.pending: deque[_Removal] = deque()
        self.dropped: int = 0

    def add(self, key: Hashable, value: object, cause: RemovalCause) -> None:
        """Note that a value left."""
        self.pending.append((key, value, cause))

    def deliver(self) -> None:
        """Call the listener, unless it is the listener that made the change."""
        thread = get_ident()
        if thread in self._calling:
            return  # the loop below, further out in this thread, tells it
        self._calling.add(thread)
        try:
            while True:
                try:
                    removal = self.pending.popleft()
                except IndexError:  # that was all; another thread may have taken some
                    return
                try:
                    refuse_awaitable(self._listener, self._listener(*removal))
                except BaseException as error:
                    if not isinstance(error, Exception) and not is_cancellation(error):
                        raise
                    self.failed(removal, error)  # the entry is gone in any case
        finally:
            self._calling.discard(thread)

    def check(self) -> None:
        """Raise ``RuntimeError`` if the listener cannot be called."""
        if self.mute:
            msg = (
                f"{self._owner!r} has an async on_removed, but is not entered: it could not be "
                f"awaited. Use 'async with cache:' around code that changes the cache, or pass a "
                f"plain function."
            )
            raise RuntimeError(msg)

    def end_block(self) -> None:
        """Note that the cache was left; a plain listener is called all the same."""

    def failed(self, removal: _Removal, error: BaseException) -> None:
        """Log what the listener raised."""
        from logging import getLogger  # noqa: PLC0415 - most listeners never fail

        key, _, cause = removal
        getLogger("mtaio.cache").error(
            "on_removed of %r failed for key=%r (%s)", self._owner, key, cause, exc_info=error
        )


class AsyncNotifier(Notifier):
    """
    The same for an async listener, which a task of the entered cache awaits.

    Args:
        listener: The user's function, an async one.
        owner: The cache, for messages.
    """

    # Invariants:
    # - _loop is the loop in which tell() runs, None while it does not;
    # - deliver() follows each add(), and has tell() look again;
    # - once _leaving, nothing is added: a thread that goes on writing must not hold up the leaving.
    __slots__ = ("_idle", "_leaving", "_loop", "_more")

    def __init__(self, listener: Listener, owner: object) -> None:
        super().__init__(listener, owner)
        self.mute = True
        self._loop: object = None
        self._leaving: bool = False
        self._more: anyio.Event
        self._idle: anyio.Event

    def add(self, key: Hashable, value: object, cause: RemovalCause) -> None:
        """Note that a value left, unless it is too late, or too many removals are waiting."""
        if not self._leaving and len(self.pending) < BACKLOG:
            super().add(key, value, cause)
        else:
            self.dropped += 1

    def deliver(self) -> None:
        """Have the listener called, from any thread."""
        loop = self._loop
        if not self.pending or loop is None:
            return
        if loops.is_current(loop):
            self._look_again()
        else:
            loops.call_in(loop, self._look_again)

    async def run(self) -> None:
        """Call the listener for each removal, one after another, until cancelled."""
        mine = self._loop = loops.current_loop()
        try:
            while True:
                self._more = anyio.Event()
                while self.pending:
                    removal = self.pending.popleft()
                    try:
                        await self._listener(*removal)
                    except BaseException as error:
                        if not isinstance(error, Exception) and not isinstance(
                            classify(error), Stray
                        ):
                            raise
                        self.failed(removal, error)  # the entry is gone in any case
                self._idle.set()
                await self._more.wait()
        finally:
            if self._loop is mine:  # else its loop was killed, and another block has started
                self._loop = None
                for _ in range(len(self.pending)):  # what a thread adds now is for the next block
                    self.pending.popleft()
                    self.dropped += 1

    def prepare(self) -> None:
        """Make ready for `run`, in its loop."""
        self._idle = anyio.Event()
        self._leaving = self.mute = False

    def end_block(self) -> None:
        """Note that the cache was left, so that the listener cannot be awaited."""
        self.mute = True

    async def wait_delivered(self) -> None:
        """Wait until the listener has been called for everything that has left so far."""
        self._leaving = True
        while self.pending or not self._idle.is_set():
            if self.pending:
                self._look_again()  # another thread's call_in may not have been handled yet
            await self._idle.wait()

    def _look_again(self) -> None:
        if self._loop is not None:
            self._more.set()
            if self._idle.is_set():
                self._idle = anyio.Event()


def refuse_awaitable(listener: Listener, answer: object) -> None:
    """Raise ``TypeError`` if a plain listener returned what should have been awaited."""
    if inspect.isawaitable(answer):
        close_unstarted(answer)
        msg = (
            f"on_removed={listener!r} returned an awaitable, but is not an async function. Write "
            f"it with 'async def', so that the cache knows."
        )
        raise TypeError(msg)


def notifier_of(on_removed: Listener, owner: object) -> Notifier:
    """Return a notifier for a listener."""
    way_out = "Pass a function of (key, value, cause), plain or async."
    checks.callable_("on_removed", on_removed, way_out=way_out)
    return (AsyncNotifier if is_async(on_removed) else Notifier)(on_removed, owner)
