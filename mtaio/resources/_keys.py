"""
The limiters of many keys: which to hold, which to forget.

Promise: a limiter that is forgotten is one that nobody could tell from a new one, so no key gets
more than its bound; no more than a set number is held, and one too many is refused only if none
could be forgotten.
Cost: beside the look-up one heap operation for each key taken in, and in the long run at most one
for each grant.

Each limiter has an entry in a heap with the moment from which it is idle: full, with nobody
waiting. Grants only move that moment on, so an entry is put right when it comes to the top, and
until then it stands too early, which does no harm. The order of use, a list as in a cache, would
not tell who is idle: a key used last with one token is full again before one used first with ten.
"""

from __future__ import annotations

import heapq
import math
import reprlib
from typing import TYPE_CHECKING, Final

from mtaio._internal.checkpoints import FAST_CALLS
from mtaio._internal.clock import now
from mtaio.exceptions import RateLimitError
from mtaio.resources._bucket import TICK
from mtaio.resources._queued import Tally
from mtaio.resources._rate import RateLimiter

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["KeyLimiter", "KeyTable"]

_SWEEP: Final = 16
"""Entries looked at in one go, so that forgetting many at a time never stops the event loop."""


class KeyLimiter(RateLimiter):
    """
    The limiter of one key, which counts together with those of the other keys.

    Args:
        key: The key.
        like: A limiter of the same limits.
        tally: Where to count.
    """

    __slots__ = ("key",)

    def __init__(self, key: Hashable, like: RateLimiter, tally: Tally) -> None:
        burst = None if like.burst == math.inf else like.burst
        super().__init__(like.rate, burst, per=like.per, slack=like.slack, name=like.name)
        self._tally = tally
        self.key = key

    def __repr__(self) -> str:
        return f"<KeyedRateLimiter{self._limits()} key={reprlib.repr(self.key)}>"

    def tire(self) -> None:
        """Let the next call yield, whatever it comes to."""
        self._yield_at = self._granted

    def reach(self) -> None:
        """Raise unless those who wait can be woken from here."""
        self._reachable_line()

    def waiters(self) -> int:
        """Return how many tasks wait for this key."""
        return len(self._living_line() or ())

    def idle_from(self, moment: float) -> float:
        """Return when the bucket could be full with nobody waiting, seen from ``moment``, now."""
        self._moment()  # where another clock tells the time, the bucket has to learn of it
        if self._living_line():
            return max(self._full_at, math.nextafter(moment + TICK, math.inf))
        if self._rate == 0:
            return math.inf if self._held < self._most else -math.inf
        return self._full_at


class KeyTable:
    """
    The limiters held, by their keys.

    Args:
        like: A limiter of the limits that each key has.
        max_keys: The most keys to hold.
        idle_ttl: Seconds for which an idle key is kept.
    """

    # Invariants:
    # - each limiter held has one entry in _idle, and no other limiter has;
    # - an entry says when its limiter will be idle, or an earlier moment, never a later one: so if
    #   the first entry is right and lies in the future, no limiter is idle;
    # - granted and tally count for all keys, also those that were forgotten;
    # - at the latest in every `FAST_CALLS`-th call tired becomes true; whoever may yield makes it
    #   false again.
    __slots__ = (
        "_admitted",
        "_calls",
        "_held",
        "_idle",
        "_idle_ttl",
        "_last",
        "_max_keys",
        "granted",
        "model",
        "refused",
        "tally",
        "tired",
    )

    def __init__(self, like: RateLimiter, max_keys: int, idle_ttl: float) -> None:
        self.model = KeyLimiter(None, like, Tally())  # never used, hence as good as new
        self.tally = Tally()
        self.granted: int = 0
        self.refused: int = 0
        self.tired = False
        self._max_keys = max_keys
        self._idle_ttl = idle_ttl
        self._held: dict[Hashable, KeyLimiter] = {}
        self._idle: list[tuple[float, int, KeyLimiter]] = []
        self._admitted = 0
        self._calls = 0
        self._last = -math.inf

    def __len__(self) -> int:
        return len(self._held)

    @property
    def forgotten(self) -> int:
        """How many keys were forgotten so far."""
        return self._admitted - len(self._held)

    def __repr__(self) -> str:
        model = repr(self.model).partition(" key=")[0]
        return f"{model} keys={len(self._held)}>"

    def peek(self, key: Hashable) -> KeyLimiter:
        """Return the limiter of ``key`` to look at, or one like a new one."""
        return self._held.get(key, self.model)

    def limiter(self, key: Hashable) -> KeyLimiter:
        """
        Return the limiter of ``key``, taken in if it is not held.

        To be used before anything else is done here, or it might be forgotten meanwhile.

        Raises:
            RateLimitError: The key is new, and there is no room for it.
        """
        self._calls += 1
        if self._calls >= FAST_CALLS:
            self._calls = 0
            self.tired = True
            self._sweep(self._moment())
        return self._held.get(key) or self._admit(key)

    def reconfigure(self, rate: float | None, burst: float | None) -> None:
        """Do for all what `RateLimiter.reconfigure` does for one, or raise and do nothing."""
        for limiter in self._held.values():
            limiter.reach()
        self.model.reconfigure(rate=rate, burst=burst)
        for limiter in self._held.values():
            limiter.reconfigure(rate=rate, burst=burst)
        self._reckon(self._moment())

    def _admit(self, key: Hashable) -> KeyLimiter:
        moment = self._moment()
        self._sweep(moment)
        if len(self._held) >= self._max_keys:
            self._make_room(key, moment)
        limiter = self._held[key] = KeyLimiter(key, self.model, self.tally)
        self._admitted += 1
        heapq.heappush(self._idle, (moment, self._admitted, limiter))
        return limiter

    def _sweep(self, moment: float) -> None:
        """Forget some of the keys that have been idle for long enough."""
        for _ in range(_SWEEP):
            if not self._idle or self._idle[0][0] + self._idle_ttl > moment + TICK:
                return
            if self._first_is_right(moment):
                self._forget_first()

    def _make_room(self, key: Hashable, moment: float) -> None:
        """Forget the key that has been idle longest, or raise if there is none."""
        while not self._first_is_right(moment):
            pass
        wait = self._idle[0][0] - moment
        if wait <= TICK:
            self._forget_first()
            return
        self.refused += 1
        msg = (
            f"{self!r} has no room for key={reprlib.repr(key)}: max_keys={self._max_keys!r} and "
            f"none is idle, the first may be in {wait:.6g} s. Raise max_keys, or try again then."
        )
        raise RateLimitError(msg, retry_after=wait, name=self.model.name)

    def _first_is_right(self, moment: float) -> bool:
        """Tell whether the first entry says when its limiter is idle; or put it right."""
        entered, number, limiter = self._idle[0]
        idle_from = limiter.idle_from(moment)
        if idle_from <= entered:
            return True
        heapq.heapreplace(self._idle, (idle_from, number, limiter))
        return False

    def _forget_first(self) -> None:
        _, _, limiter = heapq.heappop(self._idle)
        del self._held[limiter.key]

    def _moment(self) -> float:
        """Return the current moment, also if it is another clock that tells it."""
        moment = now()
        if moment < self._last:
            self._reckon(moment)
        self._last = moment
        return moment

    def _reckon(self, moment: float) -> None:
        """Put every entry right, since limiters may be idle earlier than they were to be."""
        self._idle = [(entry[2].idle_from(moment), *entry[1:]) for entry in self._idle]
        heapq.heapify(self._idle)
