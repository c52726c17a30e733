"""
One change at a time.

Promise: while a change is made no other thread makes one, and whatever code of the user's runs in
the midst of it, in the same thread, changes nothing either: what it asks for is done right after.
Such code is a finaliser that the garbage collector calls, a signal handler, or the ``__eq__`` and
``__hash__`` of a key. A fork never catches a change half done.
Cost: a lock that its thread may take again, and a flag.
"""

from __future__ import annotations

import os
from collections import deque
from functools import partial
from threading import RLock, get_ident
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Gate"]
_WITHIN: Final = (
    "a finaliser, a signal handler or a key asked for a load in the midst of a change of the same "
    "cache, in the same thread. Have it set or delete, which is done after that change, or start "
    "the load in a task of its own."
)


class Gate:
    """
    What a change has to pass, as ``with gate:``; a thread that is within it has to `postpone`.

    Where each call counts, the same is written out: ``acquire()``, ``free = False``, then finally
    ``free = True``, ``release()``, and `catch_up` if something is in ``later``.
    """

    # Invariants:
    # - free is false only while a thread holds the lock and makes a change;
    # - what is in later is done by the thread whose change ends, before its operation returns.
    __slots__ = ("__weakref__", "_catching_up", "acquire", "free", "held", "later", "release")

    def __init__(self) -> None:
        self.held = RLock()  # not a Lock: a thread would wait for itself
        """The lock alone, for who reads several things that belong together."""
        self.acquire: Callable[[], bool] = self.held.acquire
        self.release: Callable[[], None] = self.held.release
        self.free: bool = True
        self.later: deque[Callable[[], object]] = deque()
        self._catching_up: set[int] = set()
        with _MAKING:
            _GATES.add(self)

    def __enter__(self) -> None:
        self.acquire()
        if not self.free:
            self.release()
            raise RuntimeError(_WITHIN)
        self.free = False

    def __exit__(self, *_: object) -> None:
        self.free = True
        self.release()
        if self.later:
            self.catch_up()

    def within(self) -> bool:
        """Tell whether this thread is in the midst of a change."""
        if self.free:
            return False
        with self.held:  # only the thread that makes a change gets here before its end
            return not self.free

    def postpone(self, change: Callable[..., object], *args: Any, **kwargs: Any) -> bool:
        """Have ``change`` called later, and return True, if this thread is in the midst of one."""
        if not self.within():
            return False
        self.later.append(partial(change, *args, **kwargs))
        return True

    def catch_up(self) -> None:
        """Make the changes that had to wait, unless this thread is about to."""
        thread = get_ident()
        if thread in self._catching_up:
            return
        self._catching_up.add(thread)
        try:
            while True:
                try:
                    change = self.later.popleft()
                except IndexError:  # done, maybe by another thread
                    return
                try:
                    change()
                except Exception as error:  # noqa: BLE001 - who asked for it was told that it is done
                    self._failed(error)
        finally:
            self._catching_up.discard(thread)

    def _failed(self, error: Exception) -> None:
        from logging import getLogger  # noqa: PLC0415 - hardly anybody needs it

        getLogger("mtaio.cache").error(
            "a change of a cache failed that a finaliser, a signal handler or a key had asked for "
            "in the midst of another",
            exc_info=error,
        )


_GATES: Final[WeakSet[Gate]] = WeakSet()
_MAKING: Final = RLock()
_held: Final[list[Gate]] = []


def _before_fork() -> None:
    _MAKING.acquire()
    _held.extend(_GATES)
    for gate in _held:
        gate.acquire()


def _after_fork() -> None:
    while _held:
        _held.pop().release()
    _MAKING.release()


if hasattr(os, "register_at_fork"):  # pragma: no branch - there is no fork on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
