"""
Results on their way from the workers that make them to the consumer, with backpressure.

Promise: at most ``window`` items are between taken from the source and handed over. Ordered, a
result waits for those before it, and counts until it is handed over.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from mtaio._internal.checkpoints import FAST_ITEMS, checkpoint
from mtaio._internal.parking import ParkingLot

_NOTHING: Final = object()
"""Stands for the result of an item that failed."""


class Buffer:
    """
    The gate that a pool's workers ask before they take an item, and what the consumer takes from.

    Invariants:
    - ``until`` is ``window`` more than the items whose turn has come and gone;
    - ``_early`` holds results whose turn has not come yet, by number; ``_next`` is whose it is;
    - nothing is put any more once it is closed.
    """

    __slots__ = (
        "_closed",
        "_early",
        "_news",
        "_next",
        "_ordered",
        "_ready",
        "_room",
        "_unyielding",
        "until",
    )

    def __init__(self, window: int, *, ordered: bool) -> None:
        self.until: int = window
        self._ordered = ordered
        self._ready: deque[Any] = deque()
        self._early: dict[int, Any] = {}
        self._next = 0
        self._unyielding = 0
        self._room = ParkingLot()
        self._news = ParkingLot()
        self._closed = False

    async def wait(self) -> None:
        """Wait until ``until`` may have grown (the workers do this)."""
        await self._room.park()

    def wake_all(self) -> None:
        """End every `wait`."""
        self._room.unpark_all()

    def put(self, index: int, value: Any) -> None:
        """Put the result of item number ``index``."""
        if not self._ordered:
            self._pass_on(value)
            return
        self._early[index] = value
        while self._next in self._early:
            self._pass_on(self._early.pop(self._next))
            self._next += 1

    def skip(self, index: int) -> None:
        """Note that item number ``index`` failed, and that nobody will be handed its result."""
        self.put(index, _NOTHING)

    def close(self) -> None:
        """Note that all results were put."""
        self._closed = True
        self._news.unpark_all()

    def clear(self) -> None:
        """Drop what nobody took."""
        self._ready.clear()
        self._early.clear()

    async def more(self) -> bool:
        """Wait until there is a result to `take`; return False if there never will be."""
        if self._ready:
            self._unyielding += 1
            if self._unyielding >= FAST_ITEMS:
                self._unyielding = 0
                await checkpoint()
        while not self._ready:
            if self._closed:
                return False
            self._unyielding = 0
            await self._news.park()
        return True

    def take(self) -> Any:
        """Return the next result, which must be there."""
        value = self._ready.popleft()
        self._make_room()
        return value

    def _pass_on(self, value: Any) -> None:
        if value is _NOTHING:
            self._make_room()
        else:
            self._ready.append(value)
            self._news.unpark()

    def _make_room(self) -> None:
        self.until += 1
        self._room.unpark()
