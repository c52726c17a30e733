"""
From whatever the user passes as ``fn``, and a call's options, to one coroutine function.

Promise: an async function is called in the event loop, anything else in a worker thread; what
comes back is awaited if it can be, so that a partial or a lambda around an async function works.
For each attempt: slot → rate → timeout → function, so that a call that holds a token never waits
for a slot, and the timeout covers the work alone. Without options the function itself is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial, wraps
from itertools import chain, count, repeat
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, cast, get_args

import anyio

from mtaio._internal import checks
from mtaio._internal.callables import (
    call_method,
    is_async,
    is_async_def,
    is_async_generator,
    is_generator,
    name_of,
    unwrap,
)
from mtaio._internal.cancellation import without_cancellation
from mtaio._internal.rates import Rate
from mtaio._internal.signature import check_takes
from mtaio.core._errors import shorten
from mtaio.core._threads import WorkerLimiter, run_in_thread
from mtaio.core._types import OnError, Options, Policy
from mtaio.resilience import Retry
from mtaio.resources import KeyedRateLimiter, RateLimiter

if TYPE_CHECKING:
    from mtaio.core._statistics import Counters
    from mtaio.core._timeouts import Timing
    from mtaio.core._types import AllOptions

__all__ = [
    "as_limiter",
    "as_policy",
    "check_batch",
    "check_call",
    "check_errors",
    "check_fn",
    "check_progress",
    "check_shared",
    "check_until",
    "compose",
    "coroutine_maker",
    "elements_of",
    "giving_elements",
    "in_loop",
    "one_attempt",
    "read_options",
    "settle",
]

CoroutineFunction = Callable[..., Coroutine[Any, Any, Any]]


# ---- what may be called ----


def check_fn(fn: object, *, flatten: bool = False, call: str | None = None) -> None:
    """
    Refuse what cannot be called, and generator functions, which have no single result.

    To ``flatten``, a plain generator function will do. ``call`` is what to write instead of a call
    whose result was passed; None where several calls would be passed.
    """
    if is_async_def(fn):
        return
    if is_async_generator(fn):
        if flatten:
            msg = (
                f"fn={fn!r} is an async generator function, which flatten=True does not take. "
                f"Return a list from an async function, or write a plain generator."
            )
        else:
            msg = (
                f"fn={fn!r} is an async generator function: it has no single result to wait for. "
                f"Call it and pass what it yields as the source."
            )
        raise TypeError(msg)
    if is_generator(fn) and not flatten:
        msg = (
            f"fn={fn!r} is a generator function: it has no single result to wait for. Call it and "
            f"pass what it yields as the source. For what it yields for each item, use "
            f"stream(fn, items, flatten=True)."
        )
        raise TypeError(msg)
    if not callable(fn):
        way_out = "Pass an async function, or a plain one to run in a worker thread."
        if call is not None:
            if inspect.iscoroutine(fn):
                way_out = f"Pass the function itself and its arguments: {call}."
        elif inspect.iscoroutine(fn) or hasattr(fn, "__iter__"):
            way_out += " Coroutines go to gather(*coroutines)."
        checks.callable_("fn", fn, way_out=way_out)


def check_call(number: int, call: object) -> None:
    """Refuse what can be neither awaited nor called without arguments."""
    if type(call) is CoroutineType or is_async_def(call) or inspect.isawaitable(call):
        return
    if not callable(call):
        msg = (
            f"call {number} is {call!r}, {checks.type_of(call)}, which can be neither awaited nor "
            f"called. Pass coroutines, other awaitables, or functions without arguments; a list of "
            f"them as *calls."
        )
        raise TypeError(msg)
    check_fn(call)


_POLICIES: Final = frozenset(get_args(Policy))


def check_errors(errors: str) -> None:
    """Refuse an ``errors`` that is none of the policies."""
    if errors not in _POLICIES:
        msg = (
            f'errors={errors!r} is unknown. Pass "raise" (stop at the first), "collect" (run all, '
            f'then raise them together), "return" (put them among the results); for_each() and '
            f"stream() also take a function, which is called with each item and its error."
        )
        raise ValueError(msg)


def check_handler(method: str, errors: OnError[Any]) -> None:
    """Refuse a function as ``errors`` where results would lack, or that cannot be called so."""
    if method == "map":
        msg = (
            f"errors={errors!r} would leave map() without a result for items that fail. Pass "
            f'"return" to have the error there, or use for_each() or stream().'
        )
        raise TypeError(msg)
    way_out = "Pass a plain function of two arguments, (item, error)."
    if is_async(errors):
        msg = f"errors={errors!r} is an async function and would not be awaited. {way_out}"
        raise TypeError(msg)
    check_takes("errors", errors, "item", "error", way_out=way_out)


def check_progress(callback: object) -> None:
    """Refuse an ``on_progress`` that cannot be called so, or that would have to be awaited."""
    way_out = "Pass a plain function of two arguments, (done, total), or None."
    checks.callable_("on_progress", callback, way_out=way_out)
    report = cast("Callable[..., Any]", callback)
    if is_async(report):
        msg = f"on_progress={callback!r} is an async function and would not be awaited. {way_out}"
        raise TypeError(msg)
    check_takes("on_progress", report, "done", "total", way_out=way_out)


def check_until(until: object) -> None:
    """Refuse an ``until`` that cannot be called and awaited."""
    way_out = "Pass an async function without arguments, such as the wait of an anyio.Event."
    checks.callable_("until", until, way_out=way_out)
    ask = cast("Callable[..., Any]", until)
    if not is_async(ask):
        msg = f"until={until!r} is not an async function, and would block the event loop. {way_out}"
        raise TypeError(msg)
    check_takes("until", ask, way_out=way_out)


def check_batch(batch: int | None, within: float | None, sources: int) -> None:
    """Refuse options of batches, one of which is given, that make no sense alone or together."""
    if batch is None:
        msg = (
            f"within={within!r} is how long a batch waits for its items, and batch= is not given. "
            f"Pass batch= too, or leave it out."
        )
        raise ValueError(msg)
    checks.count("batch", batch, way_out="Pass how many items make a batch, or None.")
    checks.timeout("within", within)
    if sources > 1:
        msg = (
            f"batch={batch!r} makes lists of the items of one source, and there are {sources}. "
            f"Pass one that gives tuples, such as zip(a, b)."
        )
        raise ValueError(msg)


_OWN: Final[Mapping[str, tuple[str, ...]]] = {
    "map": ("ordered",),
    "for_each": (),
    "stream": ("ordered", "max_pending", "outcomes", "flatten"),
}
"""The options that only some of the methods have."""


def read_options(method: str, options: AllOptions, errors: Policy | OnError[Any]) -> Options:
    """
    Return the options of one call, as they were passed.

    Raises:
        TypeError: There is no option of that name, or ``errors`` is a function that will not do.
        ValueError: ``errors`` is none of the policies.
    """
    for name in options:
        if name not in Options.__slots__:
            others = [f"{other}()" for other, own in _OWN.items() if name in own]
            hint = f" {name}= is an option of {' and '.join(others)}." if others else ""
            msg = (
                f"TaskExecutor.{method}() got an unexpected keyword argument {name!r}. Pass one of "
                f"{', '.join((*Options.__slots__, *_OWN[method]))}.{hint}"
            )
            raise TypeError(msg)
    if callable(errors):
        check_handler(method, errors)
    else:
        check_errors(errors)
    return Options(errors=errors, **options)


def as_limiter(rate: float | Rate | Sequence[float | Rate] | None) -> Rate | None:
    """Return what ``rate=`` means: a number is items per second, evenly spaced."""
    if isinstance(rate, list | tuple):
        from mtaio.resources import Quota  # noqa: PLC0415 - few calls have several

        return Quota.together(cast("Sequence[float | Rate]", rate))
    if rate is None or (isinstance(rate, Rate) and not isinstance(rate, (KeyedRateLimiter, type))):
        return rate
    way_out = "Pass items per second, or a mtaio.RateLimiter to share or to allow bursts."
    if checks.number("rate", rate, way_out=way_out) <= 0:
        msg = f"rate={rate!r} would never start an item. {way_out}"
        raise ValueError(msg)
    return RateLimiter(cast("float", rate))


def check_shared(rate: object) -> None:
    """Refuse a number as the ``rate`` of one call, which would limit nothing."""
    numbers = [each for each in _each_rate(rate) if isinstance(each, int | float)]
    if numbers:
        msg = (
            f"rate={numbers[0]!r} would count for this one call alone, and limit nothing. Pass a "
            f"mtaio.RateLimiter that the calls share, or give all items to map() and its relatives."
        )
        raise TypeError(msg)


def _each_rate(rate: object) -> Sequence[object]:
    """Return the rates of which each one is to be kept."""
    return cast("Sequence[object]", rate) if isinstance(rate, list | tuple) else [rate]


def as_policy(retry: int | Retry | None, *, name: str = "retry") -> Retry | None:
    """Return the policy that the argument ``name`` means; None for a single attempt."""
    if retry is None:
        return None
    if not isinstance(retry, Retry):
        checks.count(name, retry, way_out="Pass the number of attempts, or a mtaio.Retry.")
        retry = Retry(attempts=retry)
    single = retry.attempts == 1 and retry.throttled is None
    return None if single else retry


# ---- what is called ----


async def settle(result: Awaitable[Any]) -> Any:
    """Await ``result``; this makes a coroutine of any awaitable."""
    return await result


def giving_elements(fn: Callable[..., Any], *, is_pickled: bool) -> Callable[..., Any]:
    """
    Return ``fn`` with its result made into a sequence, by the same call and where it is made.

    So a generator runs in the item, with its errors and its time, and not in who takes results.
    """
    name = name_of(fn)
    if is_async(fn):

        @wraps(fn)
        async def wait(*args: Any) -> Any:
            return elements_of(await fn(*args), name)

        return wait
    if is_pickled:
        return partial(_call_for_elements, fn, name)

    @wraps(fn)
    def call(*args: Any) -> Any:
        return _call_for_elements(fn, name, *args)

    return call


def _call_for_elements(fn: Callable[..., Any], name: str, *args: Any) -> Any:
    result = fn(*args)
    if inspect.isawaitable(result):
        return _await_elements(result, name)
    return elements_of(result, name)


async def _await_elements(result: Awaitable[Any], name: str) -> Any:
    return elements_of(await result, name)


def elements_of(result: object, what: str) -> Any:
    """Return a list, tuple or range that ``what`` returned as it is, another iterable as a list."""
    if type(result) in {list, tuple, range}:
        return result
    elements = None
    with suppress(TypeError):
        elements = None if isinstance(result, checks.ONE_THING) else iter(cast("Any", result))
    if elements is None:
        msg = (
            f"{what} returned {shorten(result)}, {checks.type_of(result)}, and flatten=True "
            f"is for functions that return several results. Return a list, which may be empty."
        )
        raise TypeError(msg)
    return list(elements)


def in_loop(fn: Callable[..., Any]) -> CoroutineFunction:
    """Return a function that always returns a coroutine, for an ``fn`` that `is_async`."""
    inner = unwrap(fn)
    code = getattr(inner, "__code__", None) or getattr(call_method(inner), "__code__", None)
    if code is not None and code.co_flags & inspect.CO_COROUTINE:
        return fn

    async def call(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return call


def coroutine_maker(
    timing: Timing, threads: WorkerLimiter
) -> Callable[[Any], Coroutine[Any, Any, Any]]:
    """Return what makes a coroutine of one of the calls that `check_call` lets pass."""
    settled = one_attempt(settle, timing, threads)

    async def attempt(call: Any) -> Any:
        if inspect.isawaitable(call):
            return await settled(call)
        return await one_attempt(call, timing, threads)()

    def make(call: Any) -> Coroutine[Any, Any, Any]:
        if timing.timeout is None:
            if type(call) is CoroutineType:
                return cast("Coroutine[Any, Any, Any]", call)
            if is_async_def(call):
                coroutine: Coroutine[Any, Any, Any] = call()
                return coroutine
        return attempt(call)

    return make


def compose(
    fn: Callable[..., Any],
    *,
    timing: Timing,
    rate: Rate | None,
    retry: Retry | None,
    threads: WorkerLimiter,
    counters: Counters,
    taken: bool,
    watched: bool = True,
) -> tuple[CoroutineFunction, Timing | None]:
    """
    Return what to call for each item, and the timeout if it is left to the pool's watch.

    ``taken`` says that each item comes from a source, see `_attempt`, and ``watched`` whether the
    timeout may be left to the watch.

    The pool's watch is ten times cheaper than a scope of its own for each item, but it counts
    from the start of the item: with retries, a rate or a wait for a thread that is too early. Nor
    can it be in time for a timeout of 0, which cancels at the first checkpoint.
    """
    if is_async(fn) and rate is None and retry is None:
        if timing.timeout is None:
            return in_loop(fn), None
        if watched and timing.timeout != 0:
            return in_loop(fn), timing
    first = _attempt(fn, timing, threads, rate, taken=taken)
    if retry is None:
        return in_loop(partial(first, _nothing)), None
    at_once = one_attempt(fn, timing, threads) if rate is None and is_async(fn) else None
    later = _attempt(fn, timing, threads, rate)

    def count_retry() -> None:
        counters.retried += 1

    if at_once is not None:
        place = retry._placed((), retried=count_retry)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - what its `run` does for users
        return retry._around(at_once, place, fn), None  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as above
    place = retry._placed([rate])  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as above

    def call(*args: Any, **kwargs: Any) -> Any:
        attempts, number = chain((first,), repeat(later)), count()

        def begins() -> None:  # an attempt that waits its turn may be cancelled before it is made
            counters.retried += next(number) > 0

        def attempt() -> Awaitable[Any]:
            return next(attempts)(begins, *args, **kwargs)

        return retry._around(attempt, place, fn)()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as above

    return call, None


def one_attempt(
    fn: Callable[..., Any], timing: Timing, threads: WorkerLimiter
) -> Callable[..., Awaitable[Any]]:
    """Return what calls ``fn`` once, within its timeout; a plain function in a worker thread."""
    if is_async(fn) and timing.timeout is None:
        return fn
    return partial(_attempt(fn, timing, threads), _nothing)


def _attempt(
    fn: Callable[..., Any],
    timing: Timing,
    threads: WorkerLimiter,
    rate: Rate | None = None,
    *,
    taken: bool = False,
) -> Callable[..., Awaitable[Any]]:
    """
    Return what calls ``fn`` once, and before that ``begins``, when it has waited its turn.

    With ``taken`` an async function is called even if the task is cancelled as it waits for a
    token: the item has been taken from its source, and cancelled at its first checkpoint ``fn`` can
    give it back. A plain function would do its work instead.
    """
    plain = not is_async(fn)

    async def attempt(begins: Callable[[], object], /, *args: Any, **kwargs: Any) -> Any:
        if rate is not None:
            try:
                await rate.acquire()
            except BaseException as error:
                if taken and not plain and without_cancellation(error) is None:
                    await _cancelled_at_once(fn(*args, **kwargs))
                raise
        if plain:
            call = partial(fn, *args, **kwargs)
            return await run_in_thread(threads, call, timing, on_purpose=False, begins=begins)
        begins()
        with timing.limit(args[0] if fn is settle else fn):
            return await fn(*args, **kwargs)

    return attempt


async def _cancelled_at_once(call: Awaitable[Any]) -> None:
    """Await ``call``, which is cancelled at its first checkpoint."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await call


def _nothing() -> None:
    pass
