"""
A service: an async function that runs as long as the application does.

Promise: it is restarted as its policy allows, and its final failure is reported once. It is only
cancelled by `cancel`, or together with the application.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import anyio

from mtaio._internal.cancellation import failure_in
from mtaio.core import TaskExecutor

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mtaio.core import Retry

__all__ = ["Service", "ServiceInfo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInfo:
    """A service of an application, as it was registered."""

    name: str
    """Its name."""
    restart: int | Retry | None
    """How often it is restarted after an error; None for never."""
    critical: bool
    """Whether the application stops when it has failed for good."""
    drain: bool
    """Whether it may go on while requests in flight are answered, until the time is over."""


class Service:
    """
    One run of a service.

    Args:
        info: How it was registered.
        fn: The function, with its argument bound.
        failed: Called with what it failed with in the end.
    """

    def __init__(
        self,
        info: ServiceInfo,
        fn: Callable[[], Coroutine[Any, Any, object]],
        failed: Callable[[ServiceInfo, BaseException], None],
    ) -> None:
        self.info: Final = info
        self.ended: Final = anyio.Event()
        self.starts = 0
        """How often it was started."""
        self._fn = fn
        self._failed = failed
        self._scope: Final = anyio.CancelScope()

    def cancel(self) -> None:
        """Cancel it; `ended` is set when it has ended."""
        self._scope.cancel()

    async def run(self) -> None:
        """Run it, restarts included. A checkpoint."""
        try:
            with self._scope:
                if self.info.restart is None:
                    self.starts = 1
                    await self._fn()
                else:
                    async with TaskExecutor(name=self.info.name) as executor:
                        await (
                            await executor.start(self._again(), restart=self.info.restart)
                        ).wait()
        except BaseException as error:
            failure = failure_in(error, f"the service {self.info.name}")
            if failure is None:
                raise
            self._failed(self.info, failure)
        finally:
            self.ended.set()

    def _again(self) -> Callable[..., Coroutine[Any, Any, object]]:
        """Return the function as the executor starts services, under its own name."""

        @wraps(self._fn)
        async def again(*, task_status: Any) -> object:
            self.starts += 1
            task_status.started()
            return await self._fn()

        again.__qualname__ = self.info.name
        return again
