"""The programs of the guide to FastAPI, under their own lifespan, in virtual time."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import anyio
import httpx
import pytest
from anyio import to_thread

from tests.programs import ROOT, load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import ModuleType

HOME = ROOT / "docs" / "examples" / "fastapi"


def load_shown() -> ModuleType:
    """Import the tests that the page shows, which import the program by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTAIO_HEALTH_BIND", "127.0.0.1:0")  # as the page says to run them
        patch.syspath_prepend(str(HOME))
        tests = load(HOME / "test_main.py", "example_test_main")
        shown_main.append(sys.modules.pop("main"))
    return tests


shown_main: list[Any] = []
shown = load_shown()
client = shown.client
test_one_query_for_all = shown.test_one_query_for_all
test_a_client_that_asks_too_often = shown.test_a_client_that_asks_too_often


async def test_health_and_metrics(client: httpx.AsyncClient) -> None:
    """The first program, of at most 40 lines, has health checks, and metrics of all its parts."""
    (main,) = shown_main
    assert len((HOME / "main.py").read_text("utf-8").splitlines()) <= 40
    await client.get("/prices/tea")
    await main.service.monitor.tick()

    def metrics() -> list[str]:
        with urlopen(f"http://{main.service.probes.address}/metrics") as answer:
            return str(answer.read().decode()).splitlines()

    report = await main.service.health.report()
    assert report.ready
    assert "database" in [check.name for check in report.checks]
    lines = await to_thread.run_sync(metrics)
    assert "mtaio_ttl_cache_size 1" in lines
    assert 'mtaio_keyed_rate_limiter_keys{name="clients"} 1' in lines
    assert [line for line in lines if line.startswith("mtaio_concurrency_limiter_acquired_total ")]


@asynccontextmanager
async def running(
    program: ModuleType, prepare: Callable[[], None] = lambda: None
) -> AsyncIterator[httpx.AsyncClient]:
    """Enter the lifespan of a program, as a server does, and return a client."""
    app = program.app
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        prepare()
        async with app.router.lifespan_context(app):
            yield client
        assert program.service.state == "stopped"


@pytest.fixture(autouse=True)
def _any_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTAIO_HEALTH_BIND", "127.0.0.1:0")
    monkeypatch.setenv("RATES_API", "http://api")


async def test_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are retried and shared; a 404 is passed on; an old rate is better than none."""
    program: Any = load(HOME / "rates.py", "example_rates")
    script = {"/rates/usd": [503, 200], "/rates/nope": [404], "/rates/eur": [500, 500, 500]}

    async def answer(request: httpx.Request) -> httpx.Response:
        await anyio.sleep(0.1)
        return httpx.Response(script[request.url.path].pop(0), json={"rate": 1.25})

    to_api = partial(httpx.AsyncClient, transport=httpx.MockTransport(answer))
    async with running(
        program, lambda: monkeypatch.setattr(httpx, "AsyncClient", to_api)
    ) as client:
        statuses: list[int] = []

        async def ask(currency: str) -> None:
            answer = await client.get(f"/rates/{currency}")
            statuses.append(answer.status_code)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask, "usd")
        await ask("nope")
        await ask("eur")
        assert statuses == [200, 200, 200, 404, 503]
        assert [path for path, left in script.items() if left] == []
        script["/rates/usd"] = [500, 500, 500]
        await anyio.sleep(61)
        await ask("usd")
        assert statuses[-1] == 200
        assert script["/rates/usd"] == []


async def test_orders(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What goes on after a response is waited for at the end, and logged if it fails."""
    program: Any = load(HOME / "orders.py", "example_orders")

    async def fail(_: str) -> None:
        raise ValueError("no mail today")

    async with running(program) as client:
        await anyio.sleep(0.5)
        began = anyio.current_time()
        assert (await client.post("/orders/tea")).status_code == 202
        assert anyio.current_time() == began
        await anyio.sleep(61)
        with monkeypatch.context() as patch:
            patch.setattr(program, "send", fail)
            assert (await client.post("/orders/ink")).status_code == 202
            await anyio.sleep(0.1)
        assert (await client.post("/orders/milk")).status_code == 202
    assert capsys.readouterr().out.splitlines() == [
        "orders: 0",
        "sent: receipt for tea",
        "orders: 1",
        "sent: receipt for milk",
    ]
    (record,) = [each for each in caplog.records if each.name == "mtaio.errors"]
    assert "no mail today" in record.message
    assert "item='ink'" in record.message


async def test_orders_faster_than_their_receipts(capsys: pytest.CaptureFixture[str]) -> None:
    """A request never waits for the mails of others: a thousand wait, then 503 is sent."""
    program: Any = load(HOME / "orders.py", "example_busy_orders")
    async with running(program) as client:
        began = anyio.current_time()
        answers = [await client.post("/orders/tea") for _ in range(1006)]
        assert anyio.current_time() == began
        assert [answer.status_code for answer in answers] == [202] * 1004 + [503] * 2
        assert answers[-1].headers["Retry-After"] == "10"
        assert len(program.orders) == 1004
        await anyio.sleep(1.5)
        assert (await client.post("/orders/milk")).status_code == 202
        await anyio.sleep(250)
    assert capsys.readouterr().out.count("sent: receipt") == 1005


async def test_reports(capsys: pytest.CaptureFixture[str]) -> None:
    """Threads share a load, take slots without waiting, and have the event loop wait for them."""
    program: Any = load(HOME / "reports.py", "example_reports")
    async with running(program) as client:
        statuses: list[int] = []

        async def post(path: str) -> None:
            statuses.append((await client.post(path)).status_code)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(client.get, "/totals/may")
        assert (await client.get("/totals/may")).json() == 28.5
        assert program.total.cache.statistics().loads == 1
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(post, "/prints/may")
        assert sorted(statuses) == [200, 503]
        await post("/mails/may")
        assert statuses[-1] == 200
    assert capsys.readouterr().out == "printed may\nsent may\n"
