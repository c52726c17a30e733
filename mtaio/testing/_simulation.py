"""
How a test gets virtual time: `run`, `virtual_backend`, and the `Simulation` it then has.

Promise: the function runs on the backend's real scheduler, with its own exceptions, results,
cancellation and Ctrl-C; only time is virtual, and a deadlock is an error. Nothing is left behind.
`Simulation.advance` lets virtual time pass exactly, `Simulation.hold` stops it, and `settle` lets
all other tasks do what can be done without time moving. The rules behind it: `_world`.

trio is imported when asked for.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar, TypeVarTuple, cast, final

import anyio
from anyio.lowlevel import current_token

from mtaio._internal import callables, checks
from mtaio.testing._diagnostics import Place, Step, add_note, interleaving, is_failure
from mtaio.testing._schedule import Schedule, choices_of, mismatch, refuse_other
from mtaio.testing._threads import entries
from mtaio.testing._world import (
    MAX_TURNS,
    World,
    claimed,
    current_world,
    raised_by_guard,
    world_here,
)

T = TypeVar("T")
Args = TypeVarTuple("Args")

_WAY_OUT = "Pass the seconds of virtual time to let pass, a finite number >= 0."


def run(
    afn: Callable[[*Args], Awaitable[T]],
    /,
    *args: *Args,
    backend: str = "asyncio",
    schedule: Schedule | None = None,
    grace: float = 1.0,
    max_turns: int | None = MAX_TURNS,
) -> T:
    """
    Run ``afn(*args)`` in a fresh event loop under virtual time, and return its result.

    The clock starts at 0. It stands still while any task can run, and then jumps to the next
    deadline, so a sleep takes microseconds and ends at the exact moment. All of mtaio follows this
    clock. While worker threads run, the clock does not move, unless they wait in
    ``anyio.from_thread.run``. Sockets and subprocesses are real, and the clock waits for them only
    inside `Simulation.hold`.

    Args:
        afn: A coroutine function.
        args: Its positional arguments.
        backend: ``"asyncio"`` or ``"trio"``.
        schedule: Decides which task takes the next step where several could. An error of ``afn``
            then gets a note with the schedule and the order of the steps. None for the backend's
            own order.
        grace: Real seconds for which worker threads may stop the clock while nothing else happens,
            before the run counts as a `Deadlock`; ``inf`` for no limit.
        max_turns: How many times the event loop may turn without virtual time moving, before the
            run counts as a `Livelock`; None for no limit.

    Returns:
        What ``afn`` returns.

    Raises:
        Deadlock: All tasks were blocked, and nothing could wake them.
        Livelock: Tasks kept running without waiting for anything.
        TypeError: ``afn`` is not callable, ``grace`` is not a number, ``max_turns`` not an int,
            or ``schedule`` not a `Schedule`.
        ValueError: There is no such backend, or it cannot run under virtual time, or ``grace`` is
            not more than 0, or ``max_turns`` less than 1; or the tape of ``schedule`` does not fit.
        ImportError: The backend is not installed.
        RuntimeError: An event loop is running in this thread, another simulation is running in this
            process, or the backend's version does not support schedules.
        BaseException: What ``afn`` raises.

    Example:
        ```python
        import anyio

        from mtaio.testing import run


        async def year() -> float:
            await anyio.sleep(365 * 86400)
            return anyio.current_time()


        assert run(year) == 365 * 86400
        ```
    """
    __tracebackhide__ = True
    checks.callable_(
        "afn", afn, way_out="Pass the coroutine function itself, and its arguments after it."
    )
    if schedule is not None:
        refuse_other("schedule", schedule)
    world = World(grace=grace, schedule=schedule, max_turns=max_turns, alone=True)
    options = _options(backend, world)
    _refuse_running_loop()

    async def main() -> T:
        __tracebackhide__ = True
        return await world.guard(None, afn, *args)

    main.__name__ = main.__qualname__ = getattr(afn, "__qualname__", repr(afn))
    main.__module__ = getattr(afn, "__module__", __name__)

    def turn() -> T:
        __tracebackhide__ = True
        return _run(main, world, backend, options)

    return turn() if schedule is None else _followed(schedule, world, turn)


def _run(
    main: Callable[[], Awaitable[T]], world: World, backend: str, options: dict[str, Any]
) -> T:
    __tracebackhide__ = True
    try:
        with claimed(world, backend):
            return anyio.run(main, backend=backend, backend_options=options)
    except BaseException as error:
        if world.failure is not None and isinstance(error, Exception):
            # The run was broken off; trio says so with an error of its own, which is the context.
            raise world.failure.with_traceback(None)  # noqa: B904 - its cause is the one before it
        if raised_by_guard(error):
            raise error.with_traceback(None)  # noqa: B904 - the same error: its stacks tell where
        raise


def _followed(schedule: Schedule, world: World, turn: Callable[[], T]) -> T:
    """Run under a schedule: tell what happened if it fails, and whether the tape fitted."""
    __tracebackhide__ = True
    try:
        result = turn()
    except BaseException as error:
        if is_failure(error):
            misfit = mismatch(schedule)
            if misfit is not None:
                raise ValueError(misfit) from error
            if world.steps is not None:
                steps = interleaving(world.steps.trace())
                add_note(error, "under Schedule(", f"{repr(schedule).partition('(')[2]}:\n{steps}")
        raise
    finally:
        if world.steps is not None:
            choices_of(schedule).trace = world.steps.noted
        world.steps = None  # an end to circles: what a search has run does not pile up
    misfit = mismatch(schedule)
    if misfit is not None:
        raise ValueError(misfit)
    return result


def virtual_backend(
    name: str, *, grace: float = 1.0, max_turns: int | None = MAX_TURNS
) -> tuple[str, dict[str, Any]]:
    """
    Return a value for the fixture ``anyio_backend`` that puts async tests under virtual time.

    Each event loop that anyio's pytest plugin creates with it has a clock that starts at 0. That is
    one loop for each test, unless async fixtures of a wider scope keep a loop open. The fixture
    ``sim`` is the `Simulation` of the test.

    Args:
        name: ``"asyncio"`` or ``"trio"``.
        grace: As for `run`.
        max_turns: As for `run`.

    Raises:
        TypeError: ``grace`` is not a number, or ``max_turns`` not an int.
        ValueError: There is no such backend, or it cannot run under virtual time, or ``grace`` is
            not more than 0, or ``max_turns`` less than 1.
        ImportError: The backend is not installed.

    Example:
        ```python
        # conftest.py: all async tests below it run on both backends
        import pytest

        from mtaio.testing import virtual_backend


        @pytest.fixture(scope="module", params=["asyncio", "trio"])
        def anyio_backend(request: pytest.FixtureRequest) -> object:
            return virtual_backend(request.param)
        ```
    """
    return name, _options(name, World(grace=grace, max_turns=max_turns))


def simulation_of(backend: object) -> Simulation | None:
    """Return the simulation behind a value of ``anyio_backend``, None if its time is real."""
    if not isinstance(backend, tuple):
        return None
    _, options = cast("tuple[str, dict[str, Any]]", backend)
    for part in (options.get("loop_factory"), *options.get("instruments", ())):
        world = getattr(part, "world", None)
        if isinstance(world, World):
            return Simulation(world)
    return None


def _options(backend: str, world: World) -> dict[str, Any]:
    """Return the options with which anyio runs ``backend`` in ``world``."""
    if backend == "asyncio":
        entries(backend)
        return {"loop_factory": import_module("mtaio.testing._asyncio").LoopFactory(world)}
    if backend == "trio":
        try:
            engine = import_module("mtaio.testing._trio").TrioEngine(world)
        except ModuleNotFoundError as error:
            msg = "backend='trio' needs trio. Install it with: pip install 'mtaio[trio]'"
            raise ImportError(msg, name=error.name) from error
        entries(backend)
        return {"clock": engine.clock, "instruments": [engine]}
    if backend == "uvloop":
        msg = (
            "backend='uvloop' cannot run under virtual time: its timers live in C. Test on "
            "'asyncio', and keep a small run in real time for uvloop."
        )
        raise ValueError(msg)
    msg = f"backend={backend!r} is unknown. Pass 'asyncio' or 'trio'."
    raise ValueError(msg)


def _refuse_running_loop() -> None:
    try:
        current_token()
    except anyio.NoEventLoopError:
        return
    msg = (
        "run() cannot be called while an event loop is running in this thread. Await the function "
        "itself, or call run() from a test that is not async."
    )
    raise RuntimeError(msg)


@final
class Simulation:
    """
    The virtual clock of one run; get it from the fixture ``sim`` or `current_simulation`.

    Time starts at 0 in each event loop, and ``anyio.current_time()`` returns it. `run` and
    `virtual_backend` create simulations; do not create one yourself.

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
        Return the virtual time in seconds; 0 if there is no event loop.

        Not a checkpoint. It can be called from any thread.
        """
        return self._world.time()

    async def advance(self, seconds: float) -> None:
        """
        Let exactly ``seconds`` of virtual time pass, with everything that is due until then.

        It returns at ``time() + seconds``, when all other tasks are blocked again and no worker
        thread is running. A checkpoint. If it is cancelled, time stops where it was.

        Args:
            seconds: A finite number, 0 or more; 0 lets other tasks do what they can do now.

        Raises:
            TypeError: ``seconds`` is not a number.
            ValueError: ``seconds`` is negative, infinite or NaN.
            RuntimeError: The simulation is not running, or not in this thread.
        """
        checks.at_least("seconds", seconds, 0, way_out=_WAY_OUT)
        if seconds == math.inf:
            msg = f"seconds={seconds!r} would never pass. {_WAY_OUT}"
            raise ValueError(msg)
        engine = self._world.engine
        if engine is None or world_here() is not self._world:
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

        Use it around work that the simulation cannot see: a subprocess, a thread of your own that
        will call back, a peer on the network. AnyIO's worker threads and worker processes stop the
        clock by themselves. No timer fires in the block. If no real input or output is awaited and
        nothing happens for the ``grace`` of the run, that is a `Deadlock`.

        Not a checkpoint. Blocks may nest and overlap.

        Raises:
            RuntimeError: It was called outside the event loop's thread.
        """
        if self._world.thread not in {None, threading.get_ident()}:
            msg = (
                f"cannot hold {self!r} from outside the event loop's thread: a waiting loop would "
                f"not notice the release. Call it there with anyio.from_thread.run_sync()."
            )
            raise RuntimeError(msg)
        self._world.holds += 1
        try:
            yield
        finally:
            self._world.holds -= 1

    def always(self, predicate: Callable[[], object]) -> None:
        """
        End the run with `InvariantError` when ``predicate()`` is not true after a step.

        The predicate is called at once, and then after each step of any task, until the function
        given to `run` or the test has ended. An exception from it ends the run too. Not a
        checkpoint.

        Args:
            predicate: A plain function that returns whether the invariant holds.

        Raises:
            TypeError: ``predicate`` is not callable, or a coroutine function.
            RuntimeError: The simulation is not running, or not in this thread, or the backend's
                version does not show its steps.
        """
        way_out = "Pass a plain function without parameters."
        checks.callable_("predicate", predicate, way_out=way_out)
        if callables.is_async(predicate):
            msg = f"predicate={predicate!r} is async, and nothing can wait here. {way_out}"
            raise TypeError(msg)
        if self._world.scope is None or world_here() is not self._world:
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
        The steps that tasks have taken, at most the last 10,000.

        Steps are recorded in a run with a `Schedule`, and from the first call of `always` or of a
        `Victim` of mode ``"step"`` on. Not a checkpoint.
        """
        return () if self._world.steps is None else self._world.steps.trace()


class InvariantError(AssertionError):
    """
    An invariant watched by `Simulation.always` no longer holds.

    The message names the invariant and the time.
    """

    __module__ = "mtaio.testing"  # as users import it


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
        return InvariantError(f"the invariant does not hold at t={self._time()!r}: {place}")


def current_simulation() -> Simulation:
    """
    Return the simulation that is running, for code without the fixture ``sim``.

    Not a checkpoint. It can be called from any thread.

    Raises:
        RuntimeError: No simulation is running.
    """
    return Simulation(_required_world("current_simulation() has nothing to return"))


async def settle() -> None:
    """
    Wait until all other tasks are blocked, without moving virtual time.

    Use it instead of ``anyio.wait_all_tasks_blocked``, which on asyncio sleeps between its checks
    and so moves the clock. A task that waits for a worker thread counts as blocked; ``advance(0)``
    of the `Simulation` waits for threads too. A checkpoint. Cancelling it has no other effect.

    Raises:
        RuntimeError: No simulation is running in this thread.
    """
    world = _required_world("settle() cannot see which tasks are blocked")
    if world is not world_here():
        msg = (
            "settle() cannot see which tasks are blocked: the simulation runs in another thread. "
            "Call it there with anyio.from_thread.run(settle)."
        )
        raise RuntimeError(msg)
    assert world.engine is not None  # noqa: S101 - a running world has one
    await world.engine.settle()


def _required_world(refusal: str) -> World:
    world = current_world()
    if world is None:
        msg = (
            f"{refusal}: no simulation is running. Start one with mtaio.testing.run(), or give the "
            f"test an anyio_backend made by mtaio.testing.virtual_backend()."
        )
        raise RuntimeError(msg)
    return world


def _elsewhere(world: World) -> str:
    return " in this thread" if current_world() is world else ""
