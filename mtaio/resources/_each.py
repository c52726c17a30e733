"""
The items of any async iterable, each in its time.

Promise: only waiting for an item is limited, and no cancel scope is open while the consumer has it:
what a timeout block around the loop of an async generator cannot do. An async generator is closed
when the block ends.
Cost: a cancel scope for each item; no task, no queue.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, final

from mtaio._internal import clock, loops
from mtaio._internal.block import entered_before_error
from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import without_cancellation
from mtaio._internal.item_limits import ItemLimits, Whole
from mtaio._internal.sources import interrupted_error, is_generator, within_grace

if TYPE_CHECKING:
    from mtaio._internal.deadlines import Alarms

__all__ = ["LimitedItems", "check_source"]

T = TypeVar("T")

_Error = Callable[[str, float, float], BaseException]


def check_source(source: object) -> None:
    """Refuse what cannot be iterated."""
    if not isinstance(source, AsyncIterable):
        msg = (
            f"source={source!r} cannot be iterated with 'async for'. Pass an async iterable, such "
            f"as the async generator that a call of its function returns; enter an async context "
            f"manager first, and pass what it yields."
        )
        raise TypeError(msg)


@final
class LimitedItems(Generic[T]):
    """
    A block around the items of an async iterable; returned by `TimeoutManager.each`.

    Enter it with ``async with``, then iterate over it once, in one task at a time. If the source is
    an async generator, leaving the block closes it. The block holds no cancel scope, so it may be
    used in an async generator too.
    """

    # Invariants:
    # - _next makes the next item, or says why there is none;
    # - _limits are there from entering on; _between is the limit from the second item on.
    __slots__ = (
        "__weakref__",
        "_alarms",
        "_between",
        "_error",
        "_first",
        "_iterator",
        "_limits",
        "_loop",
        "_next",
        "_source",
        "_whole",
    )

    def __init__(
        self,
        source: AsyncIterable[T],
        seconds: tuple[float | None, float | None, float | None],
        alarms: Alarms,
        error: _Error,
    ) -> None:
        self._source = source
        self._first, self._between, self._whole = seconds
        self._alarms = alarms
        self._error = error
        self._iterator: AsyncIterator[T]
        self._limits: ItemLimits | None = None
        self._loop: object = None
        self._next: Callable[[], Awaitable[T]] = self._unentered

    def __repr__(self) -> str:
        state = "new" if self._limits is None else "entered"
        return f"<LimitedItems of {name_of(self._source)}, {state}>"

    async def __aenter__(self) -> Self:
        """
        Start the time for all items together.

        Not a checkpoint.

        Raises:
            RuntimeError: The block was entered before.
        """
        if self._limits is not None:
            raise entered_before_error(self, "Call each() again.")
        self._loop = loops.current_loop()
        self._iterator = iterator = aiter(self._source)
        name = name_of(self._source)
        self._limits = limits = ItemLimits(iterator.__anext__, name, self._close)
        if self._whole is not None and self._whole != math.inf:
            text = "the items of this block"
            moment, error = clock.now() + self._whole, self._makes(text, self._whole)
            alarm, interrupt = self._alarms.of(self._whole), partial(limits.end, error)
            limits.limit_whole(Whole(alarm, moment, error, interrupt))
        self._limit_next(self._first, "the first item")
        self._next = self._first_item
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """
        Close the source if it is an async generator, shielded from cancellation for five seconds.

        Raises:
            Exception: What the generator raises when it is closed.
        """
        if self._limits is None or self._next == self._left:
            return
        self._limits.release()
        self._next = self._left
        if not isinstance(exc, GeneratorExit) or loops.is_current(self._loop):
            await within_grace(self._close, f"closing {name_of(self._source)}")

    async def _close(self) -> None:
        iterator: Any = self._iterator
        if is_generator(iterator):
            await iterator.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self._next()
        except BaseException as error:
            if without_cancellation(error) is None and is_generator(self._iterator):
                self._next = self._interrupted
            raise

    async def _first_item(self) -> T:
        limits = self._limits
        assert limits is not None  # noqa: S101 - it has been entered
        item: T = await limits.next()
        limits.unlimit_each()
        self._limit_next(self._between, "the next item")
        self._next = limits.next
        return item

    def _limit_next(self, seconds: float | None, text: str) -> None:
        limits = self._limits
        if limits is not None and seconds is not None and seconds != math.inf:
            limits.limit_each(seconds, self._alarms.of(seconds), self._makes(text, seconds))

    def _makes(self, text: str, seconds: float) -> Callable[[], BaseException]:
        return lambda: self._error(text, seconds, clock.now())

    async def _interrupted(self) -> T:
        raise interrupted_error(name_of(self._source), "each(between=...)")

    async def _unentered(self) -> T:
        raise self._misuse("was not entered")

    async def _left(self) -> T:
        raise self._misuse("was left")

    def _misuse(self, state: str) -> RuntimeError:
        return RuntimeError(
            f"{self!r} {state}. Write: async with timeouts.each(...) as items: "
            f"async for item in items: ..."
        )
