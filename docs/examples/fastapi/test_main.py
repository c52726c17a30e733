"""Tests of ``main.py`` in virtual time, on both backends."""

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest

from main import app, clients, prices
from mtaio.testing import virtual_backend

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return virtual_backend(request.param)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    clients.reset()  # what is at module level outlives a test
    prices.clear_nowait()
    to_app = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=to_app, base_url="http://shop") as client,
    ):
        yield client


async def test_one_query_for_all(client: httpx.AsyncClient) -> None:
    loads = prices.statistics().loads
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(client.get, "/prices/tea")
    assert anyio.current_time() == pytest.approx(0.2)  # of virtual time
    assert prices.statistics().loads - loads == 1


async def test_a_client_that_asks_too_often(client: httpx.AsyncClient) -> None:
    answers = [await client.get("/prices/tea") for _ in range(12)]
    assert [answer.status_code for answer in answers].count(429) == 1
    assert answers[-1].headers["Retry-After"] == "1"
    await anyio.sleep(1)
    assert (await client.get("/prices/tea")).status_code == 200
