"""
Watches a process: samples of its resources and its event loop, thresholds, and alerts.

Promise: while it runs there is a fresh sample, even while the event loop is blocked; exceeding a
threshold is one alert, and so is recovering; a stall of the loop is one event, with its line and
its cause. Handlers run in the event loop and never delay a sample.
Cost: one daemon thread; for each sample the price of reading the system, and ten short calls into
the event loop a second.

Why a thread, and how it finds what is blocked: docs/en/design/monitoring.md.
"""

from __future__ import annotations

import contextvars
import logging
import math
import os
import sys
import threading
import time
import weakref
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar, final, overload

import anyio

from mtaio._internal import checks, clock, loops
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.statistics import snapshot
from mtaio.monitoring._delivery import Delivery, Emitter, Handlers, log_aside
from mtaio.monitoring._metrics import Source, kinds
from mtaio.monitoring._sampler import Sampler, SamplingTask
from mtaio.monitoring._samples import ALIASES, FIXED, Samples, with_aliases
from mtaio.monitoring._stalls import LoopWatch, Stalls
from mtaio.monitoring._stats import LoopStats, MonitorStatistics, ResourceStats, Stall
from mtaio.monitoring._thresholds import Alert, Threshold, Thresholds, unknown_metric
from mtaio.monitoring._watched import HasStatistics, Watched

__all__ = ["ResourceMonitor", "kinds_of", "recent"]

_PRIMING: Final = 0.1
"""Seconds over which processor time is measured where there is no sample yet."""
_TASKS_EVERY: Final = 5
"""The loop's tasks are counted with every so many samples."""

W = TypeVar("W", bound=HasStatistics)
H = TypeVar("H", bound="Callable[..., Any]")
G = TypeVar("G", bound="Callable[[], float]")


@final
class ResourceMonitor:
    """
    Watches the machine, this process, its event loop, and the objects you add.

    It can be created anywhere and used by one event loop after another. Use ``async with``, or call
    `start` and `stop`, in any task. With a virtual clock, such as that of `mtaio.testing`, no
    thread is started: a task takes samples in virtual time, and loop delays are not measured.

    Args:
        interval: Seconds from one sample to the next.
        history_size: The number of samples that `history` keeps.
        loop_interval: Seconds between calls into the event loop that measure its delay; at most
            ``interval``.
        blocked_after: Seconds without an answer from the event loop after which it counts as
            blocked; ``math.inf`` to record no stalls.
        handler_timeout: Seconds that a handler may take; None for no limit.
        name: Name shown in messages and metrics.

    Raises:
        ValueError: A number is not positive, or NaN or infinite.
        TypeError: An argument has the wrong type.

    Example:
        ```python
        import anyio

        from mtaio.monitoring import ResourceMonitor

        monitor = ResourceMonitor()


        @monitor.on_threshold_exceeded
        async def alert(metric: str, value: float, threshold: float) -> None:
            print(f"{metric} is {value}, above {threshold}")


        async def main() -> None:
            monitor.set_threshold("memory_usage", 90.0, for_seconds=30, clear=85.0)
            async with monitor:
                stats = await monitor.get_current_stats()
                print(0 <= stats.cpu.usage_percent <= 100, stats.memory.percent > 0)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # The monitor joins parts that know nothing of each other: _samples reads the system and keeps
    # the figures, _watched reads what has been added, _thresholds finds alerts, _stalls keeps what
    # _run's watch finds, and _handlers are called by _run's delivery. A thread or a task of _run
    # drives them: it calls _read in the event loop, then _sample, and _stalled after a stall.
    #
    # Invariants:
    # - _run is what start() made last; its thread or task has ended after stop(), or with its loop;
    # - _samples.lock is held while _run is replaced, and from reading a sample until its alerts
    #   are posted: they are in the order of the samples.
    __slots__ = (
        "__weakref__",
        "_blocked_after",
        "_failed",
        "_failing",
        "_handlers",
        "_interval",
        "_loop_interval",
        "_name",
        "_run",
        "_samples",
        "_stalls",
        "_tasks",
        "_thresholds",
        "_watched",
    )

    def __init__(
        self,
        interval: float = 1.0,
        history_size: int = 3600,
        *,
        loop_interval: float = 0.1,
        blocked_after: float = 1.0,
        handler_timeout: float | None = 10.0,
        name: str | None = None,
    ) -> None:
        self._interval: float = _seconds("interval", interval)
        size = checks.count("history_size", history_size, way_out="Pass how many samples to keep.")
        self._samples: Samples = Samples(size)
        self._loop_interval: float = min(_seconds("loop_interval", loop_interval), self._interval)
        self._blocked_after: float = (
            blocked_after if blocked_after == math.inf else _seconds("blocked_after", blocked_after)
        )
        self._handlers: Handlers = Handlers(checks.timeout("handler_timeout", handler_timeout))
        self._name: str | None = checks.title("name", name)
        self._thresholds: Thresholds = Thresholds()
        self._watched: Watched = Watched()
        self._stalls: Stalls = Stalls()
        self._run: _Run | None = None
        self._tasks: int = 0
        """Tasks of the event loop, when they were last counted."""
        self._failed: int = 0
        """Samples that could not be taken; ``_failing`` says that the last could not."""
        self._failing: bool = False
        _monitors.add(self)

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<ResourceMonitor{name} {'running' if self.running else 'not running'}>"

    @property
    def name(self) -> str | None:
        """The name given to the monitor."""
        return self._name

    @property
    def interval(self) -> float:
        """Seconds from one sample to the next."""
        return self._interval

    # ---- running ---------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether it takes samples: from `start` until `stop` or the end of the event loop."""
        return self._alive() is not None

    async def start(self) -> None:
        """
        Begin to take samples, until `stop` or the end of the event loop.

        Handlers run in a copy of the context of this call. It does nothing if the monitor is
        running in this event loop already.

        A checkpoint. If it is cancelled, the monitor has not started.

        Raises:
            RuntimeError: The monitor runs in another event loop.
        """
        await checkpoint()
        before = self._run
        if before is not None and before.sampler.is_alive():
            if loops.is_current(before.loop):
                return
            if not loops.is_over(before.loop):
                msg = (
                    f"cannot start {self!r}: it runs in another event loop, which has not ended. "
                    f"Stop it there first, or give each loop a monitor of its own."
                )
                raise RuntimeError(msg)
            before.sampler.stop()
        run = self._new_run()
        with self._samples.lock, suppress(Exception):  # samples fail as well then, and log it
            self._samples.reader().prime()
        self._read(run.loop)
        with self._samples.lock:
            if self._run is before:
                self._samples.kept_at = -math.inf
                run.sampler.start()
                self._run = run
                return
        await self.start()  # another thread was faster

    async def stop(self) -> None:
        """
        Stop taking samples, and wait until the handlers of past events have ended.

        It can be called in any task; in a handler it does not wait. It does nothing if the monitor
        is not running.

        A checkpoint. If it is cancelled, it cancels those handlers and waits for them, and the
        monitor is stopped.
        """
        run = self._run
        if run is not None:
            run.sampler.stop()
        if run is None or not loops.is_current(run.loop):
            await checkpoint()
            return
        try:
            await run.delivery.finish()
        finally:
            if isinstance(run.sampler, SamplingTask):
                await run.sampler.wait_ended()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        await self.stop()

    async def tick(self) -> None:
        """
        Take one sample now, and wait until its handlers have ended.

        Use it for tests in virtual time, whether the monitor is running or not. In a handler it
        does not wait. A checkpoint. If it is cancelled, the sample is kept, and handlers are
        cancelled as by `stop`.
        """
        run = self._run
        ours = run is not None and loops.is_current(run.loop)
        delivery = run.delivery if run is not None and ours else self._new_delivery()
        self._read(loops.current_loop())
        self._sample(delivery)
        await delivery.finish()

    # ---- figures ---------------------------------------------------------------------------------

    async def get_current_stats(self) -> ResourceStats:
        """
        Return the latest sample, or take one if there is none or it is older than the interval.

        A checkpoint. Right after the start, or once if the monitor is not running, it waits for a
        tenth of a second to measure processor time. With a virtual clock it does not wait.
        """
        samples = self._samples
        latest = samples.latest
        if latest is not None and not self._is_stale():
            await checkpoint()
            return latest
        with samples.lock:
            primed = samples.reader().ready()
        if not primed and clock.is_real():
            await anyio.sleep(_PRIMING)
        else:
            await checkpoint()
        latest = samples.latest
        if latest is None or self._is_stale():
            if not self.running:
                self._tasks = loops.count_tasks(loops.current_loop())
            with samples.lock:
                latest = self._take_sample()
        return latest

    @property
    def latest(self) -> ResourceStats | None:
        """The latest sample; None if there is none. It can be read from any thread."""
        return self._samples.latest

    def values(self) -> dict[str, float]:
        """
        Return the latest figures by metric name, including gauges and watched objects.

        Not a checkpoint. It can be called from any thread.
        """
        return dict(self._samples.values)

    def metric_names(self) -> list[str]:
        """
        Return the names that a threshold may have.

        Not a checkpoint.
        """
        return [*self._taken(), *self._watched.names()]

    def history(self, metric: str, *, seconds: float | None = None) -> list[tuple[float, float]]:
        """
        Return the past figures of a metric, the oldest first.

        Not a checkpoint. It can be called from any thread.

        Args:
            metric: The name of the metric.
            seconds: How far back; None for the whole history.

        Returns:
            Pairs of a time, in seconds since the epoch, and the figure.

        Raises:
            ValueError: There is no such metric, or ``seconds`` is negative.
        """
        checks.timeout("seconds", seconds)
        name = self._known(metric)
        return self._samples.history(ALIASES.get(name, name), seconds)

    # ---- what is watched -------------------------------------------------------------------------

    def watch(self, obj: W, *, name: str | None = None, mappings: bool = False) -> W:
        """
        Record the figures of an object's ``statistics()`` as metrics ``kind.name.field``.

        They are read in the event loop shortly before each sample. If the object has a method
        ``record_durations()``, it is called; each histogram then gives the metrics ``count``, and
        ``p50`` and ``p99`` of the last 30 to 60 seconds. Not a checkpoint.

        Args:
            obj: An executor, limiter, cache, emitter, log handler, or an object of your own.
            name: The name in metrics; None for the object's own ``name``.
            mappings: Whether to record fields that are mappings too, such as an emitter's counts of
                each name. These can be many metrics.

        Returns:
            ``obj``.

        Raises:
            ValueError: Another object of that kind and name is watched, or there is a metric of the
                same name.
            TypeError: It has no ``statistics()``, or one that cannot be read.
        """
        self._watched.add(obj, name, self._taken(), mappings=mappings)
        return obj

    def unwatch(self, obj: object) -> None:
        """
        Stop watching an object, or a gauge, given by its function or its name.

        It does nothing if the object is not watched. It is compared with the watched objects one by
        one. Not a checkpoint.
        """
        self._watched.remove(obj)

    @overload
    def gauge(self, name: str) -> Callable[[G], G]: ...

    @overload
    def gauge(self, name: str, fn: G) -> G: ...

    def gauge(self, name: str, fn: G | None = None) -> G | Callable[[G], G]:
        """
        Record what ``fn`` returns as the metric ``name``.

        The function is called in the event loop shortly before each sample, so it must not block.
        This is also a decorator: ``@monitor.gauge("queue_depth")``. Not a checkpoint.

        Args:
            name: The name of the metric.
            fn: A function without arguments that returns a number.

        Raises:
            ValueError: There is a metric of that name, or it is empty.
            TypeError: ``fn`` cannot be called without arguments, or is async.
        """
        if callable(name):
            msg = f"name={name!r} is not a str. Write @monitor.gauge(NAME), with the metric's name."
            raise TypeError(msg)
        if fn is None:
            return lambda given: self.gauge(name, given)
        self._watched.add_gauge(name, fn, self._taken())
        return fn

    # ---- thresholds and handlers -----------------------------------------------------------------

    def set_threshold(
        self,
        metric: str,
        value: float,
        *,
        clear: float | None = None,
        for_seconds: float = 0.0,
        cooldown: float = 0.0,
        below: bool = False,
    ) -> None:
        """
        Set the threshold of a metric, in place of an earlier one.

        There is one alert when the metric exceeds the threshold, and one event when it has
        recovered. Not a checkpoint.

        Args:
            metric: The name of the metric, such as ``"cpu_usage"``; see `metric_names`.
            value: The value that the metric must not exceed.
            clear: The value at which the metric has recovered; None for ``value``.
            for_seconds: Seconds for which the threshold must be exceeded before there is an alert.
            cooldown: Seconds after a recovery in which there is no other alert.
            below: Whether the metric must not fall below ``value`` instead.

        Raises:
            ValueError: There is no such metric, ``value`` is NaN or infinite, ``clear`` is on the
                wrong side of it, or a duration is negative.
            TypeError: An argument has the wrong type.
        """
        self._thresholds.set(
            self._known(metric),
            value,
            clear=clear,
            for_seconds=for_seconds,
            cooldown=cooldown,
            below=below,
        )

    def remove_threshold(self, metric: str) -> None:
        """
        Remove a metric's threshold. An alert that is firing ends without a recovery.

        It does nothing if the metric has none.
        """
        self._thresholds.remove(metric)

    @property
    def thresholds(self) -> list[Threshold]:
        """The thresholds. They can be read from any thread."""
        return self._thresholds.configured()

    def on_threshold_exceeded(self, handler: H) -> H:
        """
        Call ``handler(metric, value, threshold)`` when a threshold is exceeded.

        It can be used as a decorator. The handler runs in the event loop, may be async, and may
        take ``handler_timeout`` seconds. Events are handled in order, and the handlers of one event
        run concurrently. Errors are logged and counted.

        Raises:
            TypeError: ``handler`` cannot be called with three arguments.
        """
        self._handlers.add("exceeded", handler)
        return handler

    def on_recovered(self, handler: H) -> H:
        """Call ``handler(metric, value, threshold)`` when a metric has recovered."""
        self._handlers.add("recovered", handler)
        return handler

    def on_loop_blocked(self, handler: H) -> H:
        """
        Call ``handler(stall)`` after a stall of the event loop; see `Stall`.

        The handler runs when the event loop runs again. During the stall, another thread logs it to
        ``mtaio.monitoring``, and `current_stall` returns it.
        """
        self._handlers.add("blocked", handler)
        return handler

    def forward_to(self, emitter: Emitter) -> None:
        """
        Emit ``monitor.threshold_exceeded``, ``monitor.recovered`` and ``monitor.loop_blocked``.

        The data of the first two is a dict with ``metric``, ``value`` and ``threshold``, that of
        the last a `Stall`.

        Args:
            emitter: An `mtaio.events.EventEmitter`.

        Raises:
            TypeError: It has no method ``emit``.
        """
        self._handlers.add_emitter(emitter)

    @property
    def firing(self) -> list[Alert]:
        """The alerts that are firing now. They can be read from any thread."""
        return self._thresholds.firing()

    @property
    def alerts(self) -> list[Alert]:
        """The last 100 alerts and recoveries, the newest last. They can be read from any thread."""
        return list(self._thresholds.past)

    # ---- the event loop --------------------------------------------------------------------------

    @property
    def stalls(self) -> list[Stall]:
        """The last 20 stalls that have ended, the newest last. They can be read from any thread."""
        return list(self._stalls.last)

    def current_stall(self) -> Stall | None:
        """Return the stall in progress; None if the event loop is not blocked."""
        run = self._run
        return None if run is None or run.watch is None else run.watch.current()

    def answering(self, within: float) -> bool:
        """
        Return whether the event loop has answered within the last ``within`` seconds.

        It is False if the monitor is not running; with a virtual clock, it is True if the monitor
        is running. It can be called from any thread.
        """
        run = self._alive()
        if run is None:
            return False
        return run.watch is None or clock.read() - run.watch.answered <= within

    # ---- export ----------------------------------------------------------------------------------

    def sources(self) -> list[Source]:
        """
        Return the latest statistics of all sources, for `metrics`.

        The latest sample comes first, then the monitor itself, then what it watches. It can be
        called from any thread.
        """
        latest = self._samples.latest
        fixed = [] if latest is None else [Source(kind="", name=None, statistics=latest)]
        own = Source(kind="monitor", name=self._name, statistics=self.statistics())
        return [*fixed, own, *self._watched.last.sources]

    def statistics(self) -> MonitorStatistics:
        """
        Return the counts so far.

        Not a checkpoint. It can be called from any thread.
        """
        return snapshot(
            MonitorStatistics,
            self._handlers,
            self._thresholds,
            samples=self._samples.kept,
            failed=self._failed + self._watched.failed,
            watched=len(self._watched),
            firing=len(self._thresholds.firing()),
        )

    # ---- inside ----------------------------------------------------------------------------------

    def _alive(self) -> _Run | None:
        """Return the run that takes samples, if there is one."""
        run = self._run
        return run if run is not None and run.sampler.is_alive() else None

    def _known(self, metric: str) -> str:
        names = self.metric_names()
        if metric not in names:
            raise unknown_metric(metric, names)
        return metric

    def _taken(self) -> list[str]:
        """Return the names of the metrics that are always there."""
        return [*ALIASES, *FIXED]

    def _is_stale(self) -> bool:
        """Return whether the latest sample is older than the interval."""
        age = clock.read() - self._samples.kept_at
        return age > self._interval + self._loop_interval or not self.running

    def _new_delivery(self) -> Delivery:
        context = contextvars.copy_context()
        return Delivery(loops.current_loop(), context, self._handlers)

    def _new_run(self) -> _Run:
        loop, delivery = loops.current_loop(), self._new_delivery()
        epoch = time.time() - clock.now()
        read, sample = partial(self._read, loop), partial(self._sample, delivery)
        if not clock.is_real():
            task = SamplingTask(loop, self._interval, read=read, sample=sample)
            return _Run(loop, delivery, None, task, epoch)
        watch = LoopWatch(
            loop,
            threading.get_ident(),
            interval=self._loop_interval,
            blocked_after=self._blocked_after,
        )
        sampler = Sampler(
            watch,
            interval=self._interval,
            loop_interval=self._loop_interval,
            read=read,
            sample=sample,
            stalled=partial(self._stalled, delivery),
            name="mtaio.monitoring" if self._name is None else f"mtaio.monitoring {self._name}",
        )
        return _Run(loop, delivery, watch, sampler, epoch)

    def _read(self, loop: object) -> None:
        """Read what is to be read in the event loop."""
        self._watched.read()
        if self._samples.kept % _TASKS_EVERY == 0:
            self._tasks = loops.count_tasks(loop)

    def _sample(self, delivery: Delivery) -> None:
        """Take a sample, and post the alerts that it causes; raise nothing."""
        try:
            with self._samples.lock:
                sample = self._take_sample()
                now = clock.catch_up(self._thresholds)
                self._samples.keep(sample, self._watched.last.values, now)
                values = with_aliases(self._samples.values)
                for alert in self._thresholds.evaluate(now, sample.timestamp, values):
                    kind = "exceeded" if alert.state == "firing" else "recovered"
                    delivery.post(kind, alert.metric, alert.value, alert.threshold)
        except Exception as failure:  # noqa: BLE001 - whatever fails, sampling goes on; logged
            self._failed += 1
            if not self._failing:
                self._failing = True
                text = "%r could not take a sample; no figures until that works"
                log_aside(logging.ERROR, text, self, failure=failure)
        else:
            self._failing = False

    def _take_sample(self) -> ResourceStats:
        """Read the system and the state of the loop; the lock of the samples is held."""
        run = self._run
        alive = self._alive()
        watch = None if alive is None else alive.watch
        p50, p99, longest = (0.0, 0.0, 0.0) if watch is None else watch.delays.read()
        loop = LoopStats(
            delay_p50_seconds=p50,
            delay_p99_seconds=p99,
            delay_max_seconds=longest if watch is None else max(longest, watch.unanswered()),
            blocked=self._stalls.blocked,
            blocked_seconds=self._stalls.blocked_seconds,
            tasks=self._tasks,
        )
        is_virtual = run is not None and run.watch is None and not clock.is_real()
        timestamp = run.epoch + clock.read() if run is not None and is_virtual else time.time()
        return self._samples.take(timestamp, loop)

    def _stalled(self, delivery: Delivery, noticed: Stall | None, ended: Stall | None) -> None:
        """Take note of stalls: in the sampler's thread."""
        self._stalls.note(noticed, ended)
        if ended is not None:
            delivery.post("blocked", ended)

    def _reset_in_child(self) -> None:
        """Forget what a forked child does not have, or may have half changed."""
        self._samples.reset_in_child()
        self._run = None


@dataclass(frozen=True, slots=True)
class _Run:
    """One time from start to stop."""

    loop: object
    """The event loop."""
    delivery: Delivery
    watch: LoopWatch | None
    """The calls into the loop; None under a virtual clock."""
    sampler: Sampler | SamplingTask
    epoch: float
    """The time since the epoch at which the loop's clock stood at 0."""


def kinds_of(monitor: ResourceMonitor) -> dict[str, str]:
    """Return for each metric whether it is a "counter", a "gauge" or a "limit"."""
    found = dict(FIXED)
    for source in monitor._watched.last.sources:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of the class above
        found.update(kinds(source))
    return found


def recent(monitor: ResourceMonitor, points: int) -> tuple[array[float], dict[str, array[float]]]:
    """
    Return the times of the last ``points`` samples, and the figures of every metric at those times.

    From any thread. NaN stands for a figure that was not there.
    """
    return monitor._samples.recent(points)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of the class above


def _seconds(name: str, value: object) -> float:
    """Return ``value`` if it is a positive, finite number."""
    way_out = "Pass seconds > 0."
    seconds = checks.number(name, value, way_out=way_out)
    if not 0 < seconds < math.inf:
        msg = f"{name}={value!r} is not a positive, finite number of seconds. {way_out}"
        raise ValueError(msg)
    return seconds


_monitors: Final[weakref.WeakSet[ResourceMonitor]] = weakref.WeakSet()


def _in_child() -> None:
    for monitor in list(_monitors):
        monitor._reset_in_child()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of the class above


if sys.platform != "win32":  # pragma: no branch - coverage is measured where there are forks
    os.register_at_fork(after_in_child=_in_child)
