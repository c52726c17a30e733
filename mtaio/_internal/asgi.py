"""What an ASGI application is, for type checkers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias

__all__ = ["ASGIApp", "Message", "Receive", "Send"]

Message: TypeAlias = MutableMapping[str, Any]
"""A scope or a message of ASGI."""
Receive: TypeAlias = Callable[[], Awaitable[Message]]
"""What an ASGI application is given to receive a message."""
Send: TypeAlias = Callable[[Message], Awaitable[None]]
"""What an ASGI application is given to send one."""


class ASGIApp(Protocol):
    """An ASGI application: Starlette, FastAPI, or an async function of the same three arguments."""

    # Any: some frameworks say dicts here, others classes of their own, and each takes all of them.
    def __call__(self, scope: Any, receive: Any, send: Any, /) -> Awaitable[None]:
        """Answer a request, or take part in the lifespan."""
        ...
