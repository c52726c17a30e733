"""
Streams through a pipeline: what is opened like a call, and iterated by the caller.

Promise: opening a stream and getting its first item is the call that the parts see, and may retry,
hedge or answer. What the stream does after that reaches the consumer bare. Every stream that was
opened for the call and is not handed out has been closed before the first item is; the one that is
handed out is closed when the block ends, however it does, and then the parts see the outcome.
Cost: one coroutine for each item, and a cancel scope if its time is limited. No task, no queue.

How a part acts on a stream. `Part.wrap` is for calls. Without anything else a part acts on the
opening alone: what is inside returns an `OpenStream` as the result. A part whose work lasts until
the stream ends has ``wrap_stream`` as well, which may have the `OpenStream` call it then.

The block holds no cancel scope and no task group, so it may be used in an async generator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, final

from mtaio._internal import loops
from mtaio._internal.block import entered_before_error
from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import raise_failure, without_cancellation
from mtaio._internal.durations import timed
from mtaio._internal.item_limits import ItemLimits, Whole
from mtaio._internal.sources import END, Source, interrupted_error, scope_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from mtaio._internal.deadlines import Alarm
    from mtaio.resilience._part import Call, Next

__all__ = ["CallStream", "OpenStream", "Opening", "open_call", "opening_of", "stream_through"]

T = TypeVar("T")


@final
class OpenStream:
    """
    A stream that was opened and has its first item, on its way out through the parts.

    For streams, this is what a part gets from ``await then(call)``. A part that does not pass it on
    must close it.
    """

    __slots__ = ("_opening",)

    def __init__(self, opening: Opening) -> None:
        self._opening = opening

    def __repr__(self) -> str:
        return f"<OpenStream of {self._opening.source.name}>"

    @property
    def first(self) -> Any:
        """The first item; None if there is none, or the consumer has received it."""
        first = self._opening.first
        return None if first is END else first

    @property
    def last(self) -> Any:
        """The latest item so far, if `keep_last` was called; otherwise None."""
        return self._opening.last

    @property
    def is_empty(self) -> bool:
        """Whether the stream has no items at all."""
        return self._opening.first is END

    @property
    def is_exhausted(self) -> bool:
        """Whether the stream was read to its end."""
        return self._opening.is_exhausted

    def keep_last(self) -> None:
        """Keep the latest item in `last`, where services often report what was used."""
        self._opening.keep_last()

    def on_end(self, fn: Callable[[BaseException | None], object]) -> None:
        """
        Call ``fn`` when the stream ends, once; the functions of inner parts are called before.

        It is called with the error with which the stream failed, the cancellation that ended its
        block, or None. A stream has not failed if its consumer leaves early or another stream won a
        hedge.

        Args:
            fn: A plain function, which should not raise.
        """
        self._opening.ends.append(fn)

    async def aclose(self) -> None:
        """
        Close the stream instead of passing it on.

        This also works in a task that is being cancelled: closing is shielded for five seconds.
        Errors are logged.
        """
        try:
            await self._opening.end(None)
        except Exception as error:  # noqa: BLE001 - it is logged
            _log_closing(self._opening.source, error)


def opening_of(stream: OpenStream) -> Opening:
    """Return what parts of this package see of a stream."""
    return stream._opening  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module


@final
class Opening:
    """
    What an `OpenStream` consists of.

    Args:
        source: The stream itself, opened.
        first: Its first item, or `END`.

    Attributes:
        source: See above.
        first: The first item, until the consumer gets it.
        last: The latest item, if `keep_last` was called.
        ends: What is called at the end; once, then there is nothing.
        is_exhausted: Whether it has come to its end by itself.
    """

    __slots__ = ("_limits", "_next", "ends", "first", "is_exhausted", "last", "source")

    def __init__(self, source: Source, first: Any) -> None:
        self.source: Source = source
        self.first: Any = first
        self.last: Any = None
        self.ends: list[Callable[[BaseException | None], object]] = []
        self.is_exhausted: bool = first is END
        self._limits: ItemLimits | None = None
        self._next: Callable[[], Awaitable[Any]] = source.next

    def keep_last(self) -> None:
        """Note each item that comes."""
        self.last = None if self.first is END else self.first
        self._next = self._remembered

    async def _remembered(self) -> Any:
        self.last = item = await self.source.next()
        return item

    async def checked(self, part: object) -> None:
        """Refuse what prevents a part from leaving the scope that it is in; close it then."""
        if self.source.is_scoped:
            error = scope_error(self.source.name, str(part))
            await self.end(error, error)
            raise error

    def limit_whole(self, whole: Whole) -> None:
        """Let no item be waited for when the time for the whole is up."""
        self._limited().limit_whole(whole)

    def limit_each(self, seconds: float, alarm: Alarm, error: Callable[[], BaseException]) -> None:
        """Let no item but the first take more seconds."""
        self._limited().limit_each(seconds, alarm, error)

    def _limited(self) -> ItemLimits:
        if self._limits is None:
            source = self.source
            self._limits = ItemLimits(source.next, source.name, source.close_scoped)
        return self._limits

    def hand_out(self) -> Callable[[], Awaitable[Any]]:
        """Return what makes the items after the first, for the consumer."""
        if self._limits is None:
            return self._next
        self._limits.next_item = self._next
        return self._limits.next

    async def end(self, outcome: BaseException | None, body: BaseException | None = None) -> None:
        """
        Close the stream, then tell the parts.

        Args:
            outcome: What the parts are told.
            body: What the block of the consumer ended with.
        """
        if self._limits is not None:
            self._limits.release()
        try:
            await self.source.close(body)
        except BaseException as failure:
            if outcome is None:
                outcome = failure
            if body is None or not isinstance(failure, Exception):
                raise
            _log_closing(self.source, failure)  # what the block ended with goes first
        finally:
            self.finish(outcome)

    def finish(self, outcome: BaseException | None) -> None:
        """Tell the parts, without closing: where no event loop runs nothing can be awaited."""
        ends, self.ends = self.ends, []
        _call_all(ends, outcome)


def _call_all(
    ends: list[Callable[[BaseException | None], object]], outcome: BaseException | None
) -> None:
    """Call each, even if those before it raise."""
    for number, end in enumerate(ends, 1):
        try:
            end(outcome)
        except BaseException:
            _call_all(ends[number:], outcome)
            raise


def _log_closing(source: Source, error: Exception) -> None:
    from logging import getLogger  # noqa: PLC0415 - closing seldom fails

    logger = getLogger("mtaio.resilience")
    logger.error("closing the stream of %s failed", source.name, exc_info=error)


async def open_call(call: Call) -> OpenStream:
    """Call the function itself, open what it returns and wait for the first item."""
    fn: Callable[..., Any] = call.fn
    opened = _opened(lambda: fn(*call.args), call, name_of(fn))
    durations = call._attempt_duration  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of one package
    return await (opened if durations is None else timed(durations, lambda: opened))


async def _opened(make: Callable[[], Any], call: Call, name: str) -> OpenStream:
    """Open what ``make`` returns; if that fails, close it again."""
    source = Source(name)
    try:
        first = await source.start(make())
    except BaseException as error:
        try:
            await source.close(error)
        except Exception as failure:  # noqa: BLE001 - it is logged
            _log_closing(source, failure)
        raise_failure(error, call.fn)
        raise
    return OpenStream(Opening(source, first))


def stream_through(part: Any, then: Next) -> Next:
    """Return what `Part.wrap` returns, for streams."""
    wrap_stream = getattr(part, "wrap_stream", None)
    if wrap_stream is not None:
        through: Next = wrap_stream(then)
        return through
    inner = part.wrap(then)

    async def run(call: Call) -> OpenStream:
        result: object = await inner(call)
        if isinstance(result, OpenStream):
            return result
        # A fallback has answered, or another part that makes up a result.
        name = f"{part}, which answered for {name_of(call.fn)},"
        return await _opened(lambda: result, call, name)

    return run


@final
class CallStream(Generic[T]):
    """
    A block around a stream; returned by ``stream`` of a `Pipeline` or a part.

    Enter it with ``async with``, which opens the stream through the parts and waits for its first
    item; then iterate over it once, in one task at a time. Taking an item is a checkpoint if the
    stream makes it one. Leaving the block closes the stream, even if it has more items; closing is
    shielded from cancellation for five seconds.

    The block holds neither a cancel scope nor a task group, so it may be used in an async
    generator.

    Example:
        ```python
        import anyio

        from mtaio import Pipeline, Retry, Timeout

        api = Pipeline(Retry(3), Timeout(30, first=1.0, between=0.5))


        async def tokens(prompt: str):
            for word in prompt.split():
                await anyio.sleep(0.1)
                yield word


        async def main() -> None:
            async with api.stream(tokens, "how are you") as items:
                async for item in items:
                    print(item)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - _opened is there from entering on; _through is None from then on, too;
    # - _first is the item that came with the opening, until it is handed out;
    # - _next makes the next one, or says why there is none;
    # - _error is what the stream has failed with.
    __slots__ = (
        "__weakref__",
        "_call",
        "_error",
        "_first",
        "_loop",
        "_next",
        "_opened",
        "_through",
    )

    def __init__(self, through: Next, call: Call) -> None:
        self._through: Next | None = through
        self._call = call
        self._opened: Opening | None = None
        self._loop: object = None
        self._first: Any = END
        self._next: Callable[[], Awaitable[Any]] = self._unentered
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        state = "new" if self._through else "entered" if self._opened else "left"
        return f"<CallStream of {name_of(self._call.fn)}, {state}>"

    async def __aenter__(self) -> Self:
        """
        Open the stream and wait for its first item.

        A checkpoint if the stream or a part makes it one. If it is cancelled, nothing is left open.

        Raises:
            Exception: The error of the last attempt, or of a part.
            TypeError: What the function returned is not a stream.
            RuntimeError: The block was entered before.
        """
        through = self._through
        if through is None:
            raise entered_before_error(self, "Call stream() again.")
        self._through = None
        self._loop = loops.current_loop()
        self._opened = opened = opening_of(await through(self._call))
        if opened.first is END:
            self._next = self._ended
        else:
            self._first, opened.first = opened.first, None
            self._next = opened.hand_out()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """
        Close the stream, and report its outcome to the parts.

        Raises:
            Exception: Closing failed, and the block did not.
        """
        opened, self._opened = self._opened, None
        if opened is None:
            return
        outcome, self._error = self._error, None
        if outcome is None and exc is not None and not isinstance(exc, Exception | GeneratorExit):
            outcome = exc
        self._first = END
        self._next = self._left
        try:
            if isinstance(exc, GeneratorExit) and not loops.is_current(self._loop):
                opened.finish(outcome)  # nothing can be awaited any more
            else:
                await opened.end(outcome, exc)
        finally:
            del outcome, exc

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        item: T
        if self._first is not END:
            item, self._first = self._first, END
            return item
        try:
            item = await self._next()
        except BaseException as error:
            self._ends_with(error)
            raise
        return item

    def _ends_with(self, error: BaseException) -> None:
        """Note that waiting for an item has ended with ``error``."""
        opened = self._opened
        if opened is None or self._next in {self._ended, self._interrupted}:
            return
        if isinstance(error, StopAsyncIteration):
            self._next = self._ended
            opened.is_exhausted = True
            return
        try:
            raise_failure(error, self._call.fn)
        except Exception as stray:
            self._fails_with(stray)
            raise
        if without_cancellation(error) is not None:
            self._fails_with(error)
        elif opened.source.is_generator:
            self._next = self._interrupted

    def _fails_with(self, error: BaseException) -> None:
        self._error = error
        self._next = self._ended

    async def _ended(self) -> Any:
        raise StopAsyncIteration

    async def _interrupted(self) -> Any:
        raise interrupted_error(name_of(self._call.fn), "Timeout(between=...)")

    async def _unentered(self) -> Any:
        raise self._misuse("was not entered")

    async def _left(self) -> Any:
        raise self._misuse("was left, and is closed")

    def _misuse(self, state: str) -> RuntimeError:
        return RuntimeError(
            f"{self!r} {state}. Write: async with ... as items: async for item in items: ..."
        )
