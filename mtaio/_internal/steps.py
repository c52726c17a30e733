"""
Coroutines driven by hand: what they do before they suspend, and what comes after that.

Promise: both run in the caller's task, and the event loop notices nothing.
"""

from __future__ import annotations

from functools import partial
from types import coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from contextvars import Context

__all__ = ["begin", "run_in"]

T = TypeVar("T")


def begin(work: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
    """
    Run ``work`` until it suspends, and return its rest, to be awaited at once; None if it ended.

    What surrounds the rest, such as a cancel scope, is not paid for by work that does not suspend.
    It cannot be a scope if ``work`` suspends within one that it entered itself before.
    """
    try:
        yielded = work.send(None)
    except StopIteration:
        return None
    return _resumed(work.send, work.throw, yielded)


async def run_in(context: Context, work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` in a context that is not the task's, and return what it returns."""
    run: Any = context.run
    send, throw = partial(run, work.send), partial(run, work.throw)
    try:
        yielded = send(None)
    except StopIteration as end:
        result: T = end.value
    else:
        result = await _resumed(send, throw, yielded)
    return result


@coroutine
def _resumed(
    send: Callable[[Any], Any], throw: Callable[[Any], Any], yielded: Any
) -> Generator[Any, Any, Any]:
    """
    Go on with a coroutine that has suspended, in the caller's task.

    Args:
        send: Resumes it with a value.
        throw: Resumes it with an error.
        yielded: What it has yielded to the event loop.
    """
    step = send
    while True:
        # "yield from" would send None first, and what the event loop sends may be more than that.
        try:
            value = yield yielded
        except BaseException as error:  # noqa: BLE001 - thrown into the coroutine
            step, value = throw, error
        else:
            step = send
        try:
            yielded = step(value)
        except StopIteration as end:
            return end.value
        finally:
            del value  # it may hold an error, which holds this frame
