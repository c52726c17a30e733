"""
What all calls of an executor share: its limits, its counters, and how a pool is put together.

Promise: constructing it touches no event loop, and nothing in it belongs to one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, get_args

from mtaio._internal import checks
from mtaio._internal.cancellation import without_cancellation
from mtaio._internal.sentinel import UNSET, Unset
from mtaio.core._call import check_fn
from mtaio.core._compose import as_limiter, compose, one_attempt
from mtaio.core._pool import Policy, Pool, Progress
from mtaio.core._retry import as_policy
from mtaio.core._slots import CURRENT, Slot, Slots
from mtaio.core._source import AnyIterable, open_source, total_of
from mtaio.core._statistics import Counters
from mtaio.core._threads import WorkerLimiter
from mtaio.core._timing import Timing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import anyio

    from mtaio.core._pool import Gate
    from mtaio.core._retry import Retry
    from mtaio.resources import RateLimiter

T = TypeVar("T")

_READ_AHEAD = 16


class Options(TypedDict):
    """The options that `map`, `for_each` and `stream` share."""

    limit: int | None
    timeout: float | Unset | None
    rate: float | RateLimiter | None
    retry: int | Retry | None
    errors: Policy
    on_progress: Progress | None


class ExecutorBase:
    """The state of an executor."""

    def __init__(
        self,
        max_workers: int | None,
        *,
        timeout: float | None,
        thread_limiter: int | anyio.CapacityLimiter | None,
        process_limiter: int | anyio.CapacityLimiter | None,
        name: str | None,
    ) -> None:
        if max_workers is not None:
            checks.count(
                "max_workers",
                max_workers,
                way_out="Pass the number of items to run at once, or None for no limit.",
            )
        self._max_workers = max_workers
        self._name = name
        self._slots = None if max_workers is None else Slots(max_workers, self)
        self._threads = WorkerLimiter.of_threads(thread_limiter, self)
        self._processes = WorkerLimiter.of_processes(process_limiter, self)
        self._counters = Counters()
        self._default_timing = Timing(checks.timeout("timeout", timeout), self._counters, name)
        self._calls: int = 0

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<TaskExecutor{name} max_workers={self._max_workers}>"

    @property
    def max_workers(self) -> int | None:
        """How many items may run at once across all calls; None for no limit."""
        return self._max_workers

    @property
    def name(self) -> str | None:
        """The name given at construction, for messages and metrics."""
        return self._name

    def _timing(self, timeout: float | Unset | None) -> Timing:
        if timeout is UNSET:
            return self._default_timing
        return Timing(checks.timeout("timeout", timeout), self._counters, self._name)

    def _bind(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timing: Timing,
    ) -> Callable[[], Awaitable[Any]]:
        """Return one call of ``fn``, checked before, with its timeout, as it is made in a slot."""
        return partial(one_attempt(fn, timing, self._threads), *args, **kwargs)

    async def _item(self, slot: Slot | None, call: Callable[[], Awaitable[T]]) -> T:
        """Make ``call`` as an item that runs in ``slot``, in the current task."""
        counters = self._counters
        counters.item_began()
        token = None
        if slot is not None:
            slot.item = 0
            token = CURRENT.set((slot, 0))
        try:
            return await call()
        except BaseException as error:
            if without_cancellation(error) is None:
                counters.cancelled += 1
            else:
                counters.failed += 1
            raise
        finally:
            counters.finished += 1
            if token is not None:
                CURRENT.reset(token)
            del slot, token  # an error holds this frame, and they the task that holds the error

    def _pool(
        self,
        fn: Callable[..., Any],
        iterables: tuple[AnyIterable, ...],
        options: Options,
        *,
        put: Callable[[int, Any], object],
        put_error: Callable[[int, Exception], object] | None = None,
        reserve: Callable[[Any], object] | None = None,
        gate: Gate | None = None,
        subject: object = UNSET,
    ) -> Pool:
        check_fn(fn)
        check_policy(options["errors"])
        limit = self._narrowed(options["limit"])
        # A length may be dear to compute: nobody else is told.
        total = None if options["on_progress"] is None else total_of(iterables)
        call, timeout = compose(
            fn,
            timing=self._timing(options["timeout"]),
            rate=as_limiter(options["rate"]),
            retry=as_policy(options["retry"]),
            threads=self._threads,
            counters=self._counters,
        )
        return Pool(
            call,
            open_source(iterables, min(limit or _READ_AHEAD, _READ_AHEAD)),
            subject=fn if subject is UNSET else subject,
            many=len(iterables) > 1,
            limit=limit,
            slots=self._slots,
            counters=self._counters,
            put=put,
            put_error=put_error,
            reserve=reserve,
            gate=gate,
            errors=options["errors"],
            timeout=timeout,
            name=self._name,
            progress=options["on_progress"],
            total=total,
        )

    def _narrowed(self, limit: int | None) -> int | None:
        if limit is None:
            return self._max_workers
        checks.count(
            "limit", limit, way_out="Pass the number of items this call may run at once, or None."
        )
        return limit if self._max_workers is None else min(limit, self._max_workers)


def check_policy(errors: object) -> None:
    """Refuse an unknown error policy."""
    known: tuple[Literal["raise", "collect", "return"], ...] = get_args(Policy)
    if errors not in known:
        msg = (
            f'errors={errors!r} is unknown. Pass "raise" (stop at the first), "collect" (run all, '
            f'then raise them together) or "return" (put them among the results).'
        )
        raise ValueError(msg)
