"""
Running a service: `Application`, `ErrorHandler` and the ``mtaio`` command.

`Application` makes the parts of a service from its settings, starts and stops them, and handles
signals; `ErrorHandler` reports what fails. Names are loaded on first use, so that the command
starts fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mtaio.app._application import (
        Application,
        ApplicationStatistics,
        ServerInfo,
        ServiceInfo,
    )
    from mtaio.app._error_handler import ErrorHandler, ErrorHandlerStatistics
    from mtaio.app._resource import Resource, ResourceInfo
    from mtaio.app._run import ApplicationState
    from mtaio.app._server import ServerStatistics
    from mtaio.app._usage import Backend

__all__ = [
    "Application",
    "ApplicationState",
    "ApplicationStatistics",
    "Backend",
    "ErrorHandler",
    "ErrorHandlerStatistics",
    "Resource",
    "ResourceInfo",
    "ServerInfo",
    "ServerStatistics",
    "ServiceInfo",
]

_HOMES: Final = {
    "Application": "_application",
    "ApplicationState": "_run",
    "ApplicationStatistics": "_application",
    "Backend": "_usage",
    "ErrorHandler": "_error_handler",
    "ErrorHandlerStatistics": "_error_handler",
    "Resource": "_resource",
    "ResourceInfo": "_resource",
    "ServerInfo": "_application",
    "ServerStatistics": "_server",
    "ServiceInfo": "_application",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
