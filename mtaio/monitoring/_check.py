"""
One health check: its runs, one at a time, and their results.

Promise: callers wait for a run no longer than the check's timeout plus `GRACE`. A run that has not
ended by then is given up: it counts as a failure, and as another one every ``ttl`` for as long as
it goes on; no other run starts meanwhile, and its late answer is dropped.

A run is a task of the event loop and not of the caller's task group, because a group waits for all
its tasks: a check that shields itself from cancellation would hang each report. Even so, nothing
outlives the report but what cannot be stopped: a check that does not end when cancelled, and a
thread.
"""

from __future__ import annotations

import inspect
import threading
import time
from contextvars import copy_context
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
from anyio import to_thread

from mtaio._internal import clock, deadlines, loops
from mtaio._internal.callables import is_async
from mtaio._internal.cancellation import Cancelled, Stray, classify, stray_error
from mtaio.monitoring._delivery import logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CoroutineType

    from mtaio.exceptions import StrayCancellationError
    from mtaio.monitoring._report import CheckKind, CheckResult, CheckStatus

__all__ = ["GRACE", "Check", "Run", "Tally"]

GRACE: Final = 0.1
"""Seconds that a run gets to end after it was cancelled, before it is given up."""

_LONGEST: Final = 200
"""The length of an error in a result, at most."""


@dataclass(slots=True)
class Tally:
    """The counts in `HealthStatistics`: of the runs of one registry, made in the event loop."""

    runs: int = 0
    failed: int = 0
    timed_out: int = 0
    cancelled: int = 0


class Check:
    """
    A check and how it stands.

    Args:
        fn: What is called: async, or plain and then in a worker thread.
        result: What is known before the first run.
        timeout: Seconds for each run.
        ttl: Seconds for which an answer is good.
        failure_threshold: After how many failures in a row it is failing.
        tally: Where its runs are counted.
    """

    # Invariants:
    # - run is the latest; it is over before another one runs its function;
    # - result is replaced and never changed: any thread may read it;
    # - answered is when result was, in `clock.now`'s seconds; None before the first.
    __slots__ = (
        "_answered",
        "_failure_threshold",
        "_passed",
        "_result",
        "_tally",
        "_timeout",
        "_ttl",
        "_unknown",
        "fn",
        "is_async",
        "run",
    )

    def __init__(
        self,
        fn: Callable[[], Any],
        result: CheckResult,
        *,
        timeout: float,
        ttl: float,
        failure_threshold: int,
        tally: Tally,
    ) -> None:
        self.fn = fn
        self.is_async: bool = is_async(fn)
        self.run: Run | None = None
        self._timeout = timeout
        self._ttl = ttl
        self._failure_threshold = failure_threshold
        self._tally = tally
        self._unknown = self._result = result
        self._answered: float | None = None
        self._passed = False

    @property
    def kind(self) -> CheckKind:
        """The check's kind."""
        return self._unknown.kind

    @property
    def status(self) -> CheckStatus:
        """How it stands."""
        return self._result.status

    @property
    def critical(self) -> bool:
        """Whether the service is not ready, or not live, while it fails."""
        return self._unknown.critical

    @property
    def is_starting(self) -> bool:
        """Whether it is a check of the start that has not passed yet."""
        return self.kind == "startup" and not self._passed

    def forget(self, *, forked: bool) -> None:
        """Begin from the start, in another event loop; a thread of the old one may still run."""
        if forked:
            self.run = None
        elif self.run is not None:
            self.run.give_up()
        self._result = self._unknown
        self._answered = None
        self._passed = False

    def result(self) -> CheckResult:
        """Return how it stands. From any thread."""
        run, result = self.run, self._result
        if run is None or not run.hangs():
            return result
        seconds = run.running_for()
        return replace(result, hung_seconds=seconds, error=self._hanging(seconds))

    def join(self, loop: object, moment: float) -> Run | None:
        """Return the run to wait for, which may start now; None if its answer is known."""
        if self._is_known(moment):
            return None
        run = self.run
        if run is not None and run.hangs():
            self._tally.runs += 1  # one that could not even begin
            seconds = run.running_for()
            self._fail(self._hanging(seconds), seconds, timed_out=True)
            return None
        if run is None or run.left or run.is_over():
            run = self.run = Run(self, loop, moment + self._timeout, run)
            self._tally.runs += 1
            run.start()
            return run
        run.waiters += 1
        return run

    def _hanging(self, seconds: float) -> str:
        return f"still running after {seconds:.1f} s, with a timeout of {self._timeout} s"

    def _is_known(self, moment: float) -> bool:
        if self._answered is None:
            return False
        return (self._passed and self.kind == "startup") or moment - self._answered < self._ttl

    def answer(self, answer: object, seconds: float) -> None:
        """Note what a run has returned."""
        if answer is None or answer is True:
            self._passed = True
            self._note("passing", None, 0, seconds)
        elif isinstance(answer, str) and answer:
            self._fail(answer, seconds)
        else:
            self._fail(f"returned {_shown(repr, answer)}: return None or True to pass", seconds)

    def fail(self, error: BaseException, seconds: float) -> None:
        """Note what a run has raised."""
        self._fail(f"{type(error).__name__}: {_shown(str, error)}".removesuffix(": "), seconds)

    def time_out(self, seconds: float) -> None:
        """Note that a run did not end in time."""
        self._fail(f"timed out after {self._timeout} s", seconds, timed_out=True)

    def cancel(self) -> None:
        """Note that a run was cancelled, which says nothing of what it checks."""
        self._tally.cancelled += 1

    def _fail(self, error: str, seconds: float, *, timed_out: bool = False) -> None:
        self._tally.failed += 1
        self._tally.timed_out += timed_out
        failures = self._result.failures + 1
        # As in Kubernetes: a container that was never ready is not ready, but one just started is
        # alive until it has failed often enough.
        is_failing = failures >= self._failure_threshold or not (
            self._passed or self.kind == "live"
        )
        status: CheckStatus = "passing"
        if is_failing:
            status = "failing" if self._result.critical else "degraded"
        self._note(status, error, failures, seconds)

    def _note(self, status: CheckStatus, error: str | None, failures: int, seconds: float) -> None:
        if error is not None and len(error) > _LONGEST:
            error = error[: _LONGEST - 1] + "…"
        before = self._result.status
        self._answered = clock.now()
        self._result = replace(
            self._result,
            status=status,
            error=error,
            failures=failures,
            seconds=seconds,
            timestamp=time.time(),
        )
        name = self._result.name
        if status not in {before, "passing"}:
            if self.kind == "startup":  # a start that takes its time is no trouble yet
                logger.info("health check %r has not passed yet: %s", name, error)
            else:
                logger.warning("health check %r is %s: %s", name, status, error)
        elif before not in {status, "unknown"}:
            has = "has passed" if self.kind == "startup" else "is passing again"
            logger.info("health check %r %s", name, has)


def _shown(show: Callable[[object], str], value: object) -> str:
    """Return ``show(value)``, or that it raises: the code of another may."""
    try:
        return show(value)
    except Exception as error:  # noqa: BLE001 - the result shows it
        return f"<{type(value).__name__} whose {show.__name__}() raises {type(error).__name__}>"


class Run:
    """
    One run of a check, for all who wait for it.

    Args:
        check: The check.
        loop: The event loop, as `loops.current_loop` returned it.
        deadline: When it times out, in `clock.now`'s seconds.
        before: The run before, which may still be ending. None for the first.
    """

    # Invariants:
    # - waiters counts the reports that wait; left says that the last of them was cancelled, and
    #   the run therefore is; no other report joins it then;
    # - _recorded says that it was counted, as an answer, a failure or cancelled: once;
    # - when its task has ended it is recorded.
    __slots__ = (
        "_before",
        "_check",
        "_coroutine",
        "_deadline",
        "_ended",
        "_raised",
        "_recorded",
        "_scope",
        "_stray",
        "_thread",
        "left",
        "loop",
        "started",
        "timed_by",
        "waiters",
    )

    def __init__(self, check: Check, loop: object, deadline: float, before: Run | None) -> None:
        self.loop = loop
        self.left = False
        self.waiters = 1
        self._check = check
        self._deadline = deadline
        self._before = None if before is None else before.still_running()
        self.timed_by = clock.here()
        self.started = self.timed_by()
        self._scope = anyio.CancelScope(deadline=clock.loop_deadline(deadline))
        self._ended = anyio.Event()
        self._thread: _Thread | None = None
        self._recorded = False
        self._raised: BaseException | None = None
        self._stray: StrayCancellationError | None = None
        """
        What the check failed with, if it was the backend's cancellation. A caller records it that
        is still there to do so: asyncio cancels all tasks when it ends, the callers' too.
        """
        self._coroutine = cast("CoroutineType[Any, Any, None] | None", self._run())

    def start(self) -> None:
        """Start its task."""
        coroutine = self._coroutine
        assert coroutine is not None  # noqa: S101 - for the type checkers: it was just made
        loops.start_task(self.loop, lambda: coroutine, copy_context())

    def is_over(self) -> bool:
        """Return whether nothing of it runs any more, nor of the run before. From any thread."""
        return self.still_running() is None

    def still_running(self) -> Run | None:
        """Return the run that still runs: this one, or one before. From any thread."""
        coroutine, before = self._coroutine, self._before
        # A closed coroutine is the proof, not a note made at its end: its task may be
        # cancelled natively before the first step.
        is_closed = coroutine is None or coroutine.cr_frame is None
        running = None if before is None else before.still_running()
        if running is None and (not is_closed or self.is_in_thread()):
            return self
        return running

    def is_in_thread(self) -> bool:
        """Return whether a thread runs the check. From any thread."""
        return self._thread is not None and self._thread.is_running()

    def hangs(self) -> bool:
        """Return whether it was given up, and still runs. From any thread."""
        return self._recorded and not self.left and not self.is_over()

    def running_for(self) -> float:
        """Return for how many seconds something of it has been running. From any thread."""
        running = self.still_running() or self
        return max(0.0, clock.now_by(running.timed_by) - running.started)

    async def wait(self) -> None:
        """Wait until it has an answer, or has to be given up."""
        await self._wait_until(self._deadline + GRACE)
        if not self._recorded:
            self._recorded = True
            seconds = clock.now() - self.started
            if self._stray is None:
                self._check.time_out(seconds)
            else:
                self._check.fail(self._stray, seconds)

    async def _wait_until(self, moment: float, *, shield: bool = False) -> None:
        if not self._ended.is_set():
            with anyio.CancelScope(deadline=clock.loop_deadline(moment), shield=shield):
                await self._ended.wait()

    def leave(self) -> None:
        """Wait no longer; the last to leave cancels it, unless it is in a thread or hangs."""
        self.waiters -= 1
        if self._stray is not None:
            self._end_cancelled()
            return
        can_end = self._thread is None or self._thread.has_ended()
        if can_end and not (self.waiters or self._recorded):
            self.left = True
            self._scope.cancel()

    async def wait_left(self, moment: float) -> None:
        """Wait for its end if `leave` has cancelled it: shielded, until ``moment``."""
        if self.left:
            await self._wait_until(min(moment, self._deadline + GRACE), shield=True)

    def give_up(self) -> None:
        """Stop counting on it: its loop is over, and at most its thread still runs."""
        self._recorded = True
        self._coroutine = self._before = None

    def raise_error(self) -> None:
        """Raise what the check raised that is not an Exception: it is meant to end the program."""
        error, self._raised = self._raised, None
        if error is not None:
            raise error

    async def _run(self) -> None:
        """Run the check: a task of the event loop, which raises nothing but its cancellation."""
        # Without the first caller's limit: others wait as well.
        deadlines.enter(self._deadline, alone=True)
        try:
            with self._scope:
                self._record(self._check.answer, await self._call())
        except BaseException as error:
            if not self._explain(error):
                raise
        finally:
            self._end()

    async def _call(self) -> object:
        if self._before is not None:
            await self._before._ended.wait()  # noqa: SLF001 - of this class
        check = self._check
        if check.is_async:
            return await check.fn()
        self._thread = _Thread(check.fn)
        answer = await self._thread.call()
        return await answer if inspect.isawaitable(answer) else answer

    def _explain(self, error: BaseException) -> bool:
        """Note what ``error`` means; return whether the task may end without raising it."""
        ended = classify(error)
        if isinstance(ended, Cancelled):
            return False  # by the end of the loop
        failure = ended.error
        if isinstance(ended, Stray):
            if self.waiters and not self._scope.cancel_called:
                self._stray = stray_error(error, f"the check {self._check.fn!r}")
            return True
        if not isinstance(failure, Exception):
            self._raised = failure
        if not self._scope.cancel_called:  # else that is the reason
            self._record(self._check.fail, failure)
        return True

    def _record(self, note: Callable[[Any, float], None], outcome: object) -> None:
        if not self._recorded:
            self._recorded = True
            note(outcome, clock.now() - self.started)

    def _end(self) -> None:
        """Wake all who wait for it."""
        if not self._recorded and self._stray is None:
            if self._scope.cancel_called and not self.left:
                self._recorded = True
                self._check.time_out(clock.now() - self.started)
            else:
                self._end_cancelled()
        self._ended.set()

    def _end_cancelled(self) -> None:
        if not self._recorded:
            self._recorded = True
            self._check.cancel()


class _State(Enum):
    NEW = auto()
    RUNNING = auto()
    ENDED = auto()


class _Thread:
    """
    A call in a worker thread, which goes on alone when the call is cancelled.

    Args:
        fn: What is called.
    """

    # Invariant: a call that was cancelled before its thread got to it is never made.
    __slots__ = ("_answer", "_fn", "_lock", "_state")

    def __init__(self, fn: Callable[[], Any]) -> None:
        self._fn = fn
        self._lock = threading.Lock()
        self._state = _State.NEW
        self._answer: object = None

    async def call(self) -> Any:
        """Make the call, and return its answer, which trio would not if it is a coroutine."""
        # A limiter of its own: checks neither wait for the application's threads nor take them.
        # There is no more than one thread for each check.
        limiter = anyio.CapacityLimiter(1)
        try:
            await to_thread.run_sync(self._work, abandon_on_cancel=True, limiter=limiter)
        except BaseException:
            self._begin(_State.ENDED)
            raise
        return self._answer

    def is_running(self) -> bool:
        """Return whether the thread is in the call. From any thread."""
        return self._state is _State.RUNNING

    def has_ended(self) -> bool:
        """Return whether the thread is through, or will never begin. From any thread."""
        return self._state is _State.ENDED

    def _work(self) -> None:
        if not self._begin(_State.RUNNING):
            return  # pragma: no cover - only where no thread gets to run for the whole timeout
        try:
            self._answer = self._fn()
        finally:
            self._state = _State.ENDED

    def _begin(self, state: _State) -> bool:
        with self._lock:
            if self._state is not _State.NEW:
                return False
            self._state = state
            return True
