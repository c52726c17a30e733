"""
asyncio's queue of what is ready, with the steps of tasks in our hands.

Promise: task steps and timers that fall due together may be reordered; plain callbacks keep the
order in which they were given to ``call_soon``, as asyncio documents, and nothing that came after
one overtakes it.

The loop's ``_ready`` is private, a ``deque`` since Python 3.4, of which the loop uses ``append``,
``popleft``, ``clear``, ``len`` and truth.
"""

from __future__ import annotations

import asyncio
from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mtaio.testing._steps import YOUNGEST

if TYPE_CHECKING:
    from mtaio.testing._schedule import Schedule
    from mtaio.testing._steps import Steps

CALLBACK: Final = "_callback"
CANCELLED: Final = "_cancelled"
"""What the queues ask of each handle."""


def task_of(callback: Any) -> asyncio.Task[Any] | None:
    """Return the task of which a callback is a step; None if it is one like any other."""
    owner: Any = getattr(callback, "__self__", None)
    kind: type[Any] = asyncio.Task
    if not isinstance(owner, kind):
        return None
    name = getattr(callback, "__name__", "_")
    public = not name.startswith("_") and hasattr(kind, name)  # such as task.cancel
    return None if public else owner


class WatchedQueue(deque[asyncio.Handle]):
    """asyncio's own order, watched."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self._steps = steps

    def popleft(self) -> asyncio.Handle:
        """Take the oldest."""
        self._steps.between()
        handle = super().popleft()
        callback: Any = getattr(handle, CALLBACK)
        task = task_of(callback)
        if task is not None:
            self._steps.begin(task, task.get_coro())
        return handle


_Entry: TypeAlias = tuple[tuple[int, float], Any, "asyncio.Task[Any] | None", bool, int]
"""What is ready: its key, handle and task, whether it is a plain callback, and its batch."""

_key = itemgetter(0)


class PermutedQueue(list[_Entry]):
    """
    The order of a schedule.

    Other threads may append meanwhile, as ``call_soon_threadsafe`` does. It is a list of entries to
    itself, in the order of arrival, and a queue of handles to the event loop.
    """

    # Invariants:
    # - _due counts the plain callbacks that an eager schedule runs before it chooses again: those
    #   that were there when the step before was over, so that one that comes back each time, as
    #   anyio's delivery of a cancellation does, does not run for ever;
    # - _batch is the number that new entries get; a fair schedule takes the oldest batch first.
    __slots__ = ("_batch", "_due", "_schedule", "_stepped", "_steps")

    def __init__(self, steps: Steps, schedule: Schedule) -> None:
        super().__init__()
        self._steps = steps
        self._schedule = schedule
        self._batch = 0
        self._due = 0
        self._stepped = False

    def append(self, handle: Any) -> None:
        """Add what has become ready."""
        task = task_of(handle._callback)  # noqa: SLF001 - the only way to tell
        if task is not None:
            super().append((self._steps.key(task), handle, task, False, self._batch))
        else:
            plain = not isinstance(handle, asyncio.TimerHandle)
            key = (self._steps.number, YOUNGEST)
            super().append((key, handle, None, plain, self._batch))

    def popleft(self) -> Any:
        """Take what the schedule wants."""
        steps = self._steps
        if steps.stepping is not None:
            steps.between()
        at = 0 if len(self) == 1 and not self._schedule.fair else self._next(self[:])
        _, handle, task, plain, _ = self.pop(at)
        if plain:
            self._due -= 1
        else:
            self._stepped = True
            if task is not None:
                steps.begin(task, task.get_coro())
        return handle

    def _next(self, entries: list[_Entry]) -> int:
        """Return the position of the entry that is next."""
        schedule = self._schedule
        if self._stepped and schedule.eager:
            self._due = sum([entry[3] for entry in entries])
        self._stepped = False
        candidates: list[_Entry] = []
        plain: _Entry | None = None
        for at, entry in enumerate(entries):
            if entry[1]._cancelled:  # noqa: SLF001 - as the loop asks, which drops it
                return at
            if entry[3]:
                plain = entry
                break
            candidates.append(entry)
        if schedule.fair:
            candidates, plain = self._of_oldest_batch(entries[0][4], candidates, plain)
        if plain is not None and (not candidates or (schedule.eager and self._due > 0)):
            chosen = plain
        else:
            candidates.sort(key=_key)
            if plain is not None and not schedule.eager:
                candidates.append(plain)
            chosen = candidates[self._steps.choose(candidates)]
        at = 0
        while entries[at] is not chosen:
            at += 1
        return at

    def _of_oldest_batch(
        self, oldest: int, candidates: list[_Entry], plain: _Entry | None
    ) -> tuple[list[_Entry], _Entry | None]:
        """Leave out what came after a batch that is not through yet."""
        if oldest == self._batch:
            self._batch += 1
        candidates = [entry for entry in candidates if entry[4] == oldest]
        if candidates and plain is not None and plain[4] != oldest:
            plain = None
        return candidates, plain
