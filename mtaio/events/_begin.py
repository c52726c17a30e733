"""
Run a coroutine up to where it really suspends, and go on from there.

Promise: it runs in the caller's task, step by step as if awaited directly; between its first
suspension and the event loop's learning of it the caller can do something.
Cost: none where it does not suspend; one generator where it does.
"""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

__all__ = ["begin"]


def begin(work: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
    """Run ``work`` as far as it goes; return its rest, to be awaited at once, None if it ended."""
    try:
        trap = work.send(None)
    except StopIteration:
        return None
    return _resumed(work, trap)


@coroutine
def _resumed(work: Coroutine[Any, Any, None], trap: Any) -> Generator[Any, Any, None]:
    """Go on with ``work``, which has yielded ``trap``."""
    step: Callable[[Any], Any] = work.send
    while True:
        # "yield from" could not go on with a coroutine that has begun: it would send it None, and
        # trio sends more than that.
        try:
            value = yield trap
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 - handed on to the work
            step, value = work.throw, error
        else:
            step = work.send
        try:
            trap = step(value)
        except StopIteration:
            return
        finally:
            del value  # it may hold an error, which holds this frame
