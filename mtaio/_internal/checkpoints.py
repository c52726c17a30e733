"""
When an operation that did not have to wait yields all the same.

Promise: a loop over operations that return at once stays fair and cancellable. A checkpoint costs
microseconds where the operation costs a tenth of one, so each object counts its calls and yields
on one in `FAST_CALLS`; loops over items that did not suspend yield on one in `FAST_ITEMS`.

Only a real checkpoint turns the event loop. ``checkpoint_if_cancelled`` does not, and deadlines
fire only when the loop turns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from mtaio._internal.cancellation import is_cancelled

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

__all__ = ["FAST_CALLS", "FAST_ITEMS", "checkpoint", "checkpoint_if_cancelled"]

FAST_CALLS: Final = 64
"""At least one call in so many on an object is a real checkpoint."""

FAST_ITEMS: Final = 32
"""A worker whose items did not suspend yields after so many of them."""

_DELIVERY: Final = 4
"""In how many turns AnyIO surely delivers a cancellation if it looks for whom to deliver it to."""


def checkpoint() -> Coroutine[Any, Any, None]:
    """
    Let other tasks run, and look for a cancellation: ``anyio.lowlevel.checkpoint``.

    That module is not imported for it: with what it needs it takes a third of what a program waits
    for ``from mtaio.cache import TTLCache``. An event loop of AnyIO's loads it anyway.
    """
    return anyio.sleep(0)  # noqa: ASYNC115 - to do without that module is the point


async def checkpoint_if_cancelled() -> None:
    """
    Raise the backend's cancellation if the task has been cancelled.

    On asyncio, AnyIO stops delivering a cancellation when no task is left to deliver it to. For a
    task that starts in the cancelled scope after that, its own function of this name turns for
    ever. To leave a scope inside makes AnyIO look again. It does not find the task if that is a
    callback from an abandoned thread: nothing but this can end it.
    """
    for _ in range(_DELIVERY):
        if not is_cancelled():
            return
        with anyio.CancelScope():
            await checkpoint()
    raise anyio.get_cancelled_exc_class()
