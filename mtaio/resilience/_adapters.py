"""
How `Retry`, and the limiters and timeouts of `mtaio.resources`, become parts of a pipeline.

Promise: each does around the rest of the pipeline what it does around a block, and keeps its own
statistics: it may be used elsewhere too.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, cast

from mtaio._internal import checks
from mtaio._internal.callables import name_of
from mtaio._internal.durations import record_durations_of
from mtaio._internal.rates import Rate
from mtaio.exceptions import LimitError
from mtaio.resilience._attempts import Counts, Place, is_held_in
from mtaio.resilience._events import Refused, emit, is_wanted
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

__all__ = [
    "RatePart",
    "RetryPart",
    "adapter_of",
    "as_part",
    "is_part",
    "name_of_kind",
    "tell_refusal",
]

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

    def record_durations(self) -> None:
        """Have what it wraps record durations, if it does that."""
        record_durations_of(self.inner)


def tell_refusal(error: Exception, limiter: object, fn: object) -> None:
    """Tell that a limiter has refused a call of ``fn``."""
    if is_wanted(Refused):
        name = getattr(limiter, "name", None)
        emit(Refused(name=name, function=name_of(fn), error=error))


def _acquiring(limiter: Any, then: Next) -> Next:
    """Return an async function that calls ``then`` when it has acquired what it needs."""
    acquire = limiter.acquire

    async def run(call: Call) -> Any:
        try:
            await acquire()
        except LimitError as error:
            tell_refusal(error, limiter, call.fn)
            raise
        return await then(call)

    return run


def _holding(limiter: Any, then: Next, key_of: Callable[[Call], tuple[Hashable, ...]]) -> Next:
    """Return ``then`` for streams, with a slot of a limiter, or of its key, until they end."""

    async def run(call: Call) -> OpenStream:
        keys = key_of(call)
        try:
            await limiter.acquire(*keys)
        except LimitError as error:
            tell_refusal(error, limiter, call.fn)
            raise
        try:
            opened: OpenStream = await then(call)
        except BaseException:
            limiter.release(*keys)
            raise
        opened.on_end(lambda _: limiter.release(*keys))
        return opened

    return run


class RatePart(_Adapter):
    __slots__ = ()

    kind: ClassVar[Literal["limiter"]] = "limiter"
    inner: RateLimiter

    def __str__(self) -> str:
        return f"RateLimiter({self.inner.rate:g}, burst={self.inner.burst:g})"

    def wrap(self, then: Next) -> Next:
        return _acquiring(self.inner, then)


class _ForeignRatePart:
    """A limiter of the user, which has ``rate`` and ``acquire()``, but perhaps no statistics."""

    __slots__ = ("inner", "record_durations", "statistics")

    kind: ClassVar[Literal["limiter"]] = "limiter"

    def __init__(self, inner: Rate) -> None:
        self.inner = inner
        self.statistics: Any = getattr(inner, "statistics", None)
        self.record_durations: Any = partial(record_durations_of, inner)

    def __str__(self) -> str:
        return f"{type(self.inner).__name__}({self.inner.rate:g})"

    def wrap(self, then: Next) -> Next:
        return _acquiring(self.inner, then)


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
            try:
                await acquire(call.key)
            except LimitError as error:
                tell_refusal(error, self.inner, call.fn)
                raise
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
            try:
                await acquire()
            except LimitError as error:
                tell_refusal(error, self.inner, call.fn)
                raise
            try:
                return await then(call)
            finally:
                release()

        return run

    def wrap_stream(self, then: Next) -> Next:
        return _holding(self.inner, then, lambda _: ())


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
            try:
                await acquire(call.key)
            except LimitError as error:
                tell_refusal(error, self.inner, call.fn)
                raise
            try:
                return await then(call)
            finally:
                release(call.key)

        return run

    def wrap_stream(self, then: Next) -> Next:
        return _holding(self.inner, then, lambda call: (call.key,))


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
            is_in = False
            try:
                async with limiter:
                    is_in = True
                    return await then(call)
            except LimitError as error:
                if not is_in:
                    tell_refusal(error, limiter, call.fn)
                raise

        return run

    def wrap_stream(self, then: Next) -> Next:
        """
        Hold the slot until the stream ends, and limit its time; its block is not entered.

        That could be left only in the task and the context that entered it.
        """
        limiter = self.inner
        now = limiter.statistics()
        if now.timeout is not None:
            then = _limited(then, now.timeout.default_timeout, limiter.name)
        through = then

        async def run(call: Call) -> OpenStream:
            slots, rate = limiter.concurrency, limiter.rate
            if slots is not None:
                await slots.acquire()
            try:
                if rate is not None:
                    await rate.acquire()
                _count(limiter, 1)
                try:
                    opened: OpenStream = await through(call)
                except BaseException:
                    _count(limiter, -1)
                    raise
            except BaseException:
                if slots is not None:
                    slots.release()
                raise
            opened.on_end(lambda _: _count(limiter, -1))
            if slots is not None:
                opened.on_end(lambda _: slots.release())
            return opened

        if now.timeout_total is None:
            return run
        return _limited(run, now.timeout_total.default_timeout, limiter.name)


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

    def wrap_stream(self, then: Next) -> Next:
        return _limited(then, self.seconds, self.inner.name)


def _count(limiter: ResourceLimiter, by: int) -> None:
    """Count a stream as what has entered a limiter, which it has not: see `wrap_stream`."""
    limiter._in_flight += by  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - its block does the same
    limiter._entered += by > 0  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - likewise


def _limited(then: Next, seconds: float | None, name: str | None) -> Next:
    """Return ``then`` for streams, limited as by a `Timeout`."""
    from mtaio.resilience._timeout import Timeout  # noqa: PLC0415 - that imports what imports this

    return then if seconds is None else Timeout(seconds, name=name).wrap_stream(then)


class RetryPart(_Adapter):
    __slots__ = ("_calls", "_counts", "_place", "_stream_place", "direct")

    kind: ClassVar[Literal["retry"]] = "retry"
    inner: Retry

    def __init__(self, inner: Retry) -> None:
        super().__init__(inner)
        self.direct: Direct | None = None
        """Where the calls are counted whose first attempt did not come through here."""
        self._calls = 0
        self._counts = Counts()
        self._place = Place(counts=self._counts)
        self._stream_place = Place(counts=self._counts, judges=False)

    def __str__(self) -> str:
        return str(self.inner)

    def stands(self, name: str | None, inside: Sequence[Part]) -> None:
        """Note the name of its pipeline, and whether what it holds is among the parts inside."""
        limiters = [getattr(each, "inner", each) for each in inside]
        is_inside = is_held_in(self.inner, limiters)
        for place in (self._place, self._stream_place):
            place.name, place.holds_inside = name, is_inside

    def wrap(self, then: Next, ended: Sequence[object] = ()) -> Next:
        """Wrap ``then``. As long as there is something in ``ended``, `Direct` has counted calls."""
        return self._wrapped(then, self._place, ended)

    def wrap_stream(self, then: Next) -> Next:
        """Wrap what opens a stream, which is no result that ``until`` could judge."""
        return self._wrapped(then, self._stream_place, ())

    def _wrapped(self, then: Next, place: Place, ended: Sequence[object]) -> Next:
        retried: Next = self.inner._around(then, place)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - what its `run` does for users

        def run(call: Call) -> Awaitable[Any]:
            if not ended:
                self._calls += 1
            return retried(call)

        return run

    def statistics(self) -> RetryStatistics:
        counts, budget = self._counts, self.inner.budget
        return RetryStatistics(
            calls=self._calls if self.direct is None else self._calls + self.direct.begun,
            retried=counts.retried,
            throttled=counts.throttled,
            failed=counts.failed,
            errors=dict(counts.errors),
            budget=None if budget is None else budget.statistics(),
        )

    @property
    def is_quiet(self) -> bool:
        return self.inner._is_quiet  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - it need not see a success


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
        given = Quota.together(cast("Sequence[float | Rate]", given))
    for cls, adapter in _ADAPTERS if not isinstance(given, type) else ():
        if isinstance(given, cls):
            part: Part = adapter(given)
            return part
    return None


def is_part(given: object) -> bool:
    """Return whether a pipeline takes ``given``."""
    is_one = isinstance(given, Part) and not isinstance(given, type)
    return is_one or adapter_of(given) is not None


def as_part(given: object) -> Part:
    """Return ``given`` if it is a part, or else a part that wraps it."""
    if isinstance(given, Part) and not isinstance(given, type):
        return given
    inner: Any = given
    if isinstance(inner, list | tuple) and any(
        isinstance(each, Part | Retry | TimeoutManager) for each in cast("Sequence[object]", inner)
    ):
        msg = (
            f"a {type(given).__name__} of parts is not a part: in a pipeline, a list means several "
            f"rates. Pass the parts one by one: Pipeline(*parts)."
        )
        raise TypeError(msg)
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
