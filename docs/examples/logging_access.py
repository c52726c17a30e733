"""A line for each request, and its id in all that is logged meanwhile, in threads too."""

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
    return PlainTextResponse(
        await to_thread.run_sync(sell, request.path_params["article"])
    )


app = AccessLog(Starlette(routes=[Route("/orders/{article}", order)]))


def show(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["logger"] == "mtaio.access":
            del entry["message"]  # the same as text
        print(
            {
                key: entry[key]
                for key in entry
                if key not in {"time", "level", "task", "seconds"}
            }
        )


async def main() -> None:
    transport = httpx.ASGITransport(app, client=("192.0.2.7", 50000))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shop.log")
        async with (
            configure(file=path, format="json", console=False),
            httpx.AsyncClient(
                transport=transport, base_url="http://shop"
            ) as client,
        ):
            logging.getLogger("httpx").setLevel(logging.WARNING)
            headers = {"X-Request-ID": "r1"}
            answer = await client.get("/orders/tea?card=4111", headers=headers)
        print(answer.headers["X-Request-ID"], answer.text)
        show(path)


if __name__ == "__main__":
    anyio.run(main)
