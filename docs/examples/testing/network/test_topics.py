"""What a simulated network can do, a test for each topic."""

# --8<-- [start:echo]
import anyio
import pytest
from anyio.abc import SocketStream

from mtaio.testing import Network, Victim, explore, settle

pytestmark = pytest.mark.anyio


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
# --8<-- [start:links]
async def test_links(net: Network) -> None:
    net.link("main", "far", latency=0.1)
    net.link("far", "main", latency=0.3, bandwidth=1000, oneway=True)
    net.host("far").start(echo)
    await settle()
    began = anyio.current_time()
    await ask("far", bytes(500))
    # 0.1 + 0.3 to connect; then 0.1 there, 0.5 to send the answer, 0.3 back
    assert anyio.current_time() - began == pytest.approx(1.3)


# --8<-- [end:links]
# --8<-- [start:faults]
async def test_faults(net: Network) -> None:
    net.host("a").start(echo)
    await settle()

    refused = net.refuse("a", port=7)
    with pytest.raises(OSError, match="attempts failed"):
        await ask("a")
    net.heal(refused)

    cut = net.partition("main", "a")
    with anyio.move_on_after(10) as scope:
        await ask("a")
    assert scope.cancelled_caught
    assert cut.struck == 4  # SYN, sent again after 1, 2 and 4 more seconds
    net.heal()  # all faults that last

    async with await anyio.connect_tcp("a", 7) as stream:
        net.reset("main", "a")
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()


# --8<-- [end:faults]
# --8<-- [start:half]
async def test_half_open_connection(net: Network) -> None:
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
        await stream.send(b"?")  # the machine is back, and knows nothing of it
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()


# --8<-- [end:half]
# --8<-- [start:explored]
@explore(seeds=20, exhaustive=1)
async def test_cancelled_anywhere(victim: Victim) -> None:
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
