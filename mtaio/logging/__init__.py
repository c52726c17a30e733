"""
Logging without waiting for the disk: a file handler, JSON lines, masking of secrets.

Promise: the handlers, formatters and filters are ordinary ones of the standard library's
    ``logging`` and work with everything that uses it. None of them needs an event loop.
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
