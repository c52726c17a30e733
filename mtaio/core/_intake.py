"""
Sources whose items are acknowledged: the messages of a broker, the jobs in a table.

Promise: every item that a call takes from such a source gets one answer, and only one: `ack` after
the function has succeeded, `nack` with the error when it has failed, and `nack` with None when it
was cancelled, or taken and never begun. The answer comes within the item's slot, so there are no
more items in hand than may run, but for one whose slot went to another call while it was being
read. The answer is shielded from cancellation for a bounded time.
Cost: 20 µs an item, half of it for the cancel scope around the answer, which is little beside the
way to a broker and back.

How it works: `taken_from` sends each item on its way with its source (`Taken`), so that it does not
matter how it comes to a worker: alone, in a batch, or through a merge. `Acknowledgement.around` is
put around all that a call does for an item: its tokens, timeouts and retries, its thread or pool.
It sees how every item ends, because whatever is taken from a source is begun, if need be in a
cancelled scope (`Pool._begin_what_is_left`). There the function itself is not called: it is no
longer the function that gives items back, unless its batch has items of other sources too.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    Protocol,
    TypeGuard,
    TypeVar,
    final,
    overload,
    runtime_checkable,
)

import anyio

from mtaio._internal import checks, deadlines
from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import failure_in
from mtaio._internal.checkpoints import checkpoint, checkpoint_if_cancelled
from mtaio._internal.clock import loop_deadline, now
from mtaio._internal.notes import note
from mtaio._internal.signature import check_takes
from mtaio._internal.sources import GRACE
from mtaio.core._errors import conclude, loud, shorten
from mtaio.core._merge import unmerged
from mtaio.exceptions import TimeoutError  # noqa: A004 - the refined one

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtaio.core._types import Options

__all__ = [
    "AckSource",
    "Acknowledgement",
    "Intake",
    "acknowledgement",
    "is_ack_source",
    "taken_from",
]

T = TypeVar("T")


@runtime_checkable
class AckSource(Protocol[T]):
    """
    An async iterable whose items are acknowledged: any that has the methods `ack` and `nack`.

    `TaskExecutor.map`, `for_each` and `stream` call one of them, once, for each item they take.
    """

    def __aiter__(self) -> AsyncIterator[T]:
        """Return an iterator over the items."""
        ...

    async def ack(self, item: T, /) -> object:
        """Note that an item is done: it does not come again."""
        ...

    async def nack(self, item: T, error: Exception | None, /) -> object:
        """Give an item back: it failed with ``error``, or with None it was not finished."""
        ...


class Taken:
    """
    An item on its way through a call, with the source to answer.

    The call's function gets the bare item, and so does everything else that users see.
    """

    __slots__ = ("item", "source")

    def __init__(self, item: Any, source: AckSource[Any]) -> None:
        self.item: Any = item
        self.source: AckSource[Any] = source


def is_ack_source(source: object) -> TypeGuard[AckSource[Any]]:
    """Return whether the items of ``source`` are acknowledged."""
    # Most have no such method, and this takes a fiftieth of what `isinstance` alone takes.
    return hasattr(source, "nack") and isinstance(source, AckSource)


async def taken_from(source: AckSource[Any]) -> AsyncGenerator[Taken, None]:
    """Yield the items of ``source``, each with the source; if its iterator is ours, close it."""
    items = aiter(source)
    try:
        async for item in items:
            yield Taken(item, source)
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()


@final
class Acknowledgement:
    """
    How a call answers the sources of its items.

    Args:
        subject: The function, for messages.
        batched: Whether an item of the call is a list of what was taken.
    """

    __slots__ = ("_batched", "_subject")

    def __init__(self, subject: object, *, batched: bool) -> None:
        self._subject = subject
        self._batched = batched

    def bare(self, item: Any) -> Any:
        """Return what the function is called with."""
        return [_bare(each) for each in item] if self._batched else _bare(item)

    def around(
        self, call: Callable[[Any], Awaitable[Any]], begin: Callable[[Any], Awaitable[Any]]
    ) -> Callable[[Any], Any]:
        """
        Return what does all that is done for an item, with the answer after it.

        That is ``call`` for messages, and ``begin``, which calls the function even if it is
        cancelled before, for what has nobody to be given back to.
        """

        async def settled(item: Any) -> Any:
            each = item if self._batched else [item]
            taken = [one for one in each if type(one) is Taken]  # a merge may have others too
            try:
                if len(taken) == len(each):
                    await checkpoint_if_cancelled()
                    result = await call(self.bare(item))
                else:
                    result = await begin(self.bare(item))
            except BaseException as error:
                if _is_closed(error):
                    raise  # the event loop is over, so nothing can be awaited
                await _give_back(taken, error, name_of(self._subject))
                raise
            try:
                await _answer(taken, "ack")
            except Exception as error:
                note(
                    error,
                    "ack() failed after the function had succeeded: the item may come again",
                )
                raise
            return result

        return settled


def _is_closed(error: BaseException) -> bool:
    """
    Return whether ``error``, just caught around an ``await``, came by ``close()``.

    What is closed has closed what it awaits, and gets an exit of its own (PEP 380), which has come
    through no other frame.
    """
    traceback = error.__traceback__
    return isinstance(error, GeneratorExit) and (traceback is None or traceback.tb_next is None)


def _bare(item: Any) -> Any:
    return item.item if type(item) is Taken else item


def acknowledgement(
    iterables: tuple[object, ...], options: Options, subject: object
) -> Acknowledgement | None:
    """
    Return how the items of these sources are acknowledged; None if they are not.

    Raises:
        ValueError: They cannot be, with several sources or read ahead.
    """
    source = next(filter(is_ack_source, unmerged(iterables)), None)
    if source is None:
        return None
    if len(iterables) > 1:
        msg = (
            f"the items of {source!r} are acknowledged, and with several sources an item may be "
            f"left without a partner. Pass it as the only source."
        )
        raise ValueError(msg)
    if options.read_ahead:
        msg = (
            f"read_ahead={options.read_ahead!r} would take items that may not begin, and drop them "
            f"at the end, but the items of {source!r} have to be acknowledged. Leave it out."
        )
        raise ValueError(msg)
    return Acknowledgement(subject, batched=options.batch is not None)


async def _give_back(taken: Sequence[Taken], error: BaseException, what: str) -> None:
    """Answer that ``what`` ended with ``error``; what that raises never hides a failure."""
    failure = failure_in(loud(error, GeneratorExit, what), what)
    try:
        # What is no Exception, such as KeyboardInterrupt, is none of the item's.
        await _answer(taken, "nack", failure if isinstance(failure, Exception) else None)
    except Exception as trouble:
        if failure is None:
            raise
        note(error, f"nack() failed as well, so the item may not come again: {shorten(trouble)}")
    finally:
        del failure  # it holds this frame: else they keep each other alive


async def _answer(
    taken: Sequence[Taken], method: Literal["ack", "nack"], *args: Exception | None
) -> None:
    """
    Call a method of its source for each item, one after another, all within its ``grace``.

    Raises:
        Exception: What a call raised; the others are made all the same.
        TimeoutError: The time was up.
    """
    if not taken:
        return
    grace: float = max(getattr(each.source, "grace", GRACE) for each in taken)
    errors: list[BaseException] = []
    late = 0
    limit = deadlines.enter(now() + grace, alone=True)
    due = loop_deadline(limit.moment)
    try:
        for each in taken:
            # Each in a scope of its own: when the time is up, the rest of them are called still.
            with anyio.CancelScope(deadline=due, shield=True) as scope:
                try:
                    await getattr(each.source, method)(each.item, *args)
                except BaseException as error:
                    # Brokers' clients raise asyncio's cancellation when a connection breaks.
                    failure = failure_in(error, f"{method}()", own_task=False)
                    if failure is None or not isinstance(failure, Exception):
                        raise
                    errors.append(failure)
                    del failure  # it holds this frame: else they keep each other alive
            late += scope.cancelled_caught
        if late:
            msg = f"{method}() did not end within grace={grace!r} s, for {late} of {len(taken)}"
            errors.append(TimeoutError(msg, timeout=grace, deadline=due))
        if errors:
            conclude([], errors)
    finally:
        deadlines.leave(limit)
        errors.clear()


async def _call(fn: Callable[..., object] | None, *args: object) -> None:
    """Call a function that may be there, async or plain."""
    if fn is not None:
        result = fn(*args)
        if inspect.isawaitable(result):
            await result


_SINGLE: Final = frozenset({str, bytes, dict})
"""What can be iterated over, and is yet one message."""


@final
class Intake(Generic[T]):
    """
    A source of items that an async function receives and that are acknowledged, as from a broker.

    ``await executor.for_each(handle, Intake(receive, ack=..., nack=...), limit=10)`` receives an
    item only when a slot is free. (If another call takes the slot during the receive, the item
    waits for the next.) An item is acknowledged after its function, with all retries, has succeeded
    and before its slot is released. An intake can be created outside an event loop and used by one
    call after another.

    Args:
        receive: An async function that waits for the next item. Each call runs it in one task at a
            time, and cancels it when the call ends; a cancelled ``receive`` must either not have
            taken an item or return it all the same. If it raises ``StopAsyncIteration``, there are
            no more items; any other error ends the call.
        ack: Called with each item that is done; async, or plain if it does not block. None to do
            nothing.
        nack: Called with each item that is not done and the error that its function raised, or None
            if it was cancelled or never started. Otherwise as ``ack``.
        many: Whether ``receive`` returns a list of items, which may be empty. Items that the call
            has not started when it ends are given back.
        grace: Seconds for ``ack`` and ``nack``, which are shielded from cancellation for that long.
            If they take longer, they are interrupted and the call fails.

    Raises:
        ValueError, TypeError: An argument is invalid; the message says what to pass instead.

    Example:
        ```python
        import anyio

        from mtaio import TaskExecutor
        from mtaio.core import Intake


        async def main() -> None:
            queue, messages = anyio.create_memory_object_stream[str](10)
            async with messages:
                async with queue:
                    for letter in "abc":
                        await queue.send(letter)
                intake = Intake(messages.__anext__, ack=print)
                print(await TaskExecutor().map(str.upper, intake, limit=2))


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ("__weakref__", "_ack", "_many", "_nack", "_receive", "grace")

    grace: float
    """Seconds for ``ack`` and ``nack``."""

    @overload
    def __init__(
        self,
        receive: Callable[[], Awaitable[T]],
        ack: Callable[[T], object] | None = None,
        nack: Callable[[T, Exception | None], object] | None = None,
        *,
        many: Literal[False] = False,
        grace: float = GRACE,
    ) -> None: ...
    @overload
    def __init__(
        self,
        receive: Callable[[], Awaitable[Iterable[T]]],
        ack: Callable[[T], object] | None = None,
        nack: Callable[[T, Exception | None], object] | None = None,
        *,
        many: Literal[True],
        grace: float = GRACE,
    ) -> None: ...
    def __init__(
        self,
        receive: Callable[[], Awaitable[Any]],
        ack: Callable[[T], object] | None = None,
        nack: Callable[[T, Exception | None], object] | None = None,
        *,
        many: bool = False,
        grace: float = GRACE,
    ) -> None:
        way_out = "Pass an async function without arguments that waits for the next item."
        checks.callable_("receive", receive, way_out=way_out)
        check_takes("receive", receive, way_out=way_out)
        if ack is not None:
            way_out = "Pass a function of the item, or leave it out."
            checks.callable_("ack", ack, way_out=way_out)
            check_takes("ack", ack, "item", way_out=way_out)
        if nack is not None:
            way_out = "Pass a function of the item and the error, or leave it out."
            checks.callable_("nack", nack, way_out=way_out)
            check_takes("nack", nack, "item", "error", way_out=way_out)
        self.grace = checks.positive("grace", grace, way_out="Pass the seconds for ack and nack.")
        self._receive = receive
        self._ack = ack
        self._nack = nack
        self._many = many

    def __repr__(self) -> str:
        return f"<Intake of {name_of(self._receive)}>"

    def _odd(self, received: object, reason: str, way_out: str) -> TypeError:
        """Return the error for what ``receive`` returned."""
        what = f"{received!r:.100}, {checks.type_of(received)}, {reason}"
        return checks.refusal(TypeError, f"receive={self._receive!r} returned {what}", way_out)

    async def ack(self, item: T, /) -> None:
        """
        Acknowledge an item.

        A checkpoint if the function that was passed is one.
        """
        await _call(self._ack, item)

    async def nack(self, item: T, error: Exception | None, /) -> None:
        """
        Give back an item that failed with ``error``, or, if it is None, was not finished.

        A checkpoint if the function that was passed is one.
        """
        await _call(self._nack, item, error)

    async def __aiter__(self) -> AsyncGenerator[T, None]:
        """Iterate over the items. For the executor, which acknowledges each of them."""
        # Nothing may be awaited between what was received and the last of it being yielded.
        rest: deque[T] = deque()
        try:
            while True:
                try:
                    waiting = self._receive()
                    if not inspect.isawaitable(waiting):
                        way_out = "Pass an async function."
                        raise self._odd(waiting, "which cannot be awaited", way_out)
                    received = await waiting
                except StopAsyncIteration:
                    return
                if not self._many:
                    yield received
                    continue
                if type(received) in _SINGLE or not hasattr(received, "__iter__"):
                    way_out = "Return a list of items, or leave many= out."
                    raise self._odd(received, "and many=True is for several", way_out)
                rest.extend(received)
                if not rest:
                    await checkpoint()
                while rest:
                    yield rest.popleft()
        finally:
            if rest:
                await _answer([Taken(item, self) for item in rest], "nack", None)
