"""The routes of Litestar in the metrics of requests: it needs more packages than others here."""

from __future__ import annotations

import httpx
from litestar import Litestar, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from mtaio.asgi import RequestMetrics


@get("/items/{item:int}")
async def item(item: FromPath[int]) -> int:
    """Answer."""
    return item


@get("/busy")
async def busy() -> Response[str]:
    """Answer that there is no room."""
    return Response("busy", status_code=503)


@get("/gone/{name:str}")
async def gone(name: FromPath[str]) -> None:
    """Raise what becomes an answer."""
    raise NotFoundException(name)


async def test_litestar() -> None:
    """A template with the paths of routers, what handlers answer and raise, and no other labels."""
    app = RequestMetrics(Litestar([Router("/r", route_handlers=[item, gone]), busy]))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        for path in ("/r/items/1", "/r/items/2", "/r/items/x", "/busy", "/r/gone/a", "/nowhere"):
            await client.get(path)
        await client.post("/busy")
    durations = app.statistics().duration_seconds
    assert {key: each.count for key, each in durations.items()} == {
        ("GET", "/r/items/{item}", 200): 2,
        ("GET", "other", 404): 2,
        ("GET", "/busy", 503): 1,
        ("GET", "/r/gone/{name}", 404): 1,
        ("POST", "other", 405): 1,
    }
