"""
What the commands and the application share: errors that end a command, and the event loops.

Promise: importing this costs nothing but the standard library.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import ClassVar, Literal, TypeAlias

__all__ = ["Backend", "CommandError", "UsageError", "require_backend"]

Backend: TypeAlias = Literal["asyncio", "uvloop", "trio"]
"""The event loops that an application runs on."""


class CommandError(Exception):
    """Ends a command with a message, which is the text of the error, and its exit code."""

    exit_code: ClassVar[int] = 1


class UsageError(CommandError):
    """What was asked for cannot be done; the text says why, and the way out."""

    exit_code = 2


def require_backend(backend: Backend) -> None:
    """
    Check that an event loop is installed.

    Raises:
        UsageError: It is not.
    """
    if find_spec(backend) is None:
        msg = (
            f"backend={backend!r} needs {backend}, which is not installed. Install it with: "
            f"pip install 'mtaio[{backend}]'"
        )
        raise UsageError(msg)
