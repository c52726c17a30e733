"""What the timeouts of httpx and of mtaio limit, with a slow server."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import inf

import anyio
import httpx
from anyio.abc import ByteStream, SocketAttribute

from mtaio import Timeout

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"


async def answer(stream: ByteStream) -> None:
    """Send a response of ten bytes, one every 0.2 s."""
    async with stream:
        try:
            while await stream.receive():
                await stream.send(HEAD)
                for _ in range(10):
                    await anyio.sleep(0.2)
                    await stream.send(b".")
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return  # the client has left


@asynccontextmanager
async def slow_server() -> AsyncGenerator[str]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        group.cancel_scope.cancel()


# --8<-- [start:calls]
async def get(what: str, client: httpx.AsyncClient, limit: float = inf) -> None:
    start = anyio.current_time()
    try:
        result = (await Timeout(limit).run(client.get, "/")).reason_phrase
    except (httpx.TimeoutException, TimeoutError) as error:
        result = type(error).__name__
    print(f"{what}: {result} after {anyio.current_time() - start:.1f} s")


async def main() -> None:
    one = httpx.Limits(max_connections=1)
    async with slow_server() as url:
        async with httpx.AsyncClient(base_url=url, timeout=0.5) as client:
            await get("httpx's timeout=0.5", client)
        async with httpx.AsyncClient(base_url=url, timeout=None) as client:
            await get("mtaio's Timeout(0.5)", client, limit=0.5)
        async with (
            httpx.AsyncClient(base_url=url, timeout=0.5, limits=one) as client,
            anyio.create_task_group() as group,
        ):
            group.start_soon(get, "the only connection", client)
            await anyio.sleep(0.1)
            group.start_soon(get, "a second request", client)


# --8<-- [end:calls]

if __name__ == "__main__":
    anyio.run(main)
