"""
An application that is told to stop, on a simulated network.

Fifty clients and more of all kinds, with partitions at every moment of the drain: what was accepted
is answered, who comes later is refused and never reset, the time limits are exact, and nothing is
left.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.app import Application
from mtaio.config import Settings
from mtaio.testing import Network, assert_quiescent, run, settle

if TYPE_CHECKING:
    from anyio.abc import ByteStream, TaskGroup

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the network needs Linux")

DELAY = 1.0
TOTAL = 11.0
DRAIN = 7.2
"""Of the 10 seconds after the delay, 72 %."""
CANCEL = 0.8
"""And 8 %."""
LAST = 0.6
"""Until what is being sent is cancelled on trio, where it is shielded."""
FAREWELL = 0.5
"""Seconds in which the answers to what was cancelled reach their clients."""


class Shop:
    """An application on a host of its own, and what its handlers have seen."""

    def __init__(self, net: Network, *, name: str = "shop", start: bool = True) -> None:
        settings = Settings(drain_delay=DELAY, shutdown_timeout=TOTAL)
        self.app = Application(settings, probes=False, signals=False, logging=False)
        self.app.serve(self.web, bind="0.0.0.0:80")
        self.begun: set[str] = set()
        self.ended: set[str] = set()
        self.cancelled: dict[str, float] = {}
        self.closed_at: float | None = None
        self.host = net.host(name)
        if start:
            self.host.start(self.live)

    async def live(self) -> None:
        """Run it, as a program does."""
        async with self.app:
            await self.app.wait_closed()
        self.closed_at = anyio.current_time()

    async def web(self, scope: Any, receive: Any, send: Any) -> None:
        """Be the ASGI application. The path says what is asked, and by whom."""
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        _, what, who = scope["path"].split("/")
        self.begun.add(who)
        try:
            await self._answer(what, send)
            self.ended.add(who)
        except anyio.get_cancelled_exc_class():
            self.cancelled[who] = anyio.current_time()
            raise

    async def _answer(self, what: str, send: Any) -> None:
        if what == "slow":
            await anyio.sleep(3)
        if what == "never":
            await anyio.sleep_forever()
        headers = [(b"content-length", b"2")] if what in {"quick", "slow"} else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if what == "stream":
            for _ in range(1_000):
                await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
        await send({"type": "http.response.body", "body": b"ok"})


@dataclass
class Clients:
    """Those who ask a shop, and how it went for each of them."""

    net: Network
    how: dict[str, str] = field(default_factory=dict)
    at: dict[str, float] = field(default_factory=dict)

    def end(self, who: str, how: str) -> None:
        """Note how it ended for a client."""
        self.how[who] = how
        self.at[who] = round(anyio.current_time(), 6)

    async def ask(self, who: str, what: str = "quick", start: float = 0.0) -> None:
        """Connect and ask once."""
        await anyio.sleep(start)
        try:
            stream = await anyio.connect_tcp("shop", 80)
        except OSError:
            self.end(who, "refused")
            return
        async with stream:
            await stream.send(f"GET /{what}/{who} HTTP/1.1\r\nhost: shop\r\n\r\n".encode())
            self.end(who, await answer(stream))

    async def hang_on(self, who: str, data: bytes) -> None:
        """Connect, send something, and stay until the server ends it."""
        async with await anyio.connect_tcp("shop", 80) as stream:
            await stream.send(data)
            self.end(who, await answer(stream))


async def answer(stream: ByteStream) -> str:
    """Read until the server has closed, and say in a word what came."""
    data = b""
    try:
        while True:
            data += await stream.receive()
    except anyio.BrokenResourceError:
        return "reset"
    except anyio.EndOfStream:
        pass
    if not data:
        return "closed"
    if data.startswith(b"HTTP/1.1 503"):
        return "503"
    return "answered" if data.endswith((b"\r\n\r\nok", b"0\r\n\r\n")) else "cut"


HANGING: dict[str, bytes] = {
    "silent": b"",
    "half a head": b"GET / HTTP/1.1\r\nho",
    "half a body": b"POST /quick/%s HTTP/1.1\r\nhost: shop\r\ncontent-length: 9\r\n\r\nabc",
    "idle": b"GET /quick/%s HTTP/1.1\r\nhost: shop\r\n\r\n",
    "slow": b"GET /slow/%s HTTP/1.1\r\nhost: shop\r\n\r\n",
    "never": b"GET /never/%s HTTP/1.1\r\nhost: shop\r\n\r\n",
    "deaf": b"GET /stream/%s HTTP/1.1\r\nhost: shop\r\n\r\n",
}
"""What clients send that stay."""


def enter(group: TaskGroup, clients: Clients, *, hosts: list[str], each: int) -> None:
    """Start so many clients of each kind that stay, on some hosts in turn."""
    for kind, data in HANGING.items():
        for number in range(each):
            who = f"{kind}-{number}".replace(" ", "-")
            host = clients.net.host("deaf" if kind == "deaf" else hosts[number % len(hosts)])
            if kind == "deaf":
                host.read_rate = 0
            with host:
                group.start_soon(clients.hang_on, who, data.replace(b"%s", who.encode()))


@pytest.mark.parametrize("offset", [0.0, 0.0023])
def test_fifty_clients_of_all_kinds(offset: float, backend: str) -> None:
    """
    Whoever asks before the end of the delay is answered, later ones are refused, nobody is reset.

    Meanwhile 56 clients stay, and of those only the ones that can be are answered.
    """

    async def main() -> None:
        async with Network(latency=0.005) as net:
            shop, clients = Shop(net), Clients(net)
            hosts = [f"client-{number}" for number in range(5)]
            await settle()
            async with anyio.create_task_group() as group:
                enter(group, clients, hosts=hosts, each=8)
                for number in range(100):
                    what = "quick" if number % 3 else "slow"
                    start = DELAY - 0.1 + number * 0.005
                    with net.host(hosts[number % 5]):
                        group.start_soon(partial(clients.ask, f"asks-{number}", what, start=start))
                await anyio.sleep(0.1 + offset)
                stopped_at = anyio.current_time()
                shop.app.stop_nowait("SIGTERM")
                with net.host("shop"):
                    await shop.app.wait_closed()
                await anyio.sleep(1)
                group.cancel_scope.cancel()  # those that read nothing

            asked = [clients.how.pop(f"asks-{number}") for number in range(100)]
            first = asked.index("refused")
            assert asked == ["answered"] * first + ["refused"] * (100 - first)
            # Not before the end of the delay, and as clients ask all the time, 0.1 after that.
            starts_at = DELAY - 0.1 + first * 0.005
            assert 0 <= starts_at - (stopped_at + DELAY) <= 0.15

            kinds = {(who.rpartition("-")[0], how) for who, how in clients.how.items()}
            assert kinds == {
                ("silent", "closed"),
                ("half-a-head", "closed"),
                ("half-a-body", "answered"),
                ("idle", "answered"),
                ("slow", "answered"),
                ("never", "503"),
            }
            # To the moment: the drain is over, and what is left is cancelled.
            ends = stopped_at + DELAY + DRAIN
            for who, at in shop.cancelled.items():
                late = round(at - ends, 6)
                assert late == 0 or (late <= LAST and who.startswith("deaf") and backend == "trio")
            assert shop.cancelled.keys() == {
                f"{kind}-{number}" for kind in ("never", "deaf") for number in range(8)
            }
            assert shop.app.statistics().cancelled == 16
            assert shop.begun == shop.ended | shop.cancelled.keys()
            assert shop.closed_at is not None
            assert FAREWELL <= round(shop.closed_at - ends, 6) <= CANCEL
            assert [each for each in net.open if each.host == "shop"] == []
        assert_quiescent(net)

    run(main, backend=backend)


def test_it_repeats(backend: str) -> None:
    """Two runs are equal to the byte, with jitter, a partition and streams cut anywhere."""

    async def main() -> object:
        async with Network(latency=0.005, jitter=0.003, segment=50) as net:
            shop, clients = Shop(net), Clients(net)
            await settle()
            async with anyio.create_task_group() as group:
                enter(group, clients, hosts=["near", "far"], each=2)
                await anyio.sleep(0.1)
                shop.app.stop_nowait("SIGTERM")
                await anyio.sleep(0.5)
                net.partition("far", "shop")
                await anyio.sleep(2)
                net.heal()
                with net.host("shop"):
                    await shop.app.wait_closed()
                group.cancel_scope.cancel()
        assert len(net.trace) > 1000
        return net.trace, clients.at

    assert run(main, backend=backend) == run(main, backend=backend)


def test_another_shop_goes_on(backend: str) -> None:
    """What is left of the connections of one is ended, and not those of a shop at the same port."""

    async def main() -> None:
        async with Network(latency=0.005) as net:
            shop, other = Shop(net), Shop(net, name="other")
            clients = Clients(net)
            await settle()
            async with anyio.create_task_group() as group:
                enter(group, clients, hosts=["near"], each=1)
                async with await anyio.connect_tcp("other", 80) as stream:
                    await stream.send(b"GET /never/other HTTP/1.1\r\nhost: other\r\n\r\n")
                    await anyio.sleep(0.1)
                    shop.app.stop_nowait("SIGTERM")
                    with net.host("shop"):
                        await shop.app.wait_closed()
                    await anyio.sleep(1)
                    with anyio.move_on_after(1) as waiting:
                        await stream.receive()
                assert waiting.cancelled_caught
                assert other.begun == {"other"}
                group.cancel_scope.cancel()

    run(main, backend=backend)


@pytest.mark.heavy
@pytest.mark.parametrize("silent", [False, True])
def test_killed_at_every_moment_of_the_drain(silent: bool, backend: str) -> None:  # noqa: FBT001 - a case
    """It is gone at once, and another takes its place while the dead one still cleans up."""

    async def main(moment: float) -> None:
        async with Network(latency=0.005) as net:
            shops: list[Shop] = []

            async def program() -> None:
                shops.append(Shop(net, start=False))
                await shops[-1].live()

            host, clients = net.host("shop"), Clients(net)
            host.start(program)
            await settle()
            async with anyio.create_task_group() as group:
                enter(group, clients, hosts=["near"], each=2)
                await anyio.sleep(0.1)
                shops[0].app.stop_nowait("SIGTERM")
                await anyio.sleep(moment)
                host.kill(silent=silent)
                assert [each for each in net.open if each.host == "shop"] == []
                host.restart()
                await clients.ask("again")
                assert clients.how.pop("again") == "answered"
                assert shops[1].ended == {"again"}
                await anyio.sleep(30)
                group.cancel_scope.cancel()
            begun_and_lost = shops[0].begun - shops[0].ended - clients.how.keys()
            assert silent or not begun_and_lost  # the others heard of it
        assert_quiescent(net)

    for moment in (0.0, 1.01, 3.0, 8.205, 8.6):
        run(partial(main, moment), backend=backend)


@pytest.mark.heavy
@pytest.mark.parametrize("heals_after", [None, 2.0])
def test_partition_at_every_moment_of_the_drain(heals_after: float | None, backend: str) -> None:
    """
    Clients on the other side lose nothing that was answered, those on this side nothing at all.

    The times are the same as without it: the shop waits for nobody.
    """

    async def main(begins: float) -> None:
        async with Network(latency=0.005) as net:
            shop, clients = Shop(net), Clients(net)
            await settle()
            async with anyio.create_task_group() as group:
                enter(group, clients, hosts=["near", "far"], each=2)
                for number in range(16):
                    with net.host("far" if number % 2 else "near"):
                        group.start_soon(
                            partial(clients.ask, f"asks-{number}", start=0.02 * number)
                        )
                await anyio.sleep(0.1)
                shop.app.stop_nowait("SIGTERM")
                await anyio.sleep(begins)
                fault = net.partition("far", "shop", required=False)
                if heals_after is not None:
                    await anyio.sleep(heals_after)
                    net.heal(fault)
                with net.host("shop"):
                    await shop.app.wait_closed()
                await anyio.sleep(1)
                left = [each for each in net.open if each.host == "shop"]
                net.heal()
                await anyio.sleep(200)  # for what TCP sends again
                group.cancel_scope.cancel()
            assert left == []
            assert shop.closed_at is not None
            assert FAREWELL <= round(shop.closed_at - (0.1 + DELAY + DRAIN), 6) <= CANCEL
            answered = {who for who, how in clients.how.items() if how == "answered"}
            assert answered == shop.ended
            assert "reset" not in clients.how.values()
            assert {clients.how.get(f"never-{number}") for number in range(2)} == {"503"}

    for moment in (0.0, 0.95, 1.003, 1.01, 1.02, 2.0, 8.195, 8.205, 8.6):
        run(partial(main, moment), backend=backend)
