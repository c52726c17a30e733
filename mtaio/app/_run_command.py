"""
The command ``mtaio run``: runs an application, given by name, and returns its exit code.

Promise: mistakes in the command line are reported before anything starts, with the exit code 2. The
other codes are those of `mtaio.app.Application.run`.
"""

from __future__ import annotations

import inspect
import sys
from typing import Annotated

from cyclopts import Parameter

from mtaio.app import Application
from mtaio.app._load import load, own_traceback
from mtaio.app._usage import Backend, UsageError, require_backend

__all__ = ["run"]


def run(
    target: str,
    /,
    *,
    backend: Backend = "asyncio",
    bind: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
) -> None:
    """
    Run an application until a signal ends it.

    TARGET is written MODULE:NAME, or MODULE:FUNCTION() for a function that returns it. It is an
    Application of mtaio, or an ASGI application, which is then served. The current folder is
    searched for the module first.

    Exit status: 0 it has stopped in order, 1 it failed, 2 usage or settings, 3 it could not start,
    70 it did not stop in time, 128 and the signal's number after a second signal; what it passes to
    sys.exit().

    Args:
        target: The application, as in shop:app or shop:make_app().
        backend: The event loop to run on.
        bind: HOST:PORT to listen at, instead of the application's own addresses; once for each
            server, in their order.

    Raises:
        SystemExit: With the exit code, unless that is 0.
    """
    require_backend(backend)
    application = _application(target)
    application.run(backend, bind=bind)


def _application(target: str) -> Application:
    try:
        found = load(target)
    except UsageError:
        raise
    except Exception as error:
        print(own_traceback(error), file=sys.stderr)  # noqa: T201 - the program's own error
        msg = f"{target!r} cannot be loaded: see above."
        raise UsageError(msg) from error
    if isinstance(found, Application):
        return found
    _check_asgi(target, found)
    application = Application()
    application.serve(found)
    return application


def _check_asgi(target: str, found: object) -> None:
    """Refuse what cannot be called as an ASGI application is."""
    if callable(found):
        try:
            inspect.signature(found).bind("scope", "receive", "send")
        except TypeError:
            way_out = f"If it is a function that returns one, write {target}()."
        else:
            return
    else:
        way_out = "Name an Application, or an ASGI application."
    msg = f"{target!r} is {found!r}, which is not an application. {way_out}"
    raise UsageError(msg)
