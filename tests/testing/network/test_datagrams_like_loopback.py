"""Datagrams: a simulated network answers what Linux answers on the loopback."""

from __future__ import annotations

import errno
import socket
from functools import partial

from tests.testing.network import loopback
from tests.testing.network.loopback import Address, Stage

DATAGRAM = socket.SOCK_DGRAM

like_loopback = partial(loopback.like_loopback, ordered=True)


def error_of(sock: socket.socket) -> str:
    """Return the name of a socket's pending error, which is cleared thereby."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return errno.errorcode.get(code, "none")


def from_whom(sock: socket.socket, peer: socket.socket) -> tuple[bytes, bool]:
    """Return the next datagram, and whether it is from there."""
    data, address = sock.recvfrom(65536)
    return data, address[1] == peer.getsockname()[1]


@like_loopback()
async def test_question_and_answer(stage: Stage) -> None:
    """A datagram comes with the address to which the answer goes."""
    server, client = stage.bound(DATAGRAM), stage.near(DATAGRAM)
    stage.name("client before", client.getsockname)
    stage.call("sendto", client.sendto, b"question", server.getsockname())
    stage.name("client", client.getsockname)
    stage.call("peer", client.getpeername)
    await stage.readable(server)
    data, address = server.recvfrom(100)
    stage.see("recvfrom", data)
    stage.see("from", (stage.host(address[0]), address[1] == client.getsockname()[1]))
    stage.call("answer", server.sendto, b"answer", address)
    await stage.readable(client)
    stage.see("from the server", client.recvfrom(100) == (b"answer", server.getsockname()))
    stage.call("nothing more", client.recvfrom, 100)
    stage.name("server", server.getsockname)
    stage.call("server's peer", server.getpeername)


@like_loopback()
async def test_a_fresh_socket(stage: Stage) -> None:
    """A socket that was never used has no address and nobody to send to."""
    sock = stage.near(DATAGRAM)
    stage.name("name", sock.getsockname)
    stage.call("peer", sock.getpeername)
    stage.call("recv", sock.recv, 100)
    stage.call("recvfrom", sock.recvfrom, 100)
    stage.call("send", sock.send, b"x")
    stage.call("sendmsg", sock.sendmsg, [b"x"])
    stage.call("listen", sock.listen)
    stage.call("accept", sock.accept)
    stage.call("SO_ERROR", error_of, sock)
    await stage.ready("ready", sock)
    stage.call("shutdown", sock.shutdown, socket.SHUT_RDWR)


@like_loopback()
async def test_boundaries(stage: Stage) -> None:
    """One send is one receive; an empty datagram is one too, and no end."""
    server, client = stage.bound(DATAGRAM), stage.near(DATAGRAM)
    for data in (b"one", b"", b"three", b"x" * 5000, b""):
        stage.call("sendto", client.sendto, data, server.getsockname())
        await stage.pause()
    for size in (100, 100, 2, 65536, 10):
        stage.call("recv", lambda size=size: len(server.recv(size)))
    stage.call("recv", server.recv, 100)


@like_loopback()
async def test_a_short_buffer(stage: Stage) -> None:
    """What does not fit is lost, and the flag says so; a peek loses nothing."""
    server, client = stage.bound(DATAGRAM), stage.near(DATAGRAM)
    for _ in range(6):
        client.sendto(b"longer than that", server.getsockname())
    await stage.pause()
    stage.call("peek", server.recv, 6, socket.MSG_PEEK)
    stage.call("recv", server.recv, 6)
    buffer = bytearray(6)
    stage.call("recv_into", server.recv_into, buffer)
    stage.see("buffer", buffer)
    stage.call("recvfrom", lambda: server.recvfrom(6)[0])
    stage.call("recvmsg", lambda: server.recvmsg(6)[:3])
    stage.call("recvfrom_into", lambda: server.recvfrom_into(buffer, 4)[0])
    stage.see("buffer", buffer)
    stage.call("nothing", server.recv, 0)
    stage.call("recv", server.recv, 6)


@like_loopback()
async def test_other_ways_to_send_and_receive(stage: Stage) -> None:
    """Messages in parts, with and without an address, with flags."""
    server, client = stage.bound(DATAGRAM), stage.near(DATAGRAM)
    address = server.getsockname()
    stage.call("sendmsg", client.sendmsg, [b"in ", b"parts"], [], 0, address)
    stage.call("with flags", client.sendto, b"flags", socket.MSG_DONTWAIT, address)
    stage.call("without address", client.send, b"x")
    stage.call("a buffer", client.sendto, memoryview(b"a buffer"), address)
    await stage.pause()
    data, rest, flags, whence = server.recvmsg(100)
    stage.see("recvmsg", (data, rest, flags, whence[1] == client.getsockname()[1]))
    first, second = bytearray(2), bytearray(100)
    size, rest, flags, whence = server.recvmsg_into([first, second])
    stage.see("recvmsg_into", (size, rest, flags, bytes(first + second[:3])))
    stage.see("whence", whence[1] == client.getsockname()[1])
    stage.call("recvfrom_into", lambda: server.recvfrom_into(second)[0])
    stage.see("buffer", bytes(second[:8]))


@like_loopback()
async def test_too_large(stage: Stage) -> None:
    """A datagram has room for 65,507 bytes."""
    server, client = stage.bound(DATAGRAM), stage.near(DATAGRAM)
    for size in (65507, 65508, 100_000):
        stage.call(f"{size}", client.sendto, bytes(size), server.getsockname())
    await stage.pause()
    stage.call("recv", lambda: len(server.recv(100_000)))
    stage.call("recv", server.recv, 100)


@like_loopback()
async def test_connected(stage: Stage) -> None:
    """A connected socket sends to its peer, and receives from nobody else."""
    server, other, client = stage.bound(DATAGRAM), stage.bound(DATAGRAM), stage.near(DATAGRAM)
    stage.call("connect", client.connect, server.getsockname())
    stage.name("client", client.getsockname)
    stage.see("peer", client.getpeername() == server.getsockname())
    stage.call("send", client.send, b"hello")
    await stage.readable(server)
    stage.call("from the client", from_whom, server, client)
    server.sendto(b"from the peer", client.getsockname())
    other.sendto(b"from another", client.getsockname())
    await stage.pause()
    stage.call("recv", client.recv, 100)
    stage.call("recv", client.recv, 100)
    stage.call("to another", client.sendto, b"to another", other.getsockname())
    await stage.readable(other)
    stage.call("from the client", from_whom, other, client)
    stage.call("connect elsewhere", client.connect, other.getsockname())
    stage.see("peer", client.getpeername() == other.getsockname())
    server.sendto(b"from the peer before", client.getsockname())
    other.sendto(b"from the new", client.getsockname())
    await stage.pause()
    stage.call("recv", client.recv, 100)
    stage.call("recv", client.recv, 100)
    stage.call("write", client.sendall, b"all")
    await stage.receive("recv", other)


@like_loopback()
async def test_received_before_connecting(stage: Stage) -> None:
    """What has come from others before is still received."""
    server, other, client = stage.bound(DATAGRAM), stage.bound(DATAGRAM), stage.near(DATAGRAM)
    client.bind(("", 0))
    client.sendto(b"here I am", other.getsockname())
    await stage.readable(other)
    _, address = other.recvfrom(100)
    other.sendto(b"before", address)
    await stage.pause()
    client.connect(server.getsockname())
    await stage.receive("recv", client)


@like_loopback()
async def test_nobody_there(stage: Stage) -> None:
    """A connected socket learns that nobody is there, once for each datagram."""
    gone = stage.bound(DATAGRAM)
    address = gone.getsockname()
    gone.close()
    for what in ("recv", "send", "SO_ERROR", "peek"):
        client = stage.near(DATAGRAM)
        stage.call("connect", client.connect, address)
        stage.call("send", client.send, b"anybody?")
        await stage.ready("client", client)
        for _ in range(2):
            if what == "recv":
                stage.call("recv", client.recv, 10)
            elif what == "send":
                stage.call("send", client.send, b"really?")
                await stage.pause()
            elif what == "peek":
                stage.call("peek", client.recv, 10, socket.MSG_PEEK)
            else:
                stage.call("SO_ERROR", error_of, client)
        stage.call("SO_ERROR", error_of, client)
        stage.call("recv", client.recv, 10)
        await stage.ready("client", client)


@like_loopback()
async def test_nobody_there_and_not_connected(stage: Stage) -> None:
    """A socket that is not connected learns nothing."""
    gone = stage.bound(DATAGRAM)
    address = gone.getsockname()
    gone.close()
    client = stage.near(DATAGRAM)
    stage.call("sendto", client.sendto, b"anybody?", address)
    await stage.pause()
    stage.call("sendto", client.sendto, b"really?", address)
    stage.call("recv", client.recv, 100)
    stage.call("SO_ERROR", error_of, client)


@like_loopback()
async def test_a_stream_of_that_port_is_nobody(stage: Stage) -> None:
    """The ports of datagrams and streams are different ones."""
    listener = stage.listener()
    client = stage.near(DATAGRAM)
    client.connect(listener.getsockname())
    client.send(b"x")
    await stage.pause()
    stage.call("recv", client.recv, 10)
    await stage.ready("listener", listener)


@like_loopback()
async def test_shut_down(stage: Stage) -> None:
    """Only a connected socket can be shut down."""
    server, client = stage.bound(DATAGRAM), stage.near(DATAGRAM)
    stage.call("not connected", client.shutdown, socket.SHUT_RDWR)
    client.connect(server.getsockname())
    stage.call("no such way", client.shutdown, 3)
    stage.call("for writing", client.shutdown, socket.SHUT_WR)
    stage.call("send", client.send, b"x")
    stage.call("recv", client.recv, 10)
    stage.call("for reading", client.shutdown, socket.SHUT_RD)
    stage.call("recv", client.recv, 10)


@like_loopback()
async def test_addresses(stage: Stage) -> None:
    """An address belongs to one socket; only one's own can be had."""
    server, client = stage.bound(DATAGRAM), stage.far(DATAGRAM)
    address: Address = server.getsockname()
    stage.call("in use", client.bind, address)
    stage.call("all of them", client.bind, ("", address[1]))
    stage.call("bound twice", server.bind, (stage.address, 0))
    stage.call("not mine", client.bind, ("192.0.2.1", 0))
    server.close()
    stage.call("free", client.bind, address)
    first, second = stage.far(DATAGRAM), stage.far(DATAGRAM)
    for sock in (first, second):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    first.bind((stage.address, 0))
    stage.call("with reuse", second.bind, first.getsockname())


@like_loopback()
async def test_addresses_that_are_none(stage: Stage) -> None:
    """What is no address is refused."""
    client = stage.near(DATAGRAM)
    for address in (("127.0.0.1",), "127.0.0.1", None, (1, 2), ("127.0.0.1", 70000)):
        stage.call(f"to {address!r}", client.sendto, b"x", address)
        stage.call(f"connect to {address!r}", client.connect, address)
    stage.call("no data", client.sendto, "text", ("127.0.0.1", 1))
    stage.call("port 0", client.sendto, b"x", (stage.address, 0))
    stage.call("connect to port 0", client.connect, (stage.address, 0))
    stage.call("peer", client.getpeername)


@like_loopback()
async def test_closed(stage: Stage) -> None:
    """A closed socket is none; what was sent to it is gone."""
    server, client = stage.bound(DATAGRAM), stage.near(DATAGRAM)
    client.sendto(b"x", server.getsockname())
    await stage.pause()
    server.close()
    stage.call("recv", server.recv, 10)
    stage.call("recvfrom", server.recvfrom, 10)
    stage.call("sendto", server.sendto, b"x", (stage.address, 1))
    stage.call("name", server.getsockname)


@like_loopback()
async def test_the_buffer_is_full(stage: Stage) -> None:
    """What finds no room is lost; what found some is received, in order."""
    server, client = stage.bound(DATAGRAM), stage.near(DATAGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
    sent = 500
    for number in range(sent):
        client.sendto(number.to_bytes(2, "big") * 500, server.getsockname())
    await stage.pause()
    received = []
    while True:
        try:
            received.append(int.from_bytes(server.recv(1000)[:2], "big"))
        except BlockingIOError:
            break
    stage.see("the first of them", 0 < len(received) < sent)
    stage.see("in order", received == [*range(len(received))])
    client.sendto(b"room again", server.getsockname())
    await stage.receive("recv", server)


@like_loopback(apart=False)  # a host does not find the descriptors of another
async def test_duplicates(stage: Stage) -> None:
    """A duplicate has the same address, and what has come is received once."""
    server, client = stage.bound(DATAGRAM), stage.near(DATAGRAM)
    twin = stage.keep(server.dup())
    stage.see("name", twin.getsockname() == server.getsockname())
    for data in (b"one", b"two"):
        client.sendto(data, server.getsockname())
    await stage.pause()
    stage.call("one", from_whom, twin, client)
    server.close()
    stage.call("two", from_whom, twin, client)
    stage.call("answer", twin.sendto, b"answer", (stage.ours[0], client.getsockname()[1]))
    await stage.readable(client)
    stage.see("from", client.recvfrom(100) == (b"answer", twin.getsockname()))
    again = stage.keep(socket.socket(fileno=twin.detach()))
    stage.see("socket", (again.family, again.type, again.proto))
    client.sendto(b"three", again.getsockname())
    await stage.readable(again)
    stage.call("three", from_whom, again, client)


@like_loopback(apart=False)
async def test_to_oneself(stage: Stage) -> None:
    """A socket can send to itself, by each name of the machine."""
    sock = stage.near(DATAGRAM)
    sock.bind(("", 0))
    port = sock.getsockname()[1]
    for name in ("127.0.0.1", "localhost", "0.0.0.0", ""):  # noqa: S104
        stage.call("sendto", sock.sendto, name.encode() or b"empty", (name, port))
        await stage.readable(sock)
        stage.see(
            "recvfrom", sock.recvfrom(100) == (name.encode() or b"empty", ("127.0.0.1", port))
        )
