"""A client for a chat service that limits as Discord does; it sends 300 requests at once."""

import re

import anyio
import httpx
from rest_server import Chat

from mtaio.clients import LimitedTransport, Route, ServerBuckets
from mtaio.resources import RateLimiter


# --8<-- [start:client]
def route(request: httpx.Request) -> Route:
    """Return what the service counts together: the path without ids, for each channel."""
    path = request.url.path
    channel = re.match(r"/channels/(\d+)", path)
    pattern = re.sub(r"\d+", "*", path)
    return Route(f"{request.method} {pattern}", major=channel and channel[1])


buckets = ServerBuckets(overall=RateLimiter.window(30, per=1.0))


def connect(transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """Return a client that waits instead of being refused."""
    limited = LimitedTransport(transport, limiter=buckets, key=route, resend=True)
    return httpx.AsyncClient(transport=limited, base_url="http://chat")
    # --8<-- [end:client]


async def use(client: httpx.AsyncClient) -> int:
    """Send 300 requests at once, and return how many were answered."""
    answered = 0

    async def ask(method: str, path: str) -> None:
        nonlocal answered
        response = await client.request(method, path)
        answered += response.is_success

    async with anyio.create_task_group() as group:
        for number in range(100):
            channel = number % 10
            group.start_soon(ask, "POST", f"/channels/{channel}/messages")
            group.start_soon(ask, "DELETE", f"/channels/{channel}/messages/{number}")
            group.start_soon(ask, "GET", f"/channels/{channel}")
    return answered


async def main() -> None:
    """Use the service in this process."""
    chat = Chat()
    async with connect(httpx.ASGITransport(chat)) as client:
        answered = await use(client)
    print(f"answered: {answered}, refused: {chat.answered[429]}")
    print(f"took {anyio.current_time():.0f} s" if anyio.current_time() < 100 else "")


if __name__ == "__main__":
    anyio.run(main)
