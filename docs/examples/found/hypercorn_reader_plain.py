"""hypercorn 0.18.0: a client does not read, and the server does not end."""

import asyncio
import socket
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config


async def app(scope: Any, _receive: Any, send: Any) -> None:
    """Answer with ten megabytes."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(100):
        await send(
            {
                "type": "http.response.body",
                "body": b"x" * 100_000,
                "more_body": True,
            }
        )
    await send({"type": "http.response.body", "body": b""})


async def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = Config()
        config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None
    config.graceful_timeout = config.shutdown_timeout = 0.1
    shutdown = asyncio.Event()
    server = asyncio.create_task(
        serve(app, config, shutdown_trigger=shutdown.wait, mode="asgi")
    )
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: api\r\n\r\n")
        await asyncio.sleep(0.2)
        shutdown.set()
        await asyncio.wait([server], timeout=2)
        print(
            "2 seconds after the request to shut down, it has ended:",
            server.done(),
        )
    await asyncio.wait([server], timeout=2)
    print("and when the client has gone:", server.done())


if __name__ == "__main__":
    asyncio.run(main())
