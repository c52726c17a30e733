"""A chat service that limits as Discord does: buckets with names, and all requests together."""

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio

Headers = list[tuple[bytes, bytes]]

ROUTES = {  # how many requests a bucket allows, in how many seconds
    r"GET /channels/(\d+)": (5, 1.0),
    r"POST /channels/(\d+)/messages": (5, 2.0),
    r"DELETE /channels/(\d+)/messages/\d+": (5, 2.0),  # counted with those that are sent
    r"GET /users/\d+()": (3, 1.0),
}
GLOBALLY = 30, 1.0


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
            return
        while (await receive()).get("more_body"):
            pass
        status, said, body = self.answer(f"{scope['method']} {scope['path']}")
        self.answered[status] += 1
        data = json.dumps(body).encode()
        headers = [
            *((name.encode(), str(value).encode()) for name, value in said.items()),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(data)).encode()),
        ]
        await anyio.sleep(0.01)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    def answer(self, asked: str) -> tuple[int, dict[str, object], object]:
        """Return the status, headers and body for a request."""
        now = anyio.current_time()
        for pattern, limits in ROUTES.items():
            found = re.fullmatch(pattern, asked)
            if found is not None:
                break
        else:
            return 404, {}, {"message": "no such route"}
        if not self.overall.take(now):
            left = self.overall.ends - now
            body = {"message": "too many", "retry_after": left, "global": True}
            return 429, {"retry-after": left, "x-ratelimit-global": "true"}, body
        name = hashlib.md5(str(limits).encode(), usedforsecurity=False).hexdigest()
        window = self.windows.setdefault((name, found[1]), Window(*limits))
        allowed = window.take(now)
        left = window.ends - now
        said: dict[str, object] = {
            "x-ratelimit-limit": window.limit,
            "x-ratelimit-remaining": max(0, window.limit - window.used),
            "x-ratelimit-reset": round(time.time() + left, 3),
            "x-ratelimit-reset-after": round(left + 0.0005, 3),
            "x-ratelimit-bucket": name,
        }
        if allowed:
            return 200, said, {"ok": True}
        body = {"message": "too many", "retry_after": left, "global": False}
        return 429, {**said, "retry-after": left, "x-ratelimit-scope": "user"}, body
