"""
How a test gets virtual time: call `run`, or give `virtual_backend` to anyio's pytest plugin.

Promise: the function runs on the backend's real scheduler, with its own exceptions, results,
cancellation and Ctrl-C; only time is virtual, and a deadlock is an error. Nothing stays behind.
trio is imported when asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, cast

import anyio
from anyio.lowlevel import current_token

from mtaio._internal import checks
from mtaio.testing._claims import claimed
from mtaio.testing._failures import is_failure, note
from mtaio.testing._schedule import refuse_other
from mtaio.testing._simulation import Simulation
from mtaio.testing._threads import entries
from mtaio.testing._trace import interleaving
from mtaio.testing._world import MAX_TURNS, World, raised_by_guard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mtaio.testing._schedule import Schedule

T = TypeVar("T")
Args = TypeVarTuple("Args")


def run(
    afn: Callable[[*Args], Awaitable[T]],
    *args: *Args,
    backend: str = "asyncio",
    schedule: Schedule | None = None,
    grace: float = 1.0,
    max_turns: int = MAX_TURNS,
) -> T:
    """
    Run ``afn(*args)`` in a fresh event loop under virtual time, and return its result.

    The clock starts at 0, stands still while anything can run, and then jumps to the next deadline,
    so a sleep costs microseconds and ends at the exact moment. `mtaio._internal.clock.now`, and
    with it all of mtaio, follows it. Worker threads freeze the clock until they are through, except
    while they wait in ``anyio.from_thread.run``. Sockets and subprocesses are real; the clock does
    not wait for them unless you say so with `Simulation.hold`.

    Args:
        afn: A coroutine function.
        args: Its positional arguments.
        backend: ``"asyncio"`` or ``"trio"``.
        schedule: Who takes the next step wherever several tasks could. An error of ``afn`` then
            carries a note with the schedule and with who ran when. Default: as the backend likes.
        grace: The real seconds for which worker threads may keep the clock frozen while nothing
            else happens, before that is a `Deadlock`; ``inf`` for no limit.
        max_turns: How often the event loop may turn without virtual time moving, before that is a
            `Livelock`.

    Returns:
        What ``afn`` returns.

    Raises:
        Deadlock: Every task was blocked for ever.
        Livelock: Tasks ran for ever, and none waited for anything.
        TypeError: ``afn`` is not callable, ``grace`` is no number, ``max_turns`` no int, or
            ``schedule`` no `Schedule`.
        ValueError: There is no such backend, or it cannot run under virtual time, or ``grace`` is
            not more than 0, or ``max_turns`` less than 1; or the tape of ``schedule`` does not fit.
        ImportError: The backend is not installed.
        RuntimeError: An event loop is running in this thread, or another simulation in this
            process; or the backend's version does not let a schedule choose.
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
        return await world.guard(afn, *args)

    main.__name__ = main.__qualname__ = getattr(afn, "__qualname__", repr(afn))
    main.__module__ = getattr(afn, "__module__", __name__)

    def turn() -> T:
        __tracebackhide__ = True
        return _turn(main, world, backend, options)

    return turn() if schedule is None else _followed(schedule, world, turn)


def _turn(
    main: Callable[[], Awaitable[T]], world: World, backend: str, options: dict[str, Any]
) -> T:
    __tracebackhide__ = True
    try:
        with claimed(world, backend):
            return anyio.run(main, backend=backend, backend_options=options)
    except BaseException as error:
        if world.verdict is not None and isinstance(error, Exception):
            # The run was broken off; trio says so with an error of its own, which is the context.
            raise world.verdict.with_traceback(None)  # noqa: B904 - its cause is the one before it
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
            mismatch = schedule.mismatch()
            if mismatch is not None:
                raise ValueError(mismatch) from error
            if world.steps is not None:
                steps = interleaving(world.steps.trace())
                note(error, "under Schedule(", f"{repr(schedule).partition('(')[2]}:\n{steps}")
        raise
    finally:
        world.steps = None  # an end to circles: what a search has run does not pile up
    mismatch = schedule.mismatch()
    if mismatch is not None:
        raise ValueError(mismatch)
    return result


def virtual_backend(
    name: str, *, grace: float = 1.0, max_turns: int = MAX_TURNS
) -> tuple[str, dict[str, Any]]:
    """
    Return a value for the fixture ``anyio_backend`` that puts async tests under virtual time.

    Each event loop that anyio's pytest plugin makes with it starts a clock at 0; that is one for
    each test, unless async fixtures of a wider scope keep a loop open across tests. The fixture
    ``sim`` is its `Simulation`.

    Args:
        name: ``"asyncio"`` or ``"trio"``.
        grace: As for `run`.
        max_turns: As for `run`.

    Raises:
        TypeError: ``grace`` is no number, or ``max_turns`` no int.
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
