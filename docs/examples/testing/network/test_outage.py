"""A client with retries survives an outage of its network."""

from importlib import import_module

import anyio
import httpx
import pytest
from hypercorn.config import Config
from sniffio import current_async_library

from fastapi import FastAPI
from mtaio import Pipeline, Retry, Timeout
from mtaio.testing import Network, settle

app = FastAPI()


@app.get("/left")
async def left() -> int:
    """Return how many are in stock."""
    return 3


async def serve() -> None:
    """Serve the app with hypercorn, as in production."""
    hypercorn = import_module(f"hypercorn.{current_async_library()}")
    config = Config.from_mapping(bind="0.0.0.0:80", errorlog=None)
    await hypercorn.serve(app, config, shutdown_trigger=anyio.sleep_forever)


failures = (httpx.TransportError, TimeoutError)
patient = Pipeline(
    Retry(8, on=failures, wait_initial=1, wait_max=8), Timeout(2)
)


@patient
async def ask(client: httpx.AsyncClient) -> int:
    """Ask how many are left; try for about a minute."""
    answer = await client.get("http://stock/left")
    return int(answer.json())


@pytest.mark.anyio
@pytest.mark.network(latency=0.02, seed=7)
@pytest.mark.parametrize("outage", [5, 30])
async def test_outage_is_survived(net: Network, outage: float) -> None:
    net.host("stock").start(serve)
    await settle()
    async with httpx.AsyncClient() as client:
        assert await ask(client) == 3
        net.partition("main", "stock")
        async with anyio.create_task_group() as group:
            group.start_soon(ask, client)
            await anyio.sleep(outage)
            net.heal()
    assert outage < anyio.current_time() < outage + 10
