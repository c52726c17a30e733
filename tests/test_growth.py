"""What one more costs where there are many: it copies none of them."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from mtaio.events import EventEmitter
from mtaio.monitoring import HealthRegistry, ResourceMonitor
from mtaio.testing import run

if TYPE_CHECKING:
    from collections.abc import Callable

MANY = 5_000
"""A dict of so many has room for some more: it is not made again."""
LEAST = 8 * MANY
"""The bytes of a tuple of them."""


def handler() -> Callable[[object], None]:
    """Return another handler each time."""
    return lambda _: None


class Handlers:
    """Handlers of one event."""

    def __init__(self) -> None:
        self.emitter = EventEmitter(max_listeners=MANY // 2)
        self.last = handler()

    def add(self, _: int) -> None:
        """Add one."""
        self.last = self.emitter.on("event", handler())

    def remove(self, _: int) -> None:
        """Remove one."""
        assert self.emitter.off("event", self.last)


class Streams:
    """Streams of one event."""

    def __init__(self) -> None:
        self.emitter = EventEmitter()
        self.streams: list[Any] = []

    def add(self, _: int) -> None:
        """Add one."""
        stream = self.emitter.stream("event")
        self.streams.append(stream)

        async def enter() -> None:
            await stream.__aenter__()

        drive(enter())

    def remove(self, number: int) -> None:
        """Remove one."""
        drive(self.streams[number].aclose())


class Checks:
    """Checks of one registry."""

    def __init__(self) -> None:
        self.registry = HealthRegistry()

    def add(self, number: int) -> None:
        """Add one."""
        self.registry.add(str(number), int)

    def remove(self, number: int) -> None:
        """Remove one."""
        self.registry.remove(str(number))


class Gauges:
    """Gauges of one monitor."""

    def __init__(self) -> None:
        self.monitor = ResourceMonitor()

    def add(self, number: int) -> None:
        """Add one."""
        self.monitor.gauge(f"queue.{number}", float)

    def remove(self, number: int) -> None:
        """Compare it with the others, as `ResourceMonitor.unwatch` says."""


def drive(work: Any) -> None:
    """Run a coroutine that does not suspend."""
    with pytest.raises(StopIteration):
        work.send(None)


@pytest.mark.parametrize("kind", [Handlers, Streams, Checks, Gauges])
@pytest.mark.filterwarnings("ignore:.* handlers of 'event':RuntimeWarning")
def test_one_more_copies_none(kind: Callable[[], Any]) -> None:
    """Adding and removing one allocates less than what refers to all the others."""

    async def main() -> None:
        many = kind()
        for number in range(MANY):
            many.add(number)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            many.add(MANY)
            many.remove(MANY)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak - before < LEAST

    run(main, backend="asyncio")
