"""A transport of httpx that answers by a script, and sees what becomes of its responses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Body(httpx.AsyncByteStream):
    """
    The body of a response.

    Args:
        pieces: What it consists of.
        wait: Seconds before each piece.
    """

    def __init__(self, *pieces: bytes, wait: float = 0.0) -> None:
        self.pieces = pieces
        self.wait = wait
        self.read = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if self.wait:
                await anyio.sleep(self.wait)
            self.read += 1
            yield piece

    async def aclose(self) -> None:
        """Note that it is closed."""
        self.closed = True


class Scripted(httpx.AsyncBaseTransport):
    """
    Answers each request as a function says.

    Args:
        answer: Gets the request, and how many came before; returns the response, or raises.
        seconds: How long an answer takes.
    """

    def __init__(
        self, answer: Callable[[httpx.Request, int], httpx.Response], seconds: float = 0.0
    ) -> None:
        self.answer = answer
        self.seconds = seconds
        self.moments: list[float] = []
        self.bodies: list[Body] = []
        self.is_open = True
        self.sent: list[bytes] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.moments.append(anyio.current_time())
        self.sent.append(await request.aread())
        await anyio.sleep(self.seconds)
        response = self.answer(request, len(self.moments) - 1)
        if isinstance(response.stream, Body):
            self.bodies.append(response.stream)
        return response

    async def aclose(self) -> None:
        """Close it."""
        self.is_open = False

    def is_quiet(self) -> bool:
        """Return whether each response was read to its end or closed."""
        return all(body.closed or body.read == len(body.pieces) for body in self.bodies)


def respond(
    status: int = 200, headers: dict[str, str] | None = None, body: Body | None = None
) -> httpx.Response:
    """Return a response."""
    return httpx.Response(status, headers=headers, stream=body or Body(b"{}"))


def refuse_first(times: int = 1, **headers: str) -> Callable[[httpx.Request, int], httpx.Response]:
    """Refuse so many requests, and accept the others."""
    said = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(_: httpx.Request, number: int) -> httpx.Response:
        return respond(429, said) if number < times else respond()

    return answer
