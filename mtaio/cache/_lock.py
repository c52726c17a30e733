"""
One change of a cache at a time.

Promise: while one thread changes a cache no other does, and user code that runs in the
middle of a change, in the same thread, cannot change it either: it gets a ``RuntimeError`` that
says so. Such code is a finaliser, a signal handler, or the ``__eq__`` or ``__hash__`` of a key. A
fork never copies a half-finished change.
Cost: a reentrant lock, and a flag.
"""

from __future__ import annotations

import os
from threading import RLock
from typing import TYPE_CHECKING, Final, NoReturn
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

__all__ = ["ChangeLock"]


class ChangeLock:
    """
    The lock held during a change, as ``with lock:``.

    Where each call counts, the same is written out: ``acquire()``, `refuse` if ``changing``,
    ``changing = True``, and finally ``changing = False`` and ``release()``.
    """

    # Invariant: changing is true only while a thread holds the lock and makes a change.
    __slots__ = ("__weakref__", "acquire", "changing", "held", "release")

    def __init__(self) -> None:
        lock = RLock()  # a plain lock would let a finaliser wait for its own thread
        self.held: AbstractContextManager[bool] = lock
        """The lock alone, for reading several things that belong together."""
        self.acquire: Callable[..., bool] = lock.acquire
        self.release: Callable[[], None] = lock.release
        self.changing: bool = False
        with _CREATION:
            _LOCKS.add(self)

    def __enter__(self) -> None:
        self.acquire()
        if self.changing:
            self.refuse()
        self.changing = True

    def __exit__(self, *_: object) -> None:
        self.changing = False
        self.release()

    def refuse(self) -> NoReturn:
        """Release the lock, which was acquired in the middle of a change, and raise."""
        self.release()
        msg = (
            "a finaliser, a signal handler or the __eq__ of a key tried to change or load "
            "something in the middle of another change of the same cache. Have it schedule that "
            "for later, for example with loop.call_soon_threadsafe."
        )
        raise RuntimeError(msg)

    def inside(self) -> bool:
        """Return whether this thread is in the middle of a change."""
        if not self.changing:
            return False
        with self.held:  # another thread gets it after its change
            return self.changing


_LOCKS: Final[WeakSet[ChangeLock]] = WeakSet()
_CREATION: Final = RLock()
_held: Final[list[ChangeLock]] = []


def _before_fork() -> None:
    _CREATION.acquire()
    _held.extend(_LOCKS)
    for lock in _held:
        lock.acquire()


def _after_fork() -> None:
    while _held:
        _held.pop().release()
    _CREATION.release()


if hasattr(os, "register_at_fork"):  # pragma: no branch - there is no fork on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
