"""The half of `mtaio._internal.backend` for asyncio and uvloop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Generator


class Waiter:
    """A task that waits on one future after another."""

    __slots__ = ("_future", "_new")

    def __init__(self, loop: Any) -> None:
        self._new = loop.create_future
        self._future: Future[None]

    def wait(self) -> Generator[Any, Any, None]:
        """Wait until `wake`."""
        self._future = self._new()
        return self._future.__await__()

    def wake(self) -> None:
        """Wake the task."""
        if not self._future.done():  # cancelled
            self._future.set_result(None)
