"""
Which blocks of parts a task is in: ``async with limiter as slot``, ``async with breaker``.

Promise: an object that many tasks enter at once knows at the end of a block what it noted at its
beginning, and refuses a block that is not the innermost of its task. Parts of all kinds share one
stack, so that blocks of two parts have to be left in order, too.
Cost: one context variable, one tuple for each block.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final, TypeAlias

__all__ = ["enter", "leave"]

_Block: TypeAlias = tuple[object, Any, Any]
"""A block that a task is in: whose it is, what was noted, and the block around it or None."""

_innermost: Final[ContextVar[_Block | None]] = ContextVar("mtaio.resilience.blocks", default=None)


def enter(owner: object, noted: object) -> None:
    """Begin a block of ``owner`` in the running task, with what `leave` is to return."""
    _innermost.set((owner, noted, _innermost.get()))


def leave(owner: object, exc_type: type[BaseException] | None) -> Any:
    """
    End the innermost block of the running task, and return what was noted.

    Returns:
        What `enter` was given; None if a coroutine is closed after its loop was over, by whoever
        runs now, so that nobody knows which block it was.

    Raises:
        RuntimeError: A block that was entered later has not been left yet, or the block was entered
            in another context.
    """
    block = _innermost.get()
    if block is None or block[0] is not owner:
        if exc_type is GeneratorExit:
            return None
        msg = (
            f"cannot leave {owner!r} here: it is not what this task entered last. Use it in "
            f"'async with', and do not yield inside from an async generator."
        )
        raise RuntimeError(msg)
    _, noted, outer = block
    _innermost.set(outer)
    return noted
