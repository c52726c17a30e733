"""
Which object a cached method belongs to, without keeping that object alive.

Promise: as long as an object lives it has one token, and no other object has that one; the token
of an object that died is told to whoever asks, once.
Cost: a weak reference and a token for each living object a cached method was called on.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Owner", "Owners"]


class Owner:
    """Stands for an object in keys, by identity."""

    __slots__ = ("_of",)

    def __init__(self, of: str) -> None:
        self._of = of

    def __repr__(self) -> str:
        return f"<a {self._of}>"


class Owners:
    """The objects that the methods of one function were called on."""

    # Invariants:
    # - _tokens has the token of each living object, by id();
    # - the tokens of those that died are in late until somebody asks: a weak reference's callback
    #   may come anywhere, also while a cache is being changed.
    __slots__ = ("_tokens", "late")

    def __init__(self) -> None:
        self._tokens: dict[int, tuple[weakref.ref[Any], Owner]] = {}
        self.late: deque[Owner] = deque()
        """The tokens of those that died since somebody last asked."""

    def known(self, instance: object) -> Owner | None:
        """Return the token of an object that has one."""
        found = self._tokens.get(id(instance))
        return found[1] if found is not None and found[0]() is instance else None

    def admit(self, instance: object) -> Owner:
        """Return the token of an object that had none; it has to take weak references."""
        token = Owner(type(instance).__qualname__)
        number, tokens, dead = id(instance), self._tokens, self.late

        def gone(_: weakref.ref[Any]) -> None:
            dead.append(token)
            tokens.pop(number, None)

        # Another thread may have been faster; then that token is the one.
        return tokens.setdefault(number, (weakref.ref(instance, gone), token))[1]

    def dead(self) -> Iterator[Owner]:
        """Return the tokens of the objects that died since somebody last asked."""
        while self.late:
            try:
                token = self.late.popleft()
            except IndexError:  # another thread was faster
                return
            yield token
