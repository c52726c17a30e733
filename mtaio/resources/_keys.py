"""
What each of many keys has, as long as it is not idle: a bounded table.

Promise: never more than ``max_keys`` are held, and none is forgotten that is not as good as new.
Cost: one look-up for a key that is held; for one that is not, making what it gets.

Each entry of the table has one in a heap, with the moment from which it is idle, or an earlier one:
that is corrected when it comes to the top. So if the first is right and lies in the future, none is
idle. A list in the order of use would not show that: what a key used last may be idle first.
"""

from __future__ import annotations

import heapq
import math
import reprlib
from collections.abc import Callable, Hashable
from threading import RLock
from typing import Final, Generic, Protocol, TypeVar

from mtaio._internal import checks, clock
from mtaio._internal.limiting import check_key
from mtaio.exceptions import RateLimitError
from mtaio.resources._bucket import TICK

__all__ = ["Keys"]

_SWEEP: Final = 16
"""Entries looked at in one go, so that forgetting many keys never stops the event loop."""


class _Idles(Protocol):
    def idle_from(self, moment: float) -> float:
        """Return when it could be as good as new, seen from ``moment``, now."""
        ...


T = TypeVar("T", bound=_Idles)


class Keys(Generic[T]):
    """
    A table of keys.

    Args:
        make: Returns what a new key gets.
        max_keys: The most keys to hold, 1 or more; None for no limit.
        idle_ttl: Seconds for which an idle key is kept.
        timed_by: The clock of the heap.
    """

    # Invariant: who changes _held or _heap holds _lock.
    __slots__ = (
        "_admitted",
        "_heap",
        "_held",
        "_idle_ttl",
        "_lock",
        "_make",
        "forgotten",
        "max_keys",
        "rejected_keys",
        "timed_by",
    )

    def __init__(self, make: Callable[[], T], max_keys: int | None, idle_ttl: float) -> None:
        if max_keys is not None:
            way_out = "Pass how many keys may be held at the same time, or None for no limit."
            checks.count("max_keys", max_keys, way_out=way_out)
        way_out = "Pass seconds >= 0, or math.inf to forget only when room is needed."
        checks.at_least("idle_ttl", idle_ttl, 0, way_out=way_out)
        self.max_keys: int | None = max_keys
        self.forgotten: int = 0
        self.rejected_keys: int = 0
        self.timed_by: clock.Tells = clock.REAL
        self._idle_ttl = idle_ttl
        self._make = make
        self._held: dict[Hashable, T] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._admitted = 0
        self._lock = RLock()  # a key's __eq__ may come back here

    def __len__(self) -> int:
        return len(self._held)

    def move(self, seconds: float) -> None:  # noqa: ARG002 - what is held knows it more exactly
        """Go over to another clock: see `clock.Timed`."""
        self._heap = [(-math.inf, number, key) for _, number, key in self._heap]

    def get(self, key: Hashable) -> T | None:
        """Return what a key has; None if it is not held. Not a use. From any thread."""
        check_key(key)
        return self._held.get(key)

    def clear(self) -> list[T]:
        """Forget all, and return it. From any thread."""
        with self._lock:
            held = list(self._held.values())
            self._held.clear()
            self._heap.clear()
            return held

    def sweep(self) -> None:
        """Forget some of the keys that have been idle for long enough."""
        with self._lock:
            self._sweep(clock.catch_up(self))

    def admit(self, key: Hashable, owner: object) -> T:
        """
        Return what a key has, or what it gets now; use it before anything else is done here.

        Raises:
            RateLimitError: The key is new, and ``owner`` has no room for it.
            TypeError: It cannot be hashed.
        """
        check_key(key)
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                return held
            moment = clock.catch_up(self)
            self._sweep(moment)
            if self.max_keys is not None and len(self._held) >= self.max_keys:
                self._make_room(key, owner, moment)
            made = self._held[key] = self._make()
            self._admitted += 1
            heapq.heappush(self._heap, (moment, self._admitted, key))
            return made

    def _sweep(self, moment: float) -> None:
        for _ in range(_SWEEP):
            if not self._heap or self._heap[0][0] + self._idle_ttl > moment + TICK:
                break
            if self._first_is_right(moment):
                self._forget_first()

    def _make_room(self, key: Hashable, owner: object, moment: float) -> None:
        """Forget the key that has been idle longest, or raise if there is none."""
        while not self._first_is_right(moment):
            pass
        wait = self._heap[0][0] - moment
        if wait <= TICK:
            self._forget_first()
            return
        self.rejected_keys += 1
        msg = (
            f"{owner!r} has no room for key={reprlib.repr(key)}: max_keys={self.max_keys!r} are "
            f"held and none is idle; the first may be in {wait:.6g} s. Raise max_keys, or try "
            f"again then."
        )
        raise RateLimitError(msg, retry_after=wait, name=getattr(owner, "name", None))

    def _first_is_right(self, moment: float) -> bool:
        """Return whether the first entry says when it is idle; if not, put it right."""
        entered, number, key = self._heap[0]
        idle_from = self._held[key].idle_from(moment)
        if idle_from <= entered:
            return True
        heapq.heapreplace(self._heap, (idle_from, number, key))
        return False

    def _forget_first(self) -> None:
        _, _, key = heapq.heappop(self._heap)
        del self._held[key]
        self.forgotten += 1
