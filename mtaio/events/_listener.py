"""
One registration: what is called, when, and whether it still is.

Promise: a listener that was removed is not called any more, not even by an emit that is under way;
one that is for once is removed before it is called; one held weakly does not keep its object alive.
"""

from __future__ import annotations

import inspect
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from mtaio._internal import checks
from mtaio._internal.callables import call_method, is_async, is_async_generator, unwrap

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Listener", "Owner", "check_call", "check_priority"]


class Owner(Protocol):
    """The table that a listener stands in."""

    def remove(self, listener: Listener) -> None:
        """Take it out."""
        ...

    def note_dead(self, listener: Listener) -> None:
        """Remember to take it out. Called by the garbage collector, in any thread."""
        ...


class Listener:
    """
    A handler, stream or waiter, registered under one or more patterns.

    Args:
        owner: The table it is going to stand in.
        patterns: What it listens to.
        subject: The handler as the user knows it; or the stream.
        call: What takes the event, if that is not the subject itself.
        priority: Higher ones run first.
        once: Whether it is removed before it is called.
        weak: Whether the subject is to be referred to weakly.

    Invariants:
    - ``call`` is None for what cannot simply be called each time: then ask `claim`;
    - ``active`` says that it stands in the table, and without it there is no ``call``.
    """

    __slots__ = (
        "_once",
        "_owner",
        "_ref",
        "_subject",
        "active",
        "call",
        "is_async",
        "is_handler",
        "patterns",
        "priority",
        "rank",
    )

    def __init__(
        self,
        owner: Owner,
        patterns: tuple[str, ...],
        subject: Any,
        *,
        priority: int,
        call: Callable[[Any], Any] | None = None,
        once: bool = False,
        weak: bool = False,
    ) -> None:
        self.patterns: tuple[str, ...] = patterns
        self.priority: int = priority
        self.rank: tuple[int, int] = (0, 0)  # given by the table
        self.active: bool = False
        self.is_handler: bool = call is None
        self.is_async: bool = call is None and is_async(subject)
        self.call: Callable[[Any], Any] | None = subject if call is None else call
        self._owner = owner
        self._once = once
        self._subject = None if weak else subject
        self._ref = self._refer(subject) if weak else None
        if weak or once:
            self.call = None

    @property
    def subject(self) -> Any:
        """The handler or stream; None if it was held weakly and is gone."""
        return self._subject if self._ref is None else self._ref()

    def claim(self) -> Callable[[Any], Any] | None:
        """Return what is to be called now; None if there is nothing left to call."""
        if not self.active:
            return None
        subject: Callable[[Any], Any] | None = self.subject
        if subject is not None and self._once:
            self._owner.remove(self)
        return subject

    def release(self) -> None:
        """Let go of the subject, which holds this listener and was removed."""
        self._subject = None

    def _refer(self, subject: Any) -> Callable[[], Any]:
        owner = self._owner

        def note(_: object) -> None:
            owner.note_dead(self)

        try:
            if inspect.ismethod(subject):
                return weakref.WeakMethod(subject, note)
            # A builtin's method is made for each look at it, and would be gone at once.
            bound = inspect.isbuiltin(subject) and not inspect.ismodule(subject.__self__)
            return weakref.ref(None if bound else subject, note)
        except TypeError:
            msg = (
                f"handler={subject!r} cannot be referred to weakly. Register it without weak=True, "
                f"and take it out with off() when its time is over."
            )
            raise TypeError(msg) from None


def check_call(name: str, value: object, *, way_out: str) -> None:
    """Refuse what cannot be called, and what would do nothing when it is called."""
    checks.callable_(name, value, way_out=way_out)
    if is_async_generator(value) or _is_generator(value):
        msg = (
            f"{name}={value!r} is a generator function: calling it would run none of it. {way_out}"
        )
        raise TypeError(msg)


def check_priority(priority: object) -> None:
    """Refuse what cannot be compared with an `EventPriority`."""
    if isinstance(priority, bool) or not isinstance(priority, int):
        msg = (
            f"priority={priority!r} is a {type(priority).__name__}, not an int. Pass an "
            f"EventPriority, or any int: higher ones run first."
        )
        raise TypeError(msg)


def _is_generator(fn: object) -> bool:
    fn = unwrap(fn)
    for each in (fn, call_method(fn)):
        if inspect.isgeneratorfunction(each):
            awaitable: int = each.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE
            return not awaitable
    return False
