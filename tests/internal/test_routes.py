"""Which route a request was for, as Starlette and FastAPI leave it in the scope."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router

from mtaio._internal import routes
from mtaio._internal.routes import Routes

if TYPE_CHECKING:
    from starlette.requests import Request


async def one(_: Request) -> PlainTextResponse:
    """Answer."""
    return PlainTextResponse("one")


async def shared(_: Request) -> PlainTextResponse:
    """Answer at several paths."""
    return PlainTextResponse("shared")


async def passing(request: Request, call_next: Any) -> Any:
    """Be a middleware."""
    return await call_next(request)


def starlette() -> Starlette:
    """Return an application with mounts of all kinds."""
    inner = Starlette(
        routes=[Route("/users/{id:int}", one), Route("/a", shared), Route("/a/{x}", shared)]
    )
    deep = Router([Route("/x", one), Mount("/{q}/r", routes=[Route("/z", one)])])
    return Starlette(
        routes=[
            Host("elsewhere", Router([Mount("/h", routes=[Route("/never", one)])])),
            Route("/items/{id:int}", one),
            Route("/b", shared),
            Route("/c/{x:path}", shared),
            Mount("/api", inner),
            Mount("/files", PlainTextResponse("file")),
            Mount("/{tenant}/t", deep),
            Host("{sub}.app", Router([Mount("/h", routes=[Route("/x/{y}", one)])])),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=passing)],
    )


STARLETTE = {
    "/items/1": "/items/{id}",
    "/b": "/b",
    "/c/1/2": "/c/{x}",
    "/api/users/7": "/api/users/{id}",
    "/api/a": "/api/a",
    "/api/a/1": "/api/a/{x}",
    "/api/missing": "/api/{path}",
    "/files/x/y": "/files/{path}",
    "/acme/t/x": "/{tenant}/t/x",
    "/acme/t/w/r/z": "/{tenant}/t/{q}/r/z",
    "/h/x/1": "/h/x/{y}",
    "/missing": None,
    "/items/x": None,
    "/b/": None,
}


def fastapi() -> FastAPI:
    """Return an application with routers in routers, and other applications."""
    app, below, router = FastAPI(), FastAPI(), APIRouter(prefix="/r")

    @router.get("/things/{thing}")
    @app.get("/two/{thing}")
    @app.get("/one")
    async def same(thing: int = 0) -> int:
        return thing

    @below.get("/s/{rest:path}")
    async def rest(rest: str) -> str:
        return rest

    router.add_route("/plain/{x}", one)
    twice = APIRouter(prefix="/v2")
    twice.include_router(router, prefix="/again")
    for each in (router, twice):
        app.include_router(each)
    below.include_router(router)
    app.mount("/sub", below)
    app.mount("/sub2/{tenant}", below)
    app.mount("/st", starlette())
    app.mount("/files", PlainTextResponse("file"))
    return app


FASTAPI = {
    "/one": "/one",
    "/two/3": "/two/{thing}",
    "/two/x": "/two/{thing}",  # 422
    "/r/things/1": "/r/things/{thing}",
    "/v2/again/r/things/1": "/v2/again/r/things/{thing}",
    "/plain/1": "/plain/{x}",
    "/docs": "/docs",
    "/sub/s/a/b": "/sub/s/{rest}",
    "/sub/r/things/1": "/sub/r/things/{thing}",
    "/sub2/acme/s/a": "/sub2/{tenant}/s/{rest}",
    "/sub/docs": "/sub/docs",
    "/sub/missing": "/sub/{path}",
    "/st/api/users/1": "/st/api/users/{id}",
    "/st/acme/t/x": "/st/{tenant}/t/x",
    "/files/a": "/files/{path}",
    "/missing": None,
    "/one/": None,
}


@pytest.mark.parametrize(
    ("app", "expected"),
    [(starlette(), STARLETTE), (fastapi(), FASTAPI)],
    ids=["starlette", "fastapi"],
)
@pytest.mark.parametrize("root", ["", "/proxied"])
async def test_templates(app: Any, expected: dict[str, str | None], root: str) -> None:
    """Each path comes to its template, also the second time, and below the path of a proxy."""
    found = Routes()
    seen: list[str | None] = []

    async def asking(scope: Any, receive: Any, send: Any) -> None:
        scope["root_path"] = root
        scope["path"] = root + scope["path"]
        await app(scope, receive, send)
        seen.append(found.template(scope))

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(asking), base_url="http://my.app"
    ) as client:
        for path in [*expected, *expected]:
            await client.get(path)
        assert seen == [*expected.values(), *expected.values()]
        kept = []
        for text in ("x/x", "y", "z/z/z"):
            for path in expected:
                await client.get(path + text)
                await client.get(path.replace("acme", text))
            kept.append(known(found))
        assert kept[0] == kept[1] == kept[2]  # nothing that clients write


def known(found: Routes) -> dict[str, list[int]]:
    """Return how many endpoints are known in each place."""
    return {path: [len(each._known) for each in places] for path, places in found._places.items()}


def test_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Litestar says it by itself; what no framework says, or contradicts itself, is None."""
    found = Routes()
    assert found.template({"path_template": "/r/{id}"}) == "/r/{id}"
    assert found.template({"path_template": ""}) is None
    # Mounts below what hides its routes, and an endpoint that is nobody's.
    hiding = SimpleNamespace(routes=[Mount("/w", PlainTextResponse(""))])
    below = {"router": hiding, "app_root_path": "", "root_path": "/w/x", "path": "/w/x/y"}
    assert found.template({**below, "endpoint": one}) is None
    assert found.template({"endpoint": one, "path": "/"}) is None
    route = SimpleNamespace(endpoint=one)
    assert found.template({"endpoint": one, "route": route, "path": "/"}) is None
    # Two routes of one endpoint, neither of which is for the path.
    having = [
        SimpleNamespace(endpoint=shared, path_regex=re.compile(path), path_format=path)
        for path in ("/a", "/b")
    ]
    router = SimpleNamespace(routes=having)
    assert found.template({"endpoint": shared, "router": router, "path": "/b"}) is None
    found = Routes()
    assert found.template({"endpoint": shared, "router": router, "path": "/b"}) == "/b"
    assert found.template({"endpoint": shared, "router": router, "path": "/c"}) is None
    # Endpoints that are made for each request.
    monkeypatch.setattr(routes, "_MOST_KNOWN", 3)
    for _ in range(5):
        assert found.template({"endpoint": lambda: 0, "router": router, "path": "/a"}) is None
    assert known(found) == {"": [3]}
