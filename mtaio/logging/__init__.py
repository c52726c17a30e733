"""
Logging that never makes the event loop wait.

Promise: what is here are handlers, formatters and filters of the standard library's ``logging``,
and work with everything that does; none of it needs an event loop.
"""

from mtaio.logging._configure import LoggingContext, configure
from mtaio.logging._formatters import JsonFormatter
from mtaio.logging._handler import AsyncFileHandler
from mtaio.logging._redact import RedactingFilter
from mtaio.logging._settings import LogSettings
from mtaio.logging._statistics import AsyncFileHandlerStatistics

__all__ = [
    "AsyncFileHandler",
    "AsyncFileHandlerStatistics",
    "JsonFormatter",
    "LogSettings",
    "LoggingContext",
    "RedactingFilter",
    "configure",
]
