"""
The rules of virtual time: when it moves, what makes it stand still, when a run is stuck.

Promise: time moves only when every task is blocked, straight to the next deadline and exactly
there; it stands still while real work is in flight; if nothing can ever happen again, the run
ends with `Deadlock` and never hangs, and if it turns for ever on the spot, with `Livelock`.

How to jump, to wait and to break off is the event loop's business (`_asyncio`, `_trio`); that there
is one world at a time is that of `_claims`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import anyio

from mtaio._internal import checks
from mtaio.testing._deadlock import Deadlock, Livelock
from mtaio.testing._steps import Steps
from mtaio.testing._trace import BROKEN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mtaio.testing._deadlock import Stack
    from mtaio.testing._engine import Engine
    from mtaio.testing._schedule import Schedule
    from mtaio.testing._threads import WorkerCall

T = TypeVar("T")

_WAY_OUT = "Pass the real seconds for which a worker thread may do nothing, inf for no limit."

_TURNS_WAY_OUT = "Pass how often the event loop may turn while no time passes, a number >= 1."

NAPS: Final = 10
"""
In how many parts the loop sleeps for the grace. If the whole process is stopped for a while, by the
machine or a debugger, that is one part: its threads have the others to go on in.
"""

MAX_TURNS: Final = 1_000_000
"""How often the event loop may turn without virtual time moving, unless the user says otherwise."""


class World:
    """
    The state of one simulation, through all the event loops that are made for it.

    Args:
        grace: The real seconds for which a frozen clock may see nothing happen.
        schedule: Who runs next; None leaves that to the event loop.
        max_turns: How often the event loop may turn without virtual time moving.
        alone: Whether the code under test is all that its event loops are for, so that no task is
            there before it.

    Raises:
        TypeError: ``grace`` is no number, or ``max_turns`` no int.
        ValueError: ``grace`` is NaN or not more than 0, or ``max_turns`` less than 1.
    """

    # Invariants:
    # - engine is the loop that was made last, None once that is over;
    # - thread is the one in which it turns, None while it does not;
    # - calls holds the worker threads that freeze the clock, jobs counts those of executors,
    #   holds the blocks of hold();
    # - hosts holds the calls whose caller still waits, whether the thread freezes the clock or not;
    # - turns counts those of the loop in which something ran, since the last in which nothing did;
    #   froze says that the clock was frozen when there were too many the last time;
    # - steps are those of the loop that was made last, None while nobody wants to see them;
    # - host is the task of the code under test and scope is around it, None while there is none;
    # - verdict is the latest on that code.
    __slots__ = (
        "alone",
        "calls",
        "engine",
        "froze",
        "grace",
        "holds",
        "host",
        "hosts",
        "jobs",
        "max_turns",
        "schedule",
        "scope",
        "steps",
        "thread",
        "turns",
        "verdict",
    )

    def __init__(
        self,
        *,
        grace: float = 1.0,
        schedule: Schedule | None = None,
        max_turns: int = MAX_TURNS,
        alone: bool = False,
    ) -> None:
        if not checks.number("grace", grace, way_out=_WAY_OUT) > 0:
            msg = f"grace={grace!r} is not more than 0. {_WAY_OUT}"
            raise ValueError(msg)
        self.grace: float = grace
        self.max_turns: int = checks.count("max_turns", max_turns, way_out=_TURNS_WAY_OUT)
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
        self.host: object = None
        self.scope: anyio.CancelScope | None = None
        self.verdict: BaseException | None = None

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

    def frozen(self, unseen: int = 0) -> bool:
        """Tell whether time must stand still; ``unseen`` threads besides `calls` are at work."""
        return bool(self.holds or self.jobs or self.calls or unseen)

    def patience(self, *, real_io: bool, unseen: int = 0) -> float:
        """
        Return for how many real seconds the blocked loop may wait for something real.

        0 says that nothing can come; ``inf`` that something real is awaited, at any time.
        """
        threads = bool(self.jobs or self.calls or unseen)
        if real_io and (self.holds or not threads):
            return math.inf
        return self.grace if self.holds or threads else 0.0

    def observed(self) -> Steps:
        """
        Return the steps of the running loop, which are watched from now on.

        Raises:
            StepsUnseenError: The backend's version does not show them.
        """
        assert self.engine is not None  # noqa: S101 - a loop is running
        if self.steps is None:
            if self.schedule is not None:
                self.schedule.begin()
            steps = Steps(self.schedule, self.engine.time, self.condemn)
            self.engine.watch(steps)
            if self.scope is not None:
                steps.guard_begins(self.host, self.engine.current_task())
            self.steps = steps
        return self.steps

    def idle(self) -> None:
        """Note that nothing is ready to run."""
        self.turns = 0
        if self.steps is not None:
            self.steps.between()

    def turned(self, unseen: int = 0) -> BaseException | None:
        """
        Note that the loop has turned and something ran; give up if there are too many such turns.

        Turns do not count while the clock is frozen, ``unseen`` threads among the reasons: to look
        again and again whether a thread is through is no way to wait, but it has an end.

        Returns:
            As `stuck`.
        """
        self.turns += 1
        if self.turns <= self.max_turns:
            return None
        self.turns = 0
        thawed, self.froze = self.froze, self.frozen(unseen)
        if thawed or self.froze:
            return None
        again = "still " if self.verdict else ""
        return self.condemn(
            Livelock(
                f"the run {again}makes no progress at t={self.time()!r}: tasks have kept the event "
                f"loop turning {self.max_turns!r} times without waiting for anything. Let them "
                f"wait for an event or a moment, or raise max_turns={self.max_turns!r}.",
                self._stacks(),
            )
        )

    def stuck(self, patience: float) -> BaseException | None:
        """
        Pass the verdict, since nothing came within ``patience``.

        Returns:
            None if the code under test was cancelled, for `guard` to tell why; otherwise the error
            with which the engine has to end that code by force, or else the run.
        """
        return self.condemn(Deadlock(self._reason(patience), self._stacks()))

    def condemn(self, verdict: BaseException) -> BaseException | None:
        """Let ``verdict`` be what the run ends with; for what is returned see `stuck`."""
        if self.steps is not None:
            self.steps.forget_invariants()  # they need not hold while the run is broken off
            self.steps.struck(f"{type(verdict).__name__}: {BROKEN}")
        if self.verdict is not None:
            verdict.__cause__ = self.verdict.__cause__ or self.verdict  # the first one
        self.verdict = verdict
        if self.scope is None or self.scope.cancel_called:
            return verdict
        self.scope.cancel(f"the simulated run has failed with {type(verdict).__name__}")
        return None

    def _stacks(self) -> tuple[Stack, ...]:
        assert self.engine is not None  # noqa: S101 - an engine asks
        threads = (call.stack() for call in tuple(self.calls))
        return (*self.engine.stacks(), *filter(None, threads))

    def _reason(self, patience: float) -> str:
        again = "still " if self.verdict else ""
        now = f"the run is {again}blocked at t={self.time()!r}"
        if not patience:
            return (
                f"{now} for ever: no timer is set and nothing real is awaited. If something "
                f"outside was to wake it, tell so with sim.hold()."
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

    async def guard(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Await ``function(*args, **kwargs)``; a deadlock cancels it, and is raised instead."""
        __tracebackhide__ = True
        engine = self.engine
        assert engine is not None  # noqa: S101 - it runs this
        result: list[T] = []
        failure: Exception | None = None
        verdict: BaseException | None = None
        self.verdict = None  # of earlier code in a loop that was broken off and goes on
        self.turns = 0
        self.host = engine.guard_begins()
        if self.steps is not None:
            self.steps.guard_begins(self.host, self.host)
        try:
            try:
                with anyio.CancelScope() as self.scope:
                    result.append(await function(*args, **kwargs))
            except anyio.get_cancelled_exc_class():
                if self.verdict is None or engine.cancelled_outside():
                    raise  # as by Ctrl-C, or as the code itself may do
            except Exception as error:
                if self.verdict is None:
                    raise
                failure = error
            finally:
                if self.steps is not None:
                    self.steps.guard_ends()
                engine.guard_ends()
                verdict, self.scope, self.verdict, self.host = self.verdict, None, None, None
            if verdict is None:
                return result[0]
            if failure is not None and not _is_deadlock(failure):
                (verdict.__cause__ or verdict).__cause__ = failure
            raise verdict
        finally:
            del verdict, failure  # or each would refer to itself, by way of its traceback


def raised_by_guard(error: BaseException) -> bool:
    """Tell whether an error is a verdict, whose traceback leads through machinery alone."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code is World.guard.__code__


def _is_deadlock(failure: Exception) -> bool:
    """Tell whether an error is nothing but what an engine threw to end the run by force."""
    if isinstance(failure, ExceptionGroup):
        return cast("ExceptionGroup[Exception]", failure).split(Deadlock)[1] is None
    return isinstance(failure, Deadlock)
