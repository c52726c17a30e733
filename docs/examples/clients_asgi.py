"""Each client may make two requests at once, then one every ten seconds."""

import anyio
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from mtaio import KeyedRateLimiter
from mtaio.asgi import RateLimitMiddleware


async def hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


app = Starlette(routes=[Route("/", hello)])
app.add_middleware(
    RateLimitMiddleware, limiter=KeyedRateLimiter(1, per=10, burst=2)
)


async def main() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        for _ in range(3):
            response = await client.get("http://service/")
            said = response.headers.get("Retry-After")
            print(response.status_code, response.headers["RateLimit"], said)


if __name__ == "__main__":
    anyio.run(main)
