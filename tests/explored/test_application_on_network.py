"""An application that serves on a simulated network, stopped and cancelled at any moment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio
import pytest

from mtaio.testing import Network, assert_quiescent, explore, settle
from tests.app.test_stop_on_network import CANCEL, DELAY, DRAIN, Clients, Shop

if TYPE_CHECKING:
    from mtaio.testing import Victim

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the network needs Linux")


def clear(shop: Shop, clients: Clients) -> None:
    """Assert what must hold in the end."""
    assert [each for each in clients.net.open if each.host == "shop"] == []
    assert {who for who, how in clients.how.items() if how == "answered"} >= shop.ended
    assert shop.begun == shop.ended | shop.cancelled.keys()


@explore(seeds=30, exhaustive=None)
async def test_stopped_while_clients_come() -> None:
    """Those who come before the end of the delay are answered, nobody is reset, in any order."""
    async with Network(latency=0.005) as net:
        shop, clients = Shop(net), Clients(net)
        await settle()
        async with anyio.create_task_group() as group:
            for number in range(3):
                with net.host(f"client-{number % 2}"):
                    group.start_soon(clients.ask, f"{number}", "quick", DELAY - 0.01 * number)
                    group.start_soon(clients.ask, f"late-{number}", "quick", DELAY + 0.03 * number)
                    group.start_soon(clients.ask, f"slow-{number}", "slow", 0.0)
                    group.start_soon(clients.ask, f"never-{number}", "never", 0.0)
            shop.app.stop_nowait("SIGTERM")
            with net.host("shop"):
                await shop.app.wait_closed()
        for number in range(3):
            assert clients.how[f"{number}"] == clients.how[f"slow-{number}"] == "answered"
            assert clients.how[f"never-{number}"] == "503"
            assert clients.how[f"late-{number}"] in {"answered", "refused"}
            assert clients.at[f"never-{number}"] < DELAY + DRAIN + 0.1
        assert shop.closed_at is not None
        assert shop.closed_at <= DELAY + DRAIN + CANCEL
        clear(shop, clients)
    assert_quiescent(net)


@explore(seeds=5, exhaustive=None, inject=("checkpoint",))  # "step" takes 23 s
async def test_cancelled_while_clients_come(victim: Victim) -> None:
    """Whenever the program is cancelled, it leaves no socket, and tells no client of an answer."""
    async with Network(latency=0.005) as net:
        shop, clients = Shop(net, start=False), Clients(net)

        async def program() -> None:
            with net.host("shop"):
                await victim(shop.live)

        async with anyio.create_task_group() as group:
            group.start_soon(program)
            await settle()
            with net.host("client"):
                group.start_soon(clients.ask, "quick", "quick", 0.01)
                group.start_soon(clients.ask, "slow", "slow")
            await anyio.sleep(0.5)
            shop.app.stop_nowait("SIGTERM")
        clear(shop, clients)
    assert_quiescent(net)
