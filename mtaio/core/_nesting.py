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

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from mtaio.core._slots import Waiter

NOBODY: Final = -1


class Enclosure:
    """
    Something inside which code runs: a slot with its item, or a submitted task.

    Invariants:
    - ``item`` is the number of the item that runs in it now, or `NOBODY`;
    - ``around`` holds links to what encloses it;
    - ``heirs`` holds the waiters inside it: whoever can help them along finds them there.
    """

    __slots__ = ("around", "heirs", "item")

    def __init__(self) -> None:
        self.item = NOBODY
        self.around: list[Link] = []
        self.heirs: OrderedDict[Waiter, None] | None = None

    def outward(self) -> list[Link]:
        """Return links to what encloses it now."""
        return live(self.around)

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
        """Look whether what was lent is still used inside; nothing is, by default."""


Link = tuple[Enclosure, int]
"""An enclosure and the number of the item that runs in it."""

CURRENT: Final[ContextVar[Link | None]] = ContextVar("mtaio.core.enclosure", default=None)
"""
What encloses the running code most closely.

A context outlives its item in tasks that the item started elsewhere; hence the number, and `live`.
"""


def live(links: Iterable[Link]) -> list[Link]:
    """Return links to items that still run; in place of one that ended, what was around it."""
    found: list[Link] = []
    for link in links:
        enclosure, item = link
        if enclosure.item == item:
            found.append(link)
        else:
            found += live(enclosure.around)
    return found


def enclosures(links: Iterable[Link]) -> list[Enclosure]:
    """Return all that encloses code with these ``links``, the innermost first."""
    found = list(dict.fromkeys(live(links)))
    seen = set(found)
    for enclosure, _ in found:  # it grows meanwhile; two tasks that wait for each other are a ring
        for link in enclosure.outward():
            if link not in seen:
                seen.add(link)
                found.append(link)
    return [enclosure for enclosure, _ in found]


class Awaited(Enclosure):
    """A task apart from whoever started it: it is enclosed by those who wait for it, meanwhile."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self.item = 0

    @contextmanager
    def enclosed(self) -> Generator[None]:
        """Let the task run inside the item that waits for it in this block."""
        link = CURRENT.get()
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
        self.around.append(link)
        self._look_again()

    def release(self, link: Link) -> None:
        """Note that it waits no more, and take back what it lent."""
        if link in self.around:
            self.around.remove(link)
        self._look_again()
        for enclosure in enclosures((link,)):
            enclosure.reclaim()

    def end(self) -> None:
        """Note that the task ended: what outlives it runs inside nobody who waited for it."""
        self.item = NOBODY
        self.around.clear()

    def _look_again(self) -> None:
        for waiter in list(self.heirs or ()):
            waiter.look_again()
