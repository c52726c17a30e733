"""The gateway of the guide and its upstream, each on a machine of its own, unchanged."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from mtaio.testing import Network, assert_quiescent, run, settle
from tests.examples.site import Site
from tests.programs import ROOT, load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import ModuleType

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the network needs Linux")

LATENCY = 0.02
ROUND_TRIP = 2 * LATENCY
TIMEOUT = 4.0


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the program, set up for a network with a host called "quotes"."""
    for name, value in {
        "GATEWAY_UPSTREAM": "http://quotes",
        "GATEWAY_BIND": "0.0.0.0:80",
        "GATEWAY_KEYS": ",".join(f"key-{number}" for number in range(40)),
        "MTAIO_DEFAULT_TIMEOUT": str(TIMEOUT),
        "MTAIO_LOG_LEVEL": "ERROR",
    }.items():
        monkeypatch.setenv(name, value)
    return load(ROOT / "docs" / "examples" / "programs" / "gateway.py", "example_gateway")


class Clients:
    """Those who ask the gateway; each answer comes with the seconds that it took."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def ask(self, symbol: str, key: int = 0) -> tuple[int, str, float]:
        """Ask, and return status, Retry-After and seconds."""
        began = anyio.current_time()
        answer = await self.client.get(
            f"http://gateway/quotes/{symbol}", headers={"X-API-Key": f"key-{key}"}
        )
        took = round(anyio.current_time() - began, 6)
        return answer.status_code, answer.headers.get("Retry-After", ""), took

    async def ask_all(self, *symbols: str) -> list[tuple[int, str, float]]:
        """Ask at once, each with a key of its own."""
        found: dict[str, tuple[int, str, float]] = {}

        async def one(symbol: str, key: int) -> None:
            found[symbol] = await self.ask(symbol, key)

        async with anyio.create_task_group() as group:
            for number, symbol in enumerate(symbols):
                group.start_soon(one, symbol, number)
        return [found[symbol] for symbol in symbols]


def simulate(
    gateway: ModuleType,
    backend: str,
    quotes: Site,
    test: Callable[[Network, Clients], Awaitable[None]],
) -> None:
    """Run a test with the gateway and its upstream up, each on a host; then stop the gateway."""

    async def live() -> None:
        async with gateway.app:
            await gateway.app.wait_closed()

    async def main() -> None:
        async with Network(latency=LATENCY) as net, httpx.AsyncClient(timeout=60) as client:
            net.host("quotes").start(quotes.serve)
            net.host("gateway").start(live)
            await settle()
            await test(net, Clients(client))
            gateway.app.stop_nowait("the test is over")
            with net.host("gateway"):
                await gateway.app.wait_closed()
            assert [each for each in net.open if each.host == "gateway"] == []
        assert_quiescent(net)

    run(main, backend=backend)


def echo(_: str, path: str) -> httpx.Response:
    """Answer with the path."""
    return httpx.Response(200, text=path)


def test_upstream_is_asked_once_for_all(gateway: ModuleType, backend: str) -> None:
    """Clients that ask for the same have one answer, which is kept for five seconds."""
    quotes = Site(echo, takes=1.0)

    async def test(_: Network, clients: Clients) -> None:
        answers: list[tuple[int, str, float]] = []

        async def ask(key: int) -> None:
            answers.append(await clients.ask("a", key))

        async with anyio.create_task_group() as group:
            for key in range(20):
                group.start_soon(ask, key)
        # To connect and to ask, both to the gateway and from it to the upstream.
        assert answers == [(200, "", 1.0 + 4 * ROUND_TRIP)] * 20
        assert await clients.ask("a") == (200, "", ROUND_TRIP)
        await anyio.sleep(6)
        # httpx has closed both connections after five seconds, as it does.
        assert await clients.ask("a") == (200, "", 1.0 + 4 * ROUND_TRIP)
        assert [path for _, path in quotes.of("quotes")] == ["/quotes/a"] * 2

    simulate(gateway, backend, quotes, test)


def test_room_for_eight(gateway: ModuleType, backend: str) -> None:
    """Eight are asked at once, sixteen wait, and six are told to come again at once."""
    quotes = Site(echo, takes=1.0)

    async def test(_: Network, clients: Clients) -> None:
        answers = await clients.ask_all(*(f"held-{number}" for number in range(30)))
        refused = [answer for answer in answers if answer[0] == 503]
        assert refused == [(503, "1", 2 * ROUND_TRIP)] * 6
        took = sorted(seconds for status, _, seconds in answers if status == 200)
        first, then = 1.0 + 4 * ROUND_TRIP, 1.0 + ROUND_TRIP
        assert took == pytest.approx([first] * 8 + [first + then] * 8 + [first + 2 * then] * 8)
        assert quotes.most_at_once == {"quotes": 8}

    simulate(gateway, backend, quotes, test)


def test_outage(gateway: ModuleType, backend: str) -> None:
    """While the upstream cannot be reached, what was kept is served, and the rest fails in time."""

    async def test(net: Network, clients: Clients) -> None:
        assert await clients.ask("kept") == (200, "", 4 * ROUND_TRIP)
        await anyio.sleep(6)
        fault = net.partition("gateway", "quotes")
        assert await clients.ask("new") == (504, "5", TIMEOUT + 2 * ROUND_TRIP)
        assert await clients.ask("kept") == (200, "", TIMEOUT + ROUND_TRIP)
        net.heal(fault)
        await anyio.sleep(6)
        assert await clients.ask("kept") == (200, "", 4 * ROUND_TRIP)

    simulate(gateway, backend, Site(echo), test)


def test_upstream_is_killed(gateway: ModuleType, backend: str) -> None:
    """A request that it had is answered with 502 as soon as it dies; later ones at once."""
    quotes = Site(echo, takes=1.0)

    async def test(net: Network, clients: Clients) -> None:
        assert (await clients.ask("kept"))[0] == 200
        await anyio.sleep(6)

        async def kill() -> None:
            await anyio.sleep(0.5)
            net.host("quotes").kill()

        async with anyio.create_task_group() as group:
            group.start_soon(kill)
            status, wish, took = await clients.ask("b")
            assert (status, wish) == (502, "5")
            assert 0.5 < took < 0.5 + 3 * ROUND_TRIP
        assert await clients.ask("c") == (502, "5", 2 * ROUND_TRIP)
        assert await clients.ask("kept") == (200, "", 2 * ROUND_TRIP)  # as it was
        net.host("quotes").restart()
        await anyio.sleep(6)
        assert await clients.ask("kept") == (200, "", 1.0 + 4 * ROUND_TRIP)

    simulate(gateway, backend, quotes, test)


def test_client_is_limited(gateway: ModuleType, backend: str) -> None:
    """A key may ask ten times at once and then five times a second; others do not notice."""

    async def test(_: Network, clients: Clients) -> None:
        statuses: list[int] = []

        async def ask() -> None:
            statuses.append((await clients.ask("a", 1))[0])

        async with anyio.create_task_group() as group:
            for _i in range(15):
                group.start_soon(ask)
        assert sorted(statuses) == [200] * 10 + [429] * 5
        assert (await clients.ask("a", 2))[0] == 200
        await anyio.sleep(1)
        assert [(await clients.ask("a", 1))[0] for _i in range(5)] == [200] * 5

    simulate(gateway, backend, Site(echo), test)
