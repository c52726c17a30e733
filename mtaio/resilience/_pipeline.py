"""
One call through several parts: fallback, timeouts, retry, breaker, hedge, limits.

Promise: the parts act in the order in which they are given, outermost first, and orders that cannot
work are refused when the pipeline is made. A cancellation is not an outcome: no part counts,
retries or hedges it, and whatever was taken for the call is given back. A part is an object with
``wrap``, and nothing else is required.
Cost: one coroutine for each part, made of closures when the pipeline is made; no tasks (a hedge
starts some), nothing to close.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from functools import partial
from types import CoroutineType, MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    TypeVarTuple,
    overload,
    runtime_checkable,
)

from mtaio._internal import checks
from mtaio._internal.callables import close_unstarted, name_of, unawaitable_error
from mtaio._internal.cancellation import raise_failure, without_cancellation
from mtaio._internal.decorators import AsyncFunction, Decorator, Descriptor, decorate
from mtaio.resilience._adapters import adapter_of
from mtaio.resilience._order import check_order
from mtaio.resilience._statistics import PipelineStatistics

if TYPE_CHECKING:
    from collections.abc import Hashable

    from mtaio.resilience._retry import Retry
    from mtaio.resources import (
        ConcurrencyLimiter,
        KeyedRateLimiter,
        RateLimiter,
        ResourceLimiter,
        TimeoutManager,
    )

__all__ = ["Call", "Next", "Part", "Pipeline"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Call:
    """
    One call on its way through a pipeline. It does not change: a part may pass it on many times.

    Args:
        fn: The function to call and await.
        args: Its arguments.
        key: What the call is for, for parts that keep a state for each key; None if not given.
    """

    __slots__ = ("args", "fn", "key")

    def __init__(
        self, fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...], key: Hashable = None
    ) -> None:
        self.fn: Callable[..., Awaitable[Any]] = fn
        self.args: tuple[Any, ...] = args
        self.key: Hashable = key

    def __repr__(self) -> str:
        return f"<Call of {self.fn!r} with {len(self.args)} arguments>"


Next: TypeAlias = Callable[[Call], Awaitable[Any]]
"""What is inside a part: the next part, or the call of the function itself."""


@runtime_checkable
class Part(Protocol):
    """
    A part of a `Pipeline`, which also takes `mtaio.resources` limiters and `mtaio.core.Retry`.

    A class of your own is a part if it has `wrap`. It may also have

    - ``kind``, one of ``"fallback"``, ``"timeout"``, ``"retry"``, ``"breaker"``, ``"hedge"`` and
      ``"limiter"``: the rules for the order of parts then apply to it;
    - ``needs_timeout``, True if it judges a service by how calls end, and so needs a timeout inside
      it, which it sees as an error and not as a cancellation;
    - ``needs_key``, True if calls without a ``key`` are to be refused;
    - ``statistics()``, which returns a dataclass with numbers, and ``name``: they become part of
      the pipeline's statistics;
    - ``__str__``, which is shown when the pipeline is printed.

    One law holds for every part: a cancellation is not an outcome. It is neither counted as a
    failure nor retried, and whatever was taken for the call is given back.

    Example:
        ```python
        import anyio

        from mtaio.resilience import Call, Next, Pipeline, Timeout


        class Failures:
            def wrap(self, then: Next) -> Next:
                async def run(call: Call) -> object:
                    try:
                        return await then(call)
                    except Exception as error:  # and not BaseException, which a cancellation is
                        print(f"{call.fn.__name__}{call.args}: {error}")
                        raise

                return run


        api = Pipeline(Failures(), Timeout(0.1))


        async def main() -> None:
            try:
                await api.call(anyio.sleep, 1)
            except TimeoutError:
                print("no answer")


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    def wrap(self, then: Next) -> Next:
        """
        Return an async function that does the part's work around ``then``.

        Called once for each pipeline that the part is in. The part's state belongs to the part, so
        that one part in two pipelines is shared between them.
        """
        ...


class Pipeline:
    """
    Calls functions through parts that deal with a failing, slow or overloaded service.

    The parts are given outermost first: each wraps those after it, and the last wraps the function.
    The usual order is `Fallback`, `Timeout` with ``total=True``, `Retry`, `Breaker`, `Hedge`,
    limiters, `Timeout`. An order that cannot work is refused, and one that is seldom intended gives
    an `OrderWarning`; each says why. State belongs to the parts: a part that is in two pipelines is
    shared by them.

    May be made at module level, and used by one event loop after another, on either backend.

    Args:
        *parts: What the calls go through, outermost first: parts of this package, limiters and
            timeouts of `mtaio.resources`, or objects of your own: see `Part`.
        name: For the monitor and for printing.

    Raises:
        ValueError: There are no parts, or their order cannot work.
        TypeError: One of them is not a part.

    Example:
        ```python
        import anyio

        from mtaio.resilience import Fallback, Pipeline, Retry, Timeout

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
            print(await api.call(weather, "Kyoto"))
            print(api)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariant: a call that has started and has not ended is in _calls, and in none of the others.
    __slots__ = (
        "__weakref__",
        "_calls",
        "_cancelled",
        "_failed",
        "_given",
        "_keyed",
        "_name",
        "_parts",
        "_run",
        "_succeeded",
    )

    def __init__(
        self,
        *parts: (
            Part
            | RateLimiter
            | ConcurrencyLimiter
            | KeyedRateLimiter
            | ResourceLimiter
            | TimeoutManager
            | Retry
        ),
        name: str | None = None,
    ) -> None:
        if not parts:
            msg = "a Pipeline without parts does nothing. Pass at least one, such as Timeout(5)."
            raise ValueError(msg)
        self._given = parts
        self._parts = tuple(_as_part(each) for each in parts)
        check_order(self._parts, parts)
        pairs = zip(parts, self._parts, strict=True)
        keyed = (given for given, part in pairs if getattr(part, "needs_key", False))
        self._keyed = next(keyed, None)
        self._name = name
        run: Next = _call_function
        for part in reversed(self._parts):
            run = part.wrap(run)
        self._run = run
        self._calls = 0
        self._succeeded = 0
        self._failed = 0
        self._cancelled = 0

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        in_flight = self._calls - self._succeeded - self._failed - self._cancelled
        return f"<Pipeline{name} of {len(self._parts)} parts: {in_flight} calls in flight>"

    def __str__(self) -> str:
        """Return the parts, a line for each, outermost first and each inside the one before."""
        lines = ["Pipeline" if self._name is None else f"Pipeline {self._name!r}"]
        lines += ["  " * number + str(part) for number, part in enumerate(self._parts, 1)]
        return "\n".join(lines)

    @property
    def name(self) -> str | None:
        """The name for the monitor."""
        return self._name

    @property
    def parts(self) -> tuple[object, ...]:
        """The parts as they were given, outermost first."""
        return self._given

    async def call(
        self, fn: Callable[[*Ts], Awaitable[T]], /, *args: *Ts, key: Hashable | None = None
    ) -> T:
        """
        Call an async function through the parts, and return its result.

        A checkpoint if the call is one, or if a part has to wait. Cancelled, it leaves what the
        function leaves, and no part counts it.

        Args:
            fn: The function, not a coroutine: it may have to be called several times.
            *args: Its arguments. For keyword arguments use `functools.partial`.
            key: What the call is for, such as a host, for parts that keep a state for each key.

        Returns:
            Its result, or that of a fallback.

        Raises:
            TypeError: ``fn`` is not a function, or does not return an awaitable.
            ValueError: There is no ``key``, and a part needs one.
            Exception: The error of the last attempt, or of a part.
        """
        if not callable(fn):
            close_unstarted(fn)
            msg = (
                f"fn={fn!r} is {checks.type_of(fn)}, which cannot be called, and a call may have "
                f"to be made several times. Pass the function and its arguments: call(fetch, url)."
            )
            raise TypeError(msg)
        if key is None and self._keyed is not None:
            msg = (
                f"the call of {name_of(fn)} has no key, and {self._keyed!r} needs one. Pass "
                f"key=... to call(), or decorate with @pipeline(key=...)."
            )
            raise ValueError(msg)
        self._calls += 1
        try:
            result: T = await self._run(Call(fn, args, key))
        except Exception:
            self._failed += 1
            raise
        except BaseException as error:
            if without_cancellation(error) is None:
                self._cancelled += 1
            else:
                self._failed += 1
            raise
        self._succeeded += 1
        return result

    @overload
    def __call__(self, fn: Descriptor, /) -> Descriptor: ...

    @overload
    def __call__(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...

    @overload
    def __call__(self, /, *, key: Callable[..., Hashable] | None = ...) -> Decorator: ...

    def __call__(self, fn: Any = None, /, *, key: Callable[..., Hashable] | None = None) -> Any:
        """
        Decorate an async function or method so that each call goes through the parts.

        ``@api`` or ``@api(key=lambda user, *_: user.id)`` keep the name, signature and types.

        Args:
            fn: The function.
            key: Called with the arguments of each call, ``self`` included; returns its key.

        Returns:
            The decorated function, or a decorator that makes it.

        Raises:
            TypeError: What is decorated is not an async function, or ``key`` cannot be called.
        """
        if key is not None:
            way_out = "Pass a function that takes what the decorated one takes and returns the key."
            checks.callable_("key", key, way_out=way_out)

        def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
            call: Any = self.call
            answers = any(getattr(part, "kind", "") == "fallback" for part in self._parts)
            signature = inspect.signature(fn, follow_wrapped=False) if answers else None

            async def called(*args: P.args, **kwargs: P.kwargs) -> R:
                this = None if key is None else key(*args, **kwargs)
                each: Any = fn
                given: tuple[Any, ...] = args
                if kwargs:
                    names: dict[str, Any] = kwargs
                    if signature is not None:  # a fallback has by position what has a place
                        bound = signature.bind(*args, **kwargs)  # 2 µs
                        given, names = bound.args, bound.kwargs
                    each = partial(fn, **names) if names else fn
                result: R = await call(each, *given, key=this)
                return result

            return called

        decorator = decorate(around, name="pipeline")
        return decorator if fn is None else decorator(fn)

    def statistics(self) -> PipelineStatistics:
        """Return the counts so far, with those of each part. Not a checkpoint; from any thread."""
        parts: dict[str, Any] = {}
        for given, part in zip(self._given, self._parts, strict=True):
            read = getattr(part, "statistics", None)
            if read is not None:
                kind = _WORDS.sub("_", type(given).__name__.strip("_")).lower()
                if getattr(part, "total", False):
                    kind = f"total_{kind}"
                name, number = kind, 1
                while name in parts:
                    number += 1
                    name = f"{kind}_{number}"
                parts[name] = read()
        ended = self._succeeded, self._failed, self._cancelled
        return PipelineStatistics(
            calls=self._calls,
            succeeded=ended[0],
            failed=ended[1],
            cancelled=ended[2],
            in_flight=max(0, self._calls - sum(ended)),
            parts=MappingProxyType(parts),
        )


async def _call_function(call: Call) -> Any:
    """Call the function itself, which is what the last part wraps."""
    try:
        awaitable: Any = call.fn(*call.args)
        result: object = awaitable
        if type(result) is CoroutineType or inspect.isawaitable(result):
            return await awaitable
    except BaseException as error:
        raise_failure(error, call.fn)
        raise
    raise unawaitable_error(call.fn, result, "call")


def _as_part(given: object) -> Part:
    """Return ``given`` if it is a part, or else a part that wraps it."""
    part = adapter_of(given)
    if part is not None:
        return part
    if isinstance(given, Part) and not isinstance(given, type):
        return given
    msg = (
        f"{given!r} is {checks.type_of(given)}, which cannot be part of a pipeline. Pass parts of "
        f"mtaio.resilience, limiters of mtaio.resources, a Retry, or an object with wrap()."
    )
    raise TypeError(msg)
