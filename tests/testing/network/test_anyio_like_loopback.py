"""What AnyIO and trio have for the network: simulated, it is like on the loopback."""

from __future__ import annotations

import hashlib
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import SocketAttribute

from tests.testing.network.loopback import Stage, like_loopback, raw_socket, serving

if TYPE_CHECKING:
    from anyio.abc import SocketStream

try:
    import trio
    import trio.testing
except ImportError:
    trio = None  # type: ignore[assignment]

ABORT = struct.pack("ii", 1, 0)
BIG = hashlib.shake_128().digest(2_000_000)

in_trio = partial(like_loopback, only="trio")


def abort(sock: Any) -> None:
    """Have the next close reset the connection."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)


# ---- AnyIO ---------------------------------------------------------------------------------------


@like_loopback(alike=False)
async def test_streams(stage: Stage) -> None:
    """Bytes go both ways, and the end of one is no end of the other."""

    async def echo(stream: SocketStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send(data.upper())
            await stream.send(b"bye")

    async with serving(stage, echo) as address:
        stream = await anyio.connect_tcp(*address)
        extra = stream.extra_attributes
        stage.see("remote", extra[SocketAttribute.remote_address]() == address)
        stage.see("remote port", extra[SocketAttribute.remote_port]() == address[1])
        stage.see("local", stage.host(extra[SocketAttribute.local_address]()[0]))
        stage.see("family", extra[SocketAttribute.family]())
        stage.see("no delay", raw_socket(stream).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        async with stream:
            await stage.wait("send", stream.send, b"hello")
            await stage.wait("receive", stream.receive)
            await stage.wait("send_eof", stream.send_eof)
            await stage.wait("send after it", stream.send, b"x")
            await stage.wait("receive", stream.receive)
            await stage.wait("receive", stream.receive)
            await stage.wait("receive", stream.receive)
        await stage.wait("receive when closed", stream.receive)
        await stage.wait("send when closed", stream.send, b"x")


@like_loopback(alike=False)
async def test_connections_are_refused(stage: Stage) -> None:
    """The error says why."""
    closed = stage.bound()
    await stage.wait("connect", anyio.connect_tcp, *closed.getsockname())
    await stage.wait(
        "from a port", anyio.connect_tcp, *closed.getsockname(), local_host=stage.ours[0]
    )


@like_loopback(apart=False)
async def test_names_are_tried_in_turn(stage: Stage) -> None:
    """A name is connected to where one of its addresses answers."""

    async def answer(stream: SocketStream) -> None:
        async with stream:
            await stream.send(b"answer")

    async with serving(stage, answer) as address:
        for name in ("127.0.0.1", "localhost"):
            for delay in (0.25, 0.0):
                async with await anyio.connect_tcp(
                    name, address[1], happy_eyeballs_delay=delay
                ) as stream:
                    await stage.wait(f"{name} {delay}", stream.receive)


@like_loopback(alike=False)
async def test_reset_streams(stage: Stage) -> None:
    """A reset breaks the stream of the peer."""

    async def reset(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            abort(raw_socket(stream))

    async with serving(stage, reset) as address:
        for what in ("receive", "send"):
            async with await anyio.connect_tcp(*address) as stream:
                await stream.send(b"go")
                if what == "receive":
                    await stage.wait("receive", stream.receive)
                    await stage.wait("receive", stream.receive)
                await stage.pause()
                await stage.wait("send", stream.send, b"x")
                await stage.wait("send", stream.send, b"x")
                await stage.wait("receive", stream.receive)


@like_loopback(alike=False)
async def test_write_to_a_closed_stream(stage: Stage) -> None:
    """The peer has closed: first there is the end, at last a broken stream."""

    async def close(stream: SocketStream) -> None:
        await stream.aclose()

    async with serving(stage, close) as address, await anyio.connect_tcp(*address) as stream:
        await stage.wait("receive", stream.receive)
        for _ in range(3):
            await stage.wait("send", stream.send, b"x")
            await stage.pause()
        await stage.wait("receive", stream.receive)


@like_loopback()
async def test_a_slow_reader(stage: Stage) -> None:
    """Who does not read holds up the writer; all of it arrives once it does."""
    start, done = anyio.Event(), anyio.Event()
    received = hashlib.sha256()

    async def slow(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()  # on asyncio, AnyIO reads without end until the first of these
            await start.wait()
            async for data in stream:
                received.update(data)
        done.set()

    async with serving(stage, slow) as address, await anyio.connect_tcp(*address) as stream:
        sent = False
        await stage.pause()
        await stream.send(b"x")
        await stage.pause()

        async def send() -> None:
            nonlocal sent
            for _ in range(6):
                await stream.send(BIG)
            await stream.send_eof()
            sent = True

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            await stage.pause()
            stage.see("sent", sent)
            start.set()
        with anyio.fail_after(20):
            await done.wait()
    stage.see("received", received.hexdigest())


@like_loopback()
async def test_a_cancelled_sender(stage: Stage) -> None:
    """Who is cancelled while it waits for room has sent a part, and can close."""
    done, read = anyio.Event(), anyio.Event()

    async def slow(stream: SocketStream) -> None:
        received = 0
        async with stream:
            await stream.receive()
            await done.wait()
            async for data in stream:
                received += len(data)
        stage.see("a part", 0 < received < len(BIG) * 6)
        read.set()

    async with serving(stage, slow) as address:
        with anyio.CancelScope() as scope:
            async with (
                await anyio.connect_tcp(*address) as stream,
                anyio.create_task_group() as group,
            ):
                await stage.pause()
                await stream.send(b"x")
                await stage.pause()
                group.start_soon(stream.send, BIG * 6)
                await stage.pause()
                scope.cancel()
        stage.see("cancelled", scope.cancelled_caught)
        done.set()
        with anyio.fail_after(20):
            await read.wait()


@like_loopback(alike=False)
async def test_closed_while_receiving(stage: Stage) -> None:
    """To close a stream in which another task receives ends that."""
    ended = anyio.Event()

    async def hold(stream: SocketStream) -> None:
        async with stream:
            await ended.wait()
            await stage.wait("server", stream.receive)

    async with serving(stage, hold) as address:
        stream = await anyio.connect_tcp(*address)
        async with anyio.create_task_group() as group:
            group.start_soon(stage.wait, "receive", stream.receive)
            await stage.pause()
            await stream.aclose()
        ended.set()
        await stage.pause()


@like_loopback(alike=False)
async def test_listeners(stage: Stage) -> None:
    """A listener accepts what connects; its address is its own until it is closed."""
    with stage.server():
        listener = await anyio.create_tcp_listener(
            local_host=stage.address, local_port=0, backlog=3
        )
    address = raw_socket(listener.listeners[0]).getsockname()
    clients = [await anyio.connect_tcp(*address) for _ in range(3)]
    inner: Any = listener.listeners[0]
    for client in clients:
        accepted = await inner.accept()
        async with accepted:
            stage.see(
                "peer", raw_socket(accepted).getpeername() == raw_socket(client).getsockname()
            )
            await client.send(b"hello")
            await stage.wait("receive", accepted.receive)
        await client.aclose()
    with stage.server():
        await stage.wait(
            "in use", anyio.create_tcp_listener, local_host=stage.address, local_port=address[1]
        )
    await listener.aclose()
    await stage.wait("connect", anyio.connect_tcp, *address)
    with stage.server():
        again = await anyio.create_tcp_listener(local_host=stage.address, local_port=address[1])
    stage.see("again", raw_socket(again.listeners[0]).getsockname() == address)
    await again.aclose()


@like_loopback(apart=False)
async def test_a_listener_on_all_addresses(stage: Stage) -> None:
    """A listener without an address has all of them."""
    listener = await anyio.create_tcp_listener(family=socket.AF_INET, local_port=0)
    names = [raw_socket(each).getsockname()[0] for each in listener.listeners]
    stage.see("names", names)
    inner: Any = listener.listeners[0]
    async with (
        listener,
        await anyio.connect_tcp("localhost", raw_socket(inner).getsockname()[1]),
        await inner.accept() as stream,
    ):
        stage.see("name", raw_socket(stream).getsockname()[0])


@like_loopback(alike=False)
async def test_datagrams(stage: Stage) -> None:
    """AnyIO's datagrams, connected and not."""
    with stage.server():
        server = await anyio.create_udp_socket(local_host=stage.address)
    address = raw_socket(server).getsockname()
    async with server:
        async with await anyio.create_udp_socket(family=socket.AF_INET) as client:
            await stage.wait("sendto", client.sendto, b"question", *address)
            data, peer = await server.receive()
            stage.see(
                "receive",
                (data, stage.host(peer[0]), peer[1] == raw_socket(client).getsockname()[1]),
            )
            await stage.wait("answer", server.sendto, b"answer", *peer)
            data, peer = await client.receive()
            stage.see("receive", (data, peer == address))
        async with await anyio.create_connected_udp_socket(*address) as connected:
            await stage.wait("send", connected.send, b"question")
            data, peer = await server.receive()
            stage.see("receive", (data, peer == raw_socket(connected).getsockname()))
            await server.sendto(b"answer", *peer)
            await stage.wait("receive", connected.receive)
            await server.aclose()
            await stage.pause()
            await stage.wait("send", connected.send, b"anybody?")
            await stage.pause()
            with anyio.move_on_after(0.05):
                await stage.wait("receive", connected.receive)
            await stage.wait("send", connected.send, b"really?")


# ---- trio ----------------------------------------------------------------------------------------


@in_trio()
async def test_streams_of_trio(stage: Stage) -> None:
    """Trio's streams: open, send, receive, the end of each way."""
    received: list[bytes] = []

    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            received.append(bytes(data))
            await stream.send_all(data.upper())
        await stream.send_all(b"bye")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        with stage.server():
            listeners = await trio.open_tcp_listeners(0, host=stage.address)
            nursery.start_soon(trio.serve_listeners, echo, listeners)
        address = listeners[0].socket.getsockname()
        stream = await trio.open_tcp_stream(*address)
        stage.see("peer", stream.socket.getpeername() == address)
        stage.see("no delay", stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        await stage.wait("send_all", stream.send_all, b"hello")
        await stage.wait("receive_some", stream.receive_some)
        await stage.wait("send_eof", stream.send_eof)
        await stage.wait("send_all", stream.send_all, b"x")
        await stage.wait("receive_some", stream.receive_some)
        await stage.wait("receive_some", stream.receive_some)
        await stream.aclose()
        await stage.wait("receive_some", stream.receive_some)
        await stage.wait("send_all", stream.send_all, b"x")
        nursery.cancel_scope.cancel()
    stage.see("received", received)


@in_trio()
async def test_errors_of_trio(stage: Stage) -> None:
    """Refused, reset, gone, in use: each as trio puts it."""
    closed = stage.bound()
    await stage.wait("refused", trio.open_tcp_stream, *closed.getsockname())
    with stage.server():
        await stage.wait(
            "in use", trio.open_tcp_listeners, closed.getsockname()[1], host=stage.address
        )
        await stage.wait("not mine", trio.open_tcp_listeners, 0, host="192.0.2.1")
        listeners = await trio.open_tcp_listeners(0, host=stage.address)
    listener = listeners[0]
    address = listener.socket.getsockname()
    await stage.wait(
        "from a place that is not mine",
        trio.open_tcp_stream,
        *address,
        local_address="192.0.2.1",
    )
    for what in ("receive", "send", "close"):
        stream = await trio.open_tcp_stream(*address, local_address=stage.ours[0])
        peer = await listener.accept()
        if what != "close":
            abort(peer)
        await peer.aclose()
        await stage.pause()
        if what == "receive":
            await stage.wait("receive", stream.receive_some)
        await stage.wait("send", stream.send_all, b"x")
        await stage.pause()
        await stage.wait("send", stream.send_all, b"x")
        await stage.wait("receive", stream.receive_some)
        await stream.aclose()
    await listener.aclose()


@in_trio()
async def test_sockets_of_trio(stage: Stage) -> None:
    """Trio's own sockets: every method that waits."""
    with stage.server():
        listener = trio.socket.socket()
    await listener.bind((stage.address, 0))
    listener.listen(5)
    client = trio.socket.socket()
    stage.see("client", (client.family, client.type, client.proto))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.wait, "connect", client.connect, listener.getsockname())
        server, peer = await listener.accept()
    stage.see("peer", peer == client.getsockname())
    stage.see("name", client.getpeername() == server.getsockname())
    await stage.wait("send", client.send, b"hello")
    await stage.wait("peek", server.recv, 2, socket.MSG_PEEK)
    await stage.wait("recv", server.recv, 3)
    buffer = bytearray(10)
    await stage.wait("recv_into", server.recv_into, buffer)
    stage.see("buffer", buffer)
    await stage.wait("sendmsg", client.sendmsg, [b"one", b"two"])
    await stage.wait("recvmsg", server.recvmsg, 4)
    await stage.wait("recvmsg_into", server.recvmsg_into, [buffer])
    stage.see("readable", client.is_readable())
    await server.send(b"x")
    await stage.pause()
    stage.see("readable", client.is_readable())
    await stage.wait("recvfrom", client.recvfrom, 10)
    twin = client.dup()
    client.close()
    await stage.wait("send", twin.send, b"twin")
    await stage.wait("recv", server.recv, 10)
    fd = twin.detach()
    again = trio.socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM)
    own = socket.socket(fileno=fd)
    own.close()
    await stage.wait("send", again.send, b"again")
    await stage.wait("recv", server.recv, 10)
    again.shutdown(socket.SHUT_WR)
    await stage.wait("recv", server.recv, 10)
    await stage.wait("connect", again.connect, listener.getsockname())
    for sock in (again, server, listener):
        sock.close()
    await stage.wait("recv", again.recv, 10)


@in_trio()
async def test_datagrams_of_trio(stage: Stage) -> None:
    """Trio's datagrams, connected and not."""
    with stage.server():
        server = trio.socket.socket(type=socket.SOCK_DGRAM)
    client = trio.socket.socket(type=socket.SOCK_DGRAM)
    await server.bind((stage.address, 0))
    address = server.getsockname()
    stage.see("sendto", await client.sendto(b"question", address))
    data, peer = await server.recvfrom(100)
    stage.see("recvfrom", (data, stage.host(peer[0]), peer[1] == client.getsockname()[1]))
    stage.see("sendto", await server.sendto(b"answer", 0, peer))
    buffer = bytearray(10)
    whence: Any
    size, whence = await client.recvfrom_into(buffer)
    stage.see("recvfrom_into", (size, buffer, whence == address))
    stage.see("sendmsg", await client.sendmsg([b"in ", b"parts"], [], 0, address))
    data, rest, flags, whence = await server.recvmsg(4)
    stage.see("recvmsg", (data, rest, flags, whence[1] == client.getsockname()[1]))
    await client.connect(address)
    await stage.wait("send", client.send, b"connected")
    await stage.wait("recv", server.recv, 100)
    await stage.wait("send", client.send, b"into")
    await stage.wait("recv_into", server.recv_into, buffer)
    server.close()
    await stage.wait("send", client.send, b"anybody?")
    await stage.wait("recv", client.recv, 100)
    client.close()


@in_trio(apart=False)
async def test_names_of_trio(stage: Stage) -> None:
    """Trio tries the addresses of a name in turn."""
    listeners = await trio.open_tcp_listeners(0, host="localhost")
    port = next(
        each.socket.getsockname()[1] for each in listeners if each.socket.family == socket.AF_INET
    )
    for name in ("localhost", "127.0.0.1"):
        stream = await trio.open_tcp_stream(name, port)
        stage.see(name, stream.socket.getpeername() == ("127.0.0.1", port))
        await stream.aclose()
    for listener in listeners:
        await listener.aclose()
    everywhere = await trio.open_tcp_listeners(0, host="0.0.0.0")  # noqa: S104
    stage.see("everywhere", [each.socket.getsockname()[0] for each in everywhere])
    for listener in everywhere:
        await listener.aclose()
