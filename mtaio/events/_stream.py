"""
Events as an async iterator, through a bounded buffer.

Promise: events come in the order in which they were emitted; at most ``max_pending`` are kept, and
the overflow policy says what happens to the next; each event that is not kept is counted. A task
that is cancelled while it waits for an event takes none.
Cost: one append and one pop for each event; no task, no lock, and a wake-up only when the consumer
waits.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, Generic, Literal, Self, TypeVar, final, get_args

from mtaio._internal import checks, loops
from mtaio._internal.block import another_loop_error, entered_before_error
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.wait_queue import WaitQueue
from mtaio.events._event import Event, pattern_of
from mtaio.events._registry import IGNORED, Listener, Registry, check_priority
from mtaio.exceptions import EventOverflowError

__all__ = ["Blocked", "EventStream", "Overflow"]

T_co = TypeVar("T_co", covariant=True)

Overflow = Literal["block", "drop_oldest", "drop_newest", "raise"]
"""What happens to an event if a stream is full; see ``overflow`` of `EventEmitter.stream`."""
_POLICIES: Final[tuple[Overflow, ...]] = get_args(Overflow)


class Blocked:
    """
    An event that waits for space in a full stream; its emit waits at the end of the tier.

    It joins the queue when the emit comes to the stream, and the emit awaits it later, perhaps when
    it has left the queue again.

    Invariant: it is in the stream's queue, or was ``taken``, or the stream was closed, or the emit
    has withdrawn it.
    """

    __slots__ = ("_queue", "_waiter", "event", "taken")

    def __init__(self, queue: WaitQueue[Blocked], event: Event[Any]) -> None:
        self.event: Event[Any] = event
        self.taken: bool = False
        self._queue = queue
        self._waiter = queue.join(self)

    def settle(self, *, taken: bool) -> None:
        """Note that the stream took the event, or never will (the stream calls this)."""
        self.taken = taken
        self._queue.wake(self._waiter)  # taken is taken, also if the emit is being cancelled

    async def wait(self) -> None:
        """
        Wait until it has left the queue.

        A checkpoint unless it has.
        """
        if self._waiter in self._queue.waiters:
            await self._waiter

    def withdraw(self) -> None:
        """Leave the queue, if it is still there."""
        self._queue.leave(self._waiter)


@final
class EventStream(Generic[T_co]):
    """
    An async iterator over events; returned by `EventEmitter.stream`.

    Enter it with ``async with``, then iterate. Events emitted inside the block are buffered until
    they are taken, up to ``max_pending``. Leaving the block releases the emits that wait for space.
    Taking an event is a checkpoint if none is buffered, and for one buffered event in 64. If
    several tasks iterate over the stream, each event goes to one of them.

    Example:
        ```python
        import anyio

        from mtaio import EventEmitter

        emitter = EventEmitter()


        async def produce() -> None:
            for number in range(3):
                await emitter.emit("number", number)


        async def main() -> None:
            async with (
                emitter.stream("number") as events,
                anyio.create_task_group() as group,
            ):
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
    # - while events are in _blocked the buffer is full;
    # - _listener is there, and active, from entering until the stream is closed.
    __slots__ = (
        "__weakref__",
        "_blocked",
        "_buffer",
        "_consumers",
        "_dropped",
        "_emitter",
        "_entered",
        "_left",
        "_listener",
        "_loop",
        "_max_pending",
        "_overflow",
        "_patterns",
        "_priority",
        "_registry",
        "_unyielding",
    )

    def __init__(
        self,
        registry: Registry,
        names: Iterable[object],
        *,
        max_pending: int | None,
        overflow: Overflow,
        priority: int,
        emitter: str | None,
    ) -> None:
        self._patterns = tuple(dict.fromkeys(map(pattern_of, names)))
        if not self._patterns:
            raise ValueError(
                "stream() was given no name, so it would yield nothing. Pass the names of events, "
                "or '*' for all."
            )
        if overflow not in _POLICIES:
            msg = (
                f"overflow={overflow!r} is unknown. Pass one of {', '.join(map(repr, _POLICIES))}."
            )
            raise ValueError(msg)
        check_priority(priority)
        if max_pending is not None:
            way_out = "Pass how many events to keep, at least 1, or None for no limit."
            checks.count("max_pending", max_pending, way_out=way_out)
        self._max_pending: float = math.inf if max_pending is None else max_pending
        self._overflow: Overflow = overflow
        self._priority = priority
        self._registry = registry
        self._emitter = emitter
        self._buffer: deque[Event[Any]] = deque()
        self._blocked = WaitQueue[Blocked]()
        self._consumers = WaitQueue[None]()
        self._listener: Listener | None = None
        self._loop: object = None
        self._dropped = 0
        self._entered = False
        self._left = False
        self._unyielding = 0

    def __repr__(self) -> str:
        names = ", ".join(map(repr, self._patterns))
        most = "" if self._max_pending == math.inf else f" of {self._max_pending}"
        return f"<EventStream of {names}: {len(self._buffer)}{most} kept>"

    @property
    def dropped(self) -> int:
        """Events dropped because the buffer was full."""
        return self._dropped

    @property
    def pending(self) -> int:
        """Events in the buffer."""
        return len(self._buffer)

    async def __aenter__(self) -> Self:
        """
        Begin to listen.

        Not a checkpoint.
        """
        if self._entered:
            raise entered_before_error(self, "Call stream() again.")
        self._loop = loops.current_loop()
        self._entered = True
        self._listener = Listener(
            self._registry,
            self._patterns,
            self,
            priority=self._priority,
            kind="stream",
            call=self._take,
        )
        self._registry.add(self._listener)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """
        Stop listening, and drop the events in the buffer.

        Not a checkpoint.
        """
        self._left = True
        self._buffer.clear()
        self._close()

    async def aclose(self) -> None:
        """
        Stop listening, and end the iteration after the events in the buffer.

        Emits that wait for space go on without the stream. If the stream was not entered yet, it
        cannot be entered any more. Not a checkpoint.

        Raises:
            RuntimeError: It was entered in another event loop that is still running.
        """
        if (
            self._listener is not None
            and not loops.is_current(self._loop)
            and not loops.is_over(self._loop)
        ):
            raise another_loop_error(self, "aclose()")
        if not self._entered:
            self._entered = self._left = True
        self._close()

    def _close(self) -> None:
        listener, self._listener = self._listener, None  # which refers to this stream
        if listener is None:
            return
        self._registry.remove(listener)
        for blocked in [*self._blocked.waiters.values()]:
            blocked.settle(taken=False)
        self._consumers.wake_all()

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
        if self._blocked.waiters:
            blocked = next(iter(self._blocked.waiters.values()))
            buffer.append(blocked.event)
            blocked.settle(taken=True)
            self._consumers.wake_next()  # as for each event that comes into the buffer
        return event

    async def _wait(self) -> None:
        """Wait until there may be an event."""
        if not self._entered or self._left:
            state = "was left" if self._left else "was not entered"
            msg = (
                f"this stream {state}. Write: async with emitter.stream(...) as events: async for "
                f"event in events: ..."
            )
            raise RuntimeError(msg)
        if self._listener is None:
            raise StopAsyncIteration
        if not loops.is_current(self._loop):
            raise another_loop_error(self, "waiting for an event")
        self._unyielding = 0
        self._consumers.attach(self)
        await self._consumers.wait(None)
        if self._left:
            raise StopAsyncIteration

    def _take(self, event: Event[Any]) -> object:
        """Take an event (the emitter calls this); return what the emit has to do next."""
        buffer = self._buffer
        if len(buffer) >= self._max_pending:
            return self._overflowing(event)
        if not len(self._consumers):
            buffer.append(event)
            return None
        if not self._reachable():
            return IGNORED
        buffer.append(event)
        self._consumers.wake_next()
        return None

    def _overflowing(self, event: Event[Any]) -> object:
        if self._overflow == "block":
            if not self._reachable():
                return IGNORED
            self._blocked.attach(self)
            return Blocked(self._blocked, event)
        if self._overflow == "drop_oldest":
            self._drop(self._buffer.popleft())
            self._buffer.append(event)
            return None
        self._drop(event)
        if self._overflow == "drop_newest":
            return IGNORED
        msg = (
            f"{self!r} is full, and has overflow='raise'. Take events faster, raise max_pending, "
            f"or choose what to drop."
        )
        raise EventOverflowError(msg, name=self._emitter)

    def _drop(self, event: Event[Any]) -> None:
        self._dropped += 1
        self._registry.tally(event.name).dropped += 1

    def _reachable(self) -> bool:
        """Return whether the consumer's loop is still there; raise if it is another one."""
        if loops.is_current(self._loop):
            return True
        if not loops.is_over(self._loop):
            raise loops.two_loops_error(self)
        self._buffer.clear()
        self._blocked.forget()
        self._consumers.forget()
        self._close()
        return False
