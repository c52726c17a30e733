"""
Whether the service is alive, ready and started, as its checks show.

Promise: a report returns in time whatever its checks do: checks that are due run concurrently, each
is given up at its timeout (plus a tenth of a second to clean up), and one that hangs is not started
a second time. Concurrent callers share one run of each check. Cancellation is never a failure.
Cost: a task for each check that is due; nothing while all answers are fresh.

Who owns the task of a check, and why it is not the caller: `mtaio.monitoring._check`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar, cast, final, get_args

from mtaio._internal import checks, clock, loops
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.signature import check_takes
from mtaio._internal.statistics import snapshot
from mtaio.monitoring._check import GRACE, Check, Tally
from mtaio.monitoring._report import (
    CheckKind,
    CheckResult,
    HealthReport,
    HealthStatistics,
    report_of,
)

__all__ = ["HealthRegistry"]

F = TypeVar("F", bound="Callable[[], Any]")

_KINDS: Final[tuple[str, ...]] = get_args(CheckKind)


@final
class HealthRegistry:
    """
    The health checks of a service.

    A check is a function without arguments, async or plain; a plain one runs in a worker thread of
    its own. It passes if it returns None or True, and fails if it raises, exceeds its timeout, or
    returns anything else, such as a text with the reason. Changes between passing and failing are
    logged to ``mtaio.monitoring``.

    Checks of kind ``"live"`` say whether the process must be restarted; do not check other services
    there. ``"ready"`` checks say whether it can take requests. ``"startup"`` checks are run until
    they have passed, and the service is not ready until all critical ones have.

    A check that has passed is failing only after ``failure_threshold`` failures in a row. Before
    its first pass, a check of kind ``"ready"`` or ``"startup"`` is failing, and one of kind
    ``"live"`` is passing until it has failed ``failure_threshold`` times.

    A registry can be created anywhere and used by one event loop after another, each of which
    starts without results. Checks can be added and removed at any time from any thread, which does
    not affect a report in progress.

    Args:
        name: Name shown in messages and metrics.

    Example:
        ```python
        import anyio

        from mtaio.monitoring import HealthRegistry

        health = HealthRegistry()


        @health.check("database", timeout=1.0)
        async def ask_database() -> None:
            await anyio.sleep(0.01)


        @health.check("disk", critical=False)
        def look_at_disk() -> str | None:
            return "97 % full"


        async def main() -> None:
            report = await health.report()
            print(report.ready, report.degraded)
            for check in report.checks:
                print(check.name, check.status, check.error)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - _checks is changed in place, under _lock, and read as a copy: any thread may read it;
    # - every run in progress is in _loop of _process, which is where reports are made, and where
    #   all that is known was recorded.
    __slots__ = (
        "__weakref__",
        "_checks",
        "_draining",
        "_lock",
        "_loop",
        "_name",
        "_process",
        "_reported",
        "_tally",
        "_waiting",
    )

    def __init__(self, *, name: str | None = None) -> None:
        self._name = name
        self._checks: dict[str, Check] = {}
        self._lock = threading.Lock()
        self._loop: object = None
        self._process = 0
        self._draining = False
        self._reported = False
        self._waiting = 0
        self._tally = Tally()

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<HealthRegistry{name}: {len(self._checks)} checks>"

    @property
    def name(self) -> str | None:
        """The name given to the registry."""
        return self._name

    def add(
        self,
        name: str,
        check: Callable[[], Any],
        *,
        kind: CheckKind = "ready",
        timeout: float = 0.5,
        ttl: float = 1.0,
        critical: bool = True,
        failure_threshold: int = 3,
    ) -> None:
        """
        Add a check.

        Not a checkpoint. It can be called from any thread.

        Args:
            name: The check's name, which must be unique.
            check: An async or a plain function without arguments.
            kind: ``"live"``, ``"ready"`` or ``"startup"``.
            timeout: Seconds that a run may take; ``math.inf`` for no limit, with which a check that
                hangs delays the report.
            ttl: Seconds for which a result is reused; 0 to run the check for each report.
            critical: Whether the service is not ready (or not live) when the check fails, or only
                degraded.
            failure_threshold: Failures in a row after which a check that has passed is failing.

        Raises:
            ValueError: There is a check of that name, no such kind, ``timeout`` is not above 0,
                ``ttl`` is negative, or ``failure_threshold`` is less than 1.
            TypeError: ``name`` is not a str, ``check`` cannot be called without arguments, or
                a number has the wrong type.
        """
        if not isinstance(cast("object", name), str):
            msg = f"name={name!r} is not a str. Write @health.check() or give the check a name."
            raise TypeError(msg)
        checks.callable_("check", check, way_out="Pass the function itself, without calling it.")
        check_takes("check", check, way_out="Pass a function of no arguments.")
        _check_kind(kind)
        way_out = "Pass seconds above 0, or math.inf for no limit."
        if checks.number("timeout", timeout, way_out=way_out) <= 0:
            msg = f"timeout={timeout!r} is not above 0. {way_out}"
            raise ValueError(msg)
        checks.at_least("ttl", ttl, 0, way_out="Pass seconds, or 0 to ask for each report.")
        checks.count(
            "failure_threshold", failure_threshold, way_out="Pass 1 to fail at the first failure."
        )
        unknown = CheckResult(
            name=name,
            kind=kind,
            status="unknown",
            critical=critical,
            seconds=0.0,
            error=None,
            timestamp=None,
            failures=0,
            hung_seconds=0.0,
        )
        added = Check(
            check,
            unknown,
            timeout=timeout,
            ttl=ttl,
            failure_threshold=failure_threshold,
            tally=self._tally,
        )
        with self._lock:
            if name in self._checks:
                msg = (
                    f"{self!r} has a check {name!r} already. Give this one another name, or "
                    f"remove({name!r}) the other first."
                )
                raise ValueError(msg)
            self._checks[name] = added

    def check(
        self,
        name: str | None = None,
        *,
        kind: CheckKind = "ready",
        timeout: float = 0.5,
        ttl: float = 1.0,
        critical: bool = True,
        failure_threshold: int = 3,
    ) -> Callable[[F], F]:
        """
        Add the decorated function as a check: ``@health.check("database", timeout=1.0)``.

        Args:
            name: The check's name; None for the function's.
            kind: As in `add`.
            timeout: As in `add`.
            ttl: As in `add`.
            critical: As in `add`.
            failure_threshold: As in `add`.

        Returns:
            A decorator that returns the function.

        Raises:
            ValueError: As in `add`.
            TypeError: As in `add`.
        """

        def decorate(fn: F) -> F:
            given = getattr(fn, "__name__", None) if name is None else name
            self.add(
                cast("str", given),
                fn,
                kind=kind,
                timeout=timeout,
                ttl=ttl,
                critical=critical,
                failure_threshold=failure_threshold,
            )
            return fn

        if callable(name):
            msg = (
                f"name={name!r} is not a str. Write the decorator with parentheses: "
                f"@health.check(), or @app.health_check()."
            )
            raise TypeError(msg)
        return decorate

    def remove(self, name: str) -> None:
        """
        Remove a check.

        Not a checkpoint. It can be called from any thread.

        Raises:
            ValueError: There is no check of that name.
        """
        with self._lock:
            if name not in self._checks:
                msg = (
                    f"{self!r} has no check {name!r}. It has: {', '.join(self._checks) or 'none'}."
                )
                raise ValueError(msg)
            del self._checks[name]

    def set_ready(self, ready: bool, /) -> None:  # noqa: FBT001 - the name says what it means
        """
        Report "not ready" whatever the checks say, or follow the checks again.

        Use it between the request to stop and the stop itself, so that no new requests arrive. A
        new event loop begins by following the checks. Not a checkpoint. It can be called from any
        thread.

        Args:
            ready: False to report "not ready", True to follow the checks.

        Raises:
            TypeError: ``ready`` is not a bool.
        """
        if type(ready) is not bool:
            checks.flag("ready", ready)
        self._forget_if_over()
        self._draining = not ready

    @property
    def draining(self) -> bool:
        """Whether `set_ready` was called with False."""
        self._forget_if_over()
        return self._draining

    async def report(self, kind: CheckKind | None = None) -> HealthReport:
        """
        Run the checks that are due, and return the state of the service.

        Call it in the application's event loop; in other threads use `latest`. It returns within
        the longest timeout plus 0.1 s. A checkpoint. If it is cancelled, it cancels the runs for
        which no other caller waits; these count neither as passed nor as failed. A plain function
        goes on in its thread, and its result is kept for the next report.

        A check that does not end within 0.1 s of being cancelled, or a thread that runs past its
        timeout, is given up: the check fails, and is not run again until that run ends.
        ``hung_seconds`` and `statistics` show such runs.

        Args:
            kind: Run only the checks of this kind, and for ``"ready"`` also the startup checks that
                have not passed; None for all. Checks of kind ``"ready"`` are not run until all
                critical startup checks have passed.

        Returns:
            The state of all checks; checks of other kinds have their last known state.

        Raises:
            ValueError: There is no such kind.
            RuntimeError: Checks are running in another event loop that has not ended.
            BaseException: A check raised something that is no ``Exception``, as ``sys.exit`` does.
                The check has failed too.
        """
        if kind is not None:
            _check_kind(kind)
        await checkpoint()
        loop = self._attach()
        added = self._added()
        first = [each for each in added if kind in {None, "ready"} and each.is_starting]
        await self._run(first, loop)
        earlier = {*first}
        starting = any(each.is_starting and each.critical for each in first)
        await self._run(
            [
                each
                for each in added
                if kind in {None, each.kind}
                and each not in earlier
                and not (starting and each.kind == "ready")
            ],
            loop,
        )
        self._reported = True
        return self._report()

    async def _run(self, due: Iterable[Check], loop: object) -> None:
        """Run those checks whose answers are not known, at once, each with its own deadline."""
        moment = clock.now()
        runs = [run for each in due if (run := each.join(loop, moment)) is not None]
        self._waiting += 1
        try:
            for run in runs:
                await run.wait()
        finally:
            self._waiting -= 1
            for run in runs:
                run.leave()
            moment = clock.now() + GRACE
            for run in runs:
                await run.wait_left(moment)
        for run in runs:
            run.raise_error()

    @property
    def latest(self) -> HealthReport | None:
        """
        The last known state of the service; None before the first report in this event loop.

        No check is run: each result is as old as its ``timestamp`` says. It can be read from any
        thread.
        """
        self._forget_if_over()
        return self._report() if self._reported else None

    def statistics(self) -> HealthStatistics:
        """
        Return the counts of runs and of checks by status.

        Not a checkpoint.
        """
        added = self._added()
        states = [each.status for each in added]
        runs = [run for each in added if (run := each.run) is not None]
        return snapshot(
            HealthStatistics,
            self._tally,
            checks=len(states),
            passing=states.count("passing"),
            failing=states.count("failing"),
            degraded=states.count("degraded"),
            draining=self._draining,
            waiting=self._waiting,
            in_flight=sum(not run.is_over() for run in runs),
            hung=sum(run.hangs() for run in runs),
        )

    def _added(self) -> list[Check]:
        """Return the checks there are now, which other threads may change at any moment."""
        return [*self._checks.copy().values()]

    def _report(self) -> HealthReport:
        results = [each.result() for each in self._added()]
        return report_of(results, draining=self._draining, timestamp=time.time())

    def _attach(self) -> object:
        """Make sure that the running loop is the one that checks run in, and return it."""
        self._forget_if_over()
        loop = loops.current_loop()
        if self._loop is not loop:
            if self._loop is not None:
                if self.statistics().in_flight:
                    raise loops.two_loops_error(self)
                self._forget()
            self._loop, self._process = loop, os.getpid()
        return loop

    def _forget_if_over(self) -> None:
        """Forget what a loop has shown that has finished, or was left to the parent by a fork."""
        loop = self._loop
        if loop is None:
            return
        if self._process != os.getpid():
            self._forget(forked=True)
        elif loops.is_over(loop):
            with self._lock:
                if self._loop is loop:  # else the next loop has begun, in its own thread
                    self._forget()

    def _forget(self, *, forked: bool = False) -> None:
        self._draining = self._reported = False
        self._waiting = 0
        for each in self._added():
            each.forget(forked=forked)
        self._loop = None  # last: those who see that need not wait for the rest


def _check_kind(kind: str) -> None:
    if kind not in _KINDS:
        msg = f"kind={kind!r} is unknown. Pass one of {', '.join(map(repr, _KINDS))}."
        raise ValueError(msg)
