"""
What is going to happen on the network, and when.

Promise: what is due at one moment and belongs together, such as the bytes of one connection, keeps
its order; in which order the rest of it happens is a choice of the schedule.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Events"]


class Events:
    """
    A queue of calls, each for its moment.

    Args:
        pick: Returns the number of one of so many candidates.
    """

    __slots__ = ("_heap", "_made", "_pick")

    def __init__(self, pick: Callable[[int], int]) -> None:
        self._heap: list[tuple[float, int, object, Callable[..., object], tuple[Any, ...]]] = []
        self._made = 0
        self._pick = pick

    def at(self, when: float, key: object, function: Callable[..., object], *args: Any) -> None:
        """Call ``function(*args)`` at ``when``, after what has the same key and is due before."""
        self._made += 1
        heapq.heappush(self._heap, (when, self._made, key, function, args))

    def next_at(self) -> float:
        """Return when something happens next, ``inf`` if nothing will."""
        return self._heap[0][0] if self._heap else math.inf

    def happen(self, now: float) -> bool:
        """Let everything happen that is due, and return whether there was anything."""
        heap = self._heap
        if not heap or heap[0][0] > now:
            return False
        first = heapq.heappop(heap)
        if not heap or heap[0][0] > now:
            first[3](*first[4])
            return True
        queues: dict[int, deque[Any]] = {id(first[2]): deque([first])}
        while heap and heap[0][0] <= now:
            event = heapq.heappop(heap)
            queues.setdefault(id(event[2]), deque()).append(event)
        while queues:
            keys = list(queues)
            key = keys[self._pick(len(keys)) if len(keys) > 1 else 0]
            queue = queues[key]
            event = queue.popleft()
            if not queue:
                del queues[key]
            event[3](*event[4])
        return True

    def clear(self) -> None:
        """Forget all of it."""
        self._heap.clear()
