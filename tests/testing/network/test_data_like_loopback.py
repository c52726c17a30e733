"""Bytes on a connection, options and duplicates: simulated, they are like those on the loopback."""

from __future__ import annotations

import array
import fcntl
import hashlib
import os
import re
import socket
import struct
import termios
from typing import TYPE_CHECKING

import anyio

from tests.testing.network.loopback import Stage, like_loopback, told

if TYPE_CHECKING:
    from collections.abc import Callable

BIG = hashlib.shake_128().digest(3_000_000)
"""More than the buffers of a connection hold, if they are not made larger."""


def digest(data: bytes) -> str:
    """Return what tells data from other data."""
    return f"{len(data)} bytes, {hashlib.sha256(data).hexdigest()}"


def small_buffers(*socks: socket.socket) -> None:
    """Make the kernel's buffers small, so that little fills them."""
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)


def fill(sock: socket.socket, data: bytes) -> int:
    """Send until the buffers are full; return how much that was."""
    sent = 0
    while sent < len(data):
        try:
            sent += sock.send(data[sent : sent + 4096])
        except BlockingIOError:
            break
    return sent


# ---- bytes ---------------------------------------------------------------------------------------


@like_loopback()
async def test_bytes_have_no_boundaries(stage: Stage) -> None:
    """What was sent in pieces is received in one, and the other way round."""
    client, server = await stage.pair()
    for piece in (b"one", b"", b"two", b"three"):
        stage.call("send", client.send, piece)
    await stage.pause()
    stage.call("nothing", server.recv, 0)
    stage.call("recv", server.recv, 4)
    stage.call("recv", server.recv, 100)
    stage.call("recv", server.recv, 100)
    stage.call("nothing", server.recv, 0)
    stage.call("negative", server.recv, -1)
    stage.call("sendall", server.sendall, b"back")
    await stage.receive("recv", client)


@like_loopback()
async def test_nothing_sent_is_nothing_received(stage: Stage) -> None:
    """To send no bytes does not wake the peer; to receive none always succeeds."""
    client, server = await stage.pair()
    stage.call("send", client.send, b"")
    await stage.ready("server", server)
    stage.call("recv", server.recv, 0)
    stage.call("recv", server.recv, 1)
    client.close()
    await stage.pause()
    stage.call("recv", server.recv, 0)
    stage.call("send", server.send, b"")


@like_loopback()
async def test_peeking(stage: Stage) -> None:
    """A peek leaves the bytes where they are."""
    client, server = await stage.pair()
    stage.call("before", server.recv, 10, socket.MSG_PEEK)
    client.send(b"peekaboo")
    await stage.pause()
    stage.call("peek", server.recv, 4, socket.MSG_PEEK)
    stage.call("peek", server.recv, 100, socket.MSG_PEEK)
    stage.call("recv", server.recv, 4)
    stage.call("peek", server.recv, 100, socket.MSG_PEEK)
    buffer = bytearray(10)
    stage.call("recv_into", server.recv_into, buffer, 2)
    stage.see("buffer", buffer)
    stage.call("recv", server.recv, 100)
    client.close()
    await stage.pause()
    stage.call("the end", server.recv, 100, socket.MSG_PEEK)


@like_loopback()
async def test_other_ways_to_send_and_receive(stage: Stage) -> None:
    """Into buffers, out of several, with an address, by the file descriptor."""
    client, server = await stage.pair()
    stage.call("sendmsg", client.sendmsg, [b"one", b"two", b"", b"three"])
    await stage.pause()
    first, second = bytearray(4), bytearray(4)
    stage.call("recvmsg_into", server.recvmsg_into, [first, second])
    stage.see("buffers", (first, second))
    stage.call("recvmsg", server.recvmsg, 100)
    stage.call("recvmsg", server.recvmsg, 100)
    stage.call("sendto", client.sendto, b"with an address", (stage.address, 1))
    await stage.pause()
    stage.call("recvfrom", server.recvfrom, 100)
    stage.call("recvfrom", server.recvfrom, 100)
    stage.call("write", os.write, client.fileno(), b"by descriptor")
    stage.call("writev", os.writev, client.fileno(), [b", ", b"twice"])
    await stage.pause()
    stage.call("read", os.read, server.fileno(), 3)
    stage.call("recvfrom_into", server.recvfrom_into, bytearray(100))
    stage.call("read", os.read, server.fileno(), 3)
    stage.call("flags", client.send, b"flags", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    await stage.pause()
    stage.call("flags", server.recv, 10, socket.MSG_DONTWAIT)
    stage.call("flags", server.recv, 10, socket.MSG_DONTWAIT)
    client.close()
    await stage.pause()
    stage.call("recvmsg", server.recvmsg, 100)
    stage.call("recvfrom", server.recvfrom, 100)
    stage.call("read", os.read, server.fileno(), 3)


@like_loopback()
async def test_how_much_is_there(stage: Stage) -> None:
    """The number of bytes that wait to be read can be asked for."""
    client, server = await stage.pair()

    def waiting() -> int:
        count = array.array("i", [0])
        fcntl.ioctl(server.fileno(), termios.FIONREAD, count)
        return count[0]

    stage.call("before", waiting)
    client.send(b"a dozen byte")
    await stage.pause()
    stage.call("sent", waiting)
    server.recv(5)
    stage.call("read", waiting)


@like_loopback()
async def test_the_buffers_fill(stage: Stage) -> None:
    """A sender waits for a peer that does not read, goes on when it does, and nothing is lost."""
    for turned in (False, True):
        client, server = await stage.pair()
        sender, receiver = (server, client) if turned else (client, server)
        small_buffers(sender, receiver)
        sent = fill(sender, BIG)
        while await stage.is_ready(sender, anyio.wait_writable):  # what is on its way makes room
            sent += fill(sender, BIG[sent:])
        stage.see("some was taken", 0 < sent < len(BIG))
        await stage.ready("receiver", receiver)
        stage.call("the other way", receiver.send, b"I do not read")
        await stage.receive("the other way", sender)
        received: list[bytes] = []

        async def read(
            receiver: socket.socket = receiver, received: list[bytes] = received
        ) -> None:
            received.append(await stage.receive_all(receiver))

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await stage.send_all(sender, BIG[sent:])
            sender.shutdown(socket.SHUT_WR)
        stage.see("received", digest(received[0]))
        stage.see("is what was sent", received[0] == BIG)


@like_loopback()
async def test_sendall_into_full_buffers(stage: Stage) -> None:
    """A sendall that does not block stops where the buffers are full."""
    client, server = await stage.pair()
    small_buffers(client, server)
    stage.call("sendall", client.sendall, BIG)
    stage.call("send", client.send, BIG)
    await stage.pause()
    server.close()
    await stage.ready("client", client)
    stage.call("recv", client.recv, 10)


@like_loopback()
async def test_closed_with_full_buffers(stage: Stage) -> None:
    """What a closed sender has left in the buffers arrives all the same."""
    client, server = await stage.pair()
    small_buffers(client, server)
    sent = fill(client, BIG)
    client.close()
    await stage.pause()
    received = await stage.receive_all(server)
    stage.see("all of it", received == BIG[:sent])


@like_loopback()
async def test_sent_to_who_has_closed_with_full_buffers(stage: Stage) -> None:
    """What arrives for a closed sender resets the peer, and what was still to be sent is lost."""
    client, server = await stage.pair()
    small_buffers(client, server)
    sent = fill(client, BIG)
    await stage.pause()
    sent += fill(client, BIG[sent:])
    client.close()
    await stage.pause()
    stage.call("send", server.send, b"too late")
    await stage.pause()
    received = more = len(server.recv(65536))
    while more:
        await stage.readable(server)
        more = 0
        try:
            received += (more := len(server.recv(65536)))
        except OSError as error:
            stage.see("error", told(error))
    stage.see("a part", 0 < received < sent)
    stage.call("recv", server.recv, 10)
    stage.call("send", server.send, b"x")


@like_loopback()
async def test_reset_while_a_sender_waits(stage: Stage) -> None:
    """A sender that waits for room is woken by the reset."""
    client, server = await stage.pair()
    small_buffers(client, server)
    fill(client, BIG)
    async with anyio.create_task_group() as group:
        group.start_soon(stage.wait, "waiting", stage.send_all, client, BIG)
        await stage.pause()
        server.close()
    stage.call("recv", client.recv, 10)


@like_loopback()
async def test_many_small_pieces(stage: Stage) -> None:
    """A great many small sends arrive, in order and complete."""
    client, server = await stage.pair()
    received: list[bytes] = []

    async def read() -> None:
        received.append(await stage.receive_all(server))

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        for at in range(0, 3000, 3):
            await stage.send_all(client, BIG[at : at + 3])
        client.close()
    stage.see("received", received[0] == BIG[:3000])


@like_loopback()
async def test_both_ways_at_once(stage: Stage) -> None:
    """The two directions of a connection do not wait for each other."""
    client, server = await stage.pair()
    received: dict[str, bytes] = {}

    async def read(name: str, sock: socket.socket) -> None:
        received[name] = await stage.receive_all(sock)

    async def write(sock: socket.socket, data: bytes) -> None:
        await stage.send_all(sock, data)
        sock.shutdown(socket.SHUT_WR)

    async with anyio.create_task_group() as group:
        group.start_soon(read, "client", client)
        group.start_soon(read, "server", server)
        group.start_soon(write, client, BIG)
        group.start_soon(write, server, BIG[::-1])
    stage.see("client", received["client"] == BIG[::-1])
    stage.see("server", received["server"] == BIG)


@like_loopback()
async def test_files(stage: Stage) -> None:
    """A socket can be sent a file, and be read as one, as far as it does not block."""
    client, server = await stage.pair()
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    with open(__file__, "rb") as file:  # noqa: ASYNC230, PTH123 - a file of a few kilobytes
        stage.call("sendfile", os.sendfile, client.fileno(), file.fileno(), 0, 1000)
        stage.call("socket.sendfile", client.sendfile, file)
    await stage.pause()
    stage.see("received", len(server.recv(2000)))
    stage.call("makefile", lambda: server.makefile("rb", buffering=0).read(10))
    with client.makefile("wb", buffering=0) as raw:
        stage.call("write", raw.write, b"as a file\n")
    with client.makefile("w") as text:
        stage.call("write", text.write, "as text\n")
    await stage.pause()
    with server.makefile("rb") as lines:
        stage.call("readline", lines.readline)
        stage.call("readline", lines.readline)
        server.close()
        await stage.ready("client, while the file is open", client)
    await stage.ready("client, when it is closed", client)


# ---- descriptors ---------------------------------------------------------------------------------


@like_loopback()
async def test_a_duplicate(stage: Stage) -> None:
    """A duplicate is the same connection, which ends with the last of them."""
    ways: dict[str, Callable[[socket.socket], socket.socket]] = {
        "dup": lambda sock: sock.dup(),
        "fromfd": lambda sock: socket.fromfd(sock.fileno(), socket.AF_INET, socket.SOCK_STREAM),
        "os.dup": lambda sock: socket.socket(fileno=os.dup(sock.fileno())),
    }
    for name, way in ways.items():
        client, server = await stage.pair()
        twin = stage.keep(way(client))
        stage.see(name, (twin.family, twin.type, twin.proto, twin.getblocking()))
        stage.see("name", twin.getsockname() == client.getsockname())
        stage.see("peer", twin.getpeername() == server.getsockname())
        twin.send(b"from a twin")
        await stage.receive("server", server)
        client.close()
        await stage.ready("server", server)
        server.send(b"to a twin")
        await stage.receive("twin", twin)
        twin.close()
        await stage.receive("server", server)


@like_loopback()
async def test_a_duplicate_is_shut_down(stage: Stage) -> None:
    """To shut down is to shut down the connection, whoever else has it."""
    client, server = await stage.pair()
    twin = stage.keep(client.dup())
    twin.shutdown(socket.SHUT_WR)
    await stage.receive("server", server)
    stage.call("send", client.send, b"x")
    server.send(b"hello")
    await stage.receive("client", client)


@like_loopback()
async def test_detached(stage: Stage) -> None:
    """A descriptor that was taken out of a socket is the connection, and fits into another."""
    client, server = await stage.pair()
    name = client.getsockname()
    fd = client.detach()
    stage.see("detached", client.fileno())
    stage.call("name", client.getsockname)
    stage.call("close", client.close)
    await stage.ready("server", server)
    again = stage.keep(socket.socket(fileno=fd))
    stage.see("socket", (again.family, again.type, again.proto))
    stage.see("name", again.getsockname() == name)
    stage.see("peer", again.getpeername() == server.getsockname())
    again.send(b"again")
    await stage.receive("server", server)
    server.send(b"hello")
    await stage.receive("again", again)
    os.close(again.detach())
    await stage.receive("server", server)


@like_loopback(apart=False)  # a host does not find the descriptors of another
async def test_detached_before_it_is_connected(stage: Stage) -> None:
    """A socket can change hands before it is bound, while it listens, and before it connects."""
    fresh = stage.keep(socket.socket(fileno=stage.near().detach()))
    stage.see("socket", (fresh.family, fresh.type, fresh.proto))
    listener = stage.listener()
    address = listener.getsockname()
    again = stage.keep(socket.socket(fileno=listener.detach()))
    stage.see("listener", again.getsockname() == address)
    await stage.connect(fresh, again)
    server = await stage.accept(again)
    server.send(b"hello")
    await stage.receive("recv", fresh)


@like_loopback()
async def test_a_duplicate_of_a_listener(stage: Stage) -> None:
    """A listener listens until the last of its duplicates is closed."""
    listener = stage.listener()
    twin = stage.keep(listener.dup())
    listener.close()
    client = await stage.connect(stage.near(), twin)
    server = await stage.accept(twin)
    server.send(b"hello")
    await stage.receive("recv", client)
    address = twin.getsockname()
    twin.close()
    await stage.wait("connect", stage.connect, stage.near(), address)


@like_loopback()
async def test_a_wrong_descriptor(stage: Stage) -> None:
    """A descriptor that is closed or no socket is refused."""
    fd = os.dup(1)
    stage.call("no socket", lambda: socket.socket(fileno=fd))
    os.close(fd)
    stage.call("closed", lambda: socket.socket(fileno=fd))
    stage.call("negative", lambda: socket.socket(fileno=-1))


# ---- options -------------------------------------------------------------------------------------

PLAIN = {
    "SO_KEEPALIVE": (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    "SO_REUSEADDR": (socket.SOL_SOCKET, socket.SO_REUSEADDR),
    "SO_BROADCAST": (socket.SOL_SOCKET, socket.SO_BROADCAST),
    "SO_OOBINLINE": (socket.SOL_SOCKET, socket.SO_OOBINLINE),
    "TCP_NODELAY": (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    "TCP_CORK": (socket.IPPROTO_TCP, socket.TCP_CORK),
}
SECONDS = {
    "TCP_KEEPIDLE": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    "TCP_KEEPINTVL": (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    "TCP_KEEPCNT": (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    "TCP_USER_TIMEOUT": (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    "TCP_SYNCNT": (socket.IPPROTO_TCP, socket.TCP_SYNCNT),
    "TCP_LINGER2": (socket.IPPROTO_TCP, socket.TCP_LINGER2),
    "TCP_DEFER_ACCEPT": (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT),
    "TCP_NOTSENT_LOWAT": (socket.IPPROTO_TCP, getattr(socket, "TCP_NOTSENT_LOWAT", 25)),
    "IP_TOS": (socket.IPPROTO_IP, socket.IP_TOS),
    "IP_TTL": (socket.IPPROTO_IP, socket.IP_TTL),
}


@like_loopback()
async def test_options(stage: Stage) -> None:
    """An option has its default until it is set."""
    client, server = await stage.pair()
    for sock in (stage.near(), client, server):
        for name, (level, option) in PLAIN.items():
            stage.call(name, sock.getsockopt, level, option)
            stage.call("set", sock.setsockopt, level, option, 1)
            stage.call("get", sock.getsockopt, level, option)
            stage.call("set to 5", sock.setsockopt, level, option, 5)
            stage.call("get", sock.getsockopt, level, option)
            stage.call("clear", sock.setsockopt, level, option, 0)
            stage.call("get", sock.getsockopt, level, option)
        for name, (level, option) in SECONDS.items():
            if name in {"TCP_KEEPCNT", "TCP_KEEPINTVL", "TCP_KEEPIDLE", "TCP_USER_TIMEOUT"}:
                stage.call(name, sock.getsockopt, level, option)
            stage.call(f"set {name}", sock.setsockopt, level, option, 7)
            stage.call("get", sock.getsockopt, level, option)
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"):
            for value in (0, -1, 100_000):
                stage.call(f"{name} {value}", sock.setsockopt, *SECONDS[name], value)


@like_loopback()
async def test_what_a_socket_is(stage: Stage) -> None:
    """The kind of a socket can be asked for."""
    client, server = await stage.pair()
    datagrams = stage.near(socket.SOCK_DGRAM)
    listener = stage.listener()
    for name, sock in {
        "client": client,
        "server": server,
        "datagrams": datagrams,
        "listener": listener,
    }.items():
        stage.see(name, (sock.family, sock.type, sock.proto, sock.gettimeout(), sock.getblocking()))
        for option in ("SO_TYPE", "SO_DOMAIN", "SO_PROTOCOL", "SO_ACCEPTCONN", "SO_ERROR"):
            stage.call(option, sock.getsockopt, socket.SOL_SOCKET, getattr(socket, option))
        for option in ("SO_TYPE", "SO_DOMAIN", "SO_PROTOCOL", "SO_ACCEPTCONN"):
            stage.call(option, sock.setsockopt, socket.SOL_SOCKET, getattr(socket, option), 1)
        stage.call("bytes", sock.getsockopt, socket.SOL_SOCKET, socket.SO_TYPE, 4)
        stage.see("repr", re.sub(r"\d+", "N", repr(sock)))
        stage.call("inheritable", sock.get_inheritable)


@like_loopback()
async def test_options_as_bytes(stage: Stage) -> None:
    """An option can be set and asked for as the bytes of its value."""
    sock = stage.near()
    linger = socket.SOL_SOCKET, socket.SO_LINGER
    stage.call("SO_LINGER", sock.getsockopt, *linger, 8)
    stage.call("set", sock.setsockopt, *linger, struct.pack("ii", 1, 3))
    stage.call("SO_LINGER", sock.getsockopt, *linger, 8)
    stage.call("too short", sock.setsockopt, *linger, 1)
    alive = socket.SOL_SOCKET, socket.SO_KEEPALIVE
    stage.call("set", sock.setsockopt, *alive, struct.pack("i", 1))
    stage.call("get", sock.getsockopt, *alive)
    stage.call("get bytes", sock.getsockopt, *alive, 4)
    stage.call("get two", sock.getsockopt, *alive, 2)
    stage.call("no bytes", sock.setsockopt, *alive, b"")
    stage.call("a string", sock.setsockopt, *alive, "1")
    stage.call("None", sock.setsockopt, *alive, None)
    for size in ("SO_SNDBUF", "SO_RCVBUF"):
        option = socket.SOL_SOCKET, getattr(socket, size)
        stage.call(f"set {size}", sock.setsockopt, *option, 50_000)
        stage.call("is doubled", sock.getsockopt, *option)
    for wait in ("SO_RCVTIMEO", "SO_SNDTIMEO"):
        option = socket.SOL_SOCKET, getattr(socket, wait)
        stage.call(f"set {wait}", sock.setsockopt, *option, struct.pack("ll", 5, 0))
        stage.call("get", sock.getsockopt, *option, 16)


@like_loopback()
async def test_options_that_are_none(stage: Stage) -> None:
    """An unknown option is refused, and so is one of another kind of socket."""
    for sock in (stage.near(), stage.near(socket.SOCK_DGRAM), (await stage.pair())[0]):
        for level, option in (
            (socket.SOL_SOCKET, 9999),
            (socket.IPPROTO_TCP, 9999),
            (socket.IPPROTO_TCP, socket.TCP_NODELAY),
            (socket.IPPROTO_IP, 9999),
            (9999, 1),
            (-1, 1),
        ):
            stage.call(f"get {level} {option}", sock.getsockopt, level, option)
            stage.call(f"set {level} {option}", sock.setsockopt, level, option, 1)


@like_loopback()
async def test_options_of_a_listener_are_inherited(stage: Stage) -> None:
    """What is accepted has the options of the listener."""
    listener = stage.listener()
    chosen = {**PLAIN, **SECONDS}
    for name in ("SO_BROADCAST", "TCP_CORK", "TCP_DEFER_ACCEPT", "IP_TTL", "TCP_LINGER2"):
        del chosen[name]
    for name, option in chosen.items():
        listener.setsockopt(*option, 1 if name in PLAIN else 9)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3))
    client = await stage.connect(stage.near(), listener)
    server = await stage.accept(listener)
    for name, option in chosen.items():
        stage.call(f"server's {name}", server.getsockopt, *option)
    stage.call("SO_LINGER", server.getsockopt, socket.SOL_SOCKET, socket.SO_LINGER, 8)
    stage.call("client's", client.getsockopt, *PLAIN["SO_KEEPALIVE"])
