"""
Events as an async iterator, through a buffer that has a bound.

Promise: events come in the order in which they were emitted; at most ``max_buffer`` are kept, and
what happens to the next is the overflow policy's to say; each event not kept is counted. Nothing
is taken from the buffer by a task that is cancelled while it waits.
Cost: one append and one pop for each event; no task, no lock, and a wake-up only when the consumer
sleeps.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, get_args

from mtaio._internal import checks, loops
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.parking import ParkingLot
from mtaio.events._event import name_in
from mtaio.events._listener import Listener, check_priority
from mtaio.events._match import check_pattern
from mtaio.events._room import IGNORED, Room
from mtaio.exceptions import EventOverflowError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from mtaio.events._event import Event
    from mtaio.events._registry import Registry

__all__ = ["EventStream", "Overflow", "Streams"]

T_co = TypeVar("T_co", covariant=True)

Overflow = Literal["block", "drop_oldest", "drop_newest", "raise"]
_POLICIES: Final[tuple[Overflow, ...]] = get_args(Overflow)


class Streams:
    """
    What the streams of one emitter share with it: the registry, and how many are open.

    Args:
        registry: Where they register.
        name: The emitter's name, for errors.
    """

    __slots__ = ("name", "open", "registry")

    def __init__(self, registry: Registry, name: str | None) -> None:
        self.registry: Registry = registry
        self.name: str | None = name
        self.open: int = 0


class EventStream(Generic[T_co]):
    """
    An async iterator over events; returned by `EventEmitter.stream`.

    Enter it with ``async with``, then iterate. Events emitted from entering on are kept until they
    are taken, up to ``max_buffer``; leaving the block lets go the emits that wait for room. Taking
    an event is a checkpoint when there is none yet, and for one ready event in 64. Several tasks
    may share one stream: each event goes to one of them.

    Example:
        ```python
        import anyio

        from mtaio.events import EventEmitter

        emitter = EventEmitter()


        async def produce() -> None:
            for number in range(3):
                await emitter.emit("number", number)


        async def main() -> None:
            async with emitter.stream("number") as events, anyio.create_task_group() as group:
                group.start_soon(produce)
                async for event in events:
                    print(event.data)
                    if event.data == 2:
                        break


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - whoever is in _line waits for room, hence the buffer is full while somebody is;
    # - _listener is there from entering on, and active until the stream is closed.
    __slots__ = (
        "__weakref__",
        "_buffer",
        "_dropped",
        "_left",
        "_line",
        "_listener",
        "_loop",
        "_max_buffer",
        "_news",
        "_overflow",
        "_patterns",
        "_priority",
        "_streams",
        "_unyielding",
    )

    def __init__(
        self,
        streams: Streams,
        names: Iterable[object],
        *,
        max_buffer: int,
        overflow: Overflow,
        priority: int,
    ) -> None:
        self._patterns = tuple(dict.fromkeys(check_pattern(name_in(name)) for name in names))
        if not self._patterns:
            raise ValueError(
                "stream() was given no name, so nothing would come. Pass the names of events, or "
                "'*' for all."
            )
        if overflow not in _POLICIES:
            msg = (
                f"overflow={overflow!r} is unknown. Pass one of {', '.join(map(repr, _POLICIES))}."
            )
            raise ValueError(msg)
        check_priority(priority)
        way_out = "Pass how many events to keep for the consumer, at least 1."
        self._max_buffer = checks.count("max_buffer", max_buffer, way_out=way_out)
        self._overflow: Overflow = overflow
        self._priority = priority
        self._streams = streams
        self._buffer: deque[Event[Any]] = deque()
        self._line: OrderedDict[Room, None] = OrderedDict()
        self._news = ParkingLot()
        self._listener: Listener | None = None
        self._loop: object = None
        self._dropped = 0
        self._left = False
        self._unyielding = 0

    def __repr__(self) -> str:
        names = ", ".join(map(repr, self._patterns))
        return f"<EventStream of {names}: {len(self._buffer)} of {self._max_buffer} kept>"

    @property
    def dropped(self) -> int:
        """Events that were not kept because the buffer was full."""
        return self._dropped

    @property
    def buffered(self) -> int:
        """Events that are kept now, ready to be taken."""
        return len(self._buffer)

    async def __aenter__(self) -> Self:
        """Begin to listen. Not a checkpoint."""
        if self._listener is not None:
            raise RuntimeError("this stream was entered before. Call stream() again.")
        self._loop = loops.current_loop()
        registry = self._streams.registry
        self._listener = Listener(
            registry, self._patterns, self, priority=self._priority, call=self._take
        )
        registry.add(self._listener)
        self._streams.open += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Stop listening, and drop what nobody took. Not a checkpoint."""
        self._left = True
        self._buffer.clear()
        self.close()

    def close(self) -> None:
        """
        Stop listening; the iteration ends after the events that are kept. Not a checkpoint.

        Emits that wait for room go on, as if the stream had not been there.
        """
        listener = self._listener
        if listener is None or not listener.active:
            return
        self._streams.registry.remove(listener)
        listener.release()
        self._streams.open -= 1
        while self._line:
            next(iter(self._line)).leave(taken=False)
        self._news.unpark_all()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event[T_co]:
        buffer = self._buffer
        self._unyielding = unyielding = self._unyielding + 1
        if unyielding >= FAST_CALLS and buffer:
            self._unyielding = 0
            await checkpoint()
            if self._left:
                raise StopAsyncIteration
        while not buffer:
            await self._wait()
        event = buffer.popleft()
        if self._line:
            room = next(iter(self._line))
            buffer.append(room.event)
            room.leave(taken=True)
            self._news.unpark()  # as for each event that comes into the buffer
        return event

    async def _wait(self) -> None:
        """Wait until there may be an event."""
        listener = self._listener
        if listener is None or self._left:
            state = "was not entered" if listener is None else "was left"
            msg = (
                f"this stream {state}. Write: async with emitter.stream(...) as events: async for "
                f"event in events: ..."
            )
            raise RuntimeError(msg)
        if not listener.active:
            raise StopAsyncIteration
        if not loops.is_current(self._loop):
            msg = (
                f"{self!r} was entered in another event loop, and nobody could be woken here. "
                f"Enter it in the loop that reads it."
            )
            raise RuntimeError(msg)
        self._unyielding = 0
        await self._news.park()
        if self._left:
            raise StopAsyncIteration

    def _take(self, event: Event[Any]) -> object:
        """Take an event in (the emitter calls this); return what it is to do about it."""
        buffer = self._buffer
        if len(buffer) >= self._max_buffer:
            return self._overflowing(event)
        if not len(self._news):
            buffer.append(event)
            return None
        if not self._reachable():
            return IGNORED
        buffer.append(event)
        self._news.unpark()
        return None

    def _overflowing(self, event: Event[Any]) -> object:
        if self._overflow == "block":
            return Room(self._line, event) if self._reachable() else IGNORED
        if self._overflow == "drop_oldest":
            self._drop(self._buffer.popleft())
            self._buffer.append(event)
            return None
        self._drop(event)
        if self._overflow == "drop_newest":
            return IGNORED
        msg = (
            f"{self!r} is full, and has overflow='raise'. Take events faster, raise max_buffer, or "
            f"choose what to drop."
        )
        raise EventOverflowError(msg, name=self._streams.name)

    def _drop(self, event: Event[Any]) -> None:
        self._dropped += 1
        self._streams.registry.tally(event.name).dropped += 1

    def _reachable(self) -> bool:
        """Tell whether the consumer's loop is still there; raise if it is not this one."""
        if loops.is_current(self._loop):
            return True
        if not loops.is_over(self._loop):
            msg = (
                f"{self!r} was entered in another running event loop. One loop at a time may use "
                f"an emitter: emit there, with anyio.from_thread.run()."
            )
            raise RuntimeError(msg)
        self._buffer.clear()
        self._line.clear()
        self._news.forget()
        self.close()
        return False
