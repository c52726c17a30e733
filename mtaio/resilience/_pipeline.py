"""
One call through several parts: fallback, timeouts, retry, breaker, hedge, limits.

Promise: the parts act in the order in which they are given, outermost first, and orders that cannot
work are refused when the pipeline is made. A cancellation is not an outcome: no part counts,
retries or hedges it, and whatever was taken for the call is given back. A part is an object with
``wrap``, and nothing else is required.
Cost: one coroutine for each part, made of closures when the pipeline is made; none for retries,
fallbacks and a rate limiter inside of them, until a call fails: see `Direct`. No tasks (a hedge
starts some), nothing to close.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from inspect import isawaitable
from types import CoroutineType
from typing import Any, TypeVar, TypeVarTuple, cast, final

from mtaio._internal import clock, spans
from mtaio._internal.callables import unawaitable_error
from mtaio._internal.cancellation import raise_failure, without_cancellation
from mtaio._internal.decorators import AsyncFunction
from mtaio._internal.durations import record_durations_of, recorded, took
from mtaio._internal.histogram import Histogram
from mtaio._internal.rates import Rate
from mtaio.exceptions import LimitError
from mtaio.resilience._adapters import RatePart, RetryPart, as_part, name_of_kind, tell_refusal
from mtaio.resilience._fallback import Fallback
from mtaio.resilience._keyed import Keyed
from mtaio.resilience._order import check_order, check_place
from mtaio.resilience._part import (
    Call,
    Next,
    Part,
    Streams,
    call_function,
    call_maker,
    check_key,
    decorate_through,
    key_of,
    keyless_error,
    stream_maker,
    uncallable_error,
)
from mtaio.resilience._retry import Retry
from mtaio.resilience._statistics import PipelineStatistics
from mtaio.resilience._stream import CallStream, OpenStream, open_call, stream_through
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedConcurrencyLimiter,
    KeyedQuota,
    KeyedRateLimiter,
    ResourceLimiter,
    TimeoutManager,
)

__all__ = ["Pipeline"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@final
class Pipeline:
    """
    A chain of retries, breakers, limits and other parts that functions are called through.

    Parts are listed outermost first: each wraps those after it, and the last wraps the function.
    The usual order is `Fallback`, `Timeout` with ``total=True``, `Retry`, `Breaker`, `Hedge`,
    limiters, `Timeout`. An order that cannot work is refused, and one that is seldom intended gives
    an `OrderWarning`; both messages say why. State belongs to the parts, so a part in two pipelines
    is shared between them.

    It can be created at module level and used by one event loop after another, on either backend.

    Args:
        *parts: The parts, outermost first: those of this package, limiters and timeouts of
            `mtaio.resources`, or objects of your own (see `Part`; a rate limiter needs only a
            ``rate`` and an async ``acquire()``). A list of rate limiters, or of numbers per second,
            is one part that takes a token from each.
        key: A function that returns the key of a call, such as its host, from the arguments of the
            called function, including those of a partial; for parts that keep a state for each key.
            A ``key=`` that is passed for a call or to the decorator takes precedence.
        name: Name shown in messages and metrics.

    Raises:
        ValueError: There are no parts, or their order cannot work.
        TypeError: An argument is not a part, or ``key`` is not a plain function.

    Example:
        ```python
        import anyio

        from mtaio import Pipeline, Retry, Timeout
        from mtaio.resilience import Fallback

        api = Pipeline(
            Fallback(lambda error, city: f"no news from {city}"),
            Timeout(5, total=True),
            Retry(3),
            Timeout(1),
            name="weather",
        )


        async def weather(city: str) -> str:
            await anyio.sleep(0.01)
            return f"rain in {city}"


        async def main() -> None:
            print(await api.run(weather, "Kyoto"))
            print(api)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - a call that has started and has not ended is in _calls, and in none of the others;
    # - _direct is None where there is no short way, or once durations are recorded; what went it
    #   until then stays counted in _counted_directly.
    __slots__ = (
        "__weakref__",
        "_attempt_duration",
        "_call_duration",
        "_calls",
        "_cancelled",
        "_counted_directly",
        "_direct",
        "_failed",
        "_given",
        "_key",
        "_keyed",
        "_name",
        "_parts",
        "_seeks_key",
        "_stream_way",
        "_succeeded",
        "_through",
    )

    def __init__(
        self,
        *parts: (
            Part
            | ConcurrencyLimiter
            | KeyedConcurrencyLimiter
            | KeyedQuota
            | KeyedRateLimiter
            | ResourceLimiter
            | TimeoutManager
            | Retry
            | Rate
            | Sequence[float | Rate]
        ),
        key: Callable[..., Hashable] | None = None,
        name: str | None = None,
    ) -> None:
        if not parts:
            msg = "a Pipeline without parts does nothing. Pass at least one, such as Timeout(5)."
            raise ValueError(msg)
        self._given = parts
        self._parts = tuple(as_part(each) for each in parts)
        check_order(self._parts, parts)
        if key is not None:
            check_key(key)
        pairs = zip(parts, self._parts, strict=True)
        keyed = (given for given, part in pairs if getattr(part, "needs_key", False))
        self._keyed = next(keyed, None)
        self._name = name
        for number, part in enumerate(self._parts, 1):
            if isinstance(part, RetryPart):
                part.stands(name, self._parts[number:])
        through: Next = call_function
        for number, part in reversed(list(enumerate(self._parts))):
            if isinstance(part, Keyed):
                through = part.wrap(through, partial(check_place, self._parts, number))
            else:
                through = part.wrap(through)
        self._through = through
        self._direct = self._counted_directly = _direct_way(self._parts)
        self._stream_way: Next | None = None
        self._key = key
        self._seeks_key = self._keyed is not None or (key is not None and self._direct is None)
        self._calls = 0
        self._succeeded = 0
        self._failed = 0
        self._cancelled = 0
        self._call_duration: Histogram | None = None
        self._attempt_duration: Histogram | None = None

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        calls, *ended = self._counts()
        in_flight = calls - sum(ended)
        return f"<Pipeline{name} of {len(self._parts)} parts: {in_flight} calls in flight>"

    def __str__(self) -> str:
        """Return the parts, one per line, outermost first and each inside the one before."""
        lines = ["Pipeline" if self._name is None else f"Pipeline {self._name!r}"]
        lines += ["  " * number + str(part) for number, part in enumerate(self._parts, 1)]
        return "\n".join(lines)

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._name

    @property
    def parts(self) -> tuple[object, ...]:
        """The parts as they were given, outermost first."""
        return self._given

    async def run(
        self, fn: Callable[[*Ts], Awaitable[T]], /, *args: *Ts, key: Hashable = None
    ) -> T:
        """
        Call an async function through the parts and return its result.

        A checkpoint if the call is one, or if a part has to wait. If it is cancelled, it leaves
        behind only what the function leaves behind, and no part counts it.

        Args:
            fn: The function, not a coroutine, since it may have to be called several times.
            *args: Positional arguments for ``fn``. For keyword arguments, use `functools.partial`.
            key: The key of the call, such as a host, for parts that keep a state for each key.

        Returns:
            The result of ``fn``, or of a fallback.

        Raises:
            TypeError: ``fn`` is not a function, or does not return an awaitable.
            ValueError: A part needs a ``key``, and it is missing.
            Exception: The error of the last attempt, or of a part.
        """
        if not callable(fn):
            raise uncallable_error(fn)
        if key is None and self._seeks_key:
            key = self._key_of(fn, args)
        # Two ways, as in `_around` and `_called_directly`: another coroutine would cost each call
        # more than all that is done here.
        result: T
        direct = self._direct
        if direct is not None and spans.hook is None:  # a span is the part's to begin
            direct.begun += 1
            try:
                if direct.acquire is not None:
                    await direct.acquire()
                awaitable: Any = fn(*args)
                made: object = awaitable
                if type(made) is not CoroutineType and not isawaitable(made):
                    raise unawaitable_error(fn, made, "run")  # noqa: TRY301 - it ends an attempt
                result = await awaitable
            except BaseException as error:  # noqa: BLE001 - it goes through the parts
                ended = [error]
            else:
                direct.ended += 1
                return result
            made = awaitable = None  # a future holds its error, and that this frame
            result = await self._go_on(direct.after(ended), partial(Call, fn, args, key=key))
            return result
        if self._call_duration is not None:
            result = await self._record(Call(fn, args, key=key))
            return result
        self._calls += 1
        try:
            # A keyword would cost each call a fifth of the whole.
            call = Call(fn, args) if key is None else Call(fn, args, key=key)
            result = await self._through(call)
        except BaseException as error:
            self._count(error)
            raise
        self._succeeded += 1
        return result

    def stream(
        self, fn: Callable[[*Ts], Streams[T]], /, *args: *Ts, key: Hashable = None
    ) -> CallStream[T]:
        """
        Return a block around a stream: ``async with api.stream(fn) as items:``.

        Retries, hedges and fallbacks apply to opening the stream and getting its first item;
        attempts that fail or lose are closed first. Errors after the first item reach the consumer
        unchanged. The slots of limiters, the outcome for a breaker and the total time of a
        `Timeout` last until the block ends, which closes the stream. Rate limiters take a token for
        each opening.

        Args:
            fn: An async generator function; or a function, plain or async, that returns an async
                iterable or an async context manager around one. Not the stream itself, since it may
                have to be opened several times.
            *args: Positional arguments for ``fn``. For keyword arguments, use `functools.partial`.
            key: The key of the call, such as a host, for parts that keep a state for each key.

        Returns:
            A block to enter with ``async with``, once. Nothing is opened before that.

        Raises:
            TypeError: ``fn`` is not a function.
            ValueError: A part needs a ``key``, and it is missing.
        """
        if not callable(fn):
            raise uncallable_error(fn)
        if key is None and self._seeks_key:
            key = self._key_of(fn, args)
        call = Call(cast("Callable[..., Awaitable[Any]]", fn), args, key=key)
        return CallStream(self._through_stream(), call)

    def _through_stream(self) -> Next:
        """Return the way of streams through the parts, made when there is one."""
        way = self._stream_way
        if way is None:
            through: Next = open_call
            for number, part in reversed(list(enumerate(self._parts))):
                if isinstance(part, Keyed):
                    check = partial(check_place, self._parts, number)
                    through = part.wrap_stream(through, check)
                else:
                    through = stream_through(part, through)
            way = self._stream_way = self._counted(through)
        return way

    def _counted(self, through: Next) -> Next:
        async def run(call: Call) -> OpenStream:
            self._calls += 1
            call._attempt_duration = self._attempt_duration  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of one package
            end = partial(self._end, None if self._call_duration is None else clock.now())
            try:
                opened: OpenStream = await through(call)
            except BaseException as error:
                end(error)
                raise
            opened.on_end(end)
            return opened

        return run

    async def _record(self, call: Call) -> Any:
        """Let a call go through the parts; record how long it takes, and its attempts."""
        self._calls += 1
        call._attempt_duration = self._attempt_duration  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - likewise
        began = clock.now()
        try:
            result = await self._through(call)
        except BaseException as error:
            self._end(began, error)
            raise
        self._end(began, None)
        return result

    def _end(self, began: float | None, error: BaseException | None) -> None:
        """Count a call that has ended, and record how long it took if it is known when it began."""
        if error is None:
            self._succeeded += 1
        else:
            self._count(error)
        if self._call_duration is not None and began is not None:
            took(self._call_duration, began, error)

    def _around_stream(
        self, fn: Callable[..., Any], key: Callable[..., Hashable] | None
    ) -> Callable[..., CallStream[Any]]:
        """Return an async generator function as it is when it is decorated."""
        make = call_maker(fn, self._parts, self._key if key is None else key, self._keyed)
        return stream_maker(make, self._through_stream())

    def _key_of(self, fn: object, args: tuple[Any, ...]) -> Hashable:
        """Return the key of a call for which none is given; called if ``_seeks_key``."""
        key = None if self._key is None else key_of(self._key, fn, args)
        if key is None and self._keyed is not None:
            raise keyless_error(fn, self._keyed)
        return key

    def _count(self, error: BaseException) -> None:
        """Count a call that has ended with ``error``."""
        if without_cancellation(error) is None:
            self._cancelled += 1
        else:
            self._failed += 1

    def _around(
        self, fn: Callable[..., Awaitable[Any]], key: Callable[..., Hashable] | None
    ) -> AsyncFunction[..., Any]:
        """Return ``fn`` as it is when it is decorated."""
        make = call_maker(fn, self._parts, self._key if key is None else key, self._keyed)
        if self._direct is not None and key is None:
            return self._called_directly(fn, make, self._direct.acquire)
        through = self._through

        async def called(*args: Any, **kwargs: Any) -> Any:
            call = make(args, kwargs)
            if self._call_duration is not None:
                return await self._record(call)
            self._calls += 1
            try:
                result = await through(call)
            except BaseException as error:
                self._count(error)
                raise
            self._succeeded += 1
            return result

        return called

    def _called_directly(
        self,
        fn: Callable[..., Awaitable[Any]],
        make: Callable[[tuple[Any, ...], dict[str, Any]], Call],
        acquire: Callable[[], Awaitable[object]] | None,
    ) -> AsyncFunction[..., Any]:
        """Return ``fn`` as it is when it is decorated, and parts leave alone what succeeds."""

        async def called(*args: Any, **kwargs: Any) -> Any:
            direct = self._direct
            if direct is None:
                return await self._record(make(args, kwargs))
            if spans.hook is not None:
                self._calls += 1
                return await self._go_on(self._through, partial(make, args, kwargs))
            direct.begun += 1
            try:
                if acquire is not None:
                    await acquire()
                result = await fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - it goes through the parts
                ended = [error]
            else:
                direct.ended += 1
                return result
            return await self._go_on(direct.after(ended), partial(make, args, kwargs))

        return called

    async def _go_on(self, through: Next, make: Callable[[], Call]) -> Any:
        """Let a call that has begun go through the parts, and count how it ends."""
        try:
            result = await through(make())  # its arguments may turn out to be wrong
        except BaseException as error:
            self._count(error)
            raise
        self._succeeded += 1
        return result

    __call__ = decorate_through

    def record_durations(self) -> None:
        """
        Record histograms of how long calls and attempts take, from now on.

        They are ``call_duration`` and ``attempt_duration`` in the statistics. A call is recorded
        when it ends, in whatever way, if it started after this call. Limiters among the parts
        record how long calls wait. A monitor calls it for what it watches; repeated calls have no
        effect. Not a checkpoint.
        """
        if self._call_duration is None:
            self._attempt_duration = Histogram()
            self._call_duration = Histogram()
            self._direct = None
        for part in self._parts:
            record_durations_of(part)

    def statistics(self) -> PipelineStatistics:
        """
        Return a snapshot, with the statistics of each part.

        Not a checkpoint. It can be called from any thread.
        """
        parts: dict[str, Any] = {}
        for given, part in zip(self._given, self._parts, strict=True):
            read = getattr(part, "statistics", None)
            if read is not None:
                kind = name_of_kind(given, part)
                name, number = kind, 1
                while name in parts:
                    number += 1
                    name = f"{kind}_{number}"
                parts[name] = read()
        calls, succeeded, failed, cancelled = self._counts()
        return PipelineStatistics(
            calls=calls,
            succeeded=succeeded,
            failed=failed,
            cancelled=cancelled,
            in_flight=max(0, calls - succeeded - failed - cancelled),
            call_duration=recorded(self._call_duration),
            attempt_duration=recorded(self._attempt_duration),
            parts=parts,
        )

    def _counts(self) -> tuple[int, int, int, int]:
        """Return how many calls have begun, succeeded, failed and been cancelled."""
        direct, succeeded = self._counted_directly, self._succeeded
        ended = self._failed, self._cancelled
        if direct is None:
            return self._calls, succeeded, *ended
        return self._calls + direct.begun, succeeded + direct.ended, *ended


class Direct:
    """
    The short way through parts that leave a call alone which succeeds at once.

    A retry and a fallback do nothing until a call has failed, and a rate limiter inside of them
    only asks. So the first attempt need not go through them: the limiter is asked, and the function
    called. If that fails, the call goes through the parts in the same step, as any other does,
    except that its first attempt has ended already, with that error. No part can tell the
    difference, and what a part does is written once, in the part.

    A retry with a budget counts every call, and a breaker looks before each: these have no such
    way.

    Args:
        outer: The parts that leave a call alone which succeeds, outermost first.
        limiter: What is asked before each attempt, or None.
    """

    # Invariant: every call is in `begun`, for good, since counts that fell would look like those of
    # a new process; one that has succeeded at once is in `ended` too.
    __slots__ = ("_limiter", "_outer", "_then", "acquire", "begun", "ended")

    def __init__(self, outer: Sequence[Part], limiter: RatePart | None) -> None:
        self._outer = outer
        self._then: Next = call_function if limiter is None else limiter.wrap(call_function)
        self._limiter = None if limiter is None else limiter.inner
        self.acquire: Callable[[], Awaitable[object]] | None
        self.acquire = None if limiter is None else limiter.inner.acquire
        self.begun: int = 0
        self.ended: int = 0
        for part in outer:
            if isinstance(part, RetryPart):
                part.direct = self

    def after(self, ended: list[BaseException]) -> Next:
        """Return the long way for a call whose first attempt has ended with the error in a list."""
        then = self._then

        async def attempt(call: Call) -> Any:
            if not ended:
                return await then(call)
            self._tell_refusal(ended[0], call)
            context = ended[0].__context__
            try:
                raise ended.pop()  # noqa: TRY301 - not from a variable, which would hold this frame
            except BaseException as error:
                error.__context__ = context  # in place of what a caller is handling
                raise_failure(error, call.fn)
                raise

        through: Next = attempt
        for part in reversed(self._outer):
            through = (
                part.wrap(through, ended) if isinstance(part, RetryPart) else part.wrap(through)
            )
        return through

    def _tell_refusal(self, error: BaseException, call: Call) -> None:
        """Tell it if the limiter, which then was no part of the call, has refused it."""
        limiter, trace = self._limiter, error.__traceback__
        if limiter is None or not isinstance(error, LimitError):
            return
        raised_in = trace and trace.tb_next
        if raised_in and raised_in.tb_frame.f_code is getattr(
            type(limiter).acquire, "__code__", None
        ):
            tell_refusal(error, limiter, call.fn)


def _direct_way(parts: Sequence[Part]) -> Direct | None:
    """Return the short way through these parts, or None if there is none."""
    *outer, last = parts
    limiter = last if isinstance(last, RatePart) else None
    if limiter is None:
        outer.append(last)
    for part in outer:
        if not (isinstance(part, RetryPart | Fallback) and part.is_quiet):
            return None
    return Direct(outer, limiter)
