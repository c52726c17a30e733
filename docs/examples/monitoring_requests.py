"""Requests by method, route and status: how many there were, and how long they took."""

import anyio
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from mtaio.asgi import RequestMetrics
from mtaio.monitoring import ResourceMonitor, metrics, to_prometheus


async def item(request: Request) -> PlainTextResponse:
    number = request.path_params["number"]
    await anyio.sleep(number / 100)
    return PlainTextResponse(
        "no room" if number > 90 else "here", 503 if number > 90 else 200
    )


monitor = ResourceMonitor()
app = RequestMetrics(
    Starlette(routes=[Route("/items/{number:int}", item)]), monitor=monitor
)


async def main() -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://shop"
    ) as client:
        for number in range(100):
            await client.get(f"/items/{number}")
        await client.get("/nowhere")
    for (
        method,
        route,
        status,
    ), durations in app.statistics().duration_seconds.items():
        p99 = durations.quantile(0.99)
        print(
            method,
            route,
            status,
            f"{durations.count} requests, p99 {p99:.2f} s",
        )
    async with monitor:
        await monitor.get_current_stats()
        lines = to_prometheus(metrics(monitor.sources())).splitlines()
    print(
        *[line for line in lines if "duration_seconds_count" in line], sep="\n"
    )


if __name__ == "__main__":
    anyio.run(main)
