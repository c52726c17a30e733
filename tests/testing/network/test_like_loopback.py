"""
Connections: a simulated network answers what Linux answers on the loopback.

Each script runs on the machine's own loopback and in the simulation, there with both ends on one
host and on two, on asyncio and on trio: all of them have to see the same. The modules beside this
one do so for bytes and options, datagrams, TLS, and for what asyncio, AnyIO and trio make of it;
test_random_like_loopback has scripts that nobody has thought of.

What is modelled differently on purpose, and in no script therefore:

- There is no route to an address that no host has: ENETUNREACH at once, where a real connect waits
  for two minutes; 127.0.0.2 and the like are no addresses of a host.
- What is written in one moment is one segment. There is no algorithm of Nagle and no delayed
  acknowledgement, nor an option that changes these; TCP_DEFER_ACCEPT and TCP_CORK have no effect.
- A socket that is bound and connects to itself is refused; Linux connects it to itself.
- What arrives after shutdown(SHUT_RD) is dropped; Linux lets it be read. A shutdown() of what is
  not connected is ENOTCONN and nothing else; Linux has recv() return the end after that.
- How much fits into the buffers: 128 KiB wait for a reader and 256 KiB on the way to it, whatever
  SO_SNDBUF and SO_RCVBUF say, which are read back as the kernel says.
- TCP_INFO, SIOCOUTQ and other views into the kernel are those of a socket that never connected.
- Urgent data, multicast, broadcast, SO_REUSEPORT and Unix sockets are not simulated. IPv6 is as on
  a machine that has none.
- What uses descriptors without `socket.socket` (os.read, os.write, an ssl.SSLSocket) sees a Unix
  socket: a reset is told once to readers, and is EPIPE to writers.
- An address in TIME_WAIT is free after 60 s of virtual time; clients that did not choose their port
  leave it at once.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING

from tests.testing.network.loopback import Stage, like_loopback

if TYPE_CHECKING:
    from collections.abc import Callable

ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close() resets the connection."""


def error_of(sock: socket.socket) -> str:
    """Return the name of a socket's pending error, which is cleared thereby."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return errno.errorcode.get(code, "none")


def abort(sock: socket.socket) -> None:
    """Close a connection with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    sock.close()


# ---- connecting ----------------------------------------------------------------------------------


@like_loopback()
async def test_connecting(stage: Stage) -> None:
    """A connection has a name at each end, which is the other's peer."""
    listener = stage.listener()
    client = stage.near()
    stage.name("client before", client.getsockname)
    stage.call("peer before", client.getpeername)
    stage.call("connect", client.connect, listener.getsockname())
    await stage.writable(client)
    stage.call("SO_ERROR", error_of, client)
    server = await stage.accept(listener)
    stage.name("client", client.getsockname)
    stage.name("server", server.getsockname)
    stage.see("server's is the listener's", server.getsockname() == listener.getsockname())
    stage.see("client's peer", client.getpeername() == server.getsockname())
    stage.see("server's peer", server.getpeername() == client.getsockname())
    stage.see("connect_ex", errno.errorcode.get(client.connect_ex(listener.getsockname())))
    await stage.ready("client", client)
    await stage.ready("server", server)
    await stage.ready("listener", listener)


@like_loopback()
async def test_a_fresh_socket(stage: Stage) -> None:
    """A socket that is not connected refuses all that needs a connection."""
    for what in ("fresh", "bound"):
        sock = stage.far()
        if what == "bound":
            sock.bind((stage.address, 0))
        stage.see("socket", what)
        stage.name("name", sock.getsockname)
        stage.call("peer", sock.getpeername)
        stage.call("send", sock.send, b"x")
        stage.call("sendall", sock.sendall, b"x")
        stage.call("recv", sock.recv, 10)
        stage.call("recv_into", sock.recv_into, bytearray(10))
        stage.call("recvfrom", sock.recvfrom, 10)
        stage.call("sendmsg", sock.sendmsg, [b"x"])
        stage.call("recvmsg", sock.recvmsg, 10)
        stage.call("peek", sock.recv, 10, socket.MSG_PEEK)
        stage.call("accept", sock.accept)
        stage.call("shutdown", sock.shutdown, socket.SHUT_RDWR)
        stage.call("shutdown for writing", sock.shutdown, socket.SHUT_WR)
        stage.call("SO_ERROR", error_of, sock)
        await stage.ready("ready", sock)
        stage.call("close", sock.close)
        stage.see("fileno", sock.fileno())


@like_loopback()
async def test_connect_is_refused(stage: Stage) -> None:
    """Where nobody listens, a connect is refused; SO_ERROR says so once."""
    closed = stage.bound()
    client = stage.near()
    stage.call("connect", client.connect, closed.getsockname())
    await stage.ready("refused", client)
    stage.call("peer", client.getpeername)
    stage.call("SO_ERROR", error_of, client)
    stage.call("SO_ERROR again", error_of, client)
    stage.call("peer", client.getpeername)
    stage.call("send", client.send, b"x")
    stage.call("recv", client.recv, 10)
    stage.call("shutdown", client.shutdown, socket.SHUT_RDWR)
    await stage.ready("refused", client)


@like_loopback()
async def test_a_port_that_was_never_bound_refuses(stage: Stage) -> None:
    """A listener that was closed leaves nobody there."""
    listener = stage.listener()
    address = listener.getsockname()
    listener.close()
    await stage.wait("connect", stage.connect, stage.near(), address)


@like_loopback()
async def test_a_refusal_is_told_by_the_first_to_ask(stage: Stage) -> None:
    """Without SO_ERROR, the next operation fails with what connecting has failed with."""
    closed = stage.bound()
    for what in ("recv", "send", "connect", "peek", "shutdown", "sendall"):
        client = stage.near()
        client.connect_ex(closed.getsockname())
        await stage.pause()
        for again in range(3):
            if what == "recv":
                stage.call(f"recv {again}", client.recv, 10)
            elif what == "peek":
                stage.call(f"peek {again}", client.recv, 10, socket.MSG_PEEK)
            elif what == "send":
                stage.call(f"send {again}", client.send, b"x")
            elif what == "sendall":
                stage.call(f"sendall {again}", client.sendall, b"x")
            elif what == "shutdown":
                stage.call(f"shutdown {again}", client.shutdown, socket.SHUT_WR)
            else:
                stage.call(f"connect {again}", client.connect, closed.getsockname())
                await stage.pause()
        stage.call("SO_ERROR", error_of, client)


@like_loopback()
async def test_a_refused_socket_can_connect_elsewhere(stage: Stage) -> None:
    """After a refusal the same socket connects to somebody who listens, at the second try."""
    closed, listener = stage.bound(), stage.listener()
    client = stage.near()
    await stage.wait("refused", stage.connect, client, closed)
    stage.call("connect", client.connect, listener.getsockname())
    stage.call("connect", client.connect, listener.getsockname())
    await stage.writable(client)
    stage.call("SO_ERROR", error_of, client)
    server = await stage.accept(listener)
    server.send(b"hello")
    await stage.receive("recv", client)


@like_loopback()
async def test_connect_on_what_is_connected(stage: Stage) -> None:
    """A connection cannot be connected again, nor listen or accept or be bound."""
    listener, other = stage.listener(), stage.listener()
    client = await stage.connect(stage.near(), listener)
    server = await stage.accept(listener)
    client.connect_ex(listener.getsockname())  # tells the first who asks that it has succeeded
    for name, sock in (("client", client), ("server", server)):
        stage.call(f"{name} connects", sock.connect, listener.getsockname())
        stage.call(f"{name} connects elsewhere", sock.connect, other.getsockname())
        stage.see(f"{name} connect_ex", errno.errorcode[sock.connect_ex(other.getsockname())])
        stage.call(f"{name} listens", sock.listen)
        stage.call(f"{name} accepts", sock.accept)
        stage.call(f"{name} is bound", sock.bind, (stage.address, 0))
    await stage.ready("other", other)
    server.send(b"still here")
    await stage.receive("recv", client)


@like_loopback()
async def test_while_connecting(stage: Stage) -> None:
    """A connect that has no answer yet cannot be used, and can be repeated."""
    listener = stage.listener(0)
    await stage.connect(stage.near(), listener)  # the backlog has room for one
    client = stage.near()
    stage.call("connect", client.connect, listener.getsockname())
    await stage.ready("connecting", client)
    stage.name("name", client.getsockname)
    stage.call("peer", client.getpeername)
    stage.call("connect", client.connect, listener.getsockname())
    stage.call("send", client.send, b"x")
    stage.call("recv", client.recv, 10)
    stage.call("listen", client.listen)
    stage.call("accept", client.accept)
    stage.call("SO_ERROR", error_of, client)
    await stage.ready("connecting", client)
    stage.call("close", client.close)


@like_loopback()
async def test_a_connect_is_given_up(stage: Stage) -> None:
    """Who is shut down while it connects is not connected, and not connecting either."""
    listener = stage.listener(0)
    await stage.connect(stage.near(), listener)
    client = stage.near()
    client.connect_ex(listener.getsockname())
    await stage.pause()
    stage.call("shutdown", client.shutdown, socket.SHUT_WR)
    stage.call("peer", client.getpeername)
    stage.call("SO_ERROR", error_of, client)
    stage.call("send", client.send, b"x")
    await stage.ready("given up", client)


@like_loopback()
async def test_a_bound_client(stage: Stage) -> None:
    """A client that is bound connects from there."""
    listener = stage.listener()
    client = stage.near()
    client.bind(("", 0))
    stage.name("name", client.getsockname)
    port = client.getsockname()[1]
    await stage.connect(client, listener)
    stage.see("port is kept", client.getsockname()[1] == port)
    stage.see("address is one", client.getsockname()[0] != "0.0.0.0")  # noqa: S104
    server = await stage.accept(listener)
    stage.see("server's peer", server.getpeername() == client.getsockname())


@like_loopback(apart=False)
async def test_names_of_this_machine(stage: Stage) -> None:
    """127.0.0.1, 0.0.0.0, localhost and the empty name are the machine itself."""
    for name in ("127.0.0.1", "0.0.0.0", "localhost", ""):  # noqa: S104
        listener = stage.near()
        listener.bind((name, 0))
        listener.listen()
        port = listener.getsockname()[1]
        stage.name(f"bound to {name!r}", listener.getsockname)
        for way in ("127.0.0.1", "0.0.0.0", "localhost", ""):  # noqa: S104
            client = stage.near()
            await stage.connect(client, (way, port))
            server = await stage.accept(listener)
            stage.name(f"connected to {way!r}: peer", client.getpeername)
            stage.name("name", client.getsockname)
            stage.name("server's name", server.getsockname)
            stage.see("server's peer", server.getpeername() == client.getsockname())


@like_loopback()
async def test_addresses_that_are_none(stage: Stage) -> None:
    """What is no address is refused before anything is sent."""
    sock = stage.near()
    for address in (
        ("127.0.0.1",),
        "127.0.0.1",
        ("127.0.0.1", "80"),
        (1, 80),
        None,
        ("127.0.0.1", 80, 0, 0),
    ):
        stage.call(f"connect to {address!r}", sock.connect, address)
        stage.call(f"bind to {address!r}", sock.bind, address)
    for port in (-1, 65536):
        stage.call(f"connect to port {port}", sock.connect, (stage.address, port))
        stage.call(f"bind to port {port}", sock.bind, (stage.address, port))
    stage.call("connect_ex", sock.connect_ex, ("127.0.0.1", 65536))
    await stage.wait("connect to port 0", stage.connect, sock, (stage.address, 0))


# ---- listening -----------------------------------------------------------------------------------


@like_loopback()
async def test_a_listener(stage: Stage) -> None:
    """A listener accepts, and refuses all that needs a connection."""
    listener = stage.far()
    listener.bind((stage.address, 0))
    accepting = socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    stage.call("SO_ACCEPTCONN before", listener.getsockopt, *accepting)
    stage.call("listen", listener.listen)
    stage.call("SO_ACCEPTCONN", listener.getsockopt, *accepting)
    stage.call("listen again", listener.listen, 5)
    stage.name("name", listener.getsockname)
    stage.call("peer", listener.getpeername)
    stage.call("accept", listener.accept)
    stage.call("connect", listener.connect, stage.bound().getsockname())
    stage.call("send", listener.send, b"x")
    stage.call("recv", listener.recv, 10)
    stage.call("bind", listener.bind, (stage.address, 0))
    stage.call("SO_ERROR", error_of, listener)
    await stage.ready("without a connection", listener)
    client = await stage.connect(stage.near(), listener)
    await stage.ready("with one", listener)
    server = await stage.accept(listener)
    await stage.ready("after it", listener)
    stage.call("SO_ACCEPTCONN of a connection", server.getsockopt, *accepting)
    stage.call("SO_ACCEPTCONN of a client", client.getsockopt, *accepting)
    address = listener.getsockname()
    stage.call("close", listener.close)
    stage.call("accept", listener.accept)
    stage.call("name", listener.getsockname)
    await stage.wait("connect", stage.connect, stage.near(), address)
    server.send(b"lives on")
    await stage.receive("recv", client)


@like_loopback()
async def test_listen_without_an_address(stage: Stage) -> None:
    """Who listens without being bound gets a port of all addresses."""
    listener = stage.far()
    listener.listen()
    stage.name("name", listener.getsockname)
    client = await stage.connect(stage.near(), (stage.address, listener.getsockname()[1]))
    server = await stage.accept(listener)
    stage.name("server's name", server.getsockname)
    stage.see("client's peer", client.getpeername() == server.getsockname())


@like_loopback()
async def test_accepted_in_the_order_of_connecting(stage: Stage) -> None:
    """Connections are accepted first come, first served, each with its peer's name."""
    listener = stage.listener()
    clients = [await stage.connect(stage.near(), listener) for _ in range(5)]
    await stage.pause()
    names = []
    for _ in clients:
        await stage.readable(listener)
        server, name = listener.accept()
        stage.keep(server)
        stage.see("the same name", name == server.getpeername())
        stage.see("blocking", server.getblocking())
        names.append(name)
    stage.see("in order", names == [client.getsockname() for client in clients])
    stage.call("accept", listener.accept)


@like_loopback()
async def test_the_backlog_is_full(stage: Stage) -> None:
    """One more than the backlog is connected; who comes then gets no answer."""
    for backlog, tries in ((0, 3), (3, 6), (-1, 2)):
        listener = stage.listener(backlog)
        clients = [stage.near() for _ in range(tries)]
        for client in clients:
            client.connect_ex(listener.getsockname())
            await stage.pause()
        for number, client in enumerate(clients):
            await stage.ready(f"{number} of a backlog of {backlog}", client)
        for _ in clients:
            stage.call("accepted", lambda at=listener: at.accept()[0].close())


@like_loopback()
async def test_who_found_the_backlog_full_tries_again(stage: Stage) -> None:
    """A connect is tried again a second later, and there is room then."""
    listener = stage.listener(0)
    first = await stage.connect(stage.near(), listener)
    second = stage.near()
    second.connect_ex(listener.getsockname())
    await stage.pause()
    server = await stage.accept(listener)
    stage.see("first", server.getpeername() == first.getsockname())
    await stage.writable(second)
    stage.call("SO_ERROR", error_of, second)
    server = await stage.accept(listener)
    stage.see("second", server.getpeername() == second.getsockname())


@like_loopback()
async def test_a_listener_is_closed_with_connections_waiting(stage: Stage) -> None:
    """Who was connected and is never accepted is reset."""
    listener = stage.listener()
    idle = await stage.connect(stage.near(), listener)
    busy = await stage.connect(stage.near(), listener)
    busy.send(b"nobody will read this")
    done = await stage.connect(stage.near(), listener)
    done.shutdown(socket.SHUT_WR)
    await stage.pause()
    listener.close()
    for name, client in (("idle", idle), ("busy", busy), ("done", done)):
        await stage.ready(name, client)
        stage.call(f"{name}: peer", client.getpeername)
        stage.call(f"{name}: recv", client.recv, 10)
        stage.call(f"{name}: SO_ERROR", error_of, client)
        stage.call(f"{name}: recv", client.recv, 10)
        stage.call(f"{name}: send", client.send, b"x")


@like_loopback()
async def test_accepted_after_the_client_has_gone(stage: Stage) -> None:
    """What was sent before, and the end, are there for who accepts late."""
    listener = stage.listener()
    client = await stage.connect(stage.near(), listener)
    client.send(b"was here")
    client.close()
    await stage.pause()
    await stage.readable(listener)
    server, _ = listener.accept()
    stage.keep(server)
    stage.name("name", server.getsockname)
    stage.name("peer", server.getpeername)
    await stage.receive("recv", server)
    await stage.receive("recv", server)
    stage.call("send", server.send, b"anybody there?")
    await stage.pause()
    stage.call("send again", server.send, b"no")


@like_loopback()
async def test_accepted_after_the_client_was_reset(stage: Stage) -> None:
    """A connection that was reset in the backlog is accepted all the same."""
    listener = stage.listener()
    for data in (b"", b"was here"):
        client = await stage.connect(stage.near(), listener)
        if data:
            client.send(data)
        await stage.pause()
        abort(client)
        await stage.ready("listener", listener)
        server, _ = listener.accept()
        stage.keep(server)
        stage.name("name", server.getsockname)
        stage.call("peer", server.getpeername)
        stage.call("recv", server.recv, 100)
        stage.call("recv", server.recv, 100)
        stage.call("recv", server.recv, 100)
        stage.call("send", server.send, b"x")


@like_loopback()
async def test_a_listener_is_shut_down(stage: Stage) -> None:
    """A listener that is shut down for reading no longer listens."""
    listener = stage.listener()
    stage.call("for writing", listener.shutdown, socket.SHUT_WR)
    await stage.wait("connect", connects, stage, listener)
    stage.call("for reading", listener.shutdown, socket.SHUT_RD)
    stage.call("SO_ACCEPTCONN", listener.getsockopt, socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    stage.call("accept", listener.accept)
    await stage.wait("connect", connects, stage, listener)
    await stage.ready("listener", listener)
    stage.call("listen again", listener.listen)
    await stage.wait("connect", connects, stage, listener)


async def connects(stage: Stage, listener: socket.socket) -> str:
    """Connect to a listener."""
    await stage.connect(stage.near(), listener)
    return "connected"


# ---- addresses in use ----------------------------------------------------------------------------


@like_loopback()
async def test_an_address_is_in_use(stage: Stage) -> None:
    """An address belongs to one socket; to bind a socket twice is an error."""
    first = stage.bound()
    address = first.getsockname()
    second = stage.far()
    stage.call("bind", second.bind, address)
    stage.call("bind to all", second.bind, ("", address[1]))
    stage.name("name", second.getsockname)
    stage.call("bind the first again", first.bind, (stage.address, 0))
    stage.call("at the same place", first.bind, address)
    first.listen()
    stage.call("bind to a listener's", second.bind, address)
    datagrams = stage.far(socket.SOCK_DGRAM)
    stage.call("bind datagrams there", datagrams.bind, address)
    first.close()
    stage.call("bind when it is closed", second.bind, address)
    stage.see("there", second.getsockname() == address)
    stage.call("listen", second.listen)


@like_loopback()
async def test_all_addresses_are_in_use(stage: Stage) -> None:
    """A socket on all addresses has this one as well."""
    first = stage.far()
    first.bind(("", 0))
    port = first.getsockname()[1]
    second = stage.far()
    stage.call("bind", second.bind, (stage.address, port))
    stage.call("bind to all", second.bind, ("0.0.0.0", port))  # noqa: S104


def reuse(sock: socket.socket) -> socket.socket:
    """Let a socket have an address that old connections have."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


@like_loopback()
async def test_two_with_reuse(stage: Stage) -> None:
    """With SO_REUSEADDR two sockets can be bound to an address; one of them listens."""
    first, second, third = reuse(stage.far()), reuse(stage.far()), stage.far()
    first.bind((stage.address, 0))
    address = first.getsockname()
    stage.call("bind", second.bind, address)
    stage.call("bind without", third.bind, address)
    stage.call("listen", first.listen)
    stage.call("listen too", second.listen)
    stage.call("bind to a listener's", reuse(stage.far()).bind, address)


async def used(stage: Stage, *, reusing: bool, server_first: bool) -> tuple[str, int]:
    """Return the address of a listener that had a connection, and is closed like it."""
    listener = stage.far()
    if reusing:
        reuse(listener)
    listener.bind((stage.address, 0))
    listener.listen()
    address: tuple[str, int] = listener.getsockname()
    client = await stage.connect(stage.near(), listener)
    server = await stage.accept(listener)
    listener.close()
    for each in (server, client) if server_first else (client, server):
        each.close()
        await stage.pause()
    return address


@like_loopback()
async def test_an_address_in_time_wait(stage: Stage) -> None:
    """A server that closed first cannot come back at once, except with SO_REUSEADDR."""
    for reusing in (False, True):
        for server_first in (True, False):
            address = await used(stage, reusing=reusing, server_first=server_first)
            what = f"{reusing=} {server_first=}"
            plain = stage.far()
            stage.call(f"{what}: bind", plain.bind, address)
            plain.close()
            again = reuse(stage.far())
            stage.call(f"{what}: with reuse", again.bind, address)
            stage.call("listen", again.listen)


@like_loopback()
async def test_an_address_with_a_connection(stage: Stage) -> None:
    """A server cannot come back while a connection lives, except with SO_REUSEADDR on both."""
    for reusing in (False, True):
        listener = stage.far()
        if reusing:
            reuse(listener)
        listener.bind((stage.address, 0))
        listener.listen()
        address = listener.getsockname()
        client = await stage.connect(stage.near(), listener)
        server = await stage.accept(listener)
        listener.close()
        stage.call(f"{reusing=}: bind", stage.far().bind, address)
        again = reuse(stage.far())
        stage.call(f"{reusing=}: with reuse", again.bind, address)
        stage.call("listen", again.listen)
        if reusing:
            await stage.connect(stage.near(), again)
            other = await stage.accept(again)
            other.send(b"the new")
        server.send(b"the old")
        await stage.receive("recv", client)


@like_loopback()
async def test_an_address_that_is_not_mine(stage: Stage) -> None:
    """Only the machine's own addresses can be bound to."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        sock = stage.near(kind)
        stage.call("bind", sock.bind, ("192.0.2.1", 0))
        stage.name("name", sock.getsockname)
        stage.call("bind to mine", sock.bind, ("127.0.0.1", 0))


@like_loopback()
async def test_ports_are_given_once(stage: Stage) -> None:
    """Port 0 is any port that nobody has."""
    taken = [stage.bound().getsockname()[1] for _ in range(50)]
    stage.see("different", len(set(taken)))
    stage.see("high", min(taken) >= 1024)


# ---- the end of a connection ---------------------------------------------------------------------


@like_loopback()
async def test_the_end(stage: Stage) -> None:
    """A peer that is closed is the end of the data, again and again."""
    client, server = await stage.pair()
    server.send(b"good")
    server.send(b"bye")
    server.close()
    await stage.pause()
    stage.call("recv", client.recv, 5)
    await stage.receive("recv", client)
    await stage.receive("recv", client)
    await stage.receive("recv", client)
    stage.call("recv_into", client.recv_into, bytearray(5))
    stage.call("SO_ERROR", error_of, client)
    stage.see("peer", client.getpeername()[1] > 0)
    await stage.ready("after the end", client)


@like_loopback()
async def test_half_closed(stage: Stage) -> None:
    """Who has sent all it wanted can still receive, at either end."""
    for turned in (False, True):
        one, other = await stage.pair()
        if turned:
            one, other = other, one
        one.send(b"the question")
        stage.call("shutdown", one.shutdown, socket.SHUT_WR)
        stage.call("send after it", one.send, b"x")
        stage.call("send after it again", one.send, b"x")
        stage.call("shutdown again", one.shutdown, socket.SHUT_WR)
        await stage.receive("recv", other)
        await stage.receive("the end", other)
        stage.see("peer", other.getpeername() == one.getsockname())
        other.send(b"the ")
        await stage.pause()
        other.send(b"answer")
        await stage.pause()
        await stage.receive("recv", one)
        await stage.ready("one", one)
        await stage.ready("other", other)
        stage.call("shutdown", other.shutdown, socket.SHUT_WR)
        await stage.receive("the end", one)
        stage.call("peer", lambda one=one: one.getpeername()[1] > 0)
        stage.call("shutdown", other.shutdown, socket.SHUT_WR)
        stage.call("shutdown", one.shutdown, socket.SHUT_RDWR)
        stage.call("send", other.send, b"x")
        stage.call("recv", other.recv, 10)


@like_loopback()
async def test_shut_down_for_reading(stage: Stage) -> None:
    """Who does not want to read sees the end; what the peer sends does not fail."""
    client, server = await stage.pair()
    server.send(b"before")
    await stage.pause()
    stage.call("shutdown", client.shutdown, socket.SHUT_RD)
    await stage.ready("client", client)
    stage.call("recv", client.recv, 100)
    stage.call("recv", client.recv, 100)
    stage.call("peer sends", server.send, b"after")
    await stage.pause()
    stage.call("peer sends", server.send, b"again")
    stage.call("send", client.send, b"still")
    await stage.receive("peer receives", server)


@like_loopback()
async def test_shut_down_both_ways(stage: Stage) -> None:
    """Who shuts both ways down sees the end, and so does the peer."""
    client, server = await stage.pair()
    stage.call("shutdown", client.shutdown, socket.SHUT_RDWR)
    stage.call("recv", client.recv, 10)
    stage.call("send", client.send, b"x")
    await stage.receive("peer receives", server)
    stage.call("peer", lambda: client.getpeername()[1] > 0)
    stage.call("shutdown", server.shutdown, socket.SHUT_RDWR)
    await stage.pause()
    stage.call("peer", client.getpeername)
    stage.call("peer's peer", server.getpeername)
    stage.call("shutdown", client.shutdown, socket.SHUT_RDWR)
    stage.call("shutdown", server.shutdown, socket.SHUT_RDWR)


@like_loopback()
async def test_sent_to_who_has_shut_down_both_ways(stage: Stage) -> None:
    """What arrives for who wants neither to send nor to receive resets both ends."""
    client, server = await stage.pair()
    server.send(b"before")
    await stage.pause()
    client.shutdown(socket.SHUT_RDWR)
    await stage.receive("before", client)
    await stage.receive("the end", server)
    stage.call("send", server.send, b"after")
    await stage.ready("client", client)
    stage.call("recv", client.recv, 10)
    stage.call("peer", client.getpeername)
    stage.call("send", server.send, b"again")
    stage.call("recv", server.recv, 10)


@like_loopback()
async def test_shut_down_after_a_refusal(stage: Stage) -> None:
    """Who was refused and is shut down cannot connect any more."""
    closed, listener = stage.bound(), stage.listener()
    client = stage.near()
    await stage.wait("refused", stage.connect, client, closed)
    stage.call("shutdown", client.shutdown, socket.SHUT_RDWR)
    stage.call("connect", client.connect, listener.getsockname())
    stage.call("connect", client.connect, listener.getsockname())
    await stage.ready("listener", listener)


@like_loopback()
async def test_no_such_way(stage: Stage) -> None:
    """There are three ways to shut down."""
    client, _server = await stage.pair()
    stage.call("shutdown", client.shutdown, 3)
    stage.call("shutdown", client.shutdown, -1)


@like_loopback()
async def test_closed(stage: Stage) -> None:
    """A closed socket is none."""
    client, server = await stage.pair()
    client.close()
    stage.call("send", client.send, b"x")
    stage.call("recv", client.recv, 10)
    stage.call("name", client.getsockname)
    stage.call("peer", client.getpeername)
    stage.call("SO_ERROR", error_of, client)
    stage.call("connect", client.connect, (stage.address, 1))
    stage.call("bind", client.bind, (stage.address, 0))
    stage.call("listen", client.listen)
    stage.call("accept", client.accept)
    stage.call("shutdown", client.shutdown, socket.SHUT_RDWR)
    stage.call("close", client.close)
    stage.see("fileno", client.fileno())
    await stage.receive("peer receives", server)


@like_loopback()
async def test_write_to_a_closed_peer(stage: Stage) -> None:
    """The first write to a peer that is closed succeeds, and brings the reset."""
    for read in (False, True):
        client, server = await stage.pair()
        server.close()
        await stage.pause()
        if read:
            await stage.receive("the end", client)
        stage.call("send", client.send, b"first")
        await stage.ready("client", client)
        stage.call("peer", client.getpeername)
        stage.call("send", client.send, b"second")
        stage.call("send", client.send, b"third")
        stage.call("recv", client.recv, 10)
        stage.call("recv", client.recv, 10)
        stage.call("SO_ERROR", error_of, client)


@like_loopback()
async def test_read_after_a_write_to_a_closed_peer(stage: Stage) -> None:
    """What the reset has left for a reader is the end."""
    client, server = await stage.pair()
    server.close()
    await stage.pause()
    client.send(b"first")
    await stage.pause()
    stage.call("recv", client.recv, 10)
    stage.call("SO_ERROR", error_of, client)
    stage.call("send", client.send, b"second")
    stage.call("recv", client.recv, 10)


@like_loopback()
async def test_reset(stage: Stage) -> None:
    """A reset is told once, to the first who asks; then there is the end, and a broken pipe."""
    for what in ("recv", "send", "SO_ERROR", "peek", "shutdown"):
        client, server = await stage.pair()
        abort(server)
        await stage.ready("client", client)
        stage.call("peer", client.getpeername)
        stage.name("name", client.getsockname)
        for _ in range(2):
            if what == "recv":
                stage.call("recv", client.recv, 10)
            elif what == "send":
                stage.call("send", client.send, b"x")
            elif what == "peek":
                stage.call("peek", client.recv, 10, socket.MSG_PEEK)
            elif what == "shutdown":
                stage.call("shutdown", client.shutdown, socket.SHUT_WR)
            else:
                stage.call("SO_ERROR", error_of, client)
        stage.call("recv", client.recv, 10)
        stage.call("send", client.send, b"x")
        stage.call("recv", client.recv, 10)
        stage.call("SO_ERROR", error_of, client)
        await stage.ready("client", client)


@like_loopback()
async def test_each_way_to_read_is_told_of_a_reset(stage: Stage) -> None:
    """Whichever method reads: there is the error once, and then the end."""
    reads: dict[str, Callable[[socket.socket], object]] = {
        "recv_into": lambda sock: sock.recv_into(bytearray(10)),
        "some of it": lambda sock: sock.recv_into(bytearray(10), nbytes=4),
        "recvfrom": lambda sock: sock.recvfrom(10),
        "recvfrom_into": lambda sock: sock.recvfrom_into(bytearray(10), nbytes=4),
        "recvmsg": lambda sock: sock.recvmsg(10),
        "recvmsg_into": lambda sock: sock.recvmsg_into([bytearray(10)]),
    }
    for name, read in reads.items():
        for has_ended in (False, True):
            client, server = await stage.pair()
            if has_ended:
                client.shutdown(socket.SHUT_WR)
                await stage.pause()
            abort(server)
            await stage.pause()
            for _ in range(2):
                stage.call(f"{name} {has_ended=}", read, client)


@like_loopback()
async def test_reset_behind_data(stage: Stage) -> None:
    """What came before the reset can still be read."""
    client, server = await stage.pair()
    server.send(b"last words")
    await stage.pause()
    abort(server)
    await stage.ready("client", client)
    stage.call("recv", client.recv, 4)
    stage.call("recv", client.recv, 100)
    stage.call("recv", client.recv, 100)
    stage.call("recv", client.recv, 100)


@like_loopback()
async def test_reset_behind_the_end(stage: Stage) -> None:
    """Who is reset after the peer had shut down has a broken pipe."""
    client, server = await stage.pair()
    server.shutdown(socket.SHUT_WR)
    await stage.pause()
    client.send(b"not read")
    await stage.pause()
    server.close()
    await stage.ready("client", client)
    stage.call("send", client.send, b"x")
    stage.call("recv", client.recv, 10)
    stage.call("SO_ERROR", error_of, client)


@like_loopback()
async def test_closed_with_something_unread(stage: Stage) -> None:
    """Who closes without having read everything resets its peer."""
    client, server = await stage.pair()
    client.send(b"one two")
    await stage.readable(server)
    server.recv(3)
    server.send(b"answer")
    await stage.pause()
    server.close()
    await stage.ready("client", client)
    stage.call("peer", client.getpeername)
    stage.call("recv", client.recv, 100)
    stage.call("recv", client.recv, 100)
    stage.call("recv", client.recv, 100)
    stage.call("send", client.send, b"x")


@like_loopback()
async def test_closed_with_something_on_its_way(stage: Stage) -> None:
    """What arrives at a closed socket brings a reset, whatever it had sent before."""
    client, server = await stage.pair()
    server.send(b"answer")
    server.close()
    client.send(b"too late")
    await stage.pause()
    await stage.ready("client", client)
    stage.call("recv", client.recv, 100)
    stage.call("recv", client.recv, 100)
    stage.call("send", client.send, b"x")


@like_loopback()
async def test_both_close(stage: Stage) -> None:
    """Both ends may close at the same time."""
    client, server = await stage.pair()
    client.send(b"one")
    server.send(b"other")
    await stage.pause()
    client.shutdown(socket.SHUT_WR)
    server.shutdown(socket.SHUT_WR)
    await stage.pause()
    stage.call("client", client.recv, 10)
    stage.call("client", client.recv, 10)
    stage.call("server", server.recv, 10)
    stage.call("server", server.recv, 10)
    stage.call("peer", client.getpeername)
    stage.call("send", client.send, b"x")
    stage.call("shutdown", client.shutdown, socket.SHUT_RDWR)


@like_loopback()
async def test_a_lingering_close(stage: Stage) -> None:
    """SO_LINGER with time is no reset."""
    client, server = await stage.pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
    server.send(b"all of this")
    server.close()
    await stage.pause()
    stage.call("recv", client.recv, 100)
    stage.call("recv", client.recv, 100)
