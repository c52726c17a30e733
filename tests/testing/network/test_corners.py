"""Corners of a simulated network: what programs seldom do, and moments that are hard to meet."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from typing import TYPE_CHECKING

import anyio
import pytest
import trio
from anyio import wait_readable
from anyio.abc import SocketAttribute

from mtaio.testing import Deadlock, Network, NetworkEvent, OpenSocket, run, settle
from mtaio.testing._network import _network

if TYPE_CHECKING:
    from anyio.abc import SocketStream


async def hold(stream: SocketStream) -> None:
    """Keep a connection, and read nothing."""
    async with stream:
        await anyio.sleep_forever()


async def serve(port: int = 80) -> None:
    """Accept connections, and keep them."""
    async with await anyio.create_tcp_listener(local_port=port) as listener:
        await listener.serve(hold)


def raw(kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Return a socket that does not block."""
    made = socket.socket(socket.AF_INET, kind)
    made.settimeout(0)
    return made


def test_what_is_told_in_words() -> None:
    """Events and open sockets are lines; a read rate is what was set."""
    assert str(NetworkEvent(1.5, "FIN", "a:1", "b:2")) == "t=1.5      a:1 > b:2  FIN"
    assert str(NetworkEvent(0.0, "kill", "a")) == "t=0        a  kill"
    assert str(OpenSocket("a", "0.0.0.0:80", "")) == "a 0.0.0.0:80"
    net = Network()
    assert repr(net) == "<Network of main, not open yet>"
    host = net.host("stock")
    assert repr(host) == "<Host stock 10.0.0.2>"
    assert host.read_rate is None
    host.read_rate = 5
    assert host.read_rate == 5
    host.read_rate = float("inf")
    assert host.read_rate is None


def test_too_many_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are as many as there are addresses."""
    monkeypatch.setattr(_network, "MOST_HOSTS", 2)
    net = Network()
    net.host("one")
    with pytest.raises(ValueError, match="2 hosts already, and no address for 'two'"):
        net.host("two")


def test_names_and_services(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What getaddrinfo and getnameinfo say of names, numbers and ports in words."""
    known = {"http": 80}

    def service(name: str) -> int:
        if name not in known:
            raise OSError
        return known[name]

    monkeypatch.setattr("socket.getservbyname", service)

    async def main() -> None:
        async with Network() as net:
            address = net.host("stock").address
            assert socket.getaddrinfo("stock", "http", type=socket.SOCK_STREAM) == [
                (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 80))
            ]
            for host, port, flags, code in (
                ("stock", "gopher", 0, socket.EAI_SERVICE),
                ("::1", 80, 0, socket.EAI_ADDRFAMILY),
                ("stock", 80, socket.AI_NUMERICHOST, socket.EAI_NONAME),
            ):
                with pytest.raises(socket.gaierror) as error:
                    socket.getaddrinfo(host, port, flags=flags)
                assert error.value.errno == code
            assert await anyio.getnameinfo((address, 80)) == ("stock", "80")
            named = await anyio.getnameinfo((address, 80), socket.NI_NUMERICHOST)
            assert named == (address, "80")

    run(main, backend=backend)


def test_several_hosts_break_at_once(backend: str) -> None:
    """Their errors come as a group, as from a task group."""

    async def breaks() -> None:
        raise LookupError

    async def main() -> None:
        async with Network() as net:
            net.host("a").start(breaks)
            net.host("b").start(breaks)
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as error:
        run(main, backend=backend)
    assert [type(each) for each in error.value.exceptions] == [LookupError, LookupError]


def test_cancelled_from_outside(backend: str) -> None:
    """The block ends, its hosts with it."""

    async def main() -> None:
        with anyio.move_on_after(5) as scope:
            async with Network() as net:
                net.host("stock").start(serve)
                net.partition("main", "stock")  # which misses: that is not what is to be told now
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert anyio.current_time() == 5

    run(main, backend=backend)


def test_stuck_without_a_socket(backend: str) -> None:
    """A Deadlock names sockets only where a task waits for one, in whichever way."""

    async def plainly() -> None:
        async with Network() as net:
            net.host("stock").start(serve)
            real, other = socket.socketpair()  # which it has, and does not wait for
            with real, other:
                await anyio.Event().wait()

    async def by_hand() -> None:
        async with Network() as net:
            net.host("stock").start(serve)
            await settle()
            with raw() as sock:
                sock.connect_ex(("stock", 80))
                await settle()
                await wait_readable(sock)

    async def by_the_backend() -> None:
        async with Network() as net:
            net.host("stock").start(serve)
            await settle()
            if backend == "trio":
                with trio.socket.socket() as sock:
                    await sock.connect((net.host("stock").address, 80))
                    await sock.recv(1)
            else:
                reader, writer = await asyncio.open_connection("stock", 80)
                try:
                    await reader.read()
                finally:
                    writer.close()

    with pytest.raises(Deadlock) as stuck:
        run(plainly, backend=backend)
    assert "main:" not in str(stuck.value)
    assert "at the socket stock:80" in str(stuck.value)
    for main in (by_hand, by_the_backend):
        with pytest.raises(Deadlock, match="at the socket main:32768, whose peer is stock:80"):
            run(main, backend=backend)


def test_the_answer_to_a_connect_is_cut_off(backend: str) -> None:
    """It is sent again each second after it was lost, and after a hold at once."""

    async def main() -> None:
        async with Network(latency=1.0) as net:
            net.host("stock").start(serve)
            await settle()
            for fault, end, expected in (
                (net.partition, 5.5, 6.0),
                (net.hold, 5.5, 5.5),
            ):
                began = anyio.current_time()
                async with anyio.create_task_group() as group:

                    async def connect(began: float = began, expected: float = expected) -> None:
                        async with await anyio.connect_tcp("stock", 80):
                            assert anyio.current_time() - began == expected

                    group.start_soon(connect)
                    await anyio.sleep(1.5)
                    made = fault("stock", "main", oneway=True)
                    await anyio.sleep(end - 1.5)
                    net.heal(made)
                    net.heal(made)  # which it is already

    run(main, backend=backend)


def test_an_end_that_was_killed(backend: str) -> None:
    """The sockets of a dead program reach nobody, whatever it does with them."""

    async def main() -> None:
        async with Network() as net:
            net.host("stock").start(serve)
            net.host("other").start(anyio.sleep_forever)
            await settle()
            with net.host("other"):
                connecting, fresh, udp = raw(), raw(), raw(socket.SOCK_DGRAM)
                net.hold("other", "stock", required=False)
                assert connecting.connect_ex(("stock", 80)) == errno.EINPROGRESS
                net.host("other").kill()
                assert connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ENETDOWN
                assert connecting.connect_ex(("stock", 80)) == errno.ENETDOWN
                assert fresh.connect_ex(("10.0.0.2", 80)) == errno.ENETDOWN
                with pytest.raises(OSError) as error:  # noqa: PT011 - its number is looked at
                    udp.sendto(b"x", ("10.0.0.2", 53))
                assert error.value.errno == errno.ENETDOWN
            for each in (connecting, fresh, udp):
                each.close()

    run(main, backend=backend)


def test_a_socket_is_closed_while_it_connects(backend: str) -> None:
    """Nobody gets a connection from it, at either moment of the handshake."""

    async def main() -> None:
        for moment in (0.5, 1.5):
            async with Network(latency=1.0) as net:
                net.host("stock").start(serve)
                await settle()
                with raw() as sock:
                    sock.connect_ex(("stock", 80))
                    await anyio.sleep(moment)
                await anyio.sleep(10)
                assert [each.host for each in net.open] == ["stock"]

    run(main, backend=backend)


def test_data_is_on_its_way_as_the_connection_ends(backend: str) -> None:
    """What arrives for an end that was reset meanwhile is dropped."""

    async def main() -> None:
        async with Network(latency=1.0) as net:
            net.host("stock").start(serve)
            await settle()
            async with await anyio.connect_tcp("stock", 80) as stream:
                await anyio.sleep(2)
                await stream.send(b"x")
                net.reset("main", "stock")
                await anyio.sleep(5)
                with pytest.raises(anyio.BrokenResourceError):
                    await stream.receive()

    run(main, backend=backend)


def test_datagrams_at_the_edges(backend: str) -> None:
    """To nobody, to oneself, into a fault, to a dead host, and from somebody else."""

    async def main() -> None:
        async with Network(latency=1.0) as net:
            net.host("stock")
            with raw(socket.SOCK_DGRAM) as mine, raw(socket.SOCK_DGRAM) as other:
                mine.bind(("0.0.0.0", 53))  # noqa: S104
                with pytest.raises(OSError) as error:  # noqa: PT011 - its number is looked at
                    mine.sendto(b"x", ("10.9.9.9", 53))
                assert error.value.errno == errno.ENETUNREACH
                other.connect(("0.0.0.0", 53))  # noqa: S104
                assert other.getpeername() == ("127.0.0.1", 53)
                other.send(b"to myself")
                await settle()
                assert mine.recv(100) == b"to myself"
                mine.connect(("10.0.0.2", 1))
                other.send(b"from somebody else")
                await settle()
                with pytest.raises(BlockingIOError):
                    mine.recv(100)
                for fault in (net.partition, net.hold):
                    other.connect(("10.0.0.2", 53))
                    other.send(b"x")
                    await anyio.sleep(0.5)
                    made = fault("main", "stock")
                    await anyio.sleep(5)
                    assert made.struck == 1
                    net.heal()
                    await anyio.sleep(5)
                net.host("stock").kill(silent=True)
                assert not net.host("stock").up
                mine.send(b"x")
                await anyio.sleep(5)
                net.host("main").read_rate = 5

    run(main, backend=backend)


def test_what_dead_callbacks_raise_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    """On asyncio, where callbacks and tasks may be left by a program that was killed."""

    async def program() -> None:
        async def waits() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                raise ValueError("of a task")

        def breaks() -> None:
            raise ValueError("of a callback")

        task = asyncio.create_task(waits())
        asyncio.get_running_loop().call_later(5, breaks)
        await asyncio.sleep(1000)
        del task

    async def main(*, kill: bool) -> None:
        async with Network() as net:
            net.host("stock").start(program)
            await anyio.sleep(1)
            if kill:
                net.host("stock").kill()
            await anyio.sleep(10)

    with caplog.at_level(logging.ERROR, "asyncio"):
        run(lambda: main(kill=True))
        assert not caplog.records
        run(lambda: main(kill=False))
        assert any("of a callback" in str(record.exc_info) for record in caplog.records)


def test_half_open(backend: str) -> None:
    """After a power cut a connection is learned to be gone when something is sent on it."""

    async def main() -> None:
        async with Network() as net:
            net.host("stock").start(serve)
            await settle()
            async with await anyio.connect_tcp("stock", 80) as stream:
                await settle()
                net.host("stock").kill(silent=True)
                net.host("stock").restart()
                await anyio.sleep(100)
                await stream.send(b"anybody?")
                with pytest.raises(anyio.BrokenResourceError):
                    await stream.receive()
                assert anyio.current_time() == 100

    run(main, backend=backend)


def test_the_users_patience(backend: str) -> None:
    """TCP_USER_TIMEOUT says when a kernel gives up, once, and not after it was healed."""

    async def main() -> None:
        async with Network() as net:
            net.host("stock").start(serve)
            await settle()
            async with await anyio.connect_tcp("stock", 80) as stream:
                sock = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - no Django
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
                await settle()
                fault = net.partition("main", "stock")
                await stream.send(b"x")
                await anyio.sleep(20)
                net.heal(fault)
                await anyio.sleep(20)
                net.partition("main", "stock")
                await stream.send(b"x")
                began = anyio.current_time()
                with pytest.raises(anyio.BrokenResourceError):
                    await stream.receive()
                assert anyio.current_time() == began + 30

    run(main, backend=backend)


def test_names_without_a_network(backend: str) -> None:
    """Where no network is open, the system is asked."""

    async def main() -> None:
        numbers = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        assert await anyio.getnameinfo(("127.0.0.1", 80), numbers) == ("127.0.0.1", "80")

    run(main, backend=backend)


def test_transports_of_a_killed_program() -> None:
    """What asyncio's transports and servers have open is closed for a program that was killed."""
    made: list[asyncio.BaseTransport] = []

    class Keeps(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    async def program() -> None:
        await asyncio.get_running_loop().create_server(Keeps, port=80)
        await asyncio.sleep(1000)

    async def main() -> None:
        async with Network() as net:
            net.host("stock").start(program)
            await settle()
            async with await anyio.connect_tcp("stock", 80):
                await settle()
        assert made[0].is_closing()

    run(main)


def test_a_network_in_the_midst_of_other_tasks(backend: str) -> None:
    """Tasks that are ready when it implies a schedule run on."""
    turns = 0

    async def spin() -> None:
        nonlocal turns
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
            turns += 1

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(spin)
            await anyio.lowlevel.checkpoint()
            for _ in range(5):
                group.start_soon(spin)
            await anyio.lowlevel.checkpoint()
            async with Network():
                pass
        assert turns == 200

    run(main, backend=backend)


def test_started_killed_and_started_again_before_it_is_open(backend: str) -> None:
    """The program runs once."""
    began: list[float] = []

    async def program() -> None:
        began.append(anyio.current_time())

    async def main() -> None:
        net = Network()
        net.host("stock").start(program)
        net.host("stock").kill()
        net.host("stock").start(program)
        async with net:
            await settle()
            assert began == [0.0]
            disk = net.host("db").disk
            disk.sync()
            assert disk.lost == ()

    run(main, backend=backend)


def test_errors_that_are_told_late(backend: str) -> None:
    """By whoever reads after the program has ended its own side, or asks for what is not there."""

    async def main() -> None:
        async with Network() as net:
            net.host("stock").start(serve)
            await settle()
            with raw() as sock, raw(socket.SOCK_DGRAM) as udp:
                sock.connect_ex(("stock", 80))
                await settle()
                with pytest.raises(BlockingIOError):
                    sock.recvfrom(1)
                sock.shutdown(socket.SHUT_WR)
                await settle()
                net.reset("main", "stock")
                with pytest.raises(ConnectionResetError):
                    sock.recv(1)
                late = raw()
                late.connect_ex(("stock", 80))
                late.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000)
                await settle()
                net.partition("main", "stock")
                late.send(b"x")
                await anyio.sleep(2)
                with late, pytest.raises(TimeoutError):
                    late.recvfrom(1)
                with pytest.raises(OSError) as error:  # noqa: PT011 - its number is looked at
                    udp.getpeername()
                assert error.value.errno == errno.ENOTCONN

    run(main, backend=backend)


def test_a_descriptor_is_closed_unseen_while_it_connects(backend: str) -> None:
    """And the power is cut at the other end, where a connection waits to be accepted."""

    async def listen() -> None:
        with raw() as sock:
            sock.bind(("0.0.0.0", 80))  # noqa: S104
            sock.listen()
            await anyio.sleep_forever()

    async def main() -> None:
        async with Network(latency=1.0) as net:
            net.host("stock").start(listen)
            await settle()
            lost = raw()
            lost.connect_ex(("stock", 80))
            os.close(lost.detach())
            with raw() as sock:
                sock.connect_ex(("stock", 80))
                await anyio.sleep(10)
                net.host("stock").kill(silent=True)

    run(main, backend=backend)
