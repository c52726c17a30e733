"""An outage that retries survive, and what the server sees of it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest
from hypercorn.config import Config
from sniffio import current_async_library
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from mtaio.resilience import Pipeline, Retry, Timeout
from mtaio.testing import settle

if TYPE_CHECKING:
    from starlette.requests import Request

    from mtaio.testing import Network


async def left(_: Request) -> JSONResponse:
    """Return how many are in stock."""
    return JSONResponse(3)


async def serve() -> None:
    """Serve the app with hypercorn, as in production."""
    app = Starlette(routes=[Route("/left", left)])
    hypercorn = import_module(f"hypercorn.{current_async_library()}")
    config = Config.from_mapping(bind="0.0.0.0:80", errorlog=None)
    await hypercorn.serve(app, config, shutdown_trigger=anyio.sleep_forever)


# --8<-- [start:client]
patient = Pipeline(
    Retry(
        8, on=(httpx.TransportError, TimeoutError), wait_initial=1, wait_max=8
    ),
    Timeout(2),
)


@patient
async def ask(client: httpx.AsyncClient) -> int:
    """Ask how many are left; try for about a minute."""
    answer = await client.get("http://stock/left")
    return int(answer.json())


# --8<-- [end:client]
# --8<-- [start:test]
@pytest.mark.anyio
@pytest.mark.network(latency=0.02, seed=7)
@pytest.mark.parametrize("outage", [5, 30])
async def test_outage_is_survived(net: Network, outage: float) -> None:
    """The answer comes within ten seconds of the end of the outage."""
    net.host("stock").start(serve)
    await settle()
    async with httpx.AsyncClient() as client:
        assert await ask(client) == 3
        assert anyio.current_time() == pytest.approx(0.08)  # connect, then ask
        fault = net.partition("main", "stock")
        async with anyio.create_task_group() as group:
            group.start_soon(ask, client)
            await anyio.sleep(outage)
            assert fault.struck > 0
            net.heal()
    assert outage < anyio.current_time() < outage + 10


# --8<-- [end:test]
