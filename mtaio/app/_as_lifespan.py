"""
An application of ours as the lifespan of an ASGI application.

Promise: it is entered by whichever comes first: a server that runs the lifespan, or ``mtaio run``,
which serves the ASGI application and has begun with ours before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from mtaio.app._application import Application

__all__ = ["AsLifespan"]


class AsLifespan:
    """
    The application, entered unless it is starting already.

    It gives None, since what a lifespan gives is what each request gets as its state.

    Args:
        app: The application.
    """

    __slots__ = ("_app", "_entered")

    def __init__(self, app: Application) -> None:
        self._app = app
        self._entered = False

    async def __aenter__(self) -> None:
        if self._app.state != "starting":
            await self._app.__aenter__()
            self._entered = True

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._app.__aexit__(exc_type, exc, traceback) if self._entered else None
