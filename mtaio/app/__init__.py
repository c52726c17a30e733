"""
Run a service: `Application`, `ErrorHandler` and the ``mtaio`` command.

`Application` creates the parts of a service from its settings, starts and stops them, and handles
signals. `ErrorHandler` reports errors. Names are imported on first use, so that the command starts
fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio.app._application import Application, PartInfo
    from mtaio.app._error_handler import ErrorHandler
    from mtaio.app._resource import Resource

__all__ = ["Application", "ErrorHandler", "PartInfo", "Resource"]

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio.app._application": ("Application", "PartInfo"),
            "mtaio.app._error_handler": ("ErrorHandler",),
            "mtaio.app._resource": ("Resource",),
        },
    )
