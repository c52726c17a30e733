"""A simulated network beside everything else that a program and its tests may do."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import ssl
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import from_thread, to_thread
from anyio.lowlevel import checkpoint

from mtaio.testing import (
    Deadlock,
    Livelock,
    Network,
    assert_checkpoints,
    assert_quiescent,
    current_simulation,
    injections,
    run,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from anyio.abc import SocketStream

    from mtaio.testing import Victim

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the network needs Linux")


async def echo(port: int = 80) -> None:
    """Send back what comes."""

    async def answer(stream: SocketStream) -> None:
        with suppress(anyio.BrokenResourceError):
            async with stream:
                async for data in stream:
                    await stream.send(data)

    async with await anyio.create_tcp_listener(local_port=port) as listener:
        await listener.serve(answer)


def test_nobody_is_told_of_what_a_killed_program_has_gathered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The event loop says so when it is garbage; by then the tasks are garbage too."""

    async def gathers() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            gathered: Any = asyncio.gather(asyncio.ensure_future(asyncio.sleep(1)))
            gathered.cycle = gathered

    async def main() -> None:
        async with Network() as net:
            net.host("a").start(gathers)
            await settle()
            net.host("a").kill()
            await settle()

    run(main, backend="asyncio")
    gc.collect()
    assert caplog.records == []


# ---- nothing is left of it -----------------------------------------------------------------------


def descriptors() -> list[Path]:
    """Return those that this process has."""
    return sorted(Path("/dev/fd").iterdir())


def left() -> tuple[object, ...]:
    """Return what a network changes in this process."""
    kinds: list[type[Any]] = [socket.socket]
    with suppress(ImportError):
        from trio import _socket  # noqa: PLC0415 - it may be missing

        kinds.append(_socket._SocketType)
    methods = [dict(vars(kind)) for kind in kinds]
    return methods, dict(vars(socket)), random.getstate(), descriptors()


@pytest.fixture
def unchanged() -> Iterator[None]:
    """Assert that a test leaves this process as it was."""
    before = left()
    yield
    gc.collect()
    assert left() == before


async def talk(host: str = "a") -> None:
    """Ask twice, with a second in between."""
    async with await anyio.connect_tcp(host, 80) as stream:
        for data in (b"x", b"y"):
            await stream.send(data)
            assert await stream.receive() == data
            await anyio.sleep(1)


MODES = [("asyncio", "checkpoint"), ("asyncio", "native"), ("trio", "checkpoint"), ("trio", "step")]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("name", "mode"), MODES)
def test_cancelled_at_any_moment(name: str, mode: Any) -> None:
    """Programs run and one was killed: no descriptor, no task, no method of ours is left."""
    if name == "trio":
        pytest.importorskip("trio")

    async def block() -> None:
        async with Network(latency=0.05) as net:
            for host in "ab":
                net.host(host).start(echo)
            net.host("c").start(talk)
            await anyio.sleep(0.07)
            await talk()
            net.host("b").kill()

    async def main(victim: Victim) -> None:
        before = descriptors()
        tasks = {task.name for task in anyio.get_running_tasks()}
        await victim(block)
        gc.collect()
        assert descriptors() == before
        assert {task.name for task in anyio.get_running_tasks()} == tasks

    for victim in injections(mode):
        run(main, victim, backend=name)


async def of_block() -> None:
    """Fail in the block."""
    async with Network() as net:
        net.host("a").start(echo)
        await settle()
        raise KeyboardInterrupt


async def of_host() -> None:
    """Have a program fail."""

    async def fails() -> None:
        await anyio.sleep(1)
        raise KeyboardInterrupt

    async with Network() as net:
        net.host("a").start(fails)
        net.host("b").start(echo)
        await anyio.sleep_forever()


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("main", [of_block, of_host])
def test_ctrl_c(main: Callable[[], Awaitable[None]], backend: str) -> None:
    """It leaves the network as it is, and ends the programs."""
    with pytest.raises(KeyboardInterrupt):
        run(main, backend=backend)


@pytest.mark.usefixtures("unchanged")
def test_deadlock_and_livelock(backend: str) -> None:
    """They name the socket, and the next run is as if they had not been."""

    async def waits() -> None:
        async with Network() as net:
            net.host("a").start(echo)
            await settle()
            async with await anyio.connect_tcp("a", 80) as stream:
                await stream.receive()

    async def spins() -> None:
        async with Network() as net:
            net.host("a").start(echo)
            await settle()
            async with await anyio.connect_tcp("a", 80) as stream:
                while True:
                    await stream.send(b"x")
                    await stream.receive()

    async def works() -> float:
        for _ in range(2):
            async with Network(latency=0.25) as net:
                net.host("a").start(echo)
                await settle()
                await talk()
            assert_quiescent(net)
        return anyio.current_time()

    for _ in range(2):
        with pytest.raises(Deadlock, match=r"at the socket main:\d+, whose peer is a:80"):
            run(waits, backend=backend)
        with pytest.raises(Livelock, match="1000 times"):
            run(spins, backend=backend, max_turns=1000)
        assert run(works, backend=backend) == 7.0


def test_entering_and_leaving_are_checkpoints(backend: str) -> None:
    """They let others run, and a cancellation through."""

    async def main() -> None:
        network = Network()
        with assert_checkpoints():
            await network.__aenter__()
        with assert_checkpoints():
            await network.__aexit__(None, None, None)

    run(main, backend=backend)


def test_stream_that_outlives_the_network(backend: str) -> None:
    """It has ended, like all that a machine has without power."""

    async def main() -> None:
        async with Network(latency=0.05) as net:
            net.host("a").start(echo)
            await settle()
            stream = await anyio.connect_tcp("a", 80)
        assert [each.host for each in net.open] == ["main"]
        with pytest.raises(AssertionError, match="main"):
            assert_quiescent(net)
        async with stream:
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()

    run(main, backend=backend)


# ---- threads and processes -----------------------------------------------------------------------


def test_thread_that_calls_into_the_simulation(backend: str) -> None:
    """What it has run in the loop is simulated, in virtual time."""

    async def main() -> None:
        async with Network(latency=0.05) as net:
            net.host("a").start(echo)
            await settle()

            def work() -> bytes:
                stream = from_thread.run(anyio.connect_tcp, "a", 80)
                from_thread.run(stream.send, b"x")
                data = from_thread.run(stream.receive)
                from_thread.run(stream.aclose)
                return data

            assert await to_thread.run_sync(work) == b"x"
            assert anyio.current_time() == pytest.approx(0.2)
        assert_quiescent(net)

    run(main, backend=backend)


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a real connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = socket.create_connection(listening.getsockname())
        other, _ = listening.accept()
    return one, other


async def readable(sock: socket.socket) -> None:
    """Wait until there is something to read."""
    await anyio.wait_readable(sock)


def test_sockets_of_a_thread_are_real(backend: str) -> None:
    """They stay so in the loop, which waits for them as for anything real."""

    async def main() -> None:
        async with Network(latency=0.05) as net:
            one, other = await to_thread.run_sync(pair)
            with one, other:
                for each in (one, other):
                    each.settimeout(0)
                async with anyio.create_task_group() as group:
                    group.start_soon(readable, one)
                    await anyio.sleep(1)
                    other.send(b"x")
                assert one.recv(10) == b"x"
            assert net.open == ()

    run(main, backend=backend)


def test_simulated_socket_in_a_thread(backend: str) -> None:
    """It is refused; to close it there is allowed."""

    async def main() -> None:
        async with Network(latency=0.05) as net:
            sock = socket.socket()
            with pytest.raises(
                RuntimeError, match=r"^connect\(\) in a worker thread: this socket is"
            ):
                await to_thread.run_sync(sock.connect, ("a", 80))
            await to_thread.run_sync(sock.close)
            assert net.open == ()

    run(main, backend=backend)


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")  # of a busy runner
def test_forked_child_has_the_real_network(backend: str) -> None:
    """What it opens, asks for and closes does not reach its parent's network."""

    async def main() -> None:
        async with Network(latency=0.05) as net:
            net.host("a").start(echo)
            await settle()
            async with await anyio.connect_tcp("a", 80) as stream:
                child = os.fork()
                if not child:
                    failed = True
                    try:
                        one, other = pair()
                        one.send(b"x")
                        failed = other.recv(1) != b"x"
                    finally:
                        os._exit(failed)
                _, status = await to_thread.run_sync(os.waitpid, child, 0)
                assert status == 0
                await stream.send(b"x")
                assert await stream.receive() == b"x"
        assert_quiescent(net)

    run(main, backend=backend)


def test_processes(backend: str) -> None:
    """They run in real time, and inherit nothing of the network."""

    async def main() -> None:
        async with Network(latency=0.05) as net:
            net.host("a").start(echo)
            await settle()
            async with await anyio.connect_tcp("a", 80) as stream:
                done = await anyio.run_process(["/bin/cat"], input=b"x")
                assert done.stdout == b"x"
                await stream.send(b"x")
                assert await stream.receive() == b"x"
                found = await anyio.run_process(["/bin/ls", "-l", "/proc/self/fd"])
                assert b"socket:" not in found.stdout

    run(main, backend=backend)


# ---- real input, other kinds of sockets, the clock -----------------------------------------------


def test_what_was_open_before_stays_real(backend: str) -> None:
    """A listener and a connection of the real network go on, beside the simulated ones."""

    async def main() -> None:
        one, other = pair()
        for each in (one, other):
            each.settimeout(0)
        with one, other:
            async with Network(latency=0.05) as net:
                net.host("a").start(echo)
                await settle()
                for _ in range(2):
                    one.send(b"real")
                    await anyio.wait_readable(other)
                    assert other.recv(10) == b"real"
                    await talk()
                assert all(each.host == "a" for each in net.open)
            one.send(b"real")
            await anyio.wait_readable(other)
        assert anyio.current_time() == pytest.approx(2 * (2 + 3 * 0.1))

    run(main, backend=backend)


def test_subclass_of_socket(backend: str) -> None:
    """What it overrides is called, and what it inherits is simulated."""

    class Loud(socket.socket):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.settimeout(0)
            self.called: list[str] = []

        def connect(self, address: Any, /) -> None:
            self.called.append("connect")
            super().connect(address)

        def send(self, data: Any, flags: int = 0, /) -> int:
            self.called.append("send")
            return super().send(data.upper(), flags)

    async def main() -> None:
        async with Network(latency=0.05) as net:
            net.host("a").start(echo)
            await settle()
            with Loud() as sock:
                with suppress(BlockingIOError):
                    sock.connect(("a", 80))
                await anyio.wait_writable(sock)
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                sock.send(b"x")
                await anyio.wait_readable(sock)
                assert sock.recv(10) == b"X"
                assert sock.called == ["connect", "send"]
                assert sock.getpeername() == (net.host("a").address, 80)
        assert_quiescent(net)

    run(main, backend=backend)


def test_descriptors_of_another_host(backend: str) -> None:
    """A program that goes through those of its process finds those of its own host alone."""

    async def main() -> None:
        async with Network() as net:
            mine = socket.socket()
            with net.host("a"):
                theirs = socket.socket()
                copy = socket.socket(fileno=os.dup(theirs.fileno()))
                copy.close()
            with mine, theirs:
                for sock, is_mine in ((mine, True), (theirs, False)):
                    descriptor = os.dup(sock.fileno())
                    if is_mine:
                        socket.socket(fileno=descriptor).close()
                        continue
                    with pytest.raises(OSError, match="Bad file descriptor"):
                        socket.socket(fileno=descriptor)
                    os.close(descriptor)
        assert_quiescent(net)

    run(main, backend=backend)


def test_blocks_of_hosts_in_several_tasks(backend: str) -> None:
    """A block ends for the task that is in it, whatever others do with the same host meanwhile."""

    async def main() -> None:
        async with Network() as net:
            found: list[str] = []

            def look() -> None:
                with socket.socket() as sock:
                    sock.bind(("0.0.0.0", 80))  # noqa: S104 - of its host
                    found.extend(each.host for each in net.open)

            async def short() -> None:
                with net.host("a"):
                    await anyio.sleep(2)
                look()

            async def nested() -> None:
                with net.host("b"):
                    with net.host("a"):
                        await anyio.sleep(3)
                    look()
                await anyio.sleep(1)
                look()

            async with anyio.create_task_group() as group:
                group.start_soon(short)
                await anyio.sleep(1)
                group.start_soon(nested)
            assert found == ["main", "b", "main"]

    run(main, backend=backend)


def test_lookups_that_block(backend: str) -> None:
    """They know the hosts of the network and no others: nobody out there is asked."""

    async def main() -> None:
        async with Network() as net:
            address = net.host("a").address
            assert socket.gethostbyname("a") == socket.gethostbyname(address) == address
            assert socket.gethostbyname_ex("a") == ("a", [], [address])
            assert socket.gethostbyaddr(address) == ("a", [], [address])
            assert socket.getfqdn(address) == "a"
            assert socket.getnameinfo((address, 80), 0) == ("a", "80")
            assert socket.getnameinfo((address, 80), socket.NI_NUMERICHOST) == (address, "80")
            for look_up in (socket.gethostbyname, socket.gethostbyname_ex, socket.gethostbyaddr):
                with pytest.raises(socket.gaierror, match="Name or service not known"):
                    look_up("example.com")
            with pytest.raises(socket.herror, match="Unknown host"):
                socket.gethostbyaddr("192.0.2.1")
            real = await to_thread.run_sync(socket.gethostbyname, "localhost")
            assert real == "127.0.0.1"

    run(main, backend=backend)


def test_clock_that_is_advanced(backend: str) -> None:
    """The network is part of virtual time, also when a test moves that."""

    async def main() -> None:
        sim = current_simulation()
        async with Network(latency=0.125) as net:
            net.host("a").start(echo)
            await settle()
            async with await anyio.connect_tcp("a", 80) as stream:
                await stream.send(b"x")
                await sim.advance(0.1)
                assert net.delivered == 0
                await sim.advance(0.1)
                assert net.delivered == 1
                with sim.hold():
                    for _ in range(100):
                        await checkpoint()
                    assert net.delivered == 1
                assert await stream.receive() == b"x"
                assert anyio.current_time() == 0.5
        assert_quiescent(net)

    run(main, backend=backend)


def test_ssl_sockets_without_a_loop(backend: str) -> None:
    """``ssl.SSLSocket`` copies the descriptor into an object of its own, which is simulated too."""
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(Path(__file__).parents[2] / "realtime" / "localhost.pem")
    ours = ssl.create_default_context()
    ours.check_hostname = False
    ours.verify_mode = ssl.CERT_NONE

    async def done(sock: ssl.SSLSocket, call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                await anyio.wait_readable(sock)

    async def serve() -> None:
        with socket.create_server(("0.0.0.0", 443)) as listening:  # noqa: S104 - of its host
            listening.settimeout(0)
            await anyio.wait_readable(listening)
            connection, _ = listening.accept()
        connection.settimeout(0)
        with theirs.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        ) as sock:
            await done(sock, sock.do_handshake)
            sock.send((await done(sock, lambda: sock.recv(10))).upper())

    async def main() -> None:
        async with Network(latency=0.05) as net:
            net.host("a").start(serve)
            await settle()
            plain = socket.socket()
            plain.settimeout(0)
            with suppress(BlockingIOError):
                plain.connect(("a", 443))
            await anyio.wait_writable(plain)
            with ours.wrap_socket(plain, do_handshake_on_connect=False) as sock:
                await done(sock, sock.do_handshake)
                sock.send(b"hello")
                assert await done(sock, lambda: sock.recv(10)) == b"HELLO"
                assert sock.getpeername() == (net.host("a").address, 443)
        assert_quiescent(net)

    run(main, backend=backend)
