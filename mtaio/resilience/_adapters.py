"""
How `Retry`, and the limiters and timeouts of `mtaio.resources`, become parts of a pipeline.

Promise: each does around the rest of the pipeline what it does around a block, and keeps its own
statistics: it may be used elsewhere too.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, cast

from mtaio._internal import checks
from mtaio._internal.callables import name_of
from mtaio._internal.rates import Rate
from mtaio._internal.statistics import snapshot
from mtaio.resilience._part import Part
from mtaio.resilience._retry import Retry
from mtaio.resilience._statistics import RetryStatistics
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedConcurrencyLimiter,
    KeyedQuota,
    KeyedRateLimiter,
    Quota,
    RateLimiter,
    ResourceLimiter,
    TimeoutManager,
)

if TYPE_CHECKING:
    from mtaio.resilience._part import Call, Next
    from mtaio.resilience._pipeline import Direct
    from mtaio.resilience._stream import OpenStream

__all__ = ["RatePart", "RetryPart", "adapter_of", "as_part", "name_of_kind"]

_WORDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class _Adapter:
    """A part that wraps ``inner``."""

    __slots__ = ("inner",)

    inner: Any

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def statistics(self) -> object:
        """Return the statistics of what it wraps."""
        return self.inner.statistics()


def _acquiring(acquire: Callable[[], Awaitable[object]], then: Next) -> Next:
    """Return an async function that calls ``then`` when it has acquired what it needs."""

    async def run(call: Call) -> Any:
        await acquire()
        return await then(call)

    return run


class RatePart(_Adapter):
    __slots__ = ()

    kind: ClassVar[Literal["limiter"]] = "limiter"
    inner: RateLimiter

    def __str__(self) -> str:
        return f"RateLimiter({self.inner.rate:g}, burst={self.inner.burst:g})"

    def wrap(self, then: Next) -> Next:
        return _acquiring(self.inner.acquire, then)


class _ForeignRatePart:
    """A limiter of the user, which has ``rate`` and ``acquire()``, but perhaps no statistics."""

    __slots__ = ("inner", "statistics")

    kind: ClassVar[Literal["limiter"]] = "limiter"

    def __init__(self, inner: Rate) -> None:
        self.inner = inner
        self.statistics: Any = getattr(inner, "statistics", None)

    def __str__(self) -> str:
        return f"{type(self.inner).__name__}({self.inner.rate:g})"

    def wrap(self, then: Next) -> Next:
        return _acquiring(self.inner.acquire, then)


class _KeyedPart(_Adapter):
    __slots__ = ()

    kind: ClassVar[Literal["limiter"]] = "limiter"
    needs_key: ClassVar[bool] = True
    inner: KeyedRateLimiter

    def __str__(self) -> str:
        return f"KeyedRateLimiter({self.inner.rate:g}, burst={self.inner.burst:g})"

    def wrap(self, then: Next) -> Next:
        acquire = self.inner.acquire

        async def run(call: Call) -> Any:
            await acquire(call.key)
            return await then(call)

        return run


class _ConcurrencyPart(_Adapter):
    __slots__ = ()

    kind: ClassVar[Literal["limiter"]] = "limiter"
    inner: ConcurrencyLimiter

    def __str__(self) -> str:
        return f"ConcurrencyLimiter({self.inner.limit})"

    def wrap(self, then: Next) -> Next:
        acquire, release = self.inner.acquire, self.inner.release

        async def run(call: Call) -> Any:
            await acquire()
            try:
                return await then(call)
            finally:
                release()

        return run

    def wrap_stream(self, then: Next) -> Next:
        acquire, release = self.inner.acquire, self.inner.release

        async def run(call: Call) -> OpenStream:
            await acquire()
            try:
                opened: OpenStream = await then(call)
            except BaseException:
                release()
                raise
            opened.on_end(lambda _: release())
            return opened

        return run


class _KeyedConcurrencyPart(_Adapter):
    __slots__ = ()

    kind: ClassVar[Literal["limiter"]] = "limiter"
    needs_key: ClassVar[bool] = True
    inner: KeyedConcurrencyLimiter

    def __str__(self) -> str:
        return f"KeyedConcurrencyLimiter({self.inner.limit})"

    def wrap(self, then: Next) -> Next:
        acquire, release = self.inner.acquire, self.inner.release

        async def run(call: Call) -> Any:
            await acquire(call.key)
            try:
                return await then(call)
            finally:
                release(call.key)

        return run

    def wrap_stream(self, then: Next) -> Next:
        acquire, release = self.inner.acquire, self.inner.release

        async def run(call: Call) -> OpenStream:
            key = call.key
            await acquire(key)
            try:
                opened: OpenStream = await then(call)
            except BaseException:
                release(key)
                raise
            opened.on_end(lambda _: release(key))
            return opened

        return run


class _ResourcePart(_Adapter):
    __slots__ = ()

    kind: ClassVar[Literal["limiter"]] = "limiter"
    inner: ResourceLimiter

    @property
    def is_timed(self) -> bool:
        now = self.inner.statistics()
        return now.timeout is not None or now.timeout_total is not None

    def __str__(self) -> str:
        return f"ResourceLimiter({'' if self.inner.name is None else f'name={self.inner.name!r}'})"

    def wrap(self, then: Next) -> Next:
        limiter = self.inner

        async def run(call: Call) -> Any:
            async with limiter:
                return await then(call)

        return run


class _TimeoutPart(_Adapter):
    __slots__ = ()

    kind: ClassVar[Literal["timeout"]] = "timeout"
    inner: TimeoutManager

    def __str__(self) -> str:
        return f"TimeoutManager({self.inner.default_timeout})"

    @property
    def seconds(self) -> float | None:
        return self.inner.default_timeout

    def wrap(self, then: Next) -> Next:
        timeouts = self.inner

        async def run(call: Call) -> Any:
            with timeouts():
                return await then(call)

        return run


class RetryPart(_Adapter):
    __slots__ = ("_calls", "_failed", "_retried", "direct")

    kind: ClassVar[Literal["retry"]] = "retry"
    inner: Retry

    def __init__(self, inner: Retry) -> None:
        super().__init__(inner)
        self.direct: Direct | None = None
        """Where the calls are counted whose first attempt did not come through here."""
        self._calls = 0
        self._retried = 0
        self._failed = 0

    def __str__(self) -> str:
        options: list[str] = [f"{self.inner.attempts}"]
        for each in fields(self.inner):
            value = getattr(self.inner, each.name)
            if each.name != "attempts" and value != each.default and each.default is not MISSING:
                options.append(f"{each.name}={_shown(value)}")
        return f"Retry({', '.join(options)})"

    def wrap(self, then: Next, ended: Sequence[object] = ()) -> Next:
        """Wrap ``then``. As long as there is something in ``ended``, `Direct` has counted calls."""
        policy_run, count = self.inner.run, self._count

        async def run(call: Call) -> Any:
            if not ended:
                self._calls += 1
            try:
                return await policy_run(then, call, on_retry=count)
            except Exception:
                self._failed += 1
                raise

        return run

    def _count(self) -> None:
        self._retried += 1

    def statistics(self) -> RetryStatistics:
        budget = self.inner.budget
        budgeted = None if budget is None else budget.statistics()
        calls = self._calls if self.direct is None else self._calls + self.direct.begun
        return snapshot(RetryStatistics, self, calls=calls, budget=budgeted)

    @property
    def is_quiet(self) -> bool:
        return self.inner.budget is None


def _shown(value: object) -> str:
    """Return a setting as it is written in code."""
    if isinstance(value, tuple):
        each = cast("tuple[object, ...]", value)
        return f"({', '.join(map(_shown, each))})"
    return name_of(value) if callable(value) else str(value)


_ADAPTERS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (Retry, RetryPart),
    (RateLimiter, RatePart),
    (ConcurrencyLimiter, _ConcurrencyPart),
    (KeyedRateLimiter, _KeyedPart),
    (KeyedConcurrencyLimiter, _KeyedConcurrencyPart),
    (Quota, Quota.part),
    (KeyedQuota, KeyedQuota.part),
    (ResourceLimiter, _ResourcePart),
    (TimeoutManager, _TimeoutPart),
    (Rate, _ForeignRatePart),
)


def adapter_of(given: object) -> Part | None:
    """Return a part that wraps ``given``; None if that is nothing that can be wrapped."""
    if isinstance(given, list | tuple):
        from mtaio.resources._quota import together  # noqa: PLC0415 - few pipelines have several

        given = together(cast("Sequence[object]", given))
    for cls, adapter in _ADAPTERS if not isinstance(given, type) else ():
        if isinstance(given, cls):
            part: Part = adapter(given)
            return part
    return None


def as_part(given: object) -> Part:
    """Return ``given`` if it is a part, or else a part that wraps it."""
    if isinstance(given, Part) and not isinstance(given, type):
        return given
    part = adapter_of(given)
    if part is None:
        msg = (
            f"{given!r} is {checks.type_of(given)}, which cannot be part of a pipeline. Pass parts "
            f"of mtaio.resilience, limiters of mtaio.resources, a Retry, or an object with wrap()."
        )
        raise TypeError(msg)
    return part


def name_of_kind(given: object, part: Part) -> str:
    """Return the name under which the statistics of a part are shown, such as ``total_timeout``."""
    kind = Quota if isinstance(given, list | tuple) else type(given)
    name = _WORDS.sub("_", kind.__name__.strip("_")).lower()
    return f"total_{name}" if getattr(part, "total", False) else name
