"""
What encloses the running code: the items it runs in, and whoever waits for its task.

Promise: a call can find every slot that idles on its account, whatever lies between: calls of
other executors, worker threads, and submitted tasks that somebody awaits. What has ended
encloses nothing, also for tasks that outlive it.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from collections.abc import Generator

    from mtaio.core._slots import Waiter

NOBODY: Final = -1


class Enclosure:
    """
    Something inside which code runs: a slot with its item, or a submitted task.

    Invariants:
    - ``item`` is the number of the item that runs in it now, or `NOBODY`;
    - ``around`` links to what encloses it;
    - ``host`` is the task in which its item runs, with that task's parent; None if unknown;
    - ``heirs`` holds the waiters inside it: whoever can help them along finds them there.
    """

    __slots__ = ("around", "heirs", "host", "item")

    def __init__(self) -> None:
        self.item: int = NOBODY
        self.around: Link | None = None
        self.host: anyio.TaskInfo | None = None
        self.heirs: OrderedDict[Waiter, None] | None = None

    def outward(self) -> list[Link]:
        """Return links to what encloses it now; forget what has ended, lest chains grow."""
        self.around = live(self.around)
        return [] if self.around is None else [self.around]

    def add_heir(self, waiter: Waiter) -> None:
        """Note that ``waiter`` waits inside."""
        if self.heirs is None:
            self.heirs = OrderedDict()
        self.heirs[waiter] = None

    def remove_heir(self, waiter: Waiter) -> None:
        """Note that ``waiter`` does not wait inside any more."""
        if self.heirs is not None:
            self.heirs.pop(waiter, None)

    def reclaim(self) -> None:
        """Take back what was lent and is not used inside any more; by default nothing was."""


Link = tuple[Enclosure, int]
"""An enclosure and the number of the item that runs in it."""

CURRENT: Final[ContextVar[Link | None]] = ContextVar("mtaio.core.enclosure", default=None)
"""
What encloses the running code most closely, or did when its task was started; see `here`.
"""


def live(link: Link | None) -> Link | None:
    """Return a link to an item that still runs: this one, or if it has ended one around it."""
    while link is not None:
        enclosure, item = link
        if enclosure.item == item:
            return link
        link = enclosure.around
    return None


def here() -> Link | None:
    """
    Return what encloses the running code most closely.

    A task keeps the context of the item that started it, though it may outlive that, or have been
    started in a task group outside: nobody waits for it then, least of all the item. That much can
    be told here: whether it is a sibling of the task in which the item runs.
    """
    link = live(CURRENT.get())
    if link is not None:
        try:
            task = anyio.get_current_task()
        except RuntimeError:  # a callback of the event loop, for which nobody can wait
            return None
        while link is not None and _is_sibling(task, link[0].host):
            link = live(link[0].around)
    return link


def _is_sibling(task: anyio.TaskInfo, host: anyio.TaskInfo | None) -> bool:
    if host is None or task.id == host.id:
        return False
    return task.parent_id is not None and task.parent_id == host.parent_id


def enclosures(link: Link | None) -> list[Enclosure]:
    """Return all that encloses code with this ``link``, the innermost first."""
    link = live(link)
    if link is None:
        return []
    found, seen = [link], {link}
    for enclosure, _ in found:  # it grows meanwhile; two tasks that wait for each other are a ring
        for each in enclosure.outward():
            if each not in seen:
                seen.add(each)
                found.append(each)
    return [enclosure for enclosure, _ in found]


class Awaited(Enclosure):
    """
    A task apart from whoever started it: it is enclosed by those who wait for it, meanwhile.

    Invariant: ``_waits`` links to the items that wait for it now, once for each wait.
    """

    __slots__ = ("_waits",)

    def __init__(self) -> None:
        super().__init__()
        self.item = 0
        self._waits: list[Link] = []

    def outward(self) -> list[Link]:
        """Return links to what encloses it now."""
        return [link for link in map(live, self._waits) if link is not None]

    @contextmanager
    def enclosed(self) -> Generator[None]:
        """Let the task run inside the item that waits for it in this block."""
        link = here()
        if link is None:
            yield
            return
        self.enclose(link)
        try:
            yield
        finally:
            self.release(link)

    def enclose(self, link: Link) -> None:
        """Note that the item of ``link`` waits for the task."""
        self._waits.append(link)
        self._look_again()

    def release(self, link: Link) -> None:
        """Note that it waits no more, and take back what it lent."""
        if link in self._waits:
            self._waits.remove(link)
        self._look_again()
        for enclosure in enclosures(link):
            enclosure.reclaim()

    def release_all(self) -> None:
        """Note that nobody waits any more."""
        for link in [*self._waits]:
            self.release(link)

    def surrounds(self, link: Link | None) -> bool:
        """Tell whether code with this ``link`` is part of the task, not just waited for by it."""
        while link is not None:
            if link[0] is self:
                return True
            link = live(link[0].around)
        return False

    def end(self) -> None:
        """Note that the task ended: what outlives it runs inside nobody who waited for it."""
        self.item: int = NOBODY
        self._waits.clear()

    def _look_again(self) -> None:
        for waiter in list(self.heirs or ()):
            waiter.look_again()
