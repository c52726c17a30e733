"""Who has which port, for how long, and what a duplicate of a socket is."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.testing import Network
from mtaio.testing._network._ports import EPHEMERAL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mtaio.testing import Simulation


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    """Return an open network."""
    async with Network() as net:
        yield net


def bound(port: int, ip: str = "127.0.0.1", *, reuse: bool = False) -> socket.socket:
    """Return a socket that is bound to a port; close it if that fails."""
    sock = socket.socket()
    sock.settimeout(0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    try:
        sock.bind((ip, port))
    except OSError:
        sock.close()
        raise
    return sock


def descriptors() -> int:
    """Return how many descriptors this process has."""
    return len([*Path("/dev/fd").iterdir()])


async def connect(port: int, ip: str = "127.0.0.1") -> socket.socket:
    """Return a connection to a port."""
    sock = socket.socket()
    sock.settimeout(0)
    sock.connect_ex((ip, port))
    await anyio.wait_writable(sock)
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        sock.close()
        raise OSError(error, os.strerror(error))
    return sock


async def accept(listener: socket.socket) -> socket.socket:
    """Return the next connection."""
    await anyio.wait_readable(listener)
    sock = listener.accept()[0]
    sock.settimeout(0)
    return sock


async def closed_by_server(port: int) -> None:
    """Let a server have one connection, and close it first."""
    with bound(port) as listener:
        listener.listen()
        with await connect(port) as client:
            with await accept(listener):
                pass
            await anyio.wait_readable(client)
            assert client.recv(1) == b""


@pytest.mark.usefixtures("network")
async def test_the_port_of_a_closed_connection_waits(sim: Simulation) -> None:
    """Who closes first cannot have its port again for 60 s."""
    await closed_by_server(80)
    assert sim.time() == 0
    await anyio.sleep(59.999)
    with pytest.raises(OSError, match="in use"):
        bound(80)
    await anyio.sleep(0.001)
    bound(80).close()


@pytest.mark.usefixtures("network")
async def test_who_waits_is_not_reached() -> None:
    """A port that only waits refuses connections."""
    await closed_by_server(80)
    with pytest.raises(ConnectionRefusedError):
        await connect(80)


async def test_a_killed_host_has_its_ports_again(network: Network) -> None:
    """What was killed holds no port: its successor listens on the same one."""
    stock = network.host("stock")

    async def serve() -> None:
        with socket.create_server(("", 80)) as listener:
            listener.settimeout(0)
            while True:
                (await accept(listener)).close()

    stock.start(serve)
    for _ in range(3):
        await anyio.sleep(1)
        (await connect(80, stock.address)).close()
        stock.restart()


async def test_ports_are_given_in_turn(network: Network) -> None:
    """After the last port the first comes again, and those that are taken are left out."""
    with bound(0) as first:
        network._core.machine("main").ports._last = EPHEMERAL[-2]
        with bound(0) as last, bound(0) as second:
            ports = [sock.getsockname()[1] for sock in (first, last, second)]
    assert ports == [EPHEMERAL[0], EPHEMERAL[-1], EPHEMERAL[1]]


async def test_when_all_ports_are_taken(network: Network) -> None:
    """A host that has no port left says so."""
    ports = network._core.machine("main").ports
    everything = bound(81)
    for port in EPHEMERAL:
        ports._bound[socket.SOCK_STREAM, port] = [*ports._bound[socket.SOCK_STREAM, 81]]
    with everything, pytest.raises(OSError, match="in use") as caught:
        bound(0)
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.usefixtures("network")
async def test_clients_keep_no_port() -> None:
    """A client that has closed first leaves its port to others at once."""
    with bound(80) as listener:
        listener.listen()
        client = await connect(80)
        port = client.getsockname()[1]
        client.close()
        with await accept(listener) as server:
            await anyio.wait_readable(server)
            assert server.recv(1) == b""
        bound(port).close()


async def test_one_port_on_two_addresses(network: Network) -> None:
    """What listens on one address of a host is not reached at another."""
    own = network.host("main").address
    with bound(80) as inner, bound(80, own) as outer:
        for listener, ip in ((inner, "127.0.0.1"), (outer, own)):
            listener.listen()
            with await connect(80, ip), await accept(listener) as server:
                assert server.getsockname() == (ip, 80)
        outer.close()
        with pytest.raises(ConnectionRefusedError):
            await connect(80, own)


@pytest.mark.usefixtures("network")
async def test_a_duplicate_of_what_is_bound_listens() -> None:
    """A server can be given the descriptor of a bound socket, as a supervisor does."""
    given = bound(80)
    with socket.fromfd(given.fileno(), socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.settimeout(0)
        assert listener.getsockname() == ("127.0.0.1", 80)
        listener.listen()
        given.close()
        with await connect(80), await accept(listener) as server:
            assert server.getsockname() == ("127.0.0.1", 80)


@pytest.mark.usefixtures("network")
async def test_each_duplicate_of_a_client_is_connected() -> None:
    """What was duplicated before it connects is connected, too, and both can be waited for."""
    with bound(80) as listener, socket.socket() as client:
        listener.listen()
        client.settimeout(0)
        with client.dup() as twin:
            client.connect_ex(("127.0.0.1", 80))
            await anyio.wait_writable(twin)
            twin.send(b"from a twin")
            with await accept(listener) as server:
                await anyio.wait_readable(server)
                assert server.recv(100) == b"from a twin"
                server.send(b"to both")
                await anyio.wait_readable(client)
                assert twin.recv(2) == b"to"
                assert client.recv(100) == b" both"


async def test_connections_leave_no_descriptors(network: Network) -> None:
    """A connection that both ends have closed costs nothing any more."""
    with bound(80) as listener:
        listener.listen()
        before = descriptors()
        for _ in range(20):
            with await connect(80), await accept(listener):
                pass
            await anyio.sleep(1)
        assert descriptors() == before
    assert not network.open


def test_trio_has_taken_what_is_replaced() -> None:
    """Canary: these are the methods of `socket.socket` that trio took when it was imported."""
    pytest.importorskip("trio")
    from trio import _socket  # noqa: PLC0415 - where it is installed

    from mtaio.testing._network._trio_sockets import TAKEN  # noqa: PLC0415 - ditto

    kind: Any = _socket._SocketType
    taken = {
        name
        for name, method in vars(kind).items()
        for cell in getattr(method, "__closure__", None) or ()
        if type(cell.cell_contents) is type(socket.socket.recv)
    }
    assert taken == set(TAKEN)
