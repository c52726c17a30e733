"""
Run a coroutine up to where it really suspends, and go on from there.

Promise: it runs in the caller's task, step by step as if awaited directly; between its first
suspension and the event loop's learning of it the caller can do something.
Cost: none where it does not suspend; one generator where it does.
"""

from __future__ import annotations

from functools import partial
from types import coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from contextvars import Context

__all__ = ["begin", "inside"]


def begin(work: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
    """Run ``work`` as far as it goes; return its rest, to be awaited at once, None if it ended."""
    try:
        trap = work.send(None)
    except StopIteration:
        return None
    return _resumed(work, work.send, work.throw, trap)


async def inside(context: Context, work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` in a context that is not the task's."""
    run: Any = context.run
    send, throw = partial(run, work.send), partial(run, work.throw)
    try:
        trap = send(None)
    except StopIteration:
        return
    await _resumed(work, send, throw, trap)


@coroutine
def _resumed(
    work: Coroutine[Any, Any, None],
    send: Callable[[Any], Any],
    throw: Callable[[Any], Any],
    trap: Any,
) -> Generator[Any, Any, None]:
    """Go on with ``work``, which has yielded ``trap``."""
    step = send
    while True:
        # "yield from" could not go on with a coroutine that has begun: it would send it None, and
        # trio sends more than that.
        try:
            value = yield trap
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 - handed on to the work
            step, value = throw, error
        else:
            step = send
        try:
            trap = step(value)
        except StopIteration:
            return
        finally:
            del value  # it may hold an error, which holds this frame
