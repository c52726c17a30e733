"""What a simulated network refuses, with what to write; and threads, which have the real one."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_thread

from mtaio.testing import Network

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

BLOCKING = r"\(\) of a socket with timeout (None|5\.0): a blocking socket would stop the event loop"


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    """Return an open network."""
    async with Network() as net:
        yield net


def listener() -> socket.socket:
    """Return a socket that listens at port 80, and does not block."""
    sock = socket.create_server(("127.0.0.1", 80))
    sock.settimeout(0)
    return sock


# ---- blocking sockets ----------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 5.0])
async def test_a_blocking_connect_is_refused(network: Network, timeout: float | None) -> None:
    """A connect that would block the event loop says so, before anything is sent."""
    with listener(), socket.socket() as sock:
        sock.settimeout(timeout)
        with pytest.raises(RuntimeError, match=f"^connect{BLOCKING}"):
            sock.connect(("127.0.0.1", 80))
        with pytest.raises(RuntimeError, match=f"^connect{BLOCKING}"):
            sock.connect_ex(("127.0.0.1", 80))
    assert not network.trace


CALLS: dict[str, Callable[[socket.socket], object]] = {
    "recv": lambda sock: sock.recv(10),
    "recv_into": lambda sock: sock.recv_into(bytearray(10)),
    "recvmsg": lambda sock: sock.recvmsg(10),
    "recvmsg_into": lambda sock: sock.recvmsg_into([bytearray(10)]),
    "send": lambda sock: sock.send(b"x"),
    "sendall": lambda sock: sock.sendall(b"x"),
    "sendmsg": lambda sock: sock.sendmsg([b"x"]),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("timeout", [None, 5.0])
async def test_a_connection_that_blocks_is_refused(
    network: Network, call: str, timeout: float | None
) -> None:
    """To read from and write to a connection that was made to block is refused, too."""
    with listener() as accepting, socket.socket() as sock:
        sock.settimeout(0)
        sock.connect_ex(("127.0.0.1", 80))
        await anyio.wait_writable(sock)
        sock.settimeout(timeout)
        with pytest.raises(RuntimeError, match=f"^{call}{BLOCKING}"):
            CALLS[call](sock)
        with pytest.raises(RuntimeError, match=f"^{call}.* worker thread"):
            CALLS[call](sock)
        accepting.settimeout(timeout)
        with pytest.raises(RuntimeError, match=f"^accept{BLOCKING}"):
            accepting.accept()
    assert network.delivered == 0


@pytest.mark.parametrize("call", ["recv", "recv_into", "recvmsg", "recvmsg_into"])
@pytest.mark.usefixtures("network")
async def test_a_datagram_that_blocks_is_refused(call: str) -> None:
    """To wait for a datagram by blocking is refused."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("", 80))
        with pytest.raises(RuntimeError, match=rf"\w+{BLOCKING}"):
            CALLS[call](sock)


# ---- what is not simulated -----------------------------------------------------------------------


async def test_unix_sockets_are_refused(network: Network, tmp_path: Path) -> None:
    """Hosts have no files in common; the error says what to use instead."""
    path = str(tmp_path / "socket")
    with (
        socket.socket(socket.AF_UNIX) as sock,
        pytest.raises(RuntimeError, match=r"^bind\(.*Unix sockets are not simulated.*Use TCP"),
    ):
        sock.bind(path)
    with pytest.raises(RuntimeError, match=r"^listen\(.*Unix sockets are not simulated.*Use TCP"):
        await anyio.create_unix_listener(path)  # which binds in a thread
    with pytest.raises(RuntimeError, match=r"^connect\(.*Unix sockets are not simulated.*Use TCP"):
        await anyio.connect_unix(path)
    assert not network.open


@pytest.mark.usefixtures("network")
async def test_pairs_of_unix_sockets_are_real() -> None:
    """A pair within a program needs no network: it stays as it is."""
    one, other = socket.socketpair()
    with one, other:
        for each in (one, other):
            each.settimeout(0)
        one.send(b"hello")
        await anyio.wait_readable(other)
        assert other.recv(10) == b"hello"


async def test_shared_ports_are_refused(network: Network) -> None:
    """SO_REUSEPORT is refused when it is set, and may be cleared and read."""
    option = socket.SOL_SOCKET, socket.SO_REUSEPORT
    with socket.socket() as sock:
        sock.setsockopt(*option, 0)
        with pytest.raises(RuntimeError, match=r"^SO_REUSEPORT is not simulated.* each host"):
            sock.setsockopt(*option, 1)
        assert sock.getsockopt(*option) == 0
    with pytest.raises(RuntimeError, match=r"^SO_REUSEPORT is not simulated.* each host"):
        await anyio.create_tcp_listener(local_port=80, reuse_port=True)
    assert not network.open


async def test_there_is_no_ipv6(network: Network) -> None:
    """Sockets and names are as on a machine that has no IPv6."""
    with pytest.raises(OSError, match="Address family not supported") as caught:
        socket.socket(socket.AF_INET6)
    assert caught.value.errno == errno.EAFNOSUPPORT
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("localhost", 80, socket.AF_INET6)
    with pytest.raises(OSError, match=r"family|connection attempts failed"):
        await anyio.connect_tcp("::1", 80)
    assert {info[0] for info in socket.getaddrinfo("localhost", 80)} == {socket.AF_INET}
    listening = await anyio.create_tcp_listener(local_port=80)
    async with listening, await anyio.connect_tcp("localhost", 80):
        assert [each.local for each in network.open if not each.peer] == ["0.0.0.0:80"]


# ---- threads -------------------------------------------------------------------------------------


def answer_once(sock: socket.socket) -> None:
    """Accept a connection, blocking, and answer."""
    with sock.accept()[0] as peer:
        peer.sendall(peer.recv(100).upper())


def ask() -> bytes:
    """Ask a server of the machine's own, blocking."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = threading.Thread(target=answer_once, args=(sock,))
        server.start()
        with socket.create_connection(sock.getsockname(), timeout=20) as client:
            client.sendall(b"hello")
            answer = client.recv(100)
        server.join()
    return answer


async def test_threads_have_the_real_network(network: Network) -> None:
    """Blocking sockets of worker threads are real, and the network does not know of them."""
    assert await to_thread.run_sync(ask) == b"HELLO"
    assert not network.open
    assert not network.trace


async def test_a_descriptor_that_is_used_again(network: Network) -> None:
    """A thread's socket is real, also with a descriptor that a simulated one had."""
    with listener():
        client = socket.socket()
        client.settimeout(0)
        client.connect_ex(("127.0.0.1", 80))
        await anyio.wait_writable(client)
        os.close(client.detach())
        assert await to_thread.run_sync(ask) == b"HELLO"
    await anyio.sleep(1)
    assert not network.open


# ---- before and after ----------------------------------------------------------------------------


def methods() -> dict[str, Any]:
    """Return what the class of sockets has."""
    return {**vars(socket.socket), "getaddrinfo": socket.getaddrinfo}


async def test_sockets_are_given_back() -> None:
    """When the network is closed, the class of sockets is as it was."""
    before = methods()
    async with Network():
        assert methods() != before
    assert methods() == before


async def test_a_socket_from_before_stays_real() -> None:
    """What was connected before the network was opened is not simulated."""
    with socket.create_server(("127.0.0.1", 0)) as before:
        async with Network():
            name = before.getsockname()
            assert name[1] != 0
            with socket.socket() as inside:
                inside.settimeout(0)
                inside.connect_ex(name)
                await anyio.wait_writable(inside)
                error = inside.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                assert error == errno.ECONNREFUSED


async def test_reuse_port_of_asyncio_is_refused(network: Network, backend: str) -> None:
    """The option of asyncio is refused in the same words."""
    if backend != "asyncio":
        pytest.skip("asyncio's own")
    with pytest.raises(RuntimeError, match=r"^SO_REUSEPORT is not simulated"):
        await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 80, reuse_port=True)
    assert not network.open
