"""A line for each request, and its id in what is logged meanwhile."""

import json
import logging
import tempfile
from pathlib import Path

import anyio
import httpx
from anyio import to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from mtaio.asgi import AccessLog
from mtaio.logging import configure

log = logging.getLogger("shop")


def sell(article: str) -> str:
    log.warning("%s is nearly sold out", article)
    return f"sold {article}"


async def order(request: Request) -> PlainTextResponse:
    article = request.path_params["article"]
    return PlainTextResponse(await to_thread.run_sync(sell, article))


app = AccessLog(Starlette(routes=[Route("/orders/{article}", order)]))


def show(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        for key in ("time", "level", "task", "seconds", "client"):
            entry.pop(key, None)
        if entry["logger"] == "mtaio.access":
            del entry["message"]  # the same as text
        print(*[f"{key}={entry[key]!r}" for key in entry])


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shop.log")
        async with (
            configure(file=path, format="json", console=False),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://shop"
            ) as client,
        ):
            logging.getLogger("httpx").setLevel(logging.WARNING)
            headers = {"X-Request-ID": "r1"}
            await client.get("/orders/tea?card=4111", headers=headers)
        show(path)


if __name__ == "__main__":
    anyio.run(main)
