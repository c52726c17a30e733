"""
The rules of virtual time: when it moves, what stops it, and when a run is stuck.

Promise: time moves only when every task is blocked, and then exactly to the next deadline; it
stands still while real work is in flight; if nothing can ever happen again, the run ends with
`Deadlock` and never hangs; if tasks are busy for ever without time passing, with `Livelock`.

One world runs in a process at a time, because `mtaio._internal.clock.now` follows it, from the
moment its event loop runs until it stops; a second one is refused before it has started. How to
jump, to wait and to break off is the event loop's business (`_asyncio`, `_trio`).
"""

from __future__ import annotations

import math
import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

import anyio

from mtaio._internal import checks, clock
from mtaio.testing._diagnostics import BROKEN, Ages, Deadlock, Livelock, Steps, standstill_of
from mtaio.testing._schedule import Schedule, choices_of
from mtaio.testing._threads import watched

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable
    from contextlib import AbstractContextManager
    from contextvars import Context
    from types import FrameType

    from mtaio.testing._diagnostics import Standstill, Suspended
    from mtaio.testing._threads import WorkerCall

T = TypeVar("T")

_WAY_OUT = "Pass the real seconds for which a worker thread may do nothing, inf for no limit."

_TURNS_WAY_OUT = "Pass how often the event loop may turn while no time passes, or None."

NAPS: Final = 10
"""
In how many parts the loop sleeps for the grace. If the whole process is stopped for a while, by the
machine or a debugger, that is one part: its threads have the others to go on in.
"""

MAX_TURNS: Final = 1_000_000
"""How often the event loop may turn without virtual time moving, unless the user says otherwise."""


class Engine(Protocol):
    """What a world asks of the event loop under it."""

    def time(self) -> float:
        """Return the virtual time in seconds."""
        ...

    async def sleep_until(self, moment: float) -> None:
        """Sleep until virtual time is ``moment``, exactly."""
        ...

    async def settle(self) -> None:
        """Wait until every other task is blocked."""
        ...

    async def exhaust(self) -> None:
        """Wait until nothing more can happen unless time moves: no task runs and no thread."""
        ...

    def suspended(self) -> list[Suspended]:
        """Return each task."""
        ...

    def current_task(self) -> object:
        """Return the task that is running."""
        ...

    def watch(self, steps: Steps) -> None:
        """Tell ``steps`` of each step of a task, and let its schedule choose."""
        ...

    def start_test(self) -> object:
        """Note that the code under test starts in this task, which is returned."""
        ...

    def cancelled_outside(self) -> bool:
        """Return whether this task was cancelled by something other than the engine."""
        ...

    def end_test(self) -> None:
        """Note that the code under test has ended."""
        ...

    def awaits_writing(self, fd: int) -> bool:
        """Return whether a task or a transport may wait until it can write to a descriptor."""
        ...

    def bury(self, tasks: Iterable[Any]) -> None:
        """Cancel tasks of a program that was killed, which are in no task group."""
        ...

    def abandon(self, files: list[int]) -> None:
        """Let go of descriptors whose program was killed."""
        ...

    def join(self, network: Beside) -> Callable[[], None]:
        """Let the backend use a network, and return what ends that."""
        ...


class Beside(Protocol):
    """What happens beside the tasks: a simulated network."""

    def stirs(self) -> bool:
        """Let everything happen that takes no time; return whether anything did."""
        ...

    def arrive(self) -> None:
        """Let happen what is due at a moment to which time has just moved."""
        ...

    def next_at(self) -> float:
        """Return when something happens next, ``inf`` if nothing will."""
        ...

    def number_of(self, fd: int) -> int:
        """Return the place of a descriptor among the simulated ones, 0 if it is real."""
        ...

    def task_made(self, task: Any) -> None:
        """Note a task of asyncio."""
        ...

    async def look_up(self, *args: Any, **kwargs: Any) -> Any:
        """Return what ``getaddrinfo`` says."""
        ...

    def name_info(self, address: Any, flags: int) -> tuple[str, str]:
        """Return what ``getnameinfo`` says."""
        ...

    def is_dead(self, context: Context) -> bool:
        """Return whether what runs in a context acts for a program that was killed."""
        ...

    def waits(self, frames: list[FrameType]) -> str | None:
        """Say for which socket a task waits, whose frames these are, innermost first."""
        ...


class StepsHiddenError(RuntimeError):
    """
    The steps of tasks can be neither chosen nor watched with this version of a backend.

    That costs exploration alone; virtual time needs none of it.
    """

    def __init__(self, backend: str, hook: str) -> None:
        super().__init__(
            f"mtaio.testing cannot choose or see the steps of tasks on {backend}: this version of "
            f"it has no {hook} of the kind that mtaio was tested with. Virtual time works all the "
            f"same; leave schedule, sim.always() and Victim out, or use another version of "
            f"{backend}."
        )


class World:
    """
    The state of one simulation, across all event loops made for it.

    Args:
        grace: The real seconds for which a frozen clock may see nothing happen.
        schedule: Who runs next; None leaves that to the event loop.
        max_turns: How often the event loop may turn without virtual time moving; None for no limit.
        alone: Whether the code under test is all that its event loops are for, so that no task is
            there before it.

    Raises:
        TypeError: ``grace`` is not a number, or ``max_turns`` not an int.
        ValueError: ``grace`` is NaN or not more than 0, or ``max_turns`` less than 1.
    """

    # Invariants:
    # - engine is the loop that was made last, None once that is over;
    # - thread is the one in which it runs, None while it does not;
    # - calls holds the worker threads that freeze the clock, jobs counts those of executors,
    #   holds the blocks of hold();
    # - hosts holds the calls whose caller still waits, whether the thread freezes the clock or not;
    # - turns counts those of the loop in which something ran, since the last in which nothing did;
    #   froze says that the clock was frozen when there were too many the last time;
    # - steps are those of the loop that was made last, None while they are not watched;
    # - host is the task of the code under test and scope is around it, None while there is none;
    # - failure is the latest on that code;
    # - network is the simulated one, while it is open.
    __slots__ = (
        "_ages",
        "alone",
        "calls",
        "engine",
        "failure",
        "froze",
        "grace",
        "holds",
        "host",
        "hosts",
        "jobs",
        "max_turns",
        "network",
        "schedule",
        "scope",
        "steps",
        "thread",
        "turns",
    )

    def __init__(
        self,
        *,
        grace: float = 1.0,
        schedule: Schedule | None = None,
        max_turns: int | None = MAX_TURNS,
        alone: bool = False,
    ) -> None:
        self.grace: float = checks.more_than_0("grace", grace, way_out=_WAY_OUT)
        if max_turns is not None:
            checks.count("max_turns", max_turns, way_out=_TURNS_WAY_OUT)
        self.max_turns: float = math.inf if max_turns is None else max_turns
        self.schedule: Schedule | None = schedule
        self.alone: bool = alone
        self.engine: Engine | None = None
        self.thread: int | None = None
        self._reset()

    def _reset(self) -> None:
        self.holds: int = 0
        self.jobs: int = 0
        self.calls: set[WorkerCall] = set()
        self.hosts: set[WorkerCall] = set()
        self.turns: int = 0
        self.froze: bool = False
        self.steps: Steps | None = None
        self._ages = Ages()
        self.host: object = None
        self.scope: anyio.CancelScope | None = None
        self.failure: BaseException | None = None
        self.network: Beside | None = None

    def time(self) -> float:
        """Return the virtual time in seconds, 0 while there is no event loop."""
        return 0.0 if self.engine is None else self.engine.time()

    def attach(self, engine: Engine) -> None:
        """Start afresh with a new event loop, whose clock says 0."""
        self.engine = engine
        self._reset()

    def detach(self, engine: Engine) -> None:
        """Forget an event loop that is over."""
        if self.engine is engine:
            self.engine = None

    def frozen(self, hidden: int = 0) -> bool:
        """Return whether time must stand still; ``hidden`` threads besides `calls` are at work."""
        return bool(self.holds or self.jobs or self.calls or hidden)

    def patience(self, *, real_io: bool, hidden: int = 0) -> float:
        """
        Return for how many real seconds the blocked loop may wait for something real.

        0 says that nothing can come; ``inf`` that something real is awaited, at any time.
        """
        threads = bool(self.jobs or self.calls or hidden)
        if real_io and (self.holds or not threads):
            return math.inf
        return self.grace if self.holds or threads else 0.0

    def observed(self) -> Steps:
        """
        Return the steps of the running loop, which are watched from now on.

        Raises:
            StepsHiddenError: The backend's version does not show them.
        """
        assert self.engine is not None  # noqa: S101 - a loop is running
        if self.steps is None:
            if self.schedule is not None:
                choices_of(self.schedule).begin()
            steps = Steps(self.schedule, self.engine.time, self.fail)
            self.engine.watch(steps)
            if self.scope is not None:
                steps.start_test(self.host, self.engine.current_task())
            self.steps = steps
        return self.steps

    def task_made(self, task: Any) -> None:
        """Let a new task have its number in the interleaving."""
        if self.steps is None:
            self._ages.add(task)
        else:
            self.steps.record(task)

    def age_of(self, task: Any) -> int:
        """Return the number of a task in the interleaving; 0 if the test did not start it."""
        return self._ages.of(task) if self.steps is None else self.steps.record(task).age

    def imply_schedule(self) -> None:
        """
        Let a schedule choose from now on, the oldest task always, if none does.

        Raises:
            StepsHiddenError: As for `observed`.
        """
        if self.schedule is not None:
            return
        assert self.engine is not None  # noqa: S101 - a loop is running
        self.schedule = Schedule()
        if self.steps is None:
            self.observed()
        else:
            choices_of(self.schedule).begin()
            self.steps.follow(self.schedule)
            self.engine.watch(self.steps)

    def idle(self) -> None:
        """Note that nothing is ready to run."""
        self.turns = 0
        if self.steps is not None:
            self.steps.between()

    def turned(self, hidden: int = 0) -> BaseException | None:
        """
        Note that the loop has turned once too often, and something ran each time; give up.

        Turns do not count while the clock is frozen, ``hidden`` threads among the reasons: to look
        again and again whether a thread is through is a poor way to wait, but it has an end.

        Returns:
            As `stuck`.
        """
        self.turns = 0
        thawed, self.froze = self.froze, self.frozen(hidden)
        if thawed or self.froze:
            return None
        again = "still " if self.failure else ""
        return self.fail(
            Livelock(
                f"the run {again}makes no progress at t={self.time()!r}: tasks have kept the event "
                f"loop turning {self.max_turns!r} times without waiting for anything. Let them "
                f"wait for an event or a moment, or raise max_turns={self.max_turns!r}.",
                *self._standstill(sure=True),
            )
        )

    def stuck(self, patience: float) -> BaseException | None:
        """
        Fail the run, since nothing came within ``patience``.

        Returns:
            None if the code under test was cancelled, for `guard` to tell why; otherwise the error
            with which the engine has to end that code by force, or else the run.
        """
        return self.fail(Deadlock(self._reason(patience), *self._standstill(sure=patience > 0)))

    def fail(self, failure: BaseException) -> BaseException | None:
        """Let ``failure`` be what the run ends with; for what is returned see `stuck`."""
        if self.steps is not None:
            self.steps.forget_invariants()  # they need not hold while the run is broken off
            self.steps.note(f"{type(failure).__name__}: {BROKEN}")
        if self.failure is not None:
            failure.__cause__ = self.failure.__cause__ or self.failure  # the first one
        self.failure = failure
        if self.scope is None or self.scope.cancel_called:
            return failure
        self.scope.cancel(f"the simulated run has failed with {type(failure).__name__}")
        return None

    def _standstill(self, *, sure: bool) -> Standstill:
        """Return where tasks and worker threads are; ``sure`` if any might go on by itself."""
        assert self.engine is not None  # noqa: S101 - an engine asks
        at_socket = None if self.network is None else self.network.waits
        still = standstill_of(self.engine.suspended(), at_socket, sure=sure)
        threads = (call.stack() for call in tuple(self.calls))
        return still._replace(stacks=(*still.stacks, *filter(None, threads)))

    def _reason(self, patience: float) -> str:
        again = "still " if self.failure else ""
        now = f"the run is {again}blocked at t={self.time()!r}"
        if not patience:
            return (
                f"{now} for ever: no timer is set and nothing real is awaited. If something "
                f"outside was to wake it, say so with sim.hold()."
            )
        if self.holds:
            return (
                f"{now} with its clock held, and nothing has come for {patience!r} s of real time. "
                f"End the hold() earlier, or raise grace={self.grace!r}."
            )
        return (
            f"{now} with its clock frozen by worker threads, and nothing has come from them for "
            f"{patience!r} s of real time. Let them end, let them wait in anyio.from_thread.run(), "
            f"or raise grace={self.grace!r}."
        )

    async def guard(
        self,
        entered: anyio.CancelScope | None,
        function: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> T:
        """
        Await ``function(*args, **kwargs)``; a deadlock cancels it, and is raised instead.

        It is called in a scope of its own, or in the one that was entered before.
        """
        __tracebackhide__ = True
        engine = self.engine
        assert engine is not None  # noqa: S101 - it runs this
        result: list[T] = []
        raised: Exception | None = None
        failure: BaseException | None = None
        self.failure = None  # of earlier code in a loop that was broken off and goes on
        self.turns = 0
        self.host = engine.start_test()
        self._ages.start_test(self.host)
        if self.steps is not None:
            self.steps.start_test(self.host, self.host)
        try:
            try:
                scope = anyio.CancelScope() if entered is None else nullcontext(entered)
                with scope as self.scope:
                    result.append(await function(*args, **kwargs))
            except anyio.get_cancelled_exc_class():
                # A scope that was entered before stays cancelled, which is not from outside.
                if self.failure is None or (entered is None and engine.cancelled_outside()):
                    raise  # as by Ctrl-C, or as the code itself may do
            except Exception as error:
                if self.failure is None:
                    raise
                raised = error
            finally:
                if self.steps is not None:
                    self.steps.end_test()
                engine.end_test()
                failure, self.scope, self.failure, self.host = self.failure, None, None, None
            if failure is None:
                return result[0]
            if raised is not None and not _is_deadlock(raised):
                (failure.__cause__ or failure).__cause__ = raised
            raise failure
        finally:
            del failure, raised  # or each would refer to itself, by way of its traceback


def scope_here() -> AbstractContextManager[anyio.CancelScope | None]:
    """Return a scope to be guarded in, where a world is."""
    return nullcontext() if world_here() is None else anyio.CancelScope()


def raised_by_guard(error: BaseException) -> bool:
    """Return whether `World.guard` has raised an error: its traceback leads through machinery."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code is World.guard.__code__


def _is_deadlock(error: Exception) -> bool:
    """Return whether an error is nothing but what an engine threw to end the run by force."""
    if isinstance(error, ExceptionGroup):
        return cast("ExceptionGroup[Exception]", error).split(Deadlock)[1] is None
    return isinstance(error, Deadlock)


# ---- the one world of the process ----------------------------------------------------------------

_claim = threading.Lock()
_claimant: World | None = None
_running: World | None = None


@contextmanager
def claimed(world: World, backend: str) -> Generator[None]:
    """Let ``world`` be the one of the process inside the block, and see its threads."""
    global _claimant  # noqa: PLW0603 - one clock for the process, hence one world
    with _claim:
        refuse_second()
        _claimant = world
    try:
        with watched(world, backend):
            yield
    finally:
        _claimant = None


class Running:
    """Let ``world`` run inside the block: mtaio's time is that of ``virtual``, its loop's clock."""

    __slots__ = ("_backend", "_before", "_claimed", "_virtual", "_world")

    def __init__(self, world: World, virtual: clock.Clock, backend: str) -> None:
        self._world = world
        self._virtual = virtual
        self._backend = backend
        self._claimed: AbstractContextManager[None] | None = None

    def __enter__(self) -> None:
        global _running  # noqa: PLW0603 - one clock for the process, hence one world
        if _claimant is not self._world:
            self._claimed = claimed(self._world, self._backend)
            self._claimed.__enter__()
        _running = self._world
        self._world.thread = threading.get_ident()
        self._before = clock.follow(self._virtual)

    def __exit__(self, *exc_info: object) -> None:
        global _running  # noqa: PLW0603 - ditto
        clock.follow(self._before)
        self._world.thread = None
        _running = None
        if self._claimed is not None:
            self._claimed.__exit__(None, None, None)


def current_world() -> World | None:
    """Return the world whose event loop is running, in any thread, if there is one."""
    return _running


def world_here() -> World | None:
    """Return the world whose event loop is running in this thread, if there is one."""
    world = _running
    return world if world is not None and world.thread == threading.get_ident() else None


def refuse_second(world: World | None = None) -> None:
    """Raise ``RuntimeError`` if another world than ``world`` has claimed the process."""
    if _claimant is not None and _claimant is not world:
        msg = (
            f"a simulation is running in this process already (t={_claimant.time()!r}), and "
            f"mtaio's clock can follow only one. Let it end first, or use another process."
        )
        raise RuntimeError(msg)
