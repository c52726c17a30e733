"""
Logging that never makes the event loop wait.

Promise: the handlers, formatters and filters here are those of the standard library's ``logging``,
and work with everything that uses them; none of it needs an event loop.
"""

from mtaio._internal.request_context import request_id
from mtaio.logging._configure import LoggingContext, configure
from mtaio.logging._flush import flush_all
from mtaio.logging._handler import AsyncFileHandler
from mtaio.logging._json import JsonFormatter
from mtaio.logging._redact import RedactingFilter

__all__ = [
    "AsyncFileHandler",
    "JsonFormatter",
    "LoggingContext",
    "RedactingFilter",
    "configure",
    "flush_all",
    "request_id",
]
