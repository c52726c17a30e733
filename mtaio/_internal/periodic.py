"""
A function that runs again and again: each period, or when a cron expression says so.

Promise: runs begin at ticks, which no run moves; one run at a time; a tick that finds no room
begins no run and is counted, so there is never more than one run to catch up on. With a leader no
tick is run by two processes, and a run is cancelled when its process leads no more.
Cost: between runs one task that sleeps.

One task does it all: it sleeps until a tick, makes the run itself, and goes on from the clock. So
there is nothing to wake, no run without an owner, and ``overlap`` is what happens when the run
comes back late (`Periodic._go_on`): "skip" goes on with the next tick to come; "queue" with
the tick that has passed; "cancel" does the same, and lets the run go on no longer than up to there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from logging import getLogger
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import anyio

from mtaio._internal import checks, clock
from mtaio._internal.cancellation import without_cancellation
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.statistics import COUNTER, GAUGE, INFO, SECONDS, snapshot
from mtaio._internal.steps import run_in
from mtaio._internal.ticks import Cron, CronTicks, Interval, Ticks
from mtaio.exceptions import LeaseLostError

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from mtaio._internal.leaders import Leader, Term

__all__ = ["Overlap", "Periodic", "PeriodicStatistics", "Schedule"]

Overlap: TypeAlias = Literal["skip", "queue", "cancel"]
"""What happens to the tick at which the run before has not ended."""

_LOOK: Final = 60.0
"""Seconds after which the time of day is looked at again: somebody may have set it."""

_SET_BACK: Final = 10_800.0
"""Seconds: where the time of day is set back by more, ticks are taken as new ones, as in cron."""

_EARLY: Final = 0.001
"""Seconds by which a tick of the time of day may be early: an event loop's clock is another."""

_PAUSE: Final = 1.0
"""Seconds after which a leader that failed is asked again."""

_UNHEALTHY: Final = 3
"""Ticks without success after which the health check fails, when the next is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicStatistics:
    """What a `mtaio.core.PeriodicTask` has done in this process, and when it is due."""

    leading: bool = field(metadata=GAUGE)
    """Whether this process makes the runs: always, without a leader."""
    running: bool = field(metadata=GAUGE)
    """Whether a run is going on, or waits for a slot."""
    runs: int = field(metadata=COUNTER)
    """Runs begun."""
    succeeded: int = field(metadata=COUNTER)
    """Runs that returned."""
    failed: int = field(metadata=COUNTER)
    """Runs that raised an error, timeouts included, after the last attempt of ``retry``."""
    cancelled: int = field(metadata=COUNTER)
    """Runs that were cancelled: by the next tick, with the task, or because another leads."""
    skipped: int = field(metadata=COUNTER)
    """Ticks that began no run, counted when the run that was in their way has ended."""
    runs_since_success: int = field(metadata=GAUGE)
    """Runs since the last that succeeded, with one that is going on."""
    last_start: float | None = field(metadata=GAUGE | SECONDS)
    """When the last run began, in seconds since 1970; None before the first."""
    last_success: float | None = field(metadata=GAUGE | SECONDS)
    """When a run last ended with success, in seconds since 1970; None if none has."""
    last_duration_seconds: float | None = field(metadata=GAUGE)
    """How long the last run took that has ended, with the wait for a slot and all attempts."""
    last_error: str = field(metadata=INFO)
    """The class of the error that the last run raised; empty if it raised none."""
    next_start: float | None = field(metadata=GAUGE | SECONDS)
    """When the next run begins, in seconds since 1970; None while that is not known."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """
    When to run: the options of `TaskExecutor.every`, checked, but those of a run.

    Args:
        period: Seconds, or a cron expression.
        first: When the first run begins; None for the default.
        jitter: Seconds of which a random part is added to each tick.
        overlap: What to do about a tick at which the run before has not ended.
        leader: Which of several processes runs; None for this one.
    """

    period: float | Cron
    first: Literal["now", "later"] | None
    jitter: float
    overlap: Overlap
    leader: Leader | None

    def __post_init__(self) -> None:
        period = self.period
        if not isinstance(period, Cron):
            way_out = (
                "Pass the seconds from one run to the next, such as 60 or delta.total_seconds(), "
                'or Cron("*/5 * * * *").'
            )
            checks.positive("period", period, way_out=way_out)
            period = float(period)
        if self.first is not None:
            checks.one_of("first", self.first, ("now", "later"))
        checks.one_of("overlap", self.overlap, get_args(Overlap))
        checks.at_least("jitter", self.jitter, 0, way_out="Pass seconds >= 0; 0 for none.")
        if self.jitter >= (math.inf if isinstance(period, Cron) else period):
            msg = (
                f"jitter={self.jitter!r} is not less than the period, {self.period!r}. Pass the "
                f"seconds over which to spread the runs, less than the period."
            )
            raise ValueError(msg)
        leader: object = self.leader
        if leader is not None and not callable(getattr(leader, "wait_leader", None)):
            msg = (
                f"leader={leader!r} is {checks.type_of(leader)}, which has no wait_leader(). Pass "
                f"a RedisLeader, or None."
            )
            raise TypeError(msg)

    def ticks(self) -> Ticks:
        """Return the ticks, from now on: in the event loop."""
        if isinstance(self.period, Cron):
            return CronTicks(self.period)
        return Interval(self.period, on_wall=self.leader is not None)

    @property
    def begins_now(self) -> bool:
        """Whether the first run begins at once."""
        return self.first == "now" or (self.first is None and not isinstance(self.period, Cron))

    def delay(self) -> float:
        """Return the random seconds by which a run begins after its tick."""
        if not self.jitter:
            return 0.0
        from random import random  # noqa: PLC0415 - dear to import, and most have no jitter

        return self.jitter * random()  # noqa: S311 - no secret depends on it


class Periodic:
    """
    What a `mtaio.core.PeriodicTask` does, and the service of an application.

    Args:
        name: For messages, and for the leader.
        schedule: When to run.
        run: Makes a run.
        on_error: Called with what a run has raised; None to log it.
    """

    # Invariants:
    # - all but `statistics` happens in the event loop in which it was made;
    # - _idle is the scope around what it waits in;
    # - _stopped is set once: no run begins after that, but one whose tick is being claimed then,
    #   which would be lost;
    # - _expected is by when a run has to have succeeded, on the clock of _ticks.
    __slots__ = (
        "__weakref__",
        "_cancelled",
        "_expected",
        "_failed",
        "_idle",
        "_last_duration_seconds",
        "_last_error",
        "_last_start",
        "_last_success",
        "_leading",
        "_next_start",
        "_on_error",
        "_run",
        "_running",
        "_runs",
        "_runs_since_success",
        "_schedule",
        "_skipped",
        "_stopped",
        "_succeeded",
        "_ticks",
        "name",
    )

    def __init__(
        self,
        name: str,
        schedule: Schedule,
        run: Callable[[], Coroutine[Any, Any, object]],
        on_error: Callable[[Exception], object] | None = None,
    ) -> None:
        self.name: Final = name
        self._schedule = schedule
        self._run = run
        self._on_error = on_error or self._log
        self._ticks = schedule.ticks()
        self._expected = math.inf
        self._idle: anyio.CancelScope | None = None
        self._stopped = False
        self._leading = self._running = False
        self._runs = self._succeeded = self._failed = self._cancelled = self._skipped = 0
        self._runs_since_success = 0
        self._last_start: float | None = None
        self._last_success: float | None = None
        self._last_duration_seconds: float | None = None
        self._last_error = ""
        self._next_start: float | None = None

    def stop(self) -> None:
        """Begin no more runs; `serve` returns when the one that is going on has ended."""
        self._stopped = True
        if self._idle is not None:
            self._idle.cancel()

    def statistics(self) -> PeriodicStatistics:
        """Return what it has done; from any thread."""
        return snapshot(PeriodicStatistics, self)

    def check_health(self) -> str | None:
        """Return what is wrong, or None."""
        if self._ticks.now() <= self._expected:
            return None
        last = self._last_success
        since = "" if last is None else f" for {clock.wall() - last:.3g} s"
        error = f"; the last raised {self._last_error}" if self._last_error else ""
        return f"no run has succeeded{since}, in {self._runs_since_success} attempts{error}"

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run it until `stop` or cancellation."""
        task_status.started()
        leader = self._schedule.leader
        if leader is None:
            await self._serve_term(None)
            return
        while True:
            with self._waiting():
                await leader.wait_leader()
            if self._stopped:
                return
            try:
                with leader.hold() as term:
                    await self._serve_term(term)
            except LeaseLostError as error:
                getLogger("mtaio.core").warning("%s pauses in this process: %s", self.name, error)
            except Exception as error:  # it may be anybody's
                getLogger("mtaio.core").warning(
                    "%s pauses because its leader failed", self.name, exc_info=error
                )
                with self._waiting():
                    await anyio.sleep(_PAUSE)

    async def _serve_term(self, term: Term | None) -> None:
        """Make runs for as long as this process leads."""
        ticks, now = self._ticks, self._ticks.now()
        last = None if term is None else await term.last_tick(self.name)
        if last is not None:
            tick = ticks.after(last)  # which may have passed: the process that led before is gone
        elif not self._schedule.begins_now:
            tick = ticks.after(now)
        else:
            tick, _ = ticks.pass_to(now, now)
        self._leading = True
        self._expect()
        try:
            await self._go_on(tick, term)
        finally:
            self._leading = False
            self._expected = math.inf
            self._next_start = None

    # ---- ticks ----

    async def _go_on(self, tick: float, term: Term | None) -> None:
        """Begin a run at ``tick``, and at those that follow, until `stop`."""
        ticks, schedule = self._ticks, self._schedule
        begin = tick + schedule.delay()
        seen: float = ticks.now()
        while (now := await self._sleep_until(begin, seen)) is not None:
            seen = now
            if now < begin:  # the time of day was set back by far
                tick = ticks.after(now)
                begin = tick + schedule.delay()
                continue
            # 1. Where the event loop or the machine stood still, several ticks have passed, and
            #    the run is the last one's.
            tick, passed = ticks.pass_to(tick, now)
            self._skipped += passed
            # 2. The next is fixed before the run, which may take as long as it likes.
            following = ticks.after(now)
            begin = following + schedule.delay()
            # 3. Of all processes, the one that claims a tick makes the run.
            if term is None or await term.claim_tick(self.name, tick):
                await self._make_run(begin)
            else:
                self._skipped += 1
            # 4. Did the run take so long that the next should have begun?
            tick = following
            if schedule.overlap == "skip" and begin < (now := ticks.now()):
                _, passed = ticks.pass_to(following, now)
                self._skipped += passed + 1
                tick = ticks.after(now)
                begin = tick + schedule.delay()

    async def _sleep_until(self, moment: float, seen: float) -> float | None:
        """
        Sleep until a moment. A checkpoint.

        Args:
            moment: When to wake.
            seen: What the time was when it was last looked at, before the run.

        Returns:
            What the time is then; or, as soon as that is known, that the time of day was set back
            by far; None after `stop`.
        """
        ticks = self._ticks
        now = ticks.now()
        self._next_start = clock.wall() + moment - now
        if moment - now <= _EARLY:  # it may not sleep at all
            await checkpoint()
        while not self._stopped:
            now = ticks.now()
            if now >= moment or (ticks.on_wall and now >= moment - _EARLY):
                return max(now, moment)
            if now < seen - _SET_BACK:
                return now
            seen = now
            seconds = min(moment - now, _LOOK) if ticks.on_wall else moment - now
            with self._waiting() as scope:
                scope.deadline = clock.loop_deadline(clock.now() + seconds)
                await anyio.sleep_forever()
            if not (ticks.on_wall or self._stopped):
                return max(ticks.now(), moment)  # rounding may have put it a hair before
        return None

    @contextmanager
    def _waiting(self) -> Generator[anyio.CancelScope]:
        """Be where `stop` ends what is awaited."""
        with anyio.CancelScope() as scope:
            self._idle = scope
            if self._stopped:
                scope.cancel()
            try:
                yield scope
            finally:
                self._idle = None

    # ---- runs ----

    async def _make_run(self, begin: float) -> None:
        """Make a run; ``begin`` is when the next one begins."""
        started = clock.now()
        until_next = begin - self._ticks.now()
        self._last_start = clock.wall()
        self._next_start = self._last_start + until_next
        deadline = math.inf
        if self._schedule.overlap == "cancel":
            deadline = clock.loop_deadline(started + until_next)
        self._runs += 1
        self._runs_since_success += 1
        self._running = True
        try:
            with anyio.CancelScope(deadline=deadline) as scope:
                # In a context of its own, as other items: what it sets is gone with it.
                await run_in(copy_context(), self._run())
        except BaseException as error:
            if without_cancellation(error) is None:
                self._cancelled += 1
                raise
            self._failed += 1
            self._last_error = type(error).__name__
            if not isinstance(error, Exception):
                raise
            self._on_error(error)
        else:
            self._last_error = ""
            if scope.cancelled_caught:
                self._cancelled += 1
            else:
                self._succeeded += 1
                self._runs_since_success = 0
                self._last_success = clock.wall()
                self._expect(clock.now() - started)
        finally:
            self._running = False
            self._last_duration_seconds = clock.now() - started

    def _expect(self, seconds: float = 0.0) -> None:
        """Expect success by the fourth tick from now; ``seconds`` is what a run takes."""
        moment = self._ticks.now()
        for _ in range(_UNHEALTHY + 1):
            moment = self._ticks.after(moment)
        self._expected = moment + self._schedule.jitter + seconds

    def _log(self, error: Exception) -> None:
        getLogger("mtaio.core").error("%s failed, and will run again", self.name, exc_info=error)
