"""
Await something, and be told when it really suspends.

Promise: what is awaited runs in the caller's task, step by step as if awaited directly; the hook
is called once, before its first suspension reaches the event loop, or never.
Cost: one generator; nothing for each step that does not suspend.
"""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

__all__ = ["watched"]


@coroutine
def watched(
    work: Coroutine[Any, Any, None], on_suspend: Callable[[], None]
) -> Generator[Any, Any, None]:
    """Await ``work``; call ``on_suspend`` when it suspends for the first time."""
    try:
        trap = work.send(None)
    except StopIteration:
        return
    on_suspend()
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
