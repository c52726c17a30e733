"""
What a test holds in its hand: the virtual clock of the run it is in.

Promise: `Simulation.advance` lets virtual time pass exactly; `Simulation.hold` stops it; `settle`
lets everybody else do what can be done without time moving. The rules behind: `_world`.
"""

from __future__ import annotations

import inspect
import math
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mtaio._internal import checks
from mtaio.testing._claims import turning, turning_here
from mtaio.testing._trace import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from mtaio.testing._trace import Step
    from mtaio.testing._world import World

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

    def __init__(self, world: World) -> None:
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
            RuntimeError: The simulation is not running, or not in this thread.
        """
        checks.at_least("seconds", seconds, 0, way_out=_WAY_OUT)
        if seconds == math.inf:
            msg = f"seconds={seconds!r} would never be over. {_WAY_OUT}"
            raise ValueError(msg)
        engine = self._world.engine
        if engine is None or turning_here() is not self._world:
            msg = (
                f"time cannot pass in {self!r}: it is not running{_elsewhere(self._world)}. Call "
                f"advance() in the function given to mtaio.testing.run(), or in an async test on a "
                f"virtual_backend()."
            )
            raise RuntimeError(msg)
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

    def always(self, predicate: Callable[[], object]) -> None:
        """
        End the run with `InvariantError` as soon as ``predicate()`` is not true after a step.

        It is called at once, and from then on after every step of any task, until the function
        given to `run`, or the test, is over or the run is broken off. What it raises ends the run
        likewise. Not a checkpoint.

        Args:
            predicate: Tells whether all is well, without waiting.

        Raises:
            TypeError: ``predicate`` is not callable, or a coroutine function.
            RuntimeError: The simulation is not running, or not in this thread, or the backend's
                version does not show its steps.
        """
        way_out = "Pass a plain function without parameters."
        checks.callable_("predicate", predicate, way_out=way_out)
        if inspect.iscoroutinefunction(predicate) or inspect.iscoroutinefunction(
            getattr(predicate, "__call__", None)  # noqa: B004 - to be looked at, not to be called
        ):
            msg = f"predicate={predicate!r} is async, and nothing can wait here. {way_out}"
            raise TypeError(msg)
        if self._world.scope is None or turning_here() is not self._world:
            msg = (
                f"there are no steps in {self!r}: it is not running{_elsewhere(self._world)}. Call "
                f"always() in the test."
            )
            raise RuntimeError(msg)
        invariant = Invariant(predicate, self.time)
        failure = invariant()
        if failure is not None:
            raise failure
        self._world.observed().always(invariant)

    @property
    def trace(self) -> tuple[Step, ...]:
        """
        The steps that tasks have taken, the last 10,000 at most.

        They are noted under a `Schedule`, and from the first `always` or ``"step"`` `Victim` on;
        otherwise there are none. Not a checkpoint.
        """
        return () if self._world.steps is None else self._world.steps.trace()


class InvariantError(AssertionError):
    """
    What `Simulation.always` was to watch over is no longer so.

    Its text says what was watched, and when it broke.
    """


class Invariant:
    """Looks at a predicate, and says what is wrong."""

    __slots__ = ("_predicate", "_time")

    def __init__(self, predicate: Callable[[], object], time: Callable[[], float]) -> None:
        self._predicate = predicate
        self._time = time

    def __call__(self) -> BaseException | None:
        try:
            if self._predicate():
                return None
        except BaseException as error:  # noqa: BLE001 - handed to the run, which ends with it
            return error
        code = getattr(self._predicate, "__code__", None)
        place = Place.of(code, code.co_firstlineno) if code else self._predicate
        return InvariantError(f"what must always hold does not, at t={self._time()!r}: {place}")


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
        RuntimeError: No simulation is running, or none in this thread.
    """
    world = _running("settle() cannot tell who is blocked")
    if world is not turning_here():
        msg = (
            "settle() cannot tell who is blocked: the simulation runs in another thread. Get there "
            "with anyio.from_thread.run(settle)."
        )
        raise RuntimeError(msg)
    assert world.engine is not None  # noqa: S101 - what is turning has an engine
    await world.engine.settle()


def _running(refusal: str) -> World:
    world = turning()
    if world is None:
        msg = (
            f"{refusal}: no simulation is running. Start one with mtaio.testing.run(), or give the "
            f"test an anyio_backend made by mtaio.testing.virtual_backend()."
        )
        raise RuntimeError(msg)
    return world


def _elsewhere(world: World) -> str:
    return " in this thread" if turning() is world else ""
