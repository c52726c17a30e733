"""
The event that handlers get, its typed name, and the named priorities.

Promise: one `Event` object for all handlers of one emit; a typed name is checked by the type
checker and costs nothing at run time.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final, Generic, TypeVar, final

from mtaio.events._patterns import check_name, check_pattern

__all__ = ["Event", "EventKey", "EventPriority", "name_of", "pattern_of"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class EventPriority(IntEnum):
    """Named priorities. Higher ones run first; any other int is a priority too."""

    HIGHEST = 100
    HIGH = 50
    NORMAL = 0
    LOW = -50
    LOWEST = -100


@final
class EventKey(Generic[T]):
    """
    The name of an event together with the type of its data.

    Type checkers use it to check emits and handlers: with ``LOGIN = EventKey[User]("user.login")``,
    they refuse ``emitter.emit(LOGIN, 5)``. At run time it is the same as its name, so handlers of
    ``"user.login"`` get events of ``LOGIN``.

    Args:
        name: A name, or a pattern (``"ns.*"``, ``"*"``) for events whose data are of one type.

    Raises:
        TypeError: ``name`` is not a string.
        ValueError: ``name`` is empty, or has a ``*`` where it matches nothing.

    Example:
        ```python
        import anyio

        from mtaio import EventEmitter
        from mtaio.events import Event, EventKey

        PRICE = EventKey[float]("price.changed")
        emitter = EventEmitter()


        @emitter.on(PRICE)
        def show(event: Event[float]) -> None:
            print(f"{event.data:.2f}")


        async def main() -> None:
            await emitter.emit(PRICE, 9.5)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ("__weakref__", "_hash", "_name")

    def __init__(self, name: str) -> None:
        self._name = check_pattern(name)
        self._hash = hash((EventKey, name))  # needed by each emit

    @property
    def name(self) -> str:
        """The name at run time."""
        return self._name

    def __repr__(self) -> str:
        return f"EventKey({self._name!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EventKey):
            return NotImplemented
        return self._name == other._name

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[EventKey[T]], tuple[str]]:
        return type(self), (self._name,)  # in another process the hash is different


@final
class Event(Generic[T_co]):
    """
    An emitted event. All its handlers get the same object.

    `EventEmitter.emit` creates it. Create one yourself to call a handler in a test.

    Args:
        name: The full name under which it was emitted.
        data: What was emitted.
        metadata: The ``metadata`` of `EventEmitter.emit`.
        time: When it was emitted, in seconds of a monotonic clock; only differences are meaningful.
    """

    __slots__ = ("data", "metadata", "name", "stopped", "time")

    name: Final[str]
    """The full name under which it was emitted."""
    data: Final[T_co]  # type: ignore[misc] # pyright: ignore[reportGeneralTypeIssues] # read-only
    """What was emitted."""
    metadata: Final[Mapping[str, Any]]
    """The ``metadata`` of `EventEmitter.emit`."""
    time: Final[float]
    """When it was emitted, in seconds of a monotonic clock."""
    stopped: bool
    """Whether `stop` was called."""

    def __init__(
        self,
        name: str,
        data: T_co,
        *,
        metadata: Mapping[str, Any] | None = None,
        time: float = 0.0,
    ) -> None:
        self.name = name
        self.data = data
        self.metadata = {} if metadata is None else metadata
        self.time = time
        self.stopped = False

    def __repr__(self) -> str:
        return f"Event({self.name!r}, {self.data!r})"

    def stop(self) -> None:
        """
        Skip the lower tiers for this event.

        The other handlers of the running tier still run. Not a checkpoint.
        """
        self.stopped = True


def pattern_of(name: object) -> str:
    """Return ``name``, or the name of an `EventKey`, if it can be listened to."""
    return name.name if isinstance(name, EventKey) else check_pattern(name)


def name_of(name: object) -> str:
    """Return ``name``, or the name of an `EventKey`, if it can be emitted."""
    return check_name(name.name if isinstance(name, EventKey) else name)
