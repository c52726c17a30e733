"""A real HTTP server for hosts of a simulated network, which notes what it was asked."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint
from hypercorn.config import Config
from sniffio import current_async_library

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

__all__ = ["Site"]


class Site:
    """
    Answers by hypercorn, on any number of hosts.

    Args:
        answer: Returns the answer for a host and a path.
        takes: Seconds until a request is answered.
    """

    def __init__(self, answer: Callable[[str, str], httpx.Response], *, takes: float = 0.0) -> None:
        self.asked: list[tuple[float, str]] = []
        self.at_once: dict[str, int] = {}
        self.most_at_once: dict[str, int] = {}
        self._answer = answer
        self._takes = takes

    async def serve(self, port: int = 80) -> None:
        """Be the program of a host."""
        config = Config.from_mapping(bind=f"0.0.0.0:{port}", errorlog=None)
        serve = import_module(f"hypercorn.{current_async_library()}").serve
        await serve(self._app, config, shutdown_trigger=anyio.sleep_forever, mode="asgi")

    def of(self, host: str) -> list[tuple[float, str]]:
        """Return when a host was asked, and for what."""
        return [
            (at, what.removeprefix(host)) for at, what in self.asked if what.startswith(f"{host}/")
        ]

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for what in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{what}.complete"})
            return
        host, path = dict(scope["headers"])[b"host"].decode(), scope["raw_path"].decode()
        self.asked.append((round(anyio.current_time(), 6), f"{host}{path}"))
        self.at_once[host] = self.at_once.get(host, 0) + 1
        self.most_at_once[host] = max(self.most_at_once.get(host, 0), self.at_once[host])
        try:
            await (anyio.sleep(self._takes) if self._takes else checkpoint())
        finally:
            self.at_once[host] -= 1
        answer = self._answer(host, path)
        status, headers = answer.status_code, list(answer.headers.raw)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.content})
