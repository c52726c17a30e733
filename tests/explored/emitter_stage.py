"""What the scenarios of the emitter share: watched handlers, and what must hold at the end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from anyio.lowlevel import checkpoint

from mtaio.events import Event, EventEmitter
from mtaio.testing import assert_quiescent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Stage"]


class Stage:
    """
    An emitter, and a record of who was called with what, and how that ended.

    Invariant: ``running`` counts the handlers that have started and not ended.
    """

    def __init__(self, **options: Any) -> None:
        self.emitter = EventEmitter(**options)
        self.started: Counter[tuple[str, Any]] = Counter()
        self.ended: Counter[tuple[str, Any]] = Counter()
        self.cut: Counter[tuple[str, Any]] = Counter()
        self.order: list[tuple[str, Any]] = []
        self.running = 0
        self.emits = 0

    def handler(self, name: str, steps: int = 1) -> Callable[[Event[Any]], Awaitable[None]]:
        """Return an async handler that takes so many steps."""

        async def handle(event: Event[Any]) -> None:
            key = name, event.data
            self.started[key] += 1
            self.order.append(key)
            self.running += 1
            try:
                for _ in range(steps):
                    await checkpoint()
            except BaseException:
                self.cut[key] += 1
                raise
            else:
                self.ended[key] += 1
            finally:
                self.running -= 1

        return handle

    def plain(self, name: str) -> Callable[[Event[Any]], None]:
        """Return a plain handler."""

        def handle(event: Event[Any]) -> None:
            key = name, event.data
            self.started[key] += 1
            self.ended[key] += 1
            self.order.append(key)

        return handle

    async def emit(self, data: Any, name: str = "a") -> None:
        """Emit, and check that no handler of it runs when it is over, however it ended."""
        self.emits += 1
        try:
            await self.emitter.emit(name, data)
        finally:
            self.emits -= 1
            for (_, of), count in (self.started - self.ended - self.cut).items():
                assert of != data, f"{count} handlers of {data!r} outlive their emit"

    def clear(self) -> None:
        """Check that nothing is left."""
        assert self.running == 0
        assert self.started == self.ended + self.cut
        statistics = self.emitter.statistics()
        assert statistics.streams == 0
        assert statistics.handled >= sum(self.ended.values())
        assert_quiescent(self.emitter)
