"""The life of an application under many schedules, cancelled everywhere."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from mtaio.app import Application
from mtaio.config import Settings
from mtaio.testing import explore

if TYPE_CHECKING:
    from mtaio.testing import Victim

# A life has some hundred steps: one departure from the oldest task is what can be tried.
explored = explore(seeds=100, exhaustive=1)


class Opened(AbstractAsyncContextManager[None]):
    """A resource that suspends while it opens and while it closes."""

    def __init__(self, stack: list[str], name: str) -> None:
        self.stack = stack
        self.name = name

    async def __aenter__(self) -> None:
        await checkpoint()
        self.stack.append(self.name)

    async def __aexit__(self, *_: object) -> None:
        assert self.stack.pop() == self.name
        with anyio.CancelScope(shield=True):
            await checkpoint()


class Stage:
    """An application with two resources and a service, which is told to stop in between."""

    def __init__(self) -> None:
        self.stack: list[str] = []
        self.running = 0
        self.app = Application(Settings(drain_delay=1), probes=False, signals=False)
        for name in ("database", "queue"):
            self.app.resource(partial(Opened, self.stack, name))
        self.app.service(self.serve)

    async def serve(self) -> None:
        """Run; both resources are open meanwhile."""
        assert self.stack == ["database", "queue"]
        self.running += 1
        try:
            await anyio.sleep_forever()
        finally:
            assert self.stack == ["database", "queue"]
            self.running -= 1

    async def block(self) -> None:
        """Be up for a moment."""
        async with self.app:
            await checkpoint()

    async def stop(self) -> None:
        """Ask it to stop, whatever it is doing."""
        await checkpoint()
        self.app.stop_nowait()

    def clear(self) -> None:
        """Assert what must hold in the end: nothing is open, and nothing runs."""
        assert self.stack == []
        assert self.running == 0
        assert str(self.app.state) in {"new", "stopped"}
        assert not self.app.monitor.running
        assert self.app.executor.statistics().services == 0


@explored
async def test_block(victim: Victim) -> None:
    """Whenever it is cancelled, it closes what it has opened, in reverse."""
    stage = Stage()
    await victim(stage.block)
    stage.clear()


@explored
async def test_stopped_at_any_moment(victim: Victim) -> None:
    """
    A stop may come while it starts, runs, or stops; and the block be cancelled besides.

    Told to stop as it starts, it does not let the block's body run, which takes an exception.
    """
    stage = Stage()
    async with anyio.create_task_group() as group:
        group.start_soon(stage.stop)
        with suppress(SystemExit):
            await victim(stage.block)
    stage.clear()


@explored
async def test_service_that_dies(victim: Victim) -> None:
    """An error of a service ends the life in order, also while the block is cancelled."""
    stage = Stage()

    @stage.app.service
    async def dies() -> None:
        await checkpoint()
        raise OSError

    async def block() -> None:
        with suppress(OSError):
            await stage.block()

    await victim(block)
    stage.clear()
