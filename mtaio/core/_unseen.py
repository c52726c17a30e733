"""
Failures that nobody has looked at yet.

Promise: none is forgotten: what is not kept, for want of room, is counted.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from mtaio.core._notes import note
from mtaio.exceptions import MTAIOError

if TYPE_CHECKING:
    from mtaio.core._task import Task

MOST_KEPT = 1000
"""So many errors are kept for the end of the block; those that come later are counted."""


class Unseen:
    """
    The failed tasks of one block whose error was not asked for.

    Invariant: a task that was `add`ed is in ``_kept`` or counted in ``_more`` until it is seen.
    """

    __slots__ = ("_kept", "_more")

    def __init__(self) -> None:
        self._kept: OrderedDict[Task, None] = OrderedDict()
        self._more = 0

    def add(self, task: Task) -> None:
        """Note that ``task`` failed; it says so when somebody looks."""
        task.on_seen = self._discard
        if len(self._kept) < MOST_KEPT:
            self._kept[task] = None
        else:
            self._more += 1

    def _discard(self, task: Task) -> None:
        if task in self._kept:
            del self._kept[task]
        else:
            self._more -= 1

    def take(self) -> list[BaseException]:
        """Return the errors, in the order in which they occurred, and consider them seen."""
        errors = [task.error for task in self._kept if task.error is not None]
        for task in self._kept:
            task.on_seen = None
        self._kept.clear()
        more, self._more = self._more, 0
        if more and errors:
            note(errors[-1], f"{more} more submitted tasks failed after this one")
        elif more:
            msg = (
                f"{more} submitted tasks failed and nobody awaited them. Their errors are gone: of "
                f"those not awaited only {MOST_KEPT} are kept. Await handles as you go."
            )
            errors.append(MTAIOError(msg))
        return errors
