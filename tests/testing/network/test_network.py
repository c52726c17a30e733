"""Hosts, links and faults of a simulated network, as a test sees them."""

from __future__ import annotations

import errno
import random
import socket
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_thread
from anyio.abc import SocketAttribute

from mtaio.testing import (
    Deadlock,
    FaultMissedError,
    Livelock,
    Network,
    assert_quiescent,
    current_simulation,
    run,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import SocketStream


async def echo(port: int = 80) -> None:
    """Send back what comes, in capitals."""

    async def answer(stream: SocketStream) -> None:
        with suppress(anyio.BrokenResourceError):
            async with stream:
                async for data in stream:
                    await stream.send(data.upper())

    async with await anyio.create_tcp_listener(local_port=port) as listener:
        await listener.serve(answer)


async def ask(stream: SocketStream, text: bytes = b"x") -> bytes:
    """Send something, and return what comes back."""
    await stream.send(text)
    return await stream.receive()


def test_latency_is_exact(backend: str) -> None:
    """A connection takes two ways, an answer two more; the same host is there at once."""

    async def main() -> None:
        async with Network(latency=0.25) as net:
            net.host("stock").start(echo)
            await settle()
            async with await anyio.connect_tcp("stock", 80) as stream:
                assert anyio.current_time() == 0.5
                assert await ask(stream) == b"X"
                assert anyio.current_time() == 1.0
            with net.host("stock"):
                async with await anyio.connect_tcp("localhost", 80) as stream:
                    assert await ask(stream) == b"X"
            assert anyio.current_time() == 1.0

    run(main, backend=backend)


def test_bandwidth_and_a_link_of_its_own(backend: str) -> None:
    """A link that was changed is slow in the direction that was meant."""

    async def main() -> None:
        async with Network() as net:
            net.host("stock").start(echo)
            net.link("main", "stock", bandwidth=100.0, oneway=True)
            await settle()
            async with await anyio.connect_tcp("stock", 80) as stream:
                assert await ask(stream, b"x" * 50) == b"X" * 50
                assert anyio.current_time() == 0.5
                net.link("stock", net.host("main"), latency=2.0)
                assert await ask(stream, b"x" * 50) == b"X" * 50
                assert anyio.current_time() == 0.5 + 2 + 0.5 + 2

    run(main, backend=backend)


def test_segments(backend: str) -> None:
    """A stream may arrive byte by byte."""

    async def main() -> None:
        async with Network(segment=1, jitter=0.1, seed=3) as net:
            net.host("stock").start(echo)
            await settle()
            async with await anyio.connect_tcp("stock", 80) as stream:
                await stream.send(b"hello")
                got: list[bytes] = []
                while len(b"".join(got)) < 5:
                    got.append(await stream.receive())
                assert len(got) > 1
                assert b"".join(got) == b"HELLO"

    run(main, backend=backend)


def test_read_in_ways_that_are_not_counted(backend: str) -> None:
    """A program may read with flags, or in C: what its kernel still has is looked up then."""

    async def main() -> None:
        async with Network(latency=0.01) as net:
            with net.host("stock"):
                listener = await anyio.create_tcp_listener(local_port=80)
            only: Any = listener.listeners[0]
            async with listener:
                with socket.socket() as sock:
                    sock.settimeout(0)
                    sock.connect_ex(("stock", 80))
                    async with await only.accept() as stream:
                        for _ in range(3):
                            await stream.send(b"x" * 100_000)
                            await anyio.sleep(1)
                            assert len(sock.recv(200_000, 0)) == 100_000

    run(main, backend=backend)


def test_what_travels_as_one(backend: str) -> None:
    """What is written in one moment arrives in large pieces, smaller ones where a link is slow."""

    async def arrived(bandwidth: float | None) -> list[str]:
        async with Network(latency=0.01, bandwidth=bandwidth) as net:
            with net.host("stock"):
                listener = await anyio.create_tcp_listener(local_port=80)
            async with listener, await anyio.connect_tcp("stock", 80) as stream:
                await stream.send(b"x" * 200_000)
                await anyio.sleep(10)
                return [event.what for event in net.trace if event.what.endswith("bytes")]

    fast = ["131072 bytes", "68928 bytes"]
    assert run(arrived, None, backend=backend) == fast
    assert run(arrived, 10_000_000.0, backend=backend) == fast
    slow = ["65536 bytes", "65536 bytes", "65536 bytes", "3392 bytes"]
    assert run(arrived, 100_000.0, backend=backend) == slow


@pytest.mark.parametrize("way", ["both", "there", "back"])
def test_a_partition_is_survived(backend: str, way: str) -> None:
    """What was sent meanwhile arrives after it is healed, and the fault says that it struck."""

    async def main() -> None:
        async with Network(latency=0.25) as net:
            net.host("stock").start(echo)
            await settle()
            async with await anyio.connect_tcp("stock", 80) as stream:
                assert await ask(stream) == b"X"
                ends = ("main", "stock") if way != "back" else ("stock", "main")
                fault = net.partition(*ends, oneway=way != "both")
                with anyio.move_on_after(60) as scope:
                    await ask(stream)
                assert scope.cancelled_caught
                assert fault.struck == net.held == 1
                net.heal(fault)
                healed = anyio.current_time()
                assert await stream.receive() == b"X"
                assert anyio.current_time() == healed + (0.25 if way == "back" else 0.5)

    run(main, backend=backend)


def test_connecting_into_a_partition(backend: str) -> None:
    """It is tried for 127 seconds, or until it is healed."""

    async def main() -> None:
        async with Network() as net:
            net.host("stock").start(echo)
            await settle()
            net.partition("main", "*")
            with pytest.raises(OSError) as error:  # noqa: PT011 - its cause is looked at
                await anyio.connect_tcp("stock", 80)
            assert isinstance(error.value.__cause__, TimeoutError)
            assert anyio.current_time() == 127.0
            async with anyio.create_task_group() as group:

                async def connect() -> None:
                    async with await anyio.connect_tcp("stock", 80):
                        assert anyio.current_time() == 127 + 7  # 1 + 2 + 4

                group.start_soon(connect)
                await anyio.sleep(5)
                net.heal()

    run(main, backend=backend)


def test_data_that_nobody_acknowledges(backend: str) -> None:
    """The kernel gives up after 924.6 seconds."""

    async def main() -> None:
        async with Network() as net:
            net.host("stock").start(echo)
            await settle()
            async with await anyio.connect_tcp("stock", 80) as stream:
                net.partition("main", "stock")
                with pytest.raises(anyio.BrokenResourceError):
                    await ask(stream)
                assert anyio.current_time() == 924.6

    run(main, backend=backend)


def test_steps_name_their_host(backend: str) -> None:
    """A trace of steps says on which host each was taken, a failure of a search too."""

    async def main() -> set[str | None]:
        async with Network() as net:
            net.host("stock").start(echo)
            await settle()
            async with await anyio.connect_tcp("stock", 80) as stream:
                assert await ask(stream) == b"X"
            return {step.host for step in current_simulation().trace if "answer" in step.task} | {
                step.host for step in current_simulation().trace if "main" in step.task
            }

    assert run(main, backend=backend) == {"stock", "main"}


@pytest.mark.parametrize("cause", ["partition", "power cut", "healed"])
def test_keep_alive(backend: str, cause: str) -> None:
    """A connection that only listens gives up when its probes are not answered."""

    async def main() -> None:
        async with Network() as net:
            net.host("stock").start(echo)
            await settle()
            async with await anyio.connect_tcp("stock", 80) as stream:
                assert await ask(stream) == b"X"
                sock = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - no Django
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
                if cause == "power cut":
                    net.host("stock").kill(silent=True)
                else:
                    net.partition("main", "stock", required=False)
                if cause == "healed":
                    await anyio.sleep(20)
                    net.heal()
                with anyio.move_on_after(1000) as scope:
                    with pytest.raises(anyio.BrokenResourceError):
                        await stream.receive()
                    assert anyio.current_time() == 45
                assert scope.cancelled_caught is (cause == "healed")

    run(main, backend=backend)


def test_a_killed_program_that_does_not_listen(backend: str) -> None:
    """One that is shielded while it sends ends with its sockets, and tells nobody."""

    async def handle(stream: SocketStream) -> None:
        with anyio.CancelScope(shield=True):
            while True:
                await stream.send(b"x" * 100_000)

    async def serve() -> None:
        async with await anyio.create_tcp_listener(local_port=80) as listener:
            await listener.serve(handle)

    async def main(*, kill: bool) -> None:
        async with Network(latency=0.05) as net:
            net.host("stock").start(serve)
            await settle()
            async with await anyio.connect_tcp("stock", 80):
                await anyio.sleep(1)
                if kill:
                    net.host("stock").kill()
                    await anyio.sleep(1)

    for kill in (True, False):
        run(partial(main, kill=kill), backend=backend)


def test_a_hold_loses_nothing(backend: str) -> None:
    """Connections, bytes and datagrams arrive after it, and no kernel gives up meanwhile."""

    async def serve() -> None:
        async with await anyio.create_udp_socket(
            local_host="0.0.0.0",  # noqa: S104
            local_port=53,
        ) as server:
            async for packet, (host, port) in server:
                await server.sendto(packet.upper(), host, port)

    async def main() -> None:
        async with Network() as net:
            net.host("stock").start(echo)
            net.host("dns").start(serve)
            await settle()
            stream = await anyio.connect_tcp("stock", 80)
            udp = await anyio.create_connected_udp_socket("dns", 53)
            async with stream, udp, anyio.create_task_group() as group:
                net.hold("main", ["stock", "dns"])
                await stream.send(b"tcp")
                await udp.send(b"udp")

                async def connect() -> None:
                    async with await anyio.connect_tcp("stock", 80) as another:
                        assert await ask(another) == b"X"
                        assert anyio.current_time() == 5000

                group.start_soon(connect)
                await anyio.sleep(5000)
                net.heal()
                assert await stream.receive() == b"TCP"
                assert await udp.receive() == b"UDP"

    run(main, backend=backend)


def test_datagrams_get_lost(backend: str) -> None:
    """As many as the link says, on it alone, and all of them in a partition."""

    async def main() -> None:
        async with Network(seed=5) as net:
            got = 0

            async def serve() -> None:
                nonlocal got
                async with await anyio.create_udp_socket(
                    local_host="0.0.0.0",  # noqa: S104
                    local_port=53,
                ) as server:
                    async for _ in server:
                        got += 1

            net.host("dns").start(serve)
            net.link("main", "dns", loss=0.5)
            await settle()
            async with await anyio.create_connected_udp_socket("dns", 53) as udp:
                for _ in range(100):
                    await udp.send(b"x")
                    await settle()
                assert 30 < got < 70
                before = got
                fault = net.partition("main", "dns")
                await udp.send(b"x")
                await anyio.sleep(1)
                net.heal()
                await settle()
                assert (got, fault.struck) == (before, 1)

    run(main, backend=backend)


async def test_datagrams_that_arrive_twice(net: Network) -> None:
    """As many as the link says, each after a jitter of its own; nothing does within a host."""
    got: list[bytes] = []

    async def listen() -> None:
        async with await anyio.create_udp_socket(family=socket.AF_INET, local_port=9) as udp:
            async for data, _ in udp:
                got.append(data)

    net.link("main", "peer", duplicate=0.25, latency=0.01, jitter=0.05)
    net.host("peer").start(listen)
    await settle()
    async with await anyio.create_udp_socket(family=socket.AF_INET) as udp:
        for number in range(400):
            await udp.sendto(b"%d" % number, "peer", 9)
            await anyio.sleep(0.001)
    await anyio.sleep(1)
    twice = [data for data in set(got) if got.count(data) == 2]
    assert len(set(got)) == 400
    assert len(got) == 400 + len(twice)
    assert 70 < len(twice) < 130
    assert len([event for event in net.trace if event.what == "duplicated"]) == len(twice)
    assert any(got[got.index(data) + 1] != data for data in twice)  # others came in between


@pytest.mark.parametrize("fault", [None, "missed", "may miss"])
def test_host_that_is_misspelt(backend: str, fault: str | None) -> None:
    """Who names a host for a link or a fault alone is told that nothing ever ran on it."""

    async def main() -> None:
        async with Network() as net:
            net.host("stock").start(anyio.sleep_forever)
            if fault is None:
                net.link("main", "stok", latency=1)
            else:
                net.partition("main", "stok", required=fault == "missed")

    strange = r"the host 'stok' \(\S+test_network.py:\d+\).* There are 'main', 'stock'\.$"
    told: Any = pytest.warns(UserWarning, match=rf"^Nothing ever ran on {strange}")
    if fault == "missed":
        told = pytest.raises(FaultMissedError, match=rf"never struck.* Nothing ever.*{strange}")
    with told:
        run(main, backend=backend)


async def test_host_that_is_named_and_asked_for(net: Network) -> None:
    """A host on which nothing runs is none that is misspelt, if somebody connects to it."""
    net.link("main", "stock", latency=1)
    with pytest.raises(OSError, match=r"."):
        await anyio.connect_tcp("stock", 80)


def test_refused_reset_and_names(backend: str) -> None:
    """Each fault does what it says, once it is made until it is ended."""

    async def main() -> None:
        async with Network(dns=0.5) as net:
            net.host("stock").start(echo)
            net.name("api.example.com", "stock")
            await settle()
            async with await anyio.connect_tcp("api.example.com", 80) as stream:
                assert anyio.current_time() == 0.5
                refusal = net.refuse("stock", 80)
                with pytest.raises(OSError) as refused:  # noqa: PT011 - its cause is looked at
                    await anyio.connect_tcp("stock", 80)
                assert isinstance(refused.value.__cause__, ConnectionRefusedError)
                assert await ask(stream) == b"X"
                net.heal(refusal)
                failure = net.fail_dns("api.example.com")
                with pytest.raises(socket.gaierror) as failed:
                    await anyio.connect_tcp("api.example.com", 80)
                assert failed.value.errno == socket.EAI_AGAIN
                net.heal(failure)
                cut = net.reset("main", "stock")
                assert cut.struck == 1
                with pytest.raises(anyio.BrokenResourceError):
                    await ask(stream)
            net.name("api.example.com", None)
            with pytest.raises(socket.gaierror) as unknown:
                await anyio.connect_tcp("api.example.com", 80)
            assert unknown.value.errno == socket.EAI_NONAME
            async with await anyio.connect_tcp("stock", 80) as stream:
                assert await ask(stream) == b"X"

    run(main, backend=backend)


@pytest.mark.parametrize("silent", [False, True])
def test_a_host_is_killed_and_started_again(backend: str, *, silent: bool) -> None:
    """Its peers are reset at once, or learn of it when they send something after the restart."""

    async def main() -> None:
        async with Network(latency=0.25) as net:
            stock = net.host("stock")
            stock.start(echo)
            await settle()
            async with await anyio.connect_tcp("stock", 80) as stream:
                assert await ask(stream) == b"X"
                killed = anyio.current_time()
                stock.kill(silent=silent)
                assert stock.up is not silent
                if not silent:
                    with pytest.raises(anyio.BrokenResourceError):
                        await stream.receive()
                    assert anyio.current_time() == killed + 0.25
                    with pytest.raises(OSError):  # noqa: PT011 - its cause is looked at
                        await anyio.connect_tcp("stock", 80)
                else:
                    with anyio.move_on_after(50) as scope:
                        await ask(stream)
                    assert scope.cancelled_caught
                stock.restart()
                await settle()
                if silent:
                    with pytest.raises(anyio.BrokenResourceError):
                        await stream.receive()
            async with await anyio.connect_tcp("stock", 80) as stream:
                assert await ask(stream) == b"X"

    run(main, backend=backend)


def test_a_slow_reader(backend: str) -> None:
    """What it does not read fills the buffers, and then its peer waits."""

    async def main() -> None:
        async with Network() as net:
            stock = net.host("stock")
            stock.start(echo)
            await settle()
            stock.read_rate = 0
            async with await anyio.connect_tcp("stock", 80) as stream:
                with anyio.move_on_after(10) as scope:
                    await stream.send(b"x" * 10_000_000)
                assert scope.cancelled_caught
            async with await anyio.connect_tcp("stock", 80) as stream:
                await stream.send(b"x" * 1000)
                stock.read_rate = 1000.0
                began = anyio.current_time()
                got = b""
                while len(got) < 1000:
                    got += await stream.receive()
                assert anyio.current_time() == pytest.approx(began + 0.9)
                stock.read_rate = None

    run(main, backend=backend)


def test_a_fault_that_misses_fails_the_test(backend: str) -> None:
    """The message says which, and where it was made; required=False lets it miss."""

    async def main(*, required: bool) -> None:
        async with Network() as net:
            net.partition("main", net.host("stock"), required=required)

    run(lambda: main(required=False), backend=backend)
    with pytest.raises(FaultMissedError, match=r"partition between main and stock \(.*test_netw"):
        run(lambda: main(required=True), backend=backend)


def test_errors_leave_it_as_they_are(backend: str) -> None:
    """That of the block itself, and that of a host's program, which ends the block."""

    async def breaks() -> None:
        raise LookupError("mine")

    async def block() -> None:
        async with Network() as net:
            net.partition("main", "stock")  # which misses, and is not what has gone wrong
            raise LookupError("mine")

    async def program() -> None:
        async with Network() as net:
            net.host("stock").start(breaks)
            await anyio.sleep_forever()

    for main in (block, program):
        with pytest.raises(LookupError, match="mine"):
            run(main, backend=backend)


def test_what_is_left_open(backend: str) -> None:
    """Sockets that programs have not closed are named, with host and peer."""

    async def main() -> None:
        async with Network() as net:
            net.host("stock").start(echo)
            await settle()
            left = await anyio.connect_tcp("stock", 80)
            await settle()
            assert [str(each) for each in net.open] == [
                "stock 0.0.0.0:80",
                "main 10.0.0.1:32768 > stock:80",
                "stock 10.0.0.2:80 > main:32768",
            ]
            with pytest.raises(AssertionError, match="open="):
                assert_quiescent(net)
            await left.aclose()
        assert net.open == ()
        assert_quiescent(net)

    run(main, backend=backend)


def test_random_is_seeded_for_the_block(backend: str) -> None:
    """And is what it was before, after it."""

    async def main() -> float:
        async with Network(seed=9):
            return random.random()  # noqa: S311

    state = random.getstate()
    assert run(main, backend=backend) == run(main, backend=backend)
    assert random.getstate() == state


def test_other_threads_have_the_real_network(backend: str) -> None:
    """A worker thread connects to a real listener of its own."""

    def talk() -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)) as there:
                here, _ = server.accept()
                with here:
                    here.sendall(b"real")
                    return there.recv(4)

    async def main() -> None:
        async with Network() as net:
            assert await to_thread.run_sync(talk) == b"real"
            assert net.open == ()

    run(main, backend=backend)


def test_what_a_stuck_task_waits_for(backend: str) -> None:
    """A Deadlock names the socket and its peer."""

    async def main() -> None:
        async with Network() as net:
            net.host("stock").start(echo)
            await settle()
            async with await anyio.connect_tcp("stock", 80) as stream:
                await stream.receive()

    with pytest.raises(Deadlock, match="at the socket main:32768, whose peer is stock:80"):
        run(main, backend=backend)


def test_talk_without_time_is_a_livelock(backend: str) -> None:
    """Two programs that answer each other for ever at once make no progress."""

    async def main() -> None:
        async with Network() as net:
            net.host("stock").start(echo)
            await settle()
            async with await anyio.connect_tcp("stock", 80) as stream:
                while True:
                    await ask(stream)

    with pytest.raises(Livelock):
        run(main, backend=backend, max_turns=2000)


def test_where_it_cannot_be_opened(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice, two at once, without virtual time, and on a system where it is not tested."""

    async def main() -> None:
        net = Network()
        async with net:
            with pytest.raises(RuntimeError, match="open already"):
                await Network().__aenter__()
        with pytest.raises(RuntimeError, match="cannot be opened again"):
            await net.__aenter__()
        monkeypatch.setattr("sys.platform", "darwin")
        with pytest.raises(RuntimeError, match="needs Linux, and this is 'darwin'"):
            Network()
        monkeypatch.undo()

    run(main, backend=backend)

    async def real() -> None:
        with pytest.raises(RuntimeError, match="virtual time"):
            await Network().__aenter__()

    anyio.run(real, backend=backend)


def test_what_is_refused() -> None:
    """Bad arguments are errors that say what to write."""
    net = Network()
    for wrong, kind in (
        ({"latency": -1}, ValueError),
        ({"latency": float("inf")}, ValueError),
        ({"jitter": "a"}, TypeError),
        ({"bandwidth": 0}, ValueError),
        ({"loss": 2}, ValueError),
        ({"duplicate": -0.5}, ValueError),
        ({"segment": 0}, ValueError),
    ):
        with pytest.raises(kind, match=next(iter(wrong))):
            Network(**wrong)
        with pytest.raises(kind, match=next(iter(wrong))):
            net.link("a", "b", **wrong)
    with pytest.raises(ValueError, match="to itself"):
        net.link("a", net.host("a"))
    for name in ("", "*"):
        with pytest.raises(ValueError, match="name"):
            net.host(name)
    with pytest.raises(ValueError, match="read_rate"):
        net.host("a").read_rate = -1
    with pytest.raises(RuntimeError, match="nothing to restart"):
        net.host("a").restart()
    with pytest.raises(TypeError, match="main"):
        net.host("a").start(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^link\(\) changes the link of two hosts"):
        net.link("a", "*", latency=1)
    calls: list[Callable[[Any], object]] = [net.host, net.partition, net.hold, net.refuse]
    calls += [net.reset, net.fail_dns, partial(net.link, "a")]
    for call in calls:
        with pytest.raises(TypeError, match=r"^(name|hosts)=7 is an int, not a (str|host). Pass "):
            call(7)
    with pytest.raises(TypeError, match=r"^name=\['a'\] is a list, not a str. Pass "):
        net.refuse(["a"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^a fault between no hosts would never strike"):
        net.partition("a", [])
    with pytest.raises(TypeError, match=r"^port='80' is a str, not an int"):
        net.refuse("a", "80")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^fault='a' is a str, not a Fault. Pass what partition"):
        net.heal("a")  # type: ignore[arg-type]


def test_all_hosts_are_meant(backend: str) -> None:
    """A fault may name hosts by an iterator, or mean all, those included that come later."""

    async def main() -> None:
        async with Network() as net:
            refused = net.refuse("*", port=80)
            net.partition((name for name in ("main", "b")), ["*"], required=False)
            assert repr(refused) == "<Fault refusal of all:80, struck 0 times>"
            for name in ("a", "b"):
                net.host(name).start(echo)
            await settle()
            with net.host("a"), pytest.raises(OSError, match=r"."):
                await anyio.connect_tcp("localhost", 80)
            assert refused.struck == 1
            net.heal(refused)
            for name, cut_off in (("a", False), ("b", True)):
                with net.host("c"), anyio.move_on_after(1) as scope:
                    await (await anyio.connect_tcp(name, 80)).aclose()
                assert scope.cancelled_caught == cut_off

    run(main, backend=backend)


def test_the_host_of_the_test_is_not_killed(backend: str) -> None:
    """It would be cut off for good; with a program of its own, it can be started again."""

    async def main() -> None:
        async with Network() as net:
            here = net.host("main")
            for silent in (False, True):
                with pytest.raises(RuntimeError, match=r"the test itself acts on <Host main"):
                    here.kill(silent=silent)
            here.start(echo)
            here.restart()
            await settle()
            async with await anyio.connect_tcp("localhost", 80) as stream:
                assert await ask(stream) == b"X"

    run(main, backend=backend)


def test_started_before_the_network_is_open(backend: str) -> None:
    """A program may be started before, as in a fixture: it runs when the network opens."""
    net = Network()
    stock = net.host("stock")
    stock.start(echo)
    with pytest.raises(RuntimeError, match="runs a program already"):
        stock.start(echo)

    async def main() -> None:
        async with net:
            await settle()
            async with await anyio.connect_tcp("stock", 80) as stream:
                assert await ask(stream) == b"X"
            stock.restart()
            await settle()
            async with await anyio.connect_tcp("stock", 80) as stream:
                assert await ask(stream) == b"X"
        assert_quiescent(net)
        assert [event.what for event in net.trace].count("start") == 2
        with pytest.raises(RuntimeError, match=r"its network is closed. Make another Network"):
            net.host("late").start(echo)

    run(main, backend=backend)


def test_an_unknown_name_says_which_there_are(backend: str) -> None:
    """The error is the kernel's, with a note for whoever has mistyped a name."""

    async def main() -> None:
        async with Network() as net:
            net.host("stock")
            with pytest.raises(socket.gaierror) as unknown:
                await anyio.connect_tcp("stok", 80)
            assert unknown.value.errno == socket.EAI_NONAME
            [note] = unknown.value.__notes__
            assert note.startswith("The simulated network has no host 'stok'. It has main, stock. ")

    run(main, backend=backend)


def test_a_host_runs_one_program(backend: str) -> None:
    """A second one is refused, and one that has ended may be followed by another."""

    async def main() -> None:
        async with Network() as net:
            stock = net.host("stock")
            stock.start(anyio.sleep, 1)
            with pytest.raises(RuntimeError, match="runs a program already"):
                stock.start(echo)
            stock.kill()
            stock.start(echo)
            await settle()
            stock.restart()
            await settle()
            async with await anyio.connect_tcp("stock", 80) as stream:
                assert await ask(stream) == b"X"

    run(main, backend=backend)


def test_nothing_reaches_anybody_from_a_dead_program(backend: str) -> None:
    """Its clean-up cannot connect, and what it raises ends nothing."""
    seen: list[object] = []

    async def stubborn() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    await anyio.connect_tcp("other", 80)
                except OSError as error:
                    seen.append(error.__cause__ or error)
                raise ValueError("of the dead")

    async def main() -> None:
        async with Network() as net:
            net.host("other").start(echo)
            net.host("stock").start(stubborn)
            await settle()
            net.host("stock").kill()
            await anyio.sleep(1)

    run(main, backend=backend)
    assert len(seen) == 1


def test_the_clock_stands_still_for_threads(backend: str) -> None:
    """Time does not pass on the network while a worker thread is at work."""

    async def main() -> None:
        async with Network(latency=1.0) as net:
            net.host("stock").start(echo)
            await settle()
            working = threading.Event()
            async with anyio.create_task_group() as group:

                async def talk() -> None:
                    async with await anyio.connect_tcp("stock", 80):
                        pass
                    working.set()

                group.start_soon(talk)
                await settle()
                await to_thread.run_sync(working.wait, 0.05)
                assert not working.is_set()
                assert current_simulation().time() == 0

    run(main, backend=backend)


def test_unreachable(backend: str) -> None:
    """An address that nobody has cannot be reached; there is no IPv6."""

    async def main() -> None:
        async with Network():
            with pytest.raises(OSError) as error:  # noqa: PT011 - its cause is looked at
                await anyio.connect_tcp("10.9.9.9", 80)
            cause = error.value.__cause__ or error.value
            assert isinstance(cause, OSError)
            assert cause.errno == errno.ENETUNREACH
            with pytest.raises(OSError) as error:  # noqa: PT011 - its cause is looked at
                socket.socket(socket.AF_INET6)
            assert error.value.errno == errno.EAFNOSUPPORT

    run(main, backend=backend)
