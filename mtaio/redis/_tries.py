"""
Requests for tokens that do not wait: they get what is there now, or nothing.

Promise: one call to the server answers all of them that ask for as many tokens, in the order of
asking; each is answered by a call that was made after it asked. One that is cancelled during the
call leaves its tokens to the next.
Cost: one event for each request.
"""

from __future__ import annotations

import anyio

__all__ = ["Tries", "Try"]


class Try:
    """
    A task that asks once.

    Attributes:
        tokens: How many it asks for.
        wait: None if they were taken, else the seconds until they would be there.
        error: Why nothing is known.
        alone: Whether it was answered without the server.
        answered: Set when this is known.
    """

    __slots__ = ("alone", "answered", "error", "tokens", "wait")

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.wait: float | None = None
        self.error: Exception | None = None
        self.alone = False
        self.answered = anyio.Event()

    def answer(self, wait: float | None) -> None:
        """Say that the tokens were taken (None), or how long they would take."""
        self.wait = wait
        self.answered.set()


class Tries:
    """The tasks that ask once, in the order in which they asked."""

    __slots__ = ("_tries",)

    def __init__(self) -> None:
        self._tries: dict[Try, None] = {}

    def __len__(self) -> int:
        return len(self._tries)

    def add(self, request: Try) -> None:
        """Add a task."""
        self._tries[request] = None

    def discard(self, request: Try) -> None:
        """Forget a task that was cancelled; it may have been answered already."""
        self._tries.pop(request, None)

    def alike(self) -> list[Try]:
        """Return the first, and all that ask for as many tokens."""
        tokens = next(iter(self._tries)).tokens
        return [request for request in self._tries if request.tokens == tokens]

    def answer(self, requests: list[Try], granted: int, wait: float) -> int:
        """
        Grant the first so many of some requests, and refuse the others.

        Args:
            requests: What `alike` returned before the call.
            granted: For how many there are tokens.
            wait: What the others are told.

        Returns:
            For how many tokens are left over, because their tasks are gone.
        """
        for request in requests:
            if self._tries.pop(request, request) is None:
                request.answer(None if granted else wait)
                granted -= granted > 0
        return granted

    def clear(self) -> list[Try]:
        """Remove and return all, in the order of asking, to be answered by the caller."""
        requests = list(self._tries)
        self._tries.clear()
        return requests
