"""The options of sockets that change what the simulated TCP does."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.abc import SocketStream

from mtaio.testing import Network, Simulation
from tests.testing.network.loopback import raw_socket

if TYPE_CHECKING:
    from collections.abc import Callable


async def hold(stream: SocketStream) -> None:
    """Keep a connection open, and read nothing."""
    async with stream:
        await anyio.sleep_forever()


async def silent() -> None:
    """Serve connections that say nothing."""
    async with await anyio.create_tcp_listener(local_port=80) as listener:
        await listener.serve(hold)


ALIVE = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ([ALIVE], 7200 + 9 * 75),
        ([ALIVE, (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)], 30 + 9 * 75),
        ([ALIVE, (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)], 7200 + 9 * 2),
        ([ALIVE, (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 1)], 7200 + 75),
    ],
)
async def test_keep_alive_notices_a_partition(
    sim: Simulation, options: list[tuple[int, int, int]], seconds: float
) -> None:
    """Who only waits is told after the times that were set, or else Linux's."""
    async with Network() as net:
        net.host("stock").start(silent)
        await anyio.sleep(1)
        async with await anyio.connect_tcp("stock", 80) as stream:
            for option in options:
                raw_socket(stream).setsockopt(*option)
            await anyio.sleep(1)
            net.partition("main", "stock", required=False)
            began = sim.time()
            with pytest.raises(anyio.BrokenResourceError) as caught:
                await stream.receive()
            assert isinstance(caught.value.__cause__, TimeoutError)
            assert sim.time() == began + seconds


async def test_the_user_timeout_of_a_listener_is_inherited(sim: Simulation) -> None:
    """TCP_USER_TIMEOUT, in milliseconds, bounds how long data waits for an acknowledgement."""
    broken: list[float] = []

    async def talk(stream: SocketStream) -> None:
        async with stream:
            await anyio.sleep(1)
            await stream.send(b"into the void")
            with pytest.raises(anyio.BrokenResourceError):
                await stream.receive()
            broken.append(sim.time())

    async def serve() -> None:
        async with await anyio.create_tcp_listener(local_port=80) as listener:
            sock = raw_socket(listener.listeners[0])
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5000)
            await listener.serve(talk)

    async with Network() as net:
        net.host("stock").start(serve)
        await anyio.sleep(1)
        async with await anyio.connect_tcp("stock", 80):
            await anyio.sleep(0.5)
            net.partition("main", "stock")
            await anyio.sleep(100)
    assert broken == [7.0]


READS: dict[str, Callable[[socket.socket], object]] = {
    "recv": lambda sock: sock.recv(10),
    "recv_into": lambda sock: sock.recv_into(bytearray(10)),
    "recvmsg": lambda sock: sock.recvmsg(10),
    "send": lambda sock: sock.send(b"x"),
    "sendmsg": lambda sock: sock.sendmsg([b"x"]),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("has_ended", [False, True])
async def test_what_has_timed_out_is_told_once(read: str, *, has_ended: bool) -> None:
    """Whoever asks first is told why the connection has failed, then there is the end."""
    async with Network() as net:
        net.host("stock").start(silent)
        await anyio.sleep(1)
        async with await anyio.connect_tcp("stock", 80) as stream:
            sock = raw_socket(stream)
            with sock.dup() as twin:
                twin.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5000)
                await anyio.sleep(1)
                net.partition("main", "stock")
                twin.send(b"into the void")
                if has_ended and not read.startswith("send"):
                    twin.shutdown(socket.SHUT_WR)
                await anyio.sleep(10)
                with pytest.raises(TimeoutError):
                    READS[read](twin)
                if read.startswith("send"):
                    with pytest.raises(BrokenPipeError):
                        READS[read](twin)
                assert twin.recv(10) == b""


async def test_no_linger_resets() -> None:
    """To close with SO_LINGER and no time is a reset, with time it is none."""
    for seconds, expected in ((0, ConnectionResetError), (5, None)):

        async def leave(stream: SocketStream, seconds: int = seconds) -> None:
            sock = raw_socket(stream)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
            await stream.aclose()

        async with (
            Network(),
            await anyio.create_tcp_listener(local_port=80) as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listener.serve, leave)
            async with await anyio.connect_tcp("localhost", 80) as stream:
                with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)) as caught:
                    await stream.receive()
                assert type(caught.value.__cause__) is (expected or type(None))
            group.cancel_scope.cancel()
