"""
What asyncio and trio each do in their own way, and AnyIO offers only at a higher price.

Promise: what knows the one or the other is in a module of its own, which is loaded only in a
program that runs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from mtaio._internal import loops

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Waiter", "new_waiter"]


class Waiter(Protocol):
    """
    One task that waits to be woken, again and again; used in one event loop.

    Half the price of an ``anyio.Event`` for each wait.
    """

    def wait(self) -> Generator[Any, Any, None]:
        """Wait until `wake` (to be used with ``yield from``)."""
        ...

    def wake(self) -> None:
        """Wake the task. It must be waiting, or have been cancelled while it did."""
        ...


def new_waiter() -> Waiter:
    """Return a waiter for the running event loop."""
    loop = loops.current_loop()
    if loops.is_asyncio(loop):
        from mtaio._internal.backend import _asyncio  # noqa: PLC0415 - only where it runs

        return _asyncio.Waiter(loop)
    from mtaio._internal.backend import _trio  # noqa: PLC0415 - trio may not be installed

    return _trio.Waiter()
