"""
What the parts of a pipeline have in common, and how each of them calls a function without one.

Promise: a cancellation is not an outcome, nor is a refusal by something inside. ``Timeout(1).run``
and ``@Timeout(1)`` do what a pipeline of that part alone does: the state is the part's, as in any
pipeline, and a decorated function keeps its name, signature and types.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import CoroutineType
from typing import (
    TYPE_CHECKING,
    Any,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeGuard,
    TypeVar,
    TypeVarTuple,
    cast,
    final,
    overload,
    runtime_checkable,
)

from mtaio._internal import checks
from mtaio._internal.callables import close_unstarted, is_async, name_of, unawaitable_error
from mtaio._internal.cancellation import is_cancelled, raise_failure
from mtaio._internal.decorators import AsyncFunction, Descriptor, decorate
from mtaio._internal.durations import timed
from mtaio._internal.filters import accepts
from mtaio.exceptions import LimitError
from mtaio.resilience._stream import CallStream, open_call, stream_through

if TYPE_CHECKING:
    from mtaio._internal.histogram import Histogram

__all__ = [
    "Call",
    "Next",
    "Part",
    "StandalonePart",
    "StreamDecorator",
    "Streams",
    "call_function",
    "call_maker",
    "check_key",
    "decorate_through",
    "is_outcome",
    "key_of",
    "keyless_error",
    "stream_maker",
    "uncallable_error",
]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def is_outcome(error: BaseException) -> TypeGuard[Exception]:
    """Return whether a call has ended with ``error``, and was not cancelled or refused."""
    # What a part refuses says nothing about what is called; what a cancelled call raises may be
    # what its function made of the cancellation.
    return isinstance(error, Exception) and not accepts(LimitError, error) and not is_cancelled()


@final
class Call:
    """
    One call on its way through a pipeline. It is immutable, and a part may pass it on repeatedly.

    Args:
        fn: The function to call and await.
        args: Positional arguments for ``fn``.
        key: The key of the call, such as a host; None if there is none.
    """

    # _attempt_duration: where its pipeline records how long attempts take; None if it does not.
    __slots__ = ("_attempt_duration", "args", "fn", "key")

    def __init__(
        self, fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...], *, key: Hashable = None
    ) -> None:
        self.fn: Callable[..., Awaitable[Any]] = fn
        self.args: tuple[Any, ...] = args
        self.key: Hashable = key
        self._attempt_duration: Histogram | None = None

    def __repr__(self) -> str:
        return f"<Call of {self.fn!r} with {len(self.args)} arguments>"


Streams: TypeAlias = (
    AsyncIterable[T]
    | AbstractAsyncContextManager[AsyncIterable[T]]
    | Awaitable[AsyncIterable[T] | AbstractAsyncContextManager[AsyncIterable[T]]]
)
"""What a function returns that makes a stream of ``T``."""

Next: TypeAlias = Callable[[Call], Awaitable[Any]]
"""What is inside a part: the next part, or the call of the function itself."""


@runtime_checkable
class Part(Protocol):
    """
    The protocol of a part of a `Pipeline`.

    A class of your own is a part if it has the method `wrap`. It may also have

    - ``kind``, one of ``"fallback"``, ``"timeout"``, ``"retry"``, ``"breaker"``, ``"hedge"`` and
      ``"limiter"``, so that the rules for the order of parts apply to it;
    - ``needs_timeout``, True if it judges a service by how calls end, and so needs a timeout inside
      it, which it sees as an error and not as a cancellation;
    - ``wrap_stream``, which does for streams what `wrap` does for calls: ``then`` returns an
      `OpenStream`, and its method `OpenStream.on_end` registers a function to call at the stream's
      end. Without ``wrap_stream``, a part treats the opening of a stream and its first item as a
      call;
    - ``needs_key``, True if calls without a ``key`` are to be refused;
    - ``idle``, False while a `Keyed` must not forget it because it limits somebody;
    - ``statistics()``, which returns a dataclass with numbers, and ``name``, both of which go into
      the pipeline's statistics;
    - ``__str__``, which is used when the pipeline is printed.

    A cancellation is not an outcome for any part: it is neither counted as a failure nor retried,
    and whatever was taken for the call is given back.

    Example:
        ```python
        import anyio

        from mtaio import Pipeline, Timeout
        from mtaio.resilience import Call
        from mtaio.types import Next


        class Failures:
            def wrap(self, then: Next) -> Next:
                async def run(call: Call) -> object:
                    try:
                        return await then(call)
                    except Exception as error:  # but not a cancellation
                        print(f"{call.fn.__name__}{call.args}: {error}")
                        raise

                return run


        api = Pipeline(Failures(), Timeout(0.1))


        async def main() -> None:
            try:
                await api.run(anyio.sleep, 1)
            except TimeoutError:
                print("no answer")


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ()

    def wrap(self, then: Next) -> Next:
        """
        Return an async function that does the part's work around ``then``.

        It is called once for each pipeline that contains the part. State belongs to the part, so a
        part in two pipelines is shared between them.
        """
        ...


async def call_function(call: Call) -> Any:
    """Call the function itself, which is what the last part wraps."""
    try:
        awaitable: Any = call.fn(*call.args)
        result: object = awaitable
        if type(result) is CoroutineType or inspect.isawaitable(result):
            durations = call._attempt_duration  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of one module
            if durations is not None:
                return await timed(durations, lambda: awaitable)
            return await awaitable
    except BaseException as error:
        raise_failure(error, call.fn)
        raise
    raise unawaitable_error(call.fn, result, "run")


class StreamDecorator(Protocol):
    """Takes an async function and returns one of the same signature; a stream becomes a block."""

    @overload
    def __call__(self, fn: Descriptor, /) -> Descriptor: ...
    @overload
    def __call__(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, AsyncIterable[T]], /) -> Callable[P, CallStream[T]]: ...


def uncallable_error(fn: object) -> TypeError:
    """Return the error for an ``fn`` that cannot be called."""
    close_unstarted(fn)
    return TypeError(
        f"fn={fn!r} is {checks.type_of(fn)}, which cannot be called, and a call may have to be "
        f"made several times. Pass the function and its arguments: run(fetch, url)."
    )


def keyless_error(fn: object, part: object) -> ValueError:
    """Return the error for a call without a key, through a part that needs one."""
    return ValueError(
        f"the call of {name_of(fn)} has no key, and {part!r} needs one. Pass key=... to run(), or "
        f"a function that finds it to the decorator or the pipeline."
    )


def check_key(key: object) -> None:
    """Refuse what cannot find the key of a call, or would have to be awaited for it."""
    way_out = (
        "Pass a plain function that takes the arguments of the decorated one and returns the key."
    )
    checks.callable_("key", key, way_out=way_out)
    if is_async(cast("Callable[..., object]", key)):
        msg = f"key={key!r} is an async function, and a key is found without waiting. {way_out}"
        raise TypeError(msg)


def key_of(key: Callable[..., Hashable], fn: object, args: tuple[Any, ...]) -> Hashable:
    """Return what ``key`` finds in the arguments of a call, those of a partial included."""
    kwargs: dict[str, Any] = {}
    while isinstance(fn, partial):
        args = *fn.args, *args
        kwargs = {**fn.keywords, **kwargs}
        fn = cast("object", fn.func)
    return key(*args, **kwargs)


@overload
def decorate_through(self: object, fn: Descriptor, /) -> Descriptor: ...
@overload
def decorate_through(self: object, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...
@overload
def decorate_through(
    self: object, fn: Callable[P, AsyncIterable[T]], /
) -> Callable[P, CallStream[T]]: ...
@overload
def decorate_through(
    self: object, /, *, key: Callable[..., Hashable] | None = ...
) -> StreamDecorator: ...
def decorate_through(
    self: Any, fn: Any = None, /, *, key: Callable[..., Hashable] | None = None
) -> Any:
    """
    Decorate an async function or method so that each call goes through this pipeline or part.

    ``@api`` or ``@api(key=lambda user, *_: user.id)`` keep the name, signature and types. Of an
    async generator function they make one that returns a `CallStream`, the block that ``stream``
    returns: ``async with tokens(prompt) as items:``.

    Args:
        self: The pipeline or part: this is its method ``__call__``.
        fn: The function.
        key: Called with the arguments of each call, ``self`` included; returns its key.

    Returns:
        The decorated function, or a decorator that makes it.

    Raises:
        TypeError: What is decorated is not an async function, or ``key`` cannot be called.
    """
    if key is not None:
        check_key(key)

    def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
        called: AsyncFunction[P, R] = self._around(fn, key)
        return called

    def stream(fn: Callable[..., Any]) -> Callable[..., CallStream[Any]]:
        made: Callable[..., CallStream[Any]] = self._around_stream(fn, key)
        return made

    decorator = decorate(around, name=type(self).__name__, stream=stream)
    return decorator if fn is None else decorator(fn)


def stream_maker(
    make: Callable[[tuple[Any, ...], dict[str, Any]], Call], through: Next
) -> Callable[..., CallStream[Any]]:
    """Return what an async generator function becomes when it is decorated."""

    def streamed(*args: Any, **kwargs: Any) -> CallStream[Any]:
        return CallStream(through, make(args, kwargs))

    return streamed


def call_maker(
    fn: Callable[..., Awaitable[Any]],
    parts: tuple[object, ...],
    key: Callable[..., Hashable] | None,
    keyed: object,
) -> Callable[[tuple[Any, ...], dict[str, Any]], Call]:
    """
    Return what makes a `Call` of a decorated function from its arguments.

    Args:
        fn: The function.
        parts: What it is called through.
        key: Returns the key of a call, from its arguments.
        keyed: The part that needs one, or None.
    """
    # What a `Keyed` will make is not known yet: it may be a fallback.
    answers = any(getattr(part, "kind", "") in {"fallback", None} for part in parts)
    signature = inspect.signature(fn, follow_wrapped=False) if answers else None

    def make(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        each, given, names = fn, args, kwargs
        if kwargs:
            if signature is not None:  # a fallback has by position what has a place
                bound = signature.bind(*args, **kwargs)  # 2 µs
                given, names = bound.args, bound.kwargs
            each = partial(fn, **names) if names else fn
        found = None if key is None else key(*args, **kwargs)
        if found is None and keyed is not None:
            raise keyless_error(each, keyed)
        return Call(each, given, key=found)

    return make


class StandalonePart(Part):
    """
    A part that can also call functions by itself, like a pipeline with no other part.

    All parts of this package derive from it. A subclass with a method `wrap` gets `run`, `stream`
    and the use as a decorator.

    Example:
        ```python
        import anyio

        from mtaio.resilience import Call, StandalonePart
        from mtaio.types import Next


        class Traced(StandalonePart):
            def wrap(self, then: Next) -> Next:
                async def run(call: Call) -> object:
                    print("calls", call.fn.__name__)
                    return await then(call)

                return run


        @Traced()
        async def fetch() -> None: ...


        async def main() -> None:
            await fetch()
            await Traced().run(anyio.sleep, 0.1)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ()

    async def run(
        self, fn: Callable[[*Ts], Awaitable[T]], /, *args: *Ts, key: Hashable = None
    ) -> T:
        """
        Call an async function through this part alone and return its result.

        See `Pipeline.run` for errors and checkpoints.

        Args:
            fn: The function, not a coroutine, since it may have to be called several times.
            *args: Positional arguments for ``fn``. For keyword arguments, use `functools.partial`.
            key: The key of the call, such as a host, for parts that keep a state for each key.

        Returns:
            The result of ``fn``, or of a fallback.

        Raises:
            TypeError: ``fn`` is not a function, or does not return an awaitable.
            ValueError: The part needs a ``key``, and it is missing.
            Exception: The error of ``fn``, or of the part.
        """
        if not callable(fn):
            raise uncallable_error(fn)
        if key is None and getattr(self, "needs_key", False):
            raise keyless_error(fn, self)
        call = Call(fn, args) if key is None else Call(fn, args, key=key)
        result: T = await self.wrap(call_function)(call)
        return result

    def stream(
        self, fn: Callable[[*Ts], Streams[T]], /, *args: *Ts, key: Hashable = None
    ) -> CallStream[T]:
        """
        Return a block that opens a stream through this part alone.

        See `Pipeline.stream` for errors and checkpoints.

        Args:
            fn: An async generator function, or what else `Pipeline.stream` takes.
            *args: Positional arguments for ``fn``. For keyword arguments, use `functools.partial`.
            key: The key of the call, such as a host, for parts that keep a state for each key.

        Returns:
            A block to enter with ``async with``, once.

        Raises:
            TypeError: ``fn`` is not a function.
            ValueError: The part needs a ``key``, and it is missing.
        """
        if not callable(fn):
            raise uncallable_error(fn)
        if key is None and getattr(self, "needs_key", False):
            raise keyless_error(fn, self)
        call = Call(cast("Callable[..., Awaitable[Any]]", fn), args, key=key)
        return CallStream(stream_through(self, open_call), call)

    def _around_stream(
        self, fn: Callable[..., Any], key: Callable[..., Hashable] | None
    ) -> Callable[..., CallStream[Any]]:
        """Return an async generator function as it is when it is decorated."""
        keyed = self if getattr(self, "needs_key", False) else None
        make = call_maker(fn, (self,), key, keyed)
        return stream_maker(make, stream_through(self, open_call))

    def _around(
        self, fn: Callable[..., Awaitable[Any]], key: Callable[..., Hashable] | None
    ) -> AsyncFunction[..., Any]:
        """Return ``fn`` as it is when it is decorated."""
        keyed = self if getattr(self, "needs_key", False) else None
        make = call_maker(fn, (self,), key, keyed)
        through = self.wrap(call_function)

        async def called(*args: Any, **kwargs: Any) -> Any:
            return await through(make(args, kwargs))

        return called

    __call__ = decorate_through
