"""Faults that overlap, hosts that several tasks act on, and what is asked at odd moments."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from anyio.abc import SocketStream

from mtaio.testing import Deadlock, Network, run, settle
from mtaio.testing._network import _ports
from tests.backends import BACKENDS


async def gather(stream: SocketStream, got: bytearray) -> None:
    """Keep what comes."""
    with suppress(anyio.BrokenResourceError):
        async with stream:
            async for data in stream:
                got += data


async def serve(handle: Callable[[SocketStream], Awaitable[object]]) -> None:
    """Accept connections."""
    async with await anyio.create_tcp_listener(local_port=9) as listener:
        await listener.serve(handle)


@asynccontextmanager
async def connected(net: Network, got: bytearray) -> AsyncGenerator[SocketStream]:
    """Connect to a host that keeps what comes."""

    async def handle(stream: SocketStream) -> None:
        await gather(stream, got)

    net.host("a").start(serve, handle)
    await settle()
    async with await anyio.connect_tcp("a", 9) as stream:
        yield stream


@pytest.mark.parametrize("pause", [0.0, 10.0])
async def test_what_was_on_its_way_waits_for_what_was_held(pause: float) -> None:
    """A partition meets the first of two messages, or the handshake, and is over for the second."""
    got = bytearray()
    async with Network(latency=1) as net, connected(net, got) as stream:
        await anyio.sleep(pause)
        if pause:
            await stream.send(b"A")
        await anyio.sleep(0.9)
        await stream.send(b"B")
        await anyio.sleep(0.05)
        fault = net.partition("main", "a")
        await anyio.sleep(0.15)
        net.heal(fault)
        await stream.send(b"C")
        await anyio.sleep(0.95)
        assert not got
        await anyio.sleep(0.1)
        assert bytes(got) == (b"ABC" if pause else b"BC")


async def test_other_heals_do_not_prolong_patience() -> None:
    """A kernel gives up after the same time, whatever else is healed meanwhile."""
    async with Network(latency=0.01) as net, connected(net, bytearray()) as stream:
        net.partition("main", "a")
        await stream.send(b"?")
        began = anyio.current_time()
        for _ in range(9):
            await anyio.sleep(100)
            net.heal(net.partition(net.host("b"), net.host("c"), required=False))
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()
        assert anyio.current_time() - began == pytest.approx(924.6)


async def test_hold_instead_of_partition_waits_for_ever() -> None:
    """Nobody gives up what is in a hold, also if it was in a partition before."""
    got = bytearray()
    async with Network(latency=0.01) as net, connected(net, got) as stream:
        partition = net.partition("main", "a")
        await stream.send(b"?")
        await anyio.sleep(1)
        hold = net.hold("main", "a")
        net.heal(partition)
        await anyio.sleep(5000)
        net.heal(hold)
        await anyio.sleep(1)
        assert got == b"?"


async def test_answer_to_connect_is_cut_off() -> None:
    """Whoever gets no answer gives up after 127 seconds, also if the request has arrived."""
    async with Network(latency=0.01) as net:
        net.host("a").start(serve, SocketStream.aclose)
        await settle()
        net.partition("a", "main", oneway=True)
        with pytest.raises(OSError, match=r"."), anyio.fail_after(200):
            await anyio.connect_tcp("a", 9)
        assert anyio.current_time() == pytest.approx(127)


async def test_reset_while_the_handshake_ends() -> None:
    """The server learns of no connection that was reset before it knew of it."""
    async with Network(latency=1) as net, connected(net, bytearray()) as stream:
        net.reset("main", "a")
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()
        await anyio.sleep(10)
        assert [each for each in net.open if each.host == "a" and each.peer] == []


async def test_lists_of_hosts() -> None:
    """Any iterable is a list of hosts; an empty one is refused, and is not all of them."""
    got = bytearray()
    async with Network(latency=0.01) as net, connected(net, got) as stream:
        net.partition((net.host(name) for name in ("x", "y")), required=False)
        for begin in (net.partition, net.hold, net.reset):
            with pytest.raises(ValueError, match="between no hosts"):
                begin([])
        await stream.send(b"?")
        await anyio.sleep(1)
        assert got == b"?"
        net.heal()
        fault = net.partition(["x", "*"], "a")
        await stream.send(b"!")
        await anyio.sleep(1)
        assert fault.struck == 1


async def test_two_tasks_act_on_one_host() -> None:
    """Each goes back to where it was, whoever leaves first."""
    async with Network() as net:
        entered, left = anyio.Event(), anyio.Event()

        def where() -> str:
            with socket.socket():
                return net.open[-1].host

        async def first() -> None:
            with net.host("a"):
                entered.set()
                await left.wait()
            assert where() == "main"

        async def second() -> None:
            with net.host("b"):
                await entered.wait()
                with net.host("a"):
                    left.set()
                    await anyio.sleep(1)
                assert where() == "b"

        async with anyio.create_task_group() as group:
            group.start_soon(first)
            group.start_soon(second)


@pytest.mark.parametrize("backend", BACKENDS)
def test_deadlock_with_a_read_rate(backend: str) -> None:
    """A reader that does not read at all, however fast it may, lets time stand still."""

    async def stuck() -> None:
        async with Network(latency=0.01) as net:

            async def hang() -> None:
                with socket.socket() as listener:
                    listener.setblocking(False)  # noqa: FBT003 - the socket's
                    listener.bind(("0.0.0.0", 9))  # noqa: S104 - simulated
                    listener.listen()
                    await anyio.sleep_forever()

            net.host("a").start(hang)
            net.host("a").read_rate = 1000.0
            await settle()
            async with await anyio.connect_tcp("a", 9) as stream:
                await stream.send(bytes(10_000_000))

    with pytest.raises(Deadlock):
        run(stuck, backend=backend)


async def test_read_rate_changes_at_once() -> None:
    """Who has read very slowly need not wait for that any more."""
    got = bytearray()
    async with Network(latency=0.01) as net, connected(net, got) as stream:
        net.host("a").read_rate = 0.001
        await stream.send(bytes(1000))
        await anyio.sleep(1)
        assert len(got) == 1
        net.host("a").read_rate = 1e6
        await anyio.sleep(1)
        assert len(got) == 1000


async def test_before_it_is_open() -> None:
    """A fixture can prepare a network, its faults too."""
    net = Network()
    fault = net.partition("main", "a")
    net.reset("main", "a", required=False)
    net.host("b").kill(silent=True)
    async with net:
        with anyio.move_on_after(1):
            await anyio.connect_tcp("a", 9)
        assert fault.struck


async def test_sockets_of_the_system_in_the_place_of_a_lost_one() -> None:
    """A socket pair that gets the descriptor of one which was closed unseen is real."""
    async with Network() as net:
        number = socket.socket().detach()
        os.close(number)
        one, other = socket.socketpair()
        with one, other:
            assert number in {one.fileno(), other.fileno()}
            for sender, receiver in ((one, other), (other, one)):
                sender.send(b"?")
                assert receiver.recv(1) == b"?"
        assert net.open == ()


def test_all_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test had replaced before stays, also if a program closes descriptors by itself."""

    def fake(*_: object) -> str:
        return "a test's own"

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    before, state = dict(vars(socket.socket)), random.getstate()
    kept: list[socket.socket] = []

    async def program() -> None:
        kept.append(socket.socket())
        os.close(kept[0].fileno())
        await anyio.sleep_forever()

    async def main() -> None:
        async with Network() as net:
            net.host("a").start(program)
            await settle()

    run(main)
    assert dict(vars(socket.socket)) == before
    assert random.getstate() == state
    assert vars(socket)["getaddrinfo"] is fake
    kept[0].detach()


async def test_dots_and_lookups() -> None:
    """A name may end in a dot, as in a zone; to learn that it cannot be told takes its time."""
    async with Network(dns=1) as net:
        net.name("api.example.com.", "a")
        assert socket.getaddrinfo("api.example.com", 80)
        net.fail_dns("a")
        with pytest.raises(OSError, match=r"."):
            await anyio.connect_tcp("a", 9)
        assert anyio.current_time() == 1


async def test_all_ports_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """To connect then fails with the error that Linux has for it."""
    monkeypatch.setattr(_ports, "EPHEMERAL", range(40_000, 40_002))
    async with Network() as net:
        sockets = [socket.socket() for _ in range(3)]
        for each in sockets:
            each.setblocking(False)  # noqa: FBT003 - the socket's
        address = net.host("a").address, 9
        codes = [each.connect_ex(address) for each in sockets]
        assert codes == [errno.EINPROGRESS, errno.EINPROGRESS, errno.EADDRNOTAVAIL]
        for each in sockets:
            each.close()
