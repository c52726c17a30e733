"""What type checkers make of an application's parts: checked by mypy and pyright, and not run."""

from __future__ import annotations

from typing import assert_type

from mtaio.app import Application, ErrorHandler
from mtaio.cache import TTLCache
from mtaio.core import Retry
from mtaio.statistics import ErrorHandlerStatistics

errors = ErrorHandler()


def going_on() -> int:
    """After a block that lets errors go on nothing is left to return."""
    with errors.catch({"order": 7}):
        return 1


def swallowing() -> int | None:
    """After a block that swallows errors something is."""
    with errors.catch(swallow=True):
        return 1
    return None


def reporting() -> None:
    """What is reported is an exception, and the figures have types."""
    errors.report(KeyboardInterrupt())
    assert_type(errors.statistics(), ErrorHandlerStatistics)
    errors.report("bad")  # type: ignore[arg-type] # no exception


async def asgi(scope: dict[str, object], receive: object, send: object) -> None:
    """Answer."""


class Own:
    """An error handler that may wait, as the deployment guide's."""

    async def handle_error(self, error: Exception, context: dict[str, object]) -> None:
        """Handle it."""


class Wrong:
    """No error handler."""

    def reports(self, error: Exception) -> None:
        """Report it."""


async def parts() -> None:
    """An application takes what handles errors and answers requests, and says what it has."""
    Application(error_handler=ErrorHandler())
    Application(error_handler=Own())
    Application(error_handler=Wrong())  # type: ignore[arg-type] # no handler
    app = Application(cache=TTLCache[int](60))
    app.serve(asgi)
    app.serve("shop:app")  # type: ignore[arg-type] # a name
    app.serve(lambda: None)  # type: ignore[arg-type] # takes nothing
    assert_type(await app.cache.get("key"), object | None)
    assert_type(app.draining, bool)
    assert_type(app.services[0].restart, int | Retry | None)
