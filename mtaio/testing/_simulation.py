"""
What a test holds in its hand: the virtual clock of the run it is in.

Promise: `Simulation.advance` lets virtual time pass exactly; `Simulation.hold` stops it; `settle`
lets everybody else do what can be done without time moving. The rules behind: `_world`.
"""

from __future__ import annotations

import math
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mtaio._internal import checks
from mtaio.testing import _world

if TYPE_CHECKING:
    from collections.abc import Generator

_WAY_OUT = "Pass the seconds of virtual time to let pass, a finite number >= 0."


class Simulation:
    """
    The virtual clock of one run; the fixture ``sim`` and `current_simulation` hand it out.

    Time starts at 0 with each event loop, and is what ``anyio.current_time()`` says there. You
    construct none: `run` and `virtual_backend` do.

    Example:
        ```python
        import anyio

        from mtaio.testing import current_simulation


        async def main() -> None:
            sim = current_simulation()
            barks: list[float] = []

            async def watchdog() -> None:
                await anyio.sleep(10)
                barks.append(sim.time())

            async with anyio.create_task_group() as group:
                group.start_soon(watchdog)
                await sim.advance(9.75)
                assert barks == []
                await sim.advance(0.25)
                assert barks == [10.0]
        ```
    """

    __slots__ = ("_world",)

    def __init__(self, world: _world.World) -> None:
        self._world = world

    def __repr__(self) -> str:
        return f"<{type(self).__name__} t={self.time()!r}>"

    def time(self) -> float:
        """
        Return the virtual time in seconds, 0 while there is no event loop.

        Not a checkpoint, and may be called from any thread.
        """
        return self._world.time()

    async def advance(self, seconds: float) -> None:
        """
        Let exactly ``seconds`` of virtual time pass, and all that falls due meanwhile happen.

        Returns at ``time() + seconds``, when everything that is due by then has been done: every
        other task is blocked again, and no worker thread is at work. A checkpoint. Cancelled, it
        leaves nothing behind, and time is where it had got to.

        Args:
            seconds: How long, a finite number >= 0; 0 finishes what can be done now.

        Raises:
            TypeError: ``seconds`` is no number.
            ValueError: ``seconds`` is negative, infinite or NaN.
            RuntimeError: The simulation is not running.
        """
        checks.at_least("seconds", seconds, 0, way_out=_WAY_OUT)
        if seconds == math.inf:
            msg = f"seconds={seconds!r} would never be over. {_WAY_OUT}"
            raise ValueError(msg)
        if self._world.engine is None or _world.turning() is not self._world:
            msg = (
                f"time cannot pass in {self!r}: it is not running. Call advance() in the function "
                f"given to mtaio.testing.run(), or in an async test on a virtual_backend()."
            )
            raise RuntimeError(msg)
        engine = self._world.engine
        await engine.sleep_until(engine.time() + seconds)
        await engine.exhaust()

    @contextmanager
    def hold(self) -> Generator[None]:
        """
        Stop the clock inside the block, for real work that virtual time must not overtake.

        anyio's worker threads and worker processes stop it by themselves. Use this for what the
        simulation cannot see: a subprocess, a foreign thread that will call back, a peer on the
        network. No timer fires meanwhile. If no real input or output is awaited either, and
        nothing happens for the ``grace`` of the run, that is a `Deadlock`.

        Not a checkpoint. Blocks may nest and overlap.

        Raises:
            RuntimeError: Called outside the event loop's thread.
        """
        if self._world.thread not in {None, threading.get_ident()}:
            msg = (
                f"cannot hold {self!r} from outside the event loop's thread: a waiting loop would "
                f"not notice the release. Get there with anyio.from_thread.run_sync()."
            )
            raise RuntimeError(msg)
        self._world.holds += 1
        try:
            yield
        finally:
            self._world.holds -= 1


def current_simulation() -> Simulation:
    """
    Return the simulation that is running, for code that has not got the fixture ``sim``.

    Not a checkpoint, and may be called from any thread.

    Raises:
        RuntimeError: No simulation is running.
    """
    return Simulation(_running("current_simulation() has nothing to return"))


async def settle() -> None:
    """
    Wait until every other task is blocked; virtual time does not move.

    ``anyio.wait_all_tasks_blocked`` sleeps between looks on asyncio, and so moves the clock. A task
    that waits for a worker thread counts as blocked; `Simulation.advance` by 0 waits for threads as
    well. A checkpoint; cancelled, it leaves nothing behind.

    Raises:
        RuntimeError: No simulation is running.
    """
    engine = _running("settle() cannot tell who is blocked").engine
    assert engine is not None  # noqa: S101 - what is turning has an engine
    await engine.settle()


def _running(refusal: str) -> _world.World:
    world = _world.turning()
    if world is None:
        msg = (
            f"{refusal}: no simulation is running. Start one with mtaio.testing.run(), or give the "
            f"test an anyio_backend made by mtaio.testing.virtual_backend()."
        )
        raise RuntimeError(msg)
    return world
