"""
The tasks that are asking the server about a key, so that a message about that key reaches them.

Promise: a task that began to ask before the message came learns that its answer may be outdated,
and one that waits for another process is woken. Nothing is kept for keys that nobody asks about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Asker", "Asking"]


class Asker:
    """A task that asks about a key, in a ``with`` block."""

    __slots__ = ("_asking", "_key", "_woken", "stale")

    def __init__(self, asking: Asking, key: str) -> None:
        self._asking = asking
        self._key = key
        self._woken: anyio.Event | None = None
        self.stale = False
        """Whether the key was changed since the block began."""

    def __enter__(self) -> Self:
        self._asking.by_key.setdefault(self._key, set()).add(self)
        return self

    def __exit__(self, *_: object) -> None:
        by_key = self._asking.by_key
        askers = by_key[self._key]
        askers.discard(self)
        if not askers:
            del by_key[self._key]

    def rest(self) -> anyio.Event:
        """Return an event that the next message about the key sets."""
        self._woken = woken = anyio.Event()
        return woken

    def wake(self) -> None:
        """Set the event."""
        if self._woken is not None:
            self._woken.set()


class Asking:
    """All tasks that ask, by their keys."""

    __slots__ = ("by_key",)

    def __init__(self) -> None:
        self.by_key: dict[str, set[Asker]] = {}

    def settled(self, key: str) -> None:
        """Wake the tasks that ask about a key."""
        for asker in self.by_key.get(key, ()):
            asker.wake()

    def changed(self, key: str) -> None:
        """Let the tasks that ask about a key know that it was changed, and wake them."""
        for asker in self.by_key.get(key, ()):
            asker.stale = True
            asker.wake()

    def all_changed(self) -> None:
        """Treat every key that is asked about as changed."""
        for key in self.by_key:
            self.changed(key)
