"""
A client for a chat service that limits as Discord does.

    pip install httpx hypercorn    # beside mtaio
    python rest_server.py &
    python rest_client.py
"""

import os
import re

import anyio
import httpx

from mtaio import RateLimiter
from mtaio.clients import LimitedTransport, Route, ServerBuckets


# --8<-- [start:client]
def route(request: httpx.Request) -> Route:
    """Return what the service counts together."""
    path = request.url.path
    channel = re.match(r"/channels/(\d+)", path)
    pattern = re.sub(r"\d+", "*", path)
    return Route(f"{request.method} {pattern}", major=channel and channel[1])


buckets = ServerBuckets(overall=RateLimiter(27))  # the server allows 30
transport = LimitedTransport(limiter=buckets, key=route, resend=True)
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
            channel = f"/channels/{number % 10}"
            group.start_soon(ask, "POST", f"{channel}/messages")
            group.start_soon(ask, "DELETE", f"{channel}/messages/{number}")
            group.start_soon(ask, "GET", channel)
    return answered


async def main() -> None:
    """Use the service, and say how it went."""
    url = os.environ.get("CHAT_URL", "http://127.0.0.1:8011")
    began = anyio.current_time()
    async with httpx.AsyncClient(
        transport=transport, base_url=url, timeout=30
    ) as client:
        answered = await use(client)
    seconds = anyio.current_time() - began
    refused = transport.statistics().refused
    print(f"{answered} answered in {seconds:.0f} s, {refused} refused")


if __name__ == "__main__":
    anyio.run(main)
