"""
Listening without a handler: for one event, or for all of them as they come.

Promise: both begin at once, before anything else can run, and end with the call or the block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from mtaio.events._event import Event, EventPriority, name_in
from mtaio.events._registering import Registering
from mtaio.events._stream import EventStream, Overflow, Streams
from mtaio.events._waiter import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.events._event import EventKey
    from mtaio.events._registry import Registry

__all__ = ["Listening"]

T = TypeVar("T")
T2 = TypeVar("T2")


class Listening(Registering):
    """The part of `EventEmitter` that tasks wait on."""

    __slots__ = ("_name", "_streams", "_waiters")

    def __init__(self, registry: Registry, max_listeners: int | None, name: str | None) -> None:
        super().__init__(registry, max_listeners)
        self._name = name
        self._streams = Streams(registry, name)
        self._waiters = Waiters(registry, name)

    @overload
    async def wait_for(
        self,
        name: EventKey[T],
        predicate: Callable[[Event[T]], object] | None = ...,
        *,
        timeout: float | None = ...,
        priority: int = ...,
    ) -> Event[T]: ...
    @overload
    async def wait_for(
        self,
        name: str,
        predicate: Callable[[Event[Any]], object] | None = ...,
        *,
        timeout: float | None = ...,
        priority: int = ...,
    ) -> Event[Any]: ...
    async def wait_for(
        self,
        name: str | EventKey[Any],
        predicate: Callable[[Event[Any]], object] | None = None,
        *,
        timeout: float | None = None,
        priority: int = EventPriority.NORMAL,
    ) -> Event[Any]:
        """
        Wait for one event. A checkpoint.

        It listens from its first step, before anything else can run, until it returns or is
        cancelled. Events that come between two calls are missed: to miss none use `stream`.

        Args:
            name: A name, pattern or key, as for `on`.
            predicate: Called with each such event; the first for which it is true is returned. A
                plain function. What it raises is raised here, not by the emit.
            timeout: The most seconds to wait; None for no limit.
            priority: The tier in which the event is looked at.

        Raises:
            TimeoutError: (`mtaio.exceptions.TimeoutError`) None came in time.
            TypeError: ``predicate`` is not callable, async, or a generator function; ``timeout`` or
                ``priority`` is no number, or ``name`` none.
            ValueError: ``name`` matches nothing, or ``timeout`` is negative or NaN.
        """
        return await self._waiters.wait_for(
            name_in(name), predicate, timeout=timeout, priority=priority
        )

    @overload
    def stream(
        self,
        name: EventKey[T],
        /,
        *names: EventKey[T],
        max_buffer: int = ...,
        overflow: Overflow = ...,
        priority: int = ...,
    ) -> EventStream[T]: ...
    @overload
    def stream(
        self,
        name: EventKey[T],
        other: EventKey[T2],
        /,
        *,
        max_buffer: int = ...,
        overflow: Overflow = ...,
        priority: int = ...,
    ) -> EventStream[T | T2]: ...
    @overload
    def stream(
        self,
        name: str | EventKey[Any],
        /,
        *names: str | EventKey[Any],
        max_buffer: int = ...,
        overflow: Overflow = ...,
        priority: int = ...,
    ) -> EventStream[Any]: ...
    def stream(
        self,
        *names: str | EventKey[Any],
        max_buffer: int = 100,
        overflow: Overflow = "block",
        priority: int = EventPriority.NORMAL,
    ) -> EventStream[Any]:
        """
        Return the events of these names as an async iterator, to be entered with ``async with``.

        An event that several of the names match comes once. Not a checkpoint.

        Args:
            names: Names, patterns and keys, as for `on`.
            max_buffer: How many events to keep for the consumer.
            overflow: What to do with an event when so many are kept: ``"block"`` makes its emit
                wait for room; ``"drop_oldest"`` makes room; ``"drop_newest"`` drops it; ``"raise"``
                drops it and fails as a handler does, with `mtaio.exceptions.EventOverflowError`.
            priority: The tier in which the event is taken in.

        Raises:
            TypeError: A name is none, or ``max_buffer`` or ``priority`` no int.
            ValueError: There is no name, one matches nothing, ``max_buffer`` is less than 1, or
                ``overflow`` unknown.
        """
        return EventStream(
            self._streams, names, max_buffer=max_buffer, overflow=overflow, priority=priority
        )
