"""What an ASGI application is, for type checkers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias

__all__ = ["ASGIApp", "Message", "Receive", "Send"]

Message: TypeAlias = MutableMapping[str, Any]
"""An ASGI scope or message."""
Receive: TypeAlias = Callable[[], Awaitable[Message]]
"""The function with which an ASGI application receives a message."""
Send: TypeAlias = Callable[[Message], Awaitable[None]]
"""The function with which an ASGI application sends a message."""


class ASGIApp(Protocol):
    """An ASGI application, such as a Starlette or FastAPI object, or an async function."""

    # Any: some frameworks say dicts here, others classes of their own, and each takes all of them.
    def __call__(self, scope: Any, receive: Any, send: Any, /) -> Awaitable[None]:
        """Handle a request or the lifespan."""
        ...
