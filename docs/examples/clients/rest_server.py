"""
A chat service that limits as Discord does.

    pip install hypercorn
    python rest_server.py    # on http://127.0.0.1:8011, until Ctrl-C
"""

import hashlib
import json
import math
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import import_module
from typing import Any

import anyio
from hypercorn.config import Config
from sniffio import current_async_library

# --8<-- [start:limits]
# Requests and seconds. Routes with the same figures share a bucket.
ROUTES = {
    r"GET /channels/(\d+)": (5, 1.0),
    r"POST /channels/(\d+)/messages": (5, 2.0),
    r"DELETE /channels/(\d+)/messages/\d+": (5, 2.0),
    r"GET /users/\d+()": (3, 1.0),
}
GLOBALLY = 30, 1.0
# --8<-- [end:limits]


def until(seconds: float) -> float:
    """Return seconds as they are sent: rounded up."""
    return math.ceil(seconds * 1000) / 1000


class Window:
    """So many requests in so many seconds, from the first of them."""

    def __init__(self, limit: int, seconds: float) -> None:
        """Begin with none."""
        self.limit, self.seconds, self.used, self.ends = limit, seconds, 0, 0.0

    def take(self, now: float) -> bool:
        """Count a request, and return whether it is allowed."""
        if now >= self.ends:
            self.used, self.ends = 0, now + self.seconds
        self.used += 1
        return self.used <= self.limit


class Chat:
    """An ASGI application."""

    def __init__(self) -> None:
        """Begin with no request."""
        self.windows: dict[tuple[str, str], Window] = {}
        self.overall = Window(*GLOBALLY)
        self.answered = Counter[int]()

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            raise NotImplementedError
        while (await receive()).get("more_body"):
            pass
        status, said, body = self.answer(f"{scope['method']} {scope['path']}")
        self.answered[status] += 1
        data = json.dumps(body).encode()
        headers = [
            *(
                (name.encode(), str(value).encode())
                for name, value in said.items()
            ),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(data)).encode()),
        ]
        await anyio.sleep(0.01)
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": headers,
            }
        )
        await send({"type": "http.response.body", "body": data})

    def answer(self, asked: str) -> tuple[int, dict[str, object], object]:
        """Return the status, headers and body for a request."""
        now = anyio.current_time()
        for pattern, (limit, seconds) in ROUTES.items():
            found = re.fullmatch(pattern, asked)
            if found is not None:
                return self.count(found[1], limit, seconds, now)
        return 404, {}, {"message": "no such route"}

    def count(
        self, channel: str, limit: int, seconds: float, now: float
    ) -> tuple[int, dict[str, object], object]:
        """Count a request of a channel."""
        if not self.overall.take(now):
            left = until(self.overall.ends - now)
            body = {"message": "too many", "retry_after": left, "global": True}
            return (
                429,
                {"retry-after": left, "x-ratelimit-global": "true"},
                body,
            )
        name = hashlib.md5(
            f"{limit}/{seconds}".encode(), usedforsecurity=False
        ).hexdigest()
        window = self.windows.setdefault(
            (name, channel), Window(limit, seconds)
        )
        allowed = window.take(now)
        left = until(window.ends - now)
        said: dict[str, object] = {
            "x-ratelimit-limit": window.limit,
            "x-ratelimit-remaining": max(0, window.limit - window.used),
            "x-ratelimit-reset": round(time.time() + left, 3),
            "x-ratelimit-reset-after": left,
            "x-ratelimit-bucket": name,
        }
        if allowed:
            return 200, said, {"ok": True}
        body = {"message": "too many", "retry_after": left, "global": False}
        return (
            429,
            {**said, "retry-after": left, "x-ratelimit-scope": "user"},
            body,
        )

    async def serve(self, bind: str = "0.0.0.0:80") -> None:
        """Serve until cancelled."""
        serve = import_module(f"hypercorn.{current_async_library()}").serve
        config = Config.from_mapping(bind=bind, errorlog=None)
        await serve(
            self, config, shutdown_trigger=anyio.sleep_forever, mode="asgi"
        )


if __name__ == "__main__":
    anyio.run(Chat().serve, "127.0.0.1:8011")
