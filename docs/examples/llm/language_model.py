"""
A server like those of language models: it limits, streams, and breaks.

    pip install hypercorn starlette
    python language_model.py    # on http://127.0.0.1:8010, until Ctrl-C
"""

from __future__ import annotations

import json
import math
from importlib import import_module
from typing import TYPE_CHECKING, Any

import anyio
from hypercorn.config import Config
from sniffio import current_async_library
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

HANG = 25.0
"""Seconds until what stands still goes on."""

TEXT = "It is what it is , and not what it was said to be ."
ANSWER = TEXT.split()


class Allowance:
    """What is left of one limit, which fills again within a minute."""

    def __init__(self, name: str, says: float, allows: float) -> None:
        self.name = name
        self.says = says
        self.allows = allows
        self._left = allows
        self._at: float | None = None

    def left(self) -> float:
        """Return how much is left now."""
        now = anyio.current_time()
        if self._at is not None:
            self._left = min(
                self.allows, self._left + (now - self._at) * self.allows / 60
            )
        self._at = now
        return self._left

    def take(self, amount: float) -> None:
        """Take so much, which may be more than is left."""
        self._left = self.left() - amount

    def wait(self, amount: float) -> float:
        """Return in how many seconds so much will be left."""
        return max(0.0, (amount - self.left()) * 60 / self.allows)

    # --8<-- [start:headers]
    def headers(self) -> dict[str, str]:
        """Return what a response says about it."""
        left = max(0, math.floor(self.left()))
        return {
            f"x-ratelimit-limit-{self.name}": f"{self.says:g}",
            f"x-ratelimit-remaining-{self.name}": f"{left}",
            f"x-ratelimit-reset-{self.name}": f"{self.wait(self.allows):.3f}s",
        }

    # --8<-- [end:headers]


class Model:
    """
    Answers ``POST /v1/chat/completions``.

    Args:
        requests: Requests a minute that it says it allows.
        tokens: Tokens a minute that it says it allows.
        allows: Which share of that it does allow.
        takes: Seconds until the first token, and again until a whole answer.
        breaks: Every so many requests it breaks: by a 503, a dropped
            connection, a stream that ends early, or one that stands still.
            0 for never.
    """

    def __init__(
        self,
        *,
        requests: float = 120,
        tokens: float = 40_000,
        allows: float = 1.0,
        takes: float = 0.5,
        breaks: int = 0,
    ) -> None:
        self.limits = (
            Allowance("requests", requests, requests * allows),
            Allowance("tokens", tokens, tokens * allows),
        )
        self.takes = takes
        self.breaks = breaks
        self.asked = 0
        self.answered: list[str] = []
        self.refused = 0
        self.open = 0
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self.complete, methods=["POST"])
            ]
        )

    async def complete(self, request: Request) -> Response:
        """Answer, or refuse, or break."""
        body: dict[str, Any] = await request.json()
        prompt: str = body["messages"][-1]["content"]
        used = len(prompt) // 4 + len(ANSWER)
        costs = dict(zip(self.limits, (1, used), strict=True))
        wait = max(limit.wait(cost) for limit, cost in costs.items())
        if wait:
            self.refused += 1
            headers = {**self.headers(), "retry-after": f"{wait:.3f}"}
            return JSONResponse(
                {"error": {"code": "rate_limit_exceeded"}}, 429, headers=headers
            )
        for limit, cost in costs.items():
            limit.take(cost)
        self.asked += 1
        way = (
            (self.asked // self.breaks) % 4
            if self.breaks and not self.asked % self.breaks
            else 4
        )
        if way == 0:
            return JSONResponse(
                {"error": {"code": "overloaded"}}, 503, headers=self.headers()
            )
        if body.get("stream"):
            return StreamingResponse(
                self.stream(prompt, way), headers=self.headers()
            )
        await anyio.sleep(2 * self.takes if way == 4 else HANG)
        self.answered.append(prompt)
        answer = {
            "choices": [{"message": {"content": " ".join(ANSWER)}}],
            "usage": {"total_tokens": used},
        }
        return JSONResponse(answer, headers=self.headers())

    async def stream(self, prompt: str, way: int) -> AsyncIterator[str]:
        """Yield an answer, word by word."""
        self.open += 1
        try:
            # With 1 no first token comes, and with 3 the stream stands still.
            await anyio.sleep(HANG if way == 1 else self.takes)
            for number, word in enumerate(ANSWER):
                if number == 5 and way == 2:  # the stream breaks off
                    raise ConnectionError
                await anyio.sleep(HANG if number == 5 and way == 3 else 0.02)
                choice = {"delta": {"content": f"{word} "}}
                yield f"data: {json.dumps({'choices': [choice]})}\n\n"
            yield "data: [DONE]\n\n"
            self.answered.append(prompt)
        finally:
            self.open -= 1

    def headers(self) -> dict[str, str]:
        """Return what each response says about the limits."""
        return {
            name: value
            for limit in self.limits
            for name, value in limit.headers().items()
        }

    async def serve(self, bind: str = "0.0.0.0:80") -> None:
        """Serve until cancelled."""
        serve = import_module(f"hypercorn.{current_async_library()}").serve
        config = Config.from_mapping(
            bind=bind, errorlog=None, graceful_timeout=HANG
        )
        never = anyio.sleep_forever
        await serve(self.app, config, shutdown_trigger=never, mode="asgi")


if __name__ == "__main__":
    anyio.run(Model(breaks=7).serve, "127.0.0.1:8010")
