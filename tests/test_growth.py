"""What one more costs where there are many: it copies none of them; and the page about that."""

from __future__ import annotations

import gc
import math
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import _growth_figures as figures
from benchmarks import growth
from mtaio.events import EventEmitter
from mtaio.monitoring import HealthRegistry, ResourceMonitor
from mtaio.testing import run
from tests.pages import DOCS

if TYPE_CHECKING:
    from collections.abc import Callable

MANY = 5_000
"""A dict of so many has room for some more: it is not made again."""
LEAST = 8 * MANY
"""The bytes of a tuple of them."""


def handler() -> Callable[[object], None]:
    """Return another handler each time."""
    return lambda _: None


def number() -> float:
    """Be a gauge. Reading the signature of a builtin would copy the table of all modules."""
    return 0.0


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

    def add(self, which: int) -> None:
        """Add one."""
        self.registry.add(str(which), number)

    def remove(self, number: int) -> None:
        """Remove one."""
        self.registry.remove(str(number))


class Gauges:
    """Gauges of one monitor."""

    def __init__(self) -> None:
        self.monitor = ResourceMonitor()

    def add(self, which: int) -> None:
        """Add one."""
        self.monitor.gauge(f"queue.{which}", number)

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
        allocated: list[int] = []
        tracemalloc.start()
        try:
            for number in range(MANY, MANY + 3):  # another thread may allocate during one of them
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                many.add(number)
                many.remove(number)
                allocated.append(tracemalloc.get_traced_memory()[1] - before)
        finally:
            tracemalloc.stop()
        assert min(allocated) < LEAST

    run(main, backend="asyncio")


def test_slope() -> None:
    """It is the exponent with which totals grow."""
    assert growth.slope({10: 3.0, 100: 30.0, 1000: 300.0}) == pytest.approx(1)
    assert growth.slope({10: 1.0, 100: 100.0}) == pytest.approx(2)
    assert math.isnan(growth.slope({10: 1.0}))


def test_every_unit_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each runs, in a small size, and notes its steps; the first of them is weighed."""
    with monkeypatch.context() as context:
        context.setattr(gc, "collect", lambda: 0)  # it takes long, and steps are many
        for unit in growth.UNITS.values():
            step = growth.Steps(weighs=False)
            run(unit, 10, step, backend="asyncio")
            assert step.seconds.keys() <= figures.STEPS.keys()
    tracemalloc.start()
    try:
        step = growth.Steps(weighs=True)
        with pytest.raises(growth.Weighed):
            run(growth.entries, 10, step, backend="asyncio")
    finally:
        tracemalloc.stop()
    assert step.bytes > 0


@pytest.mark.parametrize("language", ["en", "ja"])
def test_page_shows_the_figures(language: str) -> None:
    """Table and plot are made of the figures: ``python -m benchmarks docs --only words``."""
    measured = figures.read()
    page = (DOCS / language / figures.PAGE).read_text(encoding="utf-8")
    assert figures.page_with(language, page, measured) == page
    shown = (DOCS / language / figures.PLOT).read_text(encoding="utf-8")
    assert shown == figures.plot(language, measured)
    assert {row["unit"] for row in measured["rows"]} == set(growth.UNITS) == set(figures.UNITS)
    assert figures.STEEP == growth.MOST


def test_what_grows_faster_is_known() -> None:
    """Nothing on the page is steeper than the bound but what is named there."""
    rows = figures.read()["rows"]
    steep = {(row["unit"], row["step"]) for row in rows if (row["slope"] or 0) > growth.MOST}
    assert steep <= growth.KNOWN.keys()
