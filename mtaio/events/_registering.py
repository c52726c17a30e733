"""
Handlers: who is to be called, for which events, and in which tier.

Promise: the handler that is registered is the one that is removed, listed and returned; what could
never be called is refused where it is registered.
"""

from __future__ import annotations

import warnings
from functools import partial
from operator import eq, is_
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, overload

from mtaio._internal import checks
from mtaio.events._event import Event, EventPriority, name_in
from mtaio.events._listener import Listener, check_call, check_priority
from mtaio.events._match import check_pattern, is_wild

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.events._event import EventKey
    from mtaio.events._registry import Registry

__all__ = ["Register", "Registering"]

T = TypeVar("T")
R = TypeVar("R")
H = TypeVar("H", bound="Callable[[Event[Any]], object]")

HANDLER_WAY_OUT: Final = "Pass a function of one argument, the event; async or not."


class Register(Protocol[T]):
    """A decorator that registers a handler of events with data of one type, and returns it."""

    def __call__(self, handler: Callable[[Event[T]], R], /) -> Callable[[Event[T]], R]:
        """Register ``handler``."""
        ...


class Registering:
    """
    The part of `EventEmitter` that has handlers.

    Invariant: ``_warned`` are the patterns of which it was said that they have many.
    """

    __slots__ = ("_max_listeners", "_registry", "_warned")

    def __init__(self, registry: Registry, max_listeners: int | None) -> None:
        if max_listeners is not None:
            way_out = "Pass above how many to warn, or None for never."
            checks.count("max_listeners", max_listeners, way_out=way_out)
        self._registry = registry
        self._max_listeners = max_listeners
        self._warned: set[str] = set()

    @overload
    def on(
        self, name: EventKey[T], handler: None = ..., *, priority: int = ..., weak: bool = ...
    ) -> Register[T]: ...
    @overload
    def on(
        self, name: str, handler: None = ..., *, priority: int = ..., weak: bool = ...
    ) -> Callable[[H], H]: ...
    @overload
    def on(
        self,
        name: EventKey[T],
        handler: Callable[[Event[T]], R],
        *,
        priority: int = ...,
        weak: bool = ...,
    ) -> Callable[[Event[T]], R]: ...
    @overload
    def on(self, name: str, handler: H, *, priority: int = ..., weak: bool = ...) -> H: ...
    def on(
        self,
        name: str | EventKey[Any],
        handler: Any = None,
        *,
        priority: int = EventPriority.NORMAL,
        weak: bool = False,
    ) -> Any:
        """
        Register a handler: ``@emitter.on("user.login")`` or ``emitter.on("user.login", handler)``.

        An emit that is under way does not call it. A handler registered twice is called twice. Not
        a checkpoint.

        Args:
            name: A name; ``"ns.*"`` for every name below ``ns``; ``"*"`` for every name; or an
                `EventKey`.
            handler: Called with the `Event`. An async function, or a plain one; what a plain one
                returns is awaited if it can be, and a handler behind it may have to wait for that.
            priority: Higher ones run first: an `EventPriority`, or any int.
            weak: Whether to hold the handler, or the object whose method it is, weakly, so that it
                goes when nobody else holds it. Mind that nobody else holds a lambda.

        Returns:
            The handler itself, or a decorator that does.

        Raises:
            TypeError: ``name`` is no name, ``handler`` cannot be called, is a generator function,
                or cannot be held weakly, or ``priority`` is no int.
            ValueError: ``name`` is empty, or has a ``*`` where none matches.
        """
        return self._registering(name, handler, priority=priority, weak=weak, once=False)

    @overload
    def once(
        self, name: EventKey[T], handler: None = ..., *, priority: int = ..., weak: bool = ...
    ) -> Register[T]: ...
    @overload
    def once(
        self, name: str, handler: None = ..., *, priority: int = ..., weak: bool = ...
    ) -> Callable[[H], H]: ...
    @overload
    def once(
        self,
        name: EventKey[T],
        handler: Callable[[Event[T]], R],
        *,
        priority: int = ...,
        weak: bool = ...,
    ) -> Callable[[Event[T]], R]: ...
    @overload
    def once(self, name: str, handler: H, *, priority: int = ..., weak: bool = ...) -> H: ...
    def once(
        self,
        name: str | EventKey[Any],
        handler: Any = None,
        *,
        priority: int = EventPriority.NORMAL,
        weak: bool = False,
    ) -> Any:
        """
        Register a handler for one event. The arguments are those of `on`.

        It is unregistered before it is called, so it is called once however many tasks emit, also
        if it emits the same event itself. Until then `off` removes it.
        """
        return self._registering(name, handler, priority=priority, weak=weak, once=True)

    def off(self, name: str | EventKey[Any], handler: Callable[..., object]) -> bool:
        """
        Remove a handler; of several registrations the latest. Not a checkpoint.

        An emit that is under way and has not called it yet does not call it any more.

        Args:
            name: The name, pattern or key under which it was registered.
            handler: What was registered.

        Returns:
            False if it is not registered there.

        Raises:
            TypeError, ValueError: ``name`` could not have been registered.
        """
        registered = self._registry.under(check_pattern(name_in(name)))[::-1]
        for same in (is_, eq):  # of two that are equal, the very one
            for listener in registered:
                if same(listener.subject, handler):
                    self._registry.remove(listener)
                    return True
        return False

    def listeners(self, name: str | EventKey[Any]) -> tuple[Callable[[Event[Any]], object], ...]:
        """
        Return the handlers that would run for a name, in their order. Not a checkpoint.

        Args:
            name: A name; for a pattern, the handlers registered under exactly that.

        Raises:
            TypeError, ValueError: ``name`` is none.
        """
        return tuple(self._handlers(name))

    def listener_count(self, name: str | EventKey[Any] | None = None) -> int:
        """
        Return how many handlers would run for a name. Not a checkpoint.

        Args:
            name: As for `listeners`; None for the number of all registrations.

        Raises:
            TypeError, ValueError: ``name`` is none.
        """
        return len(self._registry) if name is None else len(self._handlers(name))

    def _registering(
        self, name: object, handler: Any, *, priority: int, weak: bool, once: bool
    ) -> Any:
        pattern = check_pattern(name_in(name))
        check_priority(priority)
        register = partial(self._register, pattern, priority=priority, weak=weak, once=once)
        return register if handler is None else register(handler, level=4)

    def _register(
        self, pattern: str, handler: H, *, priority: int, weak: bool, once: bool, level: int = 2
    ) -> H:
        check_call("handler", handler, way_out=HANDLER_WAY_OUT)
        registry = self._registry
        listener = Listener(registry, (pattern,), handler, priority=priority, weak=weak, once=once)
        most = self._max_listeners
        if most is not None and registry.crowd(pattern) >= most and pattern not in self._warned:
            count = len(registry.under(pattern)) + 1
            if count > most:
                # Names come and go; only those with handlers are remembered.
                self._warned = {pattern, *filter(registry.under, self._warned)}
                msg = (
                    f"{count} handlers of {pattern!r} are registered, more than "
                    f"max_listeners={most}. If that is meant, raise it; else look for an on() "
                    f"without its off()."
                )
                warnings.warn(msg, RuntimeWarning, stacklevel=level)
        registry.add(listener)
        return handler

    def _handlers(self, name: object) -> list[Any]:
        pattern = check_pattern(name_in(name))
        registry = self._registry
        listeners = registry.under(pattern) if is_wild(pattern) else registry.matching(pattern)
        # Looked at once: one held weakly may be gone at the second look.
        subjects = (each.subject for each in listeners if each.is_handler)
        return [subject for subject in subjects if subject is not None]
