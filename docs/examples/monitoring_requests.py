"""Requests by method, route and status: how many, and how long."""

import anyio
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from mtaio.asgi import RequestMetrics
from mtaio.monitoring import ResourceMonitor


async def item(request: Request) -> PlainTextResponse:
    number = request.path_params["number"]
    await anyio.sleep(number / 100)
    return PlainTextResponse("item", 503 if number > 90 else 200)


monitor = ResourceMonitor()
routes = [Route("/items/{number:int}", item)]
app = RequestMetrics(Starlette(routes=routes), monitor=monitor)


async def main() -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://shop"
    ) as client:
        for number in range(100):
            await client.get(f"/items/{number}")
        await client.get("/nowhere")
    for labels, durations in app.statistics().duration_seconds.items():
        p99 = durations.quantile(0.99)
        print(*labels, f"{durations.count} requests, p99 {p99:.2f} s")


if __name__ == "__main__":
    anyio.run(main)
