"""
Who hears what became of an entry.

Promise: a listener is called once for each value that leaves, after the operation that removed it
and outside the lock; whatever it raises is logged, and changes nothing in the cache.
Cost: nothing without a listener.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Hashable
from enum import StrEnum
from threading import get_ident
from typing import Any, Final, TypeAlias

import anyio

from mtaio._internal import checks, loops
from mtaio._internal.callables import close_unstarted
from mtaio._internal.cancellation import Stray, classify, is_cancellation

__all__ = ["Notices", "RemovalCause", "listener_of"]

BACKLOG: Final = 10_000
"""How many removals may wait for an async listener; of more it is not told, which is counted."""


class RemovalCause(StrEnum):
    """Why a value left a cache."""

    EXPIRED = "expired"
    """Its time was over."""
    EVICTED = "evicted"
    """There was no room for it."""
    REPLACED = "replaced"
    """Another value was set for its key."""
    DELETED = "deleted"
    """Its key was deleted, or a tag that it carried was invalidated."""
    CLEARED = "cleared"
    """Everything was removed."""


Listener: TypeAlias = Callable[[Any, Any, RemovalCause], Any]

_Removal: TypeAlias = tuple[Hashable, object, RemovalCause]


class Notices:
    """
    What the listener has still to be told.

    Args:
        listener: The user's function, a plain one.
        owner: Whose it is, for messages.
    """

    __slots__ = ("_listener", "_owner", "_speaking", "pending", "unheard")

    def __init__(self, listener: Listener, owner: object) -> None:
        self._listener = listener
        self._owner = owner
        self._speaking: set[int] = set()
        self.pending: deque[_Removal] = deque()
        self.unheard: int = 0

    def add(self, key: Hashable, value: object, cause: RemovalCause) -> None:
        """Note that a value left."""
        self.pending.append((key, value, cause))

    def deliver(self) -> None:
        """Tell the listener, in this thread, unless it is the listener that made the change."""
        thread = get_ident()
        if thread in self._speaking:
            return  # a change made by the listener: the loop below comes to it
        self._speaking.add(thread)
        try:
            while self.pending:
                try:
                    removal = self.pending.popleft()
                except IndexError:  # another thread was faster
                    return
                try:
                    refuse_awaitable(self._listener, self._listener(*removal))
                except BaseException as error:
                    if not isinstance(error, Exception) and not is_cancellation(error):
                        raise
                    self.failed(removal, error)  # the entry is gone in any case
        finally:
            self._speaking.discard(thread)

    def failed(self, removal: _Removal, error: BaseException) -> None:
        """Log what the listener raised."""
        from logging import getLogger  # noqa: PLC0415 - most listeners never fail

        key, _, cause = removal
        getLogger("mtaio.cache").error(
            "on_removed of %r failed for key=%r (%s)", self._owner, key, cause, exc_info=error
        )


class AsyncNotices(Notices):
    """
    The same for a listener that has to be awaited, by a task of the entered cache.

    Args:
        listener: The user's function, an async one.
        owner: Whose it is, for messages.
    """

    # Invariants:
    # - _loop is the loop in which tell() runs, None while it does not;
    # - whoever adds calls deliver() afterwards, which has tell() look again;
    # - once _leaving, nothing is added: a thread that goes on writing must not hold up the leaving.
    __slots__ = ("_bell", "_idle", "_leaving", "_loop")

    def __init__(self, listener: Listener, owner: object) -> None:
        super().__init__(listener, owner)
        self._loop: object = None
        self._leaving: bool = False
        self._bell: anyio.Event
        self._idle: anyio.Event

    def add(self, key: Hashable, value: object, cause: RemovalCause) -> None:
        """Note that a value left, unless it is too late, or too many wait to be told."""
        if not self._leaving and len(self.pending) < BACKLOG:
            super().add(key, value, cause)
        else:
            self.unheard += 1

    def deliver(self) -> None:
        """Have the listener told, from any thread."""
        loop = self._loop
        if not self.pending or loop is None:
            return
        if loops.is_current(loop):
            self._ring()
        else:
            loops.call_in(loop, self._ring)

    async def tell(self) -> None:
        """Tell the listener of each removal, one after another, until cancelled."""
        mine = self._loop = loops.current_loop()
        try:
            while True:
                self._bell = anyio.Event()
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
                await self._bell.wait()
        finally:
            if self._loop is mine:  # else its loop was killed, and the next block tells
                self._loop = None
                for _ in range(len(self.pending)):  # what a thread adds now is for the next block
                    self.pending.popleft()
                    self.unheard += 1

    def begin(self) -> None:
        """Make ready for `tell`, in its loop."""
        self._idle = anyio.Event()
        self._leaving = False

    async def told(self) -> None:
        """Wait until the listener has been told of everything that has left up to now."""
        self._leaving = True
        while self.pending or not self._idle.is_set():
            if self.pending:
                self._ring()  # a change made in another thread may not have come so far
            await self._idle.wait()

    def _ring(self) -> None:
        if self._loop is not None:
            self._bell.set()
            if self._idle.is_set():
                self._idle = anyio.Event()


def refuse_awaitable(listener: Listener, answer: object) -> None:
    """Raise ``TypeError`` if a plain listener returned what should have been awaited."""
    if inspect.isawaitable(answer):
        close_unstarted(answer)
        msg = (
            f"on_removed={listener!r} returned an awaitable, but is no async function. Write it "
            f"with 'async def', so that the cache knows."
        )
        raise TypeError(msg)


def listener_of(on_removed: Listener | None, owner: object) -> Notices | None:
    """Return the notices for a listener; None without one."""
    if on_removed is None:
        return None
    way_out = "Pass a function of (key, value, cause), plain or async."
    checks.callable_("on_removed", on_removed, way_out=way_out)
    call = getattr(type(on_removed), "__call__", None)  # noqa: B004 - the method, not whether
    if inspect.iscoroutinefunction(on_removed) or inspect.iscoroutinefunction(call):
        return AsyncNotices(on_removed, owner)
    return Notices(on_removed, owner)
