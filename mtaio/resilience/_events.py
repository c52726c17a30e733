"""
What the parts of all pipelines have done, told in one place: to listeners, and to the log.

Promise: whoever subscribes hears all parts in the process, from any thread and event loop, in the
order of what happened in each. A listener's error is logged and changes nothing for the call.
Cost: a call that succeeds emits nothing. Where something happens that nobody wants to know, it is
one read of a global; `is_wanted` says so before an event is made.

A part writes ``if is_wanted(TimedOut): emit(TimedOut(...))``. A listener runs in the task that did
it, at once, so it must be short; `forward_to` hands the events to an emitter, whose handlers may
be async.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Final, Literal, cast, final

from mtaio._internal import checks, loops
from mtaio._internal.callables import is_async, name_of

if TYPE_CHECKING:
    from logging import Logger

    from mtaio.events import EventEmitter

__all__ = [
    "FellBack",
    "GaveUp",
    "Hedged",
    "PartEvent",
    "Refused",
    "Retried",
    "Throttled",
    "TimedOut",
    "call_listener",
    "check_listener",
    "emit",
    "forward_to",
    "is_wanted",
    "subscribe",
    "text_of",
]

_LONGEST: Final = 200
"""Characters of an error's text, or of a result, in a line of the log."""

_WARNING: Final = 30
"""The level of `logging`, which is imported when something happens."""


# ---- the events ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEvent:
    """An event of a part, in a pipeline or by itself. Each kind of event is a subclass."""

    is_logged: ClassVar[bool] = False
    """Whether events of this kind are logged at WARNING to ``mtaio.resilience``."""

    name: str | None = None
    """Name of the part, or else of its pipeline; None if neither has one."""
    function: str | None = None
    """Qualified name of the function that is called; None if there is none."""

    def _line(self) -> tuple[str, tuple[object, ...]] | None:
        """Return a message for the log and its arguments; None for no line."""
        return None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(PartEvent):
    """An attempt failed, and a `Retry` waits before the next one."""

    is_logged: ClassVar[bool] = True

    attempt: int
    """Number of the attempt that failed; 1 is the first."""
    seconds: float
    """Seconds until the next attempt."""
    error: Exception | None
    """What the attempt raised; None if ``until`` did not accept its result."""
    result: str | None = None
    """Start of the repr of the result, if ``until`` did not accept it."""

    def _line(self) -> tuple[str, tuple[object, ...]]:
        args = _who(self), self.attempt, _what(self.error, self.result), self.seconds
        return "%s: attempt %d ended with %s; the next one is in %.3g s", args


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GaveUp(PartEvent):
    """An attempt failed, and a `Retry` makes no further one."""

    is_logged: ClassVar[bool] = True

    attempt: int
    """Number of the last attempt."""
    reason: Literal["attempts", "within", "deadline", "budget"]
    """What is used up: the attempts, ``within``, the caller's time, or the `Budget`."""
    error: Exception | None
    """What the attempt raised, which the caller gets; None if ``until`` did not accept its result.
   """
    result: str | None = None
    """Start of the repr of the result, if ``until`` did not accept it."""

    def _line(self) -> tuple[str, tuple[object, ...]]:
        args = _who(self), self.attempt, _what(self.error, self.result), self.reason
        return "%s: gave up after attempt %d, which ended with %s (%s)", args


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled(PartEvent):
    """A service asked for a pause, and a `Retry` with ``throttled=`` complies."""

    is_logged: ClassVar[bool] = True

    seconds: float
    """Seconds to pause."""
    error: Exception
    """The exception with which the service asked."""

    def _line(self) -> tuple[str, tuple[object, ...]]:
        args = _who(self), _what(self.error, None), self.seconds
        return "%s: the service asked for a pause with %s; it lasts %.3g s", args


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Hedged(PartEvent):
    """A `Hedge` makes another attempt in addition to those that have not answered."""

    attempt: int
    """Number of the attempt; 2 is the first that a hedge makes."""
    seconds: float
    """Seconds since the previous attempt started."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut(PartEvent):
    """A `Timeout` interrupted a call."""

    seconds: float
    """Seconds that were allowed."""
    limit: Literal["call", "total", "first", "between"] = "call"
    """What took too long: the call, all attempts together, a stream's first item, or the next."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(PartEvent):
    """A limiter or an open breaker refused a call."""

    error: Exception
    """The refusal, a `mtaio.exceptions.LimitError`, which may say when to try again."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FellBack(PartEvent):
    """A `Fallback` replaced the failure of a call."""

    error: Exception | None
    """The failure; None if it was a result that counts as one."""


def _who(event: PartEvent) -> str:
    """Return whom an event is about, for the log."""
    names = [each for each in (event.name, event.function) if each is not None]
    return ": ".join(names) or "a call"


def _what(error: Exception | None, result: str | None) -> str:
    """Return how an attempt ended, for the log."""
    return f"the result {result}" if error is None else text_of(error)


def text_of(value: object) -> str:
    """Return the type and text of an error, or the repr of a result, shortened; never fails."""
    try:
        if isinstance(value, BaseException):
            text, kind = str(value), type(value).__name__
            text = f"{kind}: {text}" if text else kind
        else:
            import reprlib  # noqa: PLC0415 - most results are right

            text = reprlib.repr(value)
    except Exception:  # noqa: BLE001 - a class of the user's may be wrong
        text = type(value).__name__
    text = " ".join(text[: 2 * _LONGEST].split())  # one line
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


# ---- who hears them ------------------------------------------------------------------------------


class _Registration:
    """One listener; the same function may be subscribed twice."""

    __slots__ = ("listener",)

    def __init__(self, listener: Callable[[PartEvent], object]) -> None:
        self.listener = listener


_lock = threading.Lock()
_listeners: tuple[_Registration, ...] = ()  # replaced as a whole, so that it is read without a lock
_logger: Logger | None = None


def subscribe(listener: Callable[[PartEvent], object]) -> Callable[[], None]:
    """
    Call ``listener`` with every event of all parts in this process.

    The listener is called at once, in the task and thread of the event, so it must not block; for
    async handlers, see `forward_to`. Errors that it raises are logged.

    Not a checkpoint.

    Args:
        listener: A plain function that takes a `PartEvent`. Use ``match`` to tell the kinds apart.

    Returns:
        A function that ends the subscription. It may be called from any thread, and repeatedly.

    Raises:
        TypeError: ``listener`` is not callable, or is async.

    Example:
        ```python
        import anyio

        from mtaio import Pipeline, Timeout
        from mtaio.resilience import PartEvent, TimedOut, subscribe


        def listen(event: PartEvent) -> None:
            match event:
                case TimedOut(name=name, function=function):
                    print(name, function)


        async def main() -> None:
            unsubscribe = subscribe(listen)
            try:
                await Pipeline(Timeout(0.1, name="api")).run(anyio.sleep, 1)
            except TimeoutError:
                unsubscribe()


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """
    check_listener("listener", listener, PartEvent)
    return _add(_Registration(listener))


def _add(registration: _Registration) -> Callable[[], None]:
    global _listeners  # noqa: PLW0603 - this is the one place for all parts
    with _lock:
        _listeners = (*_listeners, registration)

    def unsubscribe() -> None:
        global _listeners  # noqa: PLW0603 - as above
        with _lock:
            _listeners = tuple([each for each in _listeners if each is not registration])

    return unsubscribe


def forward_to(emitter: EventEmitter) -> Callable[[], None]:
    """
    Emit every event of all parts in this process with an emitter.

    Call it inside the emitter's block, whose event loop then runs the handlers, one event after
    another, wherever an event came from. The name of an event is ``resilience.`` and its class in
    snake case, such as ``resilience.gave_up`` or ``resilience.breaker_change``; its data is the
    event object. Events are dropped while the emitter's queue is full. The subscription ends when
    the emitter's block is left.

    Not a checkpoint.

    Args:
        emitter: An `mtaio.events.EventEmitter` that has been entered.

    Returns:
        A function that ends the subscription, like that of `subscribe`.

    Raises:
        TypeError: ``emitter`` is not an emitter.
        RuntimeError: No event loop is running.

    Example:
        ```python
        import anyio

        from mtaio import EventEmitter, Retry
        from mtaio.events import Event
        from mtaio.resilience import Retried, forward_to

        emitter = EventEmitter()
        failures = iter([ConnectionError("nobody there")])


        @emitter.on("resilience.retried")
        async def note(event: Event[Retried]) -> None:
            print("attempt", event.data.attempt, "failed:", event.data.error)


        async def fetch() -> None:
            for error in failures:
                raise error


        async def main() -> None:
            async with emitter:
                forward_to(emitter)
                await Retry(3).run(fetch)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """
    if not callable(getattr(emitter, "emit_nowait", None)):
        msg = f"cannot forward to {emitter!r}: it has no emit_nowait(). Pass an EventEmitter."
        raise TypeError(msg)
    loop, context = loops.current_loop(), copy_context()  # a thread's own says that no loop runs
    loops.mark(loop, context)

    def hand_over(event: PartEvent) -> None:
        from mtaio.exceptions import EventOverflowError  # noqa: PLC0415 - few programs forward

        try:
            emitter.emit_nowait(f"resilience.{_kind(type(event))}", event)
        except EventOverflowError:
            return  # the emitter has counted it
        except RuntimeError:  # its block has been left
            unsubscribe()

    def forward(event: PartEvent) -> None:
        if loops.is_current(loop):
            hand_over(event)
        elif not loops.call_in(loop, lambda: context.run(hand_over, event)):
            unsubscribe()

    unsubscribe = _add(_Registration(forward))
    return unsubscribe


def _kind(cls: type[PartEvent]) -> str:
    """Return ``gave_up`` for `GaveUp`."""
    return "".join([f"_{each.lower()}" if each.isupper() else each for each in cls.__name__])[1:]


def is_wanted(kind: type[PartEvent]) -> bool:
    """Return whether anybody listens, or events of this kind are logged."""
    return bool(_listeners) or (kind.is_logged and _log().isEnabledFor(_WARNING))


def emit(event: PartEvent, *, is_logged: bool = True) -> None:
    """Log an event, if it is of such a kind and not logged elsewhere, and tell all listeners."""
    if is_logged and event.is_logged and (logger := _log()).isEnabledFor(_WARNING):
        line = event._line()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - a class of this module
        if line is not None:
            text, args = line
            logger.warning(text, *args, extra=_extra(event))
    for each in _listeners:
        call_listener(each.listener, event)


def _extra(event: PartEvent) -> dict[str, object]:
    """Return the fields of an event for a record of the log."""
    extra: dict[str, object] = {"mtaio_event": _kind(type(event))}
    for each in fields(event):
        value = getattr(event, each.name)
        if value is not None:
            known = isinstance(value, str | int | float)
            extra[f"mtaio_{each.name}"] = value if known else text_of(value)
    return extra


def _log() -> Logger:
    """Return the logger of all parts; logging is imported when something happens."""
    global _logger  # noqa: PLW0603 - it is always the same
    if _logger is None:
        from logging import getLogger  # noqa: PLC0415 - dear to import, and most calls succeed

        _logger = getLogger("mtaio.resilience")
    return _logger


def call_listener(listener: Callable[..., object], event: PartEvent) -> None:
    """Call a function of the user's with an event; what it raises is logged."""
    try:
        listener(event)
    except Exception:
        logger = _log()
        logger.exception("%s failed for %r", name_of(listener), event)


def check_listener(option: str, fn: object, kind: type[PartEvent]) -> None:
    """Refuse what cannot be called with an event, or would have to be awaited."""
    way_out = f"Pass a plain function of one argument, a {kind.__name__}."
    checks.callable_(option, fn, way_out=way_out)
    if is_async(cast("Callable[..., object]", fn)):
        msg = f"{option}={fn!r} is an async function and would not be awaited. {way_out}"
        raise TypeError(msg)
