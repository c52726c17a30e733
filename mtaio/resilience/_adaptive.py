"""
How much may run at once against a service that cannot say how much it can take.

Promise: never more calls at once than the limit of the moment; a call that is cancelled, or that
this limiter or something inside refuses, is not a sample; a queue of at most ``max_waiting``.
Cost: a slot, two readings of the clock and a few additions for a call; no task and no timer.

How the limit is found: _estimate.py. Reasons and simulations: docs/en/design/adaptive-limit.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Literal, final

from mtaio._internal import checks
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.clock import catch_up, now
from mtaio._internal.copies import uncopied
from mtaio._internal.filters import Filter, accepts, check_filter
from mtaio._internal.histogram import HistogramStatistics
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, LIMIT, SECONDS
from mtaio.exceptions import ConcurrencyLimitError
from mtaio.resilience import _blocks
from mtaio.resilience._estimate import LimitEstimator
from mtaio.resilience._part import Call, Next, StandalonePart, is_outcome
from mtaio.resilience._stream import OpenStream
from mtaio.resources import ConcurrencyLimiter

__all__ = ["AdaptiveLimiter", "AdaptiveSlot", "AdaptiveStatistics"]

INITIAL = 10


@final
class AdaptiveSlot:
    """A slot of an `AdaptiveLimiter`, held for a block: ``async with limiter as slot:``."""

    __slots__ = ("_failed",)

    def __init__(self) -> None:
        self._failed = False

    @property
    def failed(self) -> bool:
        """Whether `mark_failed` was called."""
        return self._failed

    def mark_failed(self) -> None:
        """
        Report that the service was overloaded although nothing was raised.

        Use it for a response, such as HTTP 503, that is not raised as an exception.

        Not a checkpoint.
        """
        self._failed = True


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveStatistics:
    """The state of an `AdaptiveLimiter`, and what it has done so far."""

    limit: int = field(metadata=LIMIT)
    """The number of slots now."""
    max_limit: int = field(metadata=LIMIT)
    """The most slots there may be."""
    in_use: int = field(metadata=GAUGE)
    """Slots taken; for a while more than `limit` after it has fallen."""
    waiting: int = field(metadata=GAUGE)
    """Calls that wait for a slot."""
    peak: int = field(metadata=GAUGE)
    """The most slots that were taken at once."""
    latency_seconds: float = field(metadata=GAUGE)
    """How long recent calls took on average; 0 until known."""
    baseline_seconds: float = field(metadata=GAUGE)
    """How long a call takes without a queue in the service; 0 until known."""
    acquired: int = field(metadata=COUNTER)
    """Slots given out."""
    rejected: int = field(metadata=COUNTER)
    """Calls refused."""
    failed: int = field(metadata=COUNTER)
    """Calls that failed with what ``on`` accepts, or were marked as failed."""
    cancelled: int = field(metadata=COUNTER)
    """Waits for a slot that were cancelled."""
    wait_seconds: float = field(metadata=COUNTER)
    """Total seconds that calls waited for the slots they got."""
    max_wait_seconds: float = field(metadata=GAUGE)
    """The longest that a call waited for the slot it got."""
    wait_duration: HistogramStatistics | None = field(default=None, metadata=HISTOGRAM | SECONDS)
    """How long each of those waits took; None before ``record_durations()``."""
    probes: int = field(metadata=COUNTER)
    """How often the limit was lowered for a moment to measure the baseline."""


@final
@uncopied
class AdaptiveLimiter(StandalonePart):
    """
    A limit on concurrency that adapts to what a service can take.

    The limit is the point beyond which more concurrent calls no longer yield more answers, only
    slower ones. It is estimated from how long calls take, follows a service that becomes slower or
    faster, and does not change while less than half of it is used. Calls beyond the limit wait in a
    queue of ``max_waiting``, or are refused at once with `mtaio.exceptions.ConcurrencyLimitError`.

    Only two kinds of calls are samples: those that succeed, and those that fail with an exception
    that ``on`` accepts, such as a timeout, which lower the limit. Other failures are not, since
    they may take no time at all; nor are cancellations and refusals by inner parts. A call that
    never ends is no sample either, so put a timeout inside.

    Use it as a part of a `Pipeline` or by itself: ``limiter.run(fn)``, ``@limiter``, ``async with
    limiter``. It can be created at module level and used by one event loop after another. One
    refused call in 64 is a checkpoint.

    Args:
        initial: The limit to start with; None for 10, or the nearest bound.
        min_limit: Lower bound of the limit, at least 1.
        max_limit: Upper bound of the limit.
        max_waiting: Maximum number of calls that wait for a slot; further ones are refused. 0 for
            none, None for no limit.
        on: Exceptions that mean that the service was overloaded: a class, a tuple of classes, or a
            function from the exception to bool. An exception group counts if every exception in it
            does; a function is called with each.
        name: Name shown in messages and metrics.

    Raises:
        ValueError, TypeError: An argument is invalid; the message says what to pass instead.

    Example:
        ```python
        import anyio

        from mtaio import Pipeline, Timeout
        from mtaio.exceptions import ConcurrencyLimitError
        from mtaio.resilience import AdaptiveLimiter

        limiter = AdaptiveLimiter(initial=2)
        api = Pipeline(limiter, Timeout(1), name="api")


        async def fetch(number: int) -> None:
            try:
                await api.run(anyio.sleep, 0.01)
            except ConcurrencyLimitError:
                print(number, "refused")


        async def main() -> None:
            async with anyio.create_task_group() as group:
                for number in range(3):
                    group.start_soon(fetch, number)
            print(limiter)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - _in_use counts the calls that hold a slot of _slots and have resumed with it, _waiting those
    #   that have asked _slots for one, and wait or have not resumed;
    # - so, while _waiting is 0, as many slots are in use as _in_use says.
    __slots__ = (
        "__weakref__",
        "_estimator",
        "_failed",
        "_in_use",
        "_max_limit",
        "_max_waiting",
        "_min_limit",
        "_name",
        "_on",
        "_rejected",
        "_slots",
        "_waiting",
    )

    kind: ClassVar[Literal["limiter"]] = "limiter"
    needs_timeout: ClassVar[bool] = True

    def __init__(
        self,
        *,
        initial: int | None = None,
        min_limit: int = 1,
        max_limit: int = 200,
        max_waiting: int | None = 0,
        on: Filter = TimeoutError,
        name: str | None = None,
    ) -> None:
        way_out = "Pass how much may run at once, at least 1."
        checks.count("min_limit", min_limit, way_out=way_out)
        checks.count("max_limit", max_limit, way_out=way_out)
        if max_limit < min_limit:
            msg = (
                f"max_limit={max_limit!r} is less than min_limit={min_limit!r}, so that no limit "
                f"fits. Raise max_limit, or lower min_limit."
            )
            raise ValueError(msg)
        if initial is None:
            initial = min(max(INITIAL, min_limit), max_limit)
        elif not min_limit <= checks.count("initial", initial, way_out=way_out) <= max_limit:
            msg = (
                f"initial={initial!r} is not between min_limit={min_limit!r} and "
                f"max_limit={max_limit!r}. Pass one between them, or None."
            )
            raise ValueError(msg)
        if max_waiting is not None:
            way_out = "Pass how many calls may wait, 0 for none, or None for no limit."
            checks.count("max_waiting", max_waiting, least=0, way_out=way_out)
        check_filter(on)
        self._min_limit = min_limit
        self._max_limit = max_limit
        self._max_waiting = max_waiting
        self._on = on
        self._name = name
        self._estimator = LimitEstimator(initial, min_limit, max_limit)
        self._slots = ConcurrencyLimiter(initial, max_waiting=max_waiting, name=name)
        self._in_use = 0
        self._waiting = 0
        self._rejected = 0
        self._failed = 0

    def __str__(self) -> str:
        waiting = "" if self._max_waiting == 0 else f", max_waiting={self._max_waiting}"
        return f"AdaptiveLimiter(min_limit={self._min_limit}, max_limit={self._max_limit}{waiting})"

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        slots = self._slots.statistics()
        return (
            f"<AdaptiveLimiter{name}: {slots.in_use} of {slots.limit} slots in use, "
            f"{slots.waiting} waiting>"
        )

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._name

    @property
    def limit(self) -> int:
        """The current limit."""
        return self._estimator.limit

    async def __aenter__(self) -> AdaptiveSlot:
        """
        Take a slot, after waiting for one if the limiter allows that.

        The block counts as a call, and the way it ends is its outcome.

        Returns:
            The slot, with which a failure that raises nothing can be reported.

        Raises:
            ConcurrencyLimitError: No slot is free, and no more calls may wait.
        """
        if self._in_use >= self._estimator.limit or self._waiting:
            await self._wait()
        else:
            self._slots.acquire_nowait()
        self._in_use += 1
        slot = AdaptiveSlot()
        _blocks.enter(self, (slot, self._in_use, now()))
        return slot

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Release the slot, and count the outcome of the block.

        Not a checkpoint.

        Raises:
            RuntimeError: A block that was entered later has not been left yet, or the block was
                entered in another context.
        """
        noted: tuple[AdaptiveSlot, int, float] | None = _blocks.leave(self, exc_type)
        if noted is None:
            self._leave(exc, 0.0, 0)
            return
        slot, in_use, began = noted
        self._leave(exc, now() - began, in_use, failed=slot.failed)

    def record_durations(self) -> None:
        """
        Record a histogram of the waits from now on, as ``wait_duration`` in the statistics.

        A monitor calls it for what it watches; repeated calls have no effect. Not a checkpoint. It
        can be called from any thread.
        """
        self._slots.record_durations()

    def statistics(self) -> AdaptiveStatistics:
        """
        Return a snapshot of the limiter.

        Not a checkpoint. It can be called from any thread.
        """
        estimator = self._estimator
        slots = self._slots.statistics()
        return AdaptiveStatistics(
            limit=slots.limit,
            max_limit=self._max_limit,
            in_use=slots.in_use,
            waiting=slots.waiting,
            peak=slots.peak,
            latency_seconds=estimator.latency,
            baseline_seconds=estimator.baseline,
            acquired=slots.acquired,
            rejected=self._rejected,
            failed=self._failed,
            cancelled=slots.cancelled,
            wait_seconds=slots.wait_seconds,
            max_wait_seconds=slots.max_wait_seconds,
            wait_duration=slots.wait_duration,
            probes=estimator.probes,
        )

    def wrap(self, then: Next) -> Next:
        """Return an async function that calls ``then`` in a slot."""
        estimator = self._estimator
        slots = self._slots

        async def run(call: Call) -> Any:
            if self._in_use >= estimator.limit or self._waiting:
                await self._wait()
            else:
                slots.acquire_nowait()
            self._in_use = in_use = self._in_use + 1
            began = now()
            try:
                result = await then(call)
            except BaseException as error:
                self._leave(error, now() - began, in_use)
                raise
            ended = catch_up(estimator)
            if estimator.sample(ended, ended - began, in_use):
                slots.limit = estimator.limit
            self._in_use -= 1
            slots.release()
            return result

        return run

    def wrap_stream(self, then: Next) -> Next:
        """
        Return an async function that opens a stream with ``then`` and holds a slot until its end.

        The time to the first item is the sample, since the rest depends on the stream's length and
        its consumer. A failure that ``on`` accepts is another sample, whenever it occurs.
        """
        estimator = self._estimator

        async def run(call: Call) -> OpenStream:
            if self._in_use >= estimator.limit or self._waiting:
                await self._wait()
            else:
                self._slots.acquire_nowait()
            self._in_use = in_use = self._in_use + 1
            began = now()
            try:
                opened: OpenStream = await then(call)
            except BaseException as error:
                self._leave(error, now() - began, in_use)
                raise
            self._sample(now() - began, in_use)

            def end(error: BaseException | None) -> None:
                if error is None:
                    self._slots.release()
                    self._in_use -= 1
                else:
                    self._leave(error, now() - began, in_use)

            opened.on_end(end)
            return opened

        return run

    def _leave(
        self, error: BaseException | None, latency: float, in_use: int, *, failed: bool = False
    ) -> None:
        """Give a slot back, and use the outcome of the call, if it is a sample."""
        self._slots.release()  # first: it refuses what is given back twice
        self._in_use -= 1
        if error is not None:
            if not is_outcome(error) or not (failed or accepts(self._on, error)):
                return
            failed = True
        self._failed += failed
        self._sample(latency, in_use, failed=failed)

    def _sample(self, latency: float, in_use: int, *, failed: bool = False) -> None:
        """Use how long a call took, and follow the limit."""
        if self._estimator.sample(catch_up(self._estimator), latency, in_use, failed=failed):
            self._slots.limit = self._estimator.limit

    async def _wait(self) -> None:
        """Wait for a slot, or refuse the call."""
        if self._max_waiting == 0:
            if not (self._rejected + 1) % FAST_CALLS:
                await checkpoint()
            raise self._refusal()
        self._waiting += 1
        try:
            await self._slots.acquire()
        except ConcurrencyLimitError:
            raise self._refusal() from None
        finally:
            self._waiting -= 1

    def _refusal(self) -> ConcurrencyLimitError:
        self._rejected += 1
        msg = (
            f"{self!r} lets at most max_waiting={self._max_waiting} wait. More at once would not "
            f"be answered any sooner. Try again later."
        )
        return ConcurrencyLimitError(msg, name=self._name)
