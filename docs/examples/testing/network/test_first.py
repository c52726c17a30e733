"""A client and its server, tested under a partition, a crash and a cancellation."""

from importlib import import_module

import anyio
import httpx
import pytest
from hypercorn.config import Config
from sniffio import current_async_library

from fastapi import FastAPI
from mtaio.testing import Network, assert_quiescent, run, settle

app = FastAPI()


@app.get("/left")
async def left() -> int:
    """Return how many are in stock."""
    return 3


async def serve() -> None:
    """Serve the app with hypercorn, as in production."""
    hypercorn = import_module(
        f"hypercorn.{current_async_library()}"
    )  # .asyncio or .trio
    config = Config.from_mapping(bind="0.0.0.0:80", errorlog=None)
    await hypercorn.serve(app, config, shutdown_trigger=anyio.sleep_forever)


async def outage() -> object:
    """Ask before, during and after each kind of trouble."""
    async with (
        Network(latency=0.02, jitter=0.01, seed=7) as net,
        httpx.AsyncClient() as client,
    ):
        stock = net.host("stock")
        stock.start(serve)
        await settle()
        assert (await client.get("http://stock/left")).json() == 3

        net.partition("main", "stock")
        with pytest.raises(httpx.ReadTimeout):
            await client.get("http://stock/left")
        net.heal()

        stock.kill()
        with pytest.raises(httpx.ConnectError):
            await client.get("http://stock/left")
        stock.restart()
        await settle()

        with anyio.move_on_after(
            0.05
        ):  # cancelled while the answer is on its way
            await client.get("http://stock/left")
        assert (await client.get("http://stock/left")).json() == 3
    assert_quiescent(net)  # no socket is left open
    return net.trace


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_outage_twice(backend: str) -> None:
    """Both runs pass, and on the network the same happened in both."""
    assert run(outage, backend=backend) == run(outage, backend=backend)
