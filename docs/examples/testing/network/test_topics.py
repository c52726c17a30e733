"""Each thing that a simulated network can do, in a test of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from mtaio.testing import (
    FaultMissedError,
    Host,
    Network,
    Victim,
    assert_quiescent,
    explore,
    settle,
)

if TYPE_CHECKING:
    from anyio.abc import SocketStream

pytestmark = pytest.mark.anyio


# --8<-- [start:echo]
async def echo() -> None:
    """Send back on each connection what comes in."""

    async def answer(stream: SocketStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send(data)

    async with await anyio.create_tcp_listener(local_port=7) as listener:
        await listener.serve(answer)


async def ask(name: str, question: bytes = b"?") -> bytes:
    """Return what the host of that name answers."""
    async with await anyio.connect_tcp(name, 7) as stream:
        await stream.send(question)
        return await stream.receive()


# --8<-- [end:echo]
# --8<-- [start:hosts]
async def test_hosts(net: Network) -> None:
    """Each host has a name, an address, and ports of its own."""
    net.host("a").start(echo)
    net.host("b").start(echo)  # on the same port of another machine
    await settle()
    assert await ask("a") == await ask("b") == b"?"
    assert net.host("a").address == "10.0.0.2"
    with net.host(
        "a"
    ):  # in this block, and in tasks started in it, we are on a
        assert await ask("localhost") == b"?"
        async with await anyio.connect_tcp("b", 7):
            assert "a" in {
                socket.host for socket in net.open if socket.peer == "b:7"
            }
    with pytest.raises(OSError, match=r"."):
        await ask("localhost")  # nobody listens on main


# --8<-- [end:hosts]
# --8<-- [start:links]
async def test_links(net: Network) -> None:
    """A link has a latency, and a bandwidth, each way of its own if you like."""
    net.link("main", "far", latency=0.1)
    net.link("far", "main", latency=0.3, bandwidth=1000, oneway=True)
    net.host("far").start(echo)
    await settle()
    began = anyio.current_time()
    await ask("far", bytes(500))
    # Connect: 0.1 there, 0.3 back. Ask: 0.1 there, half a second to send the answer, 0.3 back.
    assert anyio.current_time() - began == pytest.approx(1.3)


# --8<-- [end:links]
# --8<-- [start:faults]
async def test_faults(net: Network) -> None:
    """What each fault does to a connect."""
    net.host("a").start(echo)
    await settle()

    refused = net.refuse("a", port=7)
    with pytest.raises(OSError, match=r"."):
        await ask("a")
    net.heal(refused)

    cut = net.partition("main", "a")
    with anyio.move_on_after(10) as scope:
        await ask("a")
    assert scope.cancelled_caught
    assert cut.struck == 4  # SYN, sent again after 1, 2 and 4 more seconds
    net.heal()  # all faults that last
    assert await ask("a") == b"?"

    async with await anyio.connect_tcp("a", 7) as stream:
        net.reset("main", "a")  # strikes now, or never
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()


# --8<-- [end:faults]
# --8<-- [start:missed]
async def test_fault_that_never_struck() -> None:
    """A test whose fault met nothing has shown nothing, and fails."""
    with pytest.raises(
        FaultMissedError, match=r"nothing was sent between them"
    ):
        async with Network() as net:
            net.host("a").start(echo)
            net.partition("main", "a")
            # ... and here the test forgets to ask anything.


# --8<-- [end:missed]
# --8<-- [start:names]
async def test_names(net: Network) -> None:
    """A name that does not resolve for a while, and one that moves."""
    net.host("blue").start(echo)
    net.host("green").start(echo)
    net.name("api.example.com", "blue")
    await settle()
    assert await ask("api.example.com") == b"?"

    fault = net.fail_dns("api.example.com")
    with pytest.raises(OSError, match=r"."):
        await ask("api.example.com")
    net.heal(fault)

    net.host("blue").kill(silent=True)
    net.name("api.example.com", "green")
    assert await ask("api.example.com") == b"?"


# --8<-- [end:names]
# --8<-- [start:slow]
async def test_peer_that_does_not_read(net: Network) -> None:
    """The buffers take some of it; then the sender waits for as long as it has patience."""

    async def serve() -> None:
        async with await anyio.create_tcp_listener(local_port=9) as listener:
            await listener.serve(discard)

    async def discard(stream: SocketStream) -> None:
        async with stream:
            async for _ in stream:
                pass

    slow = net.host("slow")
    slow.read_rate = 0
    slow.start(serve)
    await settle()
    async with await anyio.connect_tcp("slow", 9) as stream:
        with anyio.move_on_after(60) as scope:
            await stream.send(bytes(10_000_000))
        assert scope.cancelled_caught
    slow.read_rate = 1_000_000  # bytes a second
    began = anyio.current_time()
    async with await anyio.connect_tcp("slow", 9) as stream:
        await stream.send(bytes(10_000_000))
    assert 9 < anyio.current_time() - began < 11


# --8<-- [end:slow]
# --8<-- [start:half]
async def test_half_open_connection(net: Network) -> None:
    """A machine lost its power: a peer that only reads never learns of it."""
    net.host("a").start(echo)
    await settle()
    async with await anyio.connect_tcp("a", 7) as stream:
        await stream.send(b"?")
        assert await stream.receive() == b"?"
        net.host("a").kill(silent=True)
        with anyio.move_on_after(3600) as scope:
            await stream.receive()
        assert scope.cancelled_caught
        net.host("a").restart()
        await settle()
        await stream.send(
            b"?"
        )  # the machine is back, and knows no such connection
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()


# --8<-- [end:half]
# --8<-- [start:open]
async def test_nothing_is_left_open() -> None:
    """The network knows which sockets are open, on which host, and to whom."""
    async with Network() as net:
        net.host("a").start(echo)
        await settle()
        stream = await anyio.connect_tcp("a", 7)
        await settle()
        mine, theirs = (socket for socket in net.open if socket.peer)
        assert (mine.host, theirs.host) == ("main", "a")
        assert (mine.peer, theirs.local) == ("a:7", "10.0.0.2:7")
        with pytest.raises(AssertionError, match="not quiescent"):
            assert_quiescent(net)
        await stream.aclose()
    assert_quiescent(net)


# --8<-- [end:open]
# --8<-- [start:fixture]
@pytest.fixture
def stock(net: Network) -> Host:
    """Start a server; it runs as soon as the network is open, just before the test."""
    host = net.host("stock")
    host.start(echo)
    return host


@pytest.mark.network(latency=0.02)
async def test_stock_is_back(stock: Host) -> None:
    """A server that is started again answers again."""
    await settle()
    assert await ask("stock") == b"?"
    stock.restart()
    await settle()
    assert await ask("stock") == b"?"


# --8<-- [end:fixture]
# --8<-- [start:explored]
@explore(seeds=20, exhaustive=1)
async def test_cancelled_anywhere(victim: Victim) -> None:
    """Wherever a request is cancelled, no socket is left, here or there."""
    async with Network(latency=0.01) as net:
        net.host("a").start(echo)
        await settle()

        async def impatient() -> None:
            await victim(ask, "a")

        async with anyio.create_task_group() as group:
            group.start_soon(impatient)
        await anyio.sleep(1)  # what was on its way has arrived
        assert [socket for socket in net.open if socket.peer] == []


# --8<-- [end:explored]
