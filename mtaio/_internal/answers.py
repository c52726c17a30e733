"""
What a request counts as, in metrics, in the access log and in spans: what its client was told.

That is

- the status of an answer that the server was given to begin, also if it breaks off. A second one is
  an error of the application's, and not what the client is told;
- of one that has not begun, or has begun when the client had left: 499 if it had, as nginx has it;
  503 if the request was cancelled, as `Application.serve` then answers; and 500 otherwise, which
  servers answer when an application raises, or returns without an answer.
"""

from __future__ import annotations

from typing import Final

from mtaio._internal import clock
from mtaio._internal.cancellation import without_cancellation

__all__ = ["CANCELLED", "FAILED", "METHODS", "Answer", "failure_of"]

METHODS: Final = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
)
"""Those of HTTP, which have a name of their own; a client may send others, without end."""

_CLIENT_LEFT: Final = 499
FAILED: Final = 500
CANCELLED: Final = 503


class Answer:
    """
    The answer to one request, as far as it has come.

    Attributes:
        asked: When the request began.
        gone: Whether the application knows that the client has left.
        status: What the client was told; None while it was told nothing.
        size: Bytes of the body that were sent.
    """

    __slots__ = ("asked", "gone", "size", "status")

    def __init__(self) -> None:
        self.asked: Final = clock.now()
        self.gone = False
        self.status: int | None = None
        self.size = 0

    def begin(self, status: int) -> None:
        """Note the status of an answer that begins."""
        if self.status is None:
            self.status = _CLIENT_LEFT if self.gone else status

    def outcome(self, otherwise: int = FAILED) -> int:
        """Return what the request counts as; ``otherwise`` if nothing has come of it."""
        return self.status or (_CLIENT_LEFT if self.gone else otherwise)


def failure_of(error: BaseException) -> BaseException | None:
    """Return what an application has failed with; None if it was cancelled or not ended."""
    closed = isinstance(error, GeneratorExit)  # by the garbage collector
    return None if closed else without_cancellation(error)
