"""
Spans around requests, items, loads and attempts, for a tracer that may be switched on.

Promise: this module knows nothing of OpenTelemetry: `mtaio.monitoring.traces` puts its own `Hook`
here. Whatever begins a span ends it once, also if it is cancelled, or closed by the garbage
collector. What ran in a span is the same with it and without: result, error, cancellation.
Cost: while there is no hook, whoever may begin a span compares `hook` with None. An executor's call
does so once for all of its items.
"""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from mtaio._internal.callables import name_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from mtaio._internal.asgi import Message
    from mtaio._internal.request_context import Trace

__all__ = ["Hook", "RequestSpan", "Span", "around", "begin", "call", "wait"]

Kind: TypeAlias = Literal["item", "load", "attempt"]

_NOTHING: Final[Mapping[str, str | int]] = {}


class Span(Protocol):
    """What has begun, and is the current span of its context until it ends."""

    def end(self, error: BaseException | None = None) -> None:
        """End it; ``error`` is what it raised."""
        ...


class RequestSpan(Protocol):
    """The span of a request."""

    def failed(self, error: BaseException | None) -> None:
        """Note what its handler has raised; None if it was cancelled."""
        ...

    def answered(self, route: str | None, status: int) -> None:
        """End it; perhaps in another task."""
        ...

    def leave(self) -> None:
        """Be no longer current, in the context in which it was begun."""
        ...


class Hook(Protocol):
    """What makes spans."""

    def begin(self, kind: Kind, name: str, attributes: Mapping[str, str | int]) -> Span:
        """Begin a span, as a child of the one that is current."""
        ...

    def request(self, scope: Message) -> RequestSpan:
        """Begin the span of a request, as a child of what its headers say."""
        ...

    def current(self) -> Trace | None:
        """Return which span is current."""
        ...

    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Tell the receiver of a request which span is current."""
        ...


hook: Hook | None = None
"""What makes spans; None while nobody has asked for them."""


class _NoSpan:
    """In the place of one, if nobody asks for them any more."""

    __slots__ = ()

    def end(self, error: BaseException | None = None) -> None:
        """Do nothing."""


_NO_SPAN: Final = _NoSpan()


def begin(kind: Kind, what: object, **attributes: str | int) -> Span:
    """Begin a span that is named after ``what``: a function, or a coroutine of one."""
    return _NO_SPAN if hook is None else hook.begin(kind, name_of(what), attributes or _NOTHING)


async def wait(kind: Kind, what: object, work: Awaitable[Any], **attributes: str | int) -> Any:
    """Await ``work`` in a span."""
    span = begin(kind, what, **attributes)
    try:
        result = await work
    except BaseException as error:
        span.end(error)
        raise
    span.end()
    return result


def call(kind: Kind, what: object, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a plain function in a span."""
    span = begin(kind, what)
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:
        span.end(error)
        raise
    span.end()
    return result


def around(
    kind: Kind, fn: Callable[..., Any], what: object = None, **attributes: str | int
) -> Callable[..., Any]:
    """
    Return a function that calls ``fn``, and awaits what it returns in a span.

    Args:
        kind: What the span is of.
        fn: What is called. If it returns what cannot be awaited, that is returned.
        what: What the span is named after; None for the first argument of the call.
        attributes: Of the span.
    """

    def called(*args: Any, **kwargs: Any) -> Any:
        made = fn(*args, **kwargs)
        if not isawaitable(made):
            return made
        return wait(kind, args[0] if what is None else what, made, **attributes)

    return called
