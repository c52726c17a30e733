"""
The rules of virtual time: when it moves, what makes it stand still, when a run is stuck.

Promise: time moves only when every task is blocked, straight to the next deadline and exactly
there; it stands still while real work is in flight; if nothing can ever happen again, the run
ends with `Deadlock` and never hangs. One world turns in a process at a time, because
`mtaio._internal.clock.now` follows it, from the moment its event loop runs until it stops.

How to jump, to wait and to break off is the event loop's business (`_asyncio`, `_trio`).
"""

from __future__ import annotations

import math
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import anyio

from mtaio._internal import checks, clock
from mtaio.testing._deadlock import Deadlock
from mtaio.testing._threads import watched

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from mtaio.testing._deadlock import Stack
    from mtaio.testing._threads import WorkerCall

T = TypeVar("T")

_WAY_OUT = "Pass the real seconds for which a worker thread may do nothing, inf for no limit."

_claim = threading.Lock()
_turning: World | None = None


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

    def stacks(self) -> tuple[Stack, ...]:
        """Return where each task is."""
        ...

    def guard_begins(self) -> None:
        """Note that the code under test begins in this task, and force that alone from now on."""
        ...

    def cancelled_outside(self) -> bool:
        """Tell whether this task was cancelled by somebody other than the engine."""
        ...

    def guard_ends(self) -> None:
        """Note that the code under test is over."""
        ...


class World:
    """
    The state of one simulation, through all the event loops that are made for it.

    Args:
        grace: The real seconds for which a frozen clock may see nothing happen.

    Raises:
        TypeError: ``grace`` is no number.
        ValueError: ``grace`` is NaN or not more than 0.
    """

    # Invariants:
    # - engine is the loop that was made last, None once that is over;
    # - thread is the one in which it turns, None while it does not;
    # - calls holds the worker threads that freeze the clock, jobs counts those of executors,
    #   holds the blocks of hold();
    # - hosts holds the calls whose caller still waits, whether the thread freezes the clock or not;
    # - scope is around the code under test, None while there is none;
    # - verdict is the latest on that code.
    __slots__ = (
        "calls",
        "engine",
        "grace",
        "holds",
        "hosts",
        "jobs",
        "scope",
        "thread",
        "verdict",
    )

    def __init__(self, *, grace: float = 1.0) -> None:
        if not checks.number("grace", grace, way_out=_WAY_OUT) > 0:
            msg = f"grace={grace!r} is not more than 0. {_WAY_OUT}"
            raise ValueError(msg)
        self.grace: float = grace
        self.engine: Engine | None = None
        self.thread: int | None = None
        self._reset()

    def _reset(self) -> None:
        self.holds: int = 0
        self.jobs: int = 0
        self.calls: set[WorkerCall] = set()
        self.hosts: set[WorkerCall] = set()
        self.scope: anyio.CancelScope | None = None
        self.verdict: Deadlock | None = None

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

    @contextmanager
    def turning(self, engine: Engine, backend: str) -> Generator[None]:
        """Be the world of the process inside the block, in which the event loop turns."""
        global _turning  # noqa: PLW0603 - one clock for the process, hence one world
        with _claim:
            refuse_second()
            _turning = self
        self.thread = threading.get_ident()
        try:
            with clock.reading_from(engine.time), watched(self, backend):
                yield
        finally:
            self.thread = None
            _turning = None

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

    def stuck(self, patience: float) -> Deadlock | None:
        """
        Pass the verdict, since nothing came within ``patience``.

        Returns:
            None if the code under test was cancelled, for `guard` to tell why; otherwise the error
            with which the engine has to end that code by force, or else the run.
        """
        assert self.engine is not None  # noqa: S101 - an engine asks
        threads = (call.stack() for call in tuple(self.calls))
        stacks = (*self.engine.stacks(), *filter(None, threads))
        verdict = Deadlock(self._reason(patience), stacks)
        if self.verdict is not None:
            verdict.__cause__ = self.verdict.__cause__ or self.verdict  # the first one
        self.verdict = verdict
        if self.scope is None or self.scope.cancel_called:
            return verdict
        self.scope.cancel("the simulated run is deadlocked")
        return None

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
        self.verdict = None  # of earlier code in a loop that was broken off and goes on
        engine.guard_begins()
        try:
            with anyio.CancelScope() as self.scope:
                result.append(await function(*args, **kwargs))
        except anyio.get_cancelled_exc_class():
            if engine.cancelled_outside():
                raise  # as by Ctrl-C
        except Exception as error:
            if self.verdict is None:
                raise
            failure = error
        finally:
            engine.guard_ends()
            verdict, self.scope, self.verdict = self.verdict, None, None
        if verdict is None:
            return result[0]
        if failure is not None and not _is_deadlock(failure):
            (verdict.__cause__ or verdict).__cause__ = failure
        raise verdict


def _is_deadlock(failure: Exception) -> bool:
    """Tell whether an error is nothing but what an engine threw to end the run by force."""
    if isinstance(failure, ExceptionGroup):
        return cast("ExceptionGroup[Exception]", failure).split(Deadlock)[1] is None
    return isinstance(failure, Deadlock)


def turning() -> World | None:
    """Return the world whose event loop is running, if there is one."""
    return _turning


def refuse_second() -> None:
    """Raise ``RuntimeError`` if the event loop of some world is running."""
    if _turning is not None:
        msg = (
            f"a simulation is running in this process already (t={_turning.time()!r}), and "
            f"mtaio's clock can follow only one. Let it end first, or use another process."
        )
        raise RuntimeError(msg)
