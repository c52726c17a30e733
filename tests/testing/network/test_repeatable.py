"""The same program does the same on a network: in each process, on each Python, on each machine."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
import subprocess
import sys
from contextlib import suppress

import anyio
import anyio.abc
import pytest

from mtaio.testing import Network, run
from mtaio.testing._network import _endpoint
from tests.backends import BACKENDS

DIGESTS = {"asyncio": "f5097a08a6b29cf2", "trio": "a5ffe474707380dc"}
"""
What each backend's run is to be: the beginning of a hash of its trace.

``python -m tests.testing.network.test_repeatable trio`` prints it, with ``--trace`` all of it.
"""


async def echo(stream: anyio.abc.SocketStream) -> None:
    """Send back what comes."""
    with suppress(anyio.BrokenResourceError):
        async with stream:
            async for data in stream:
                await stream.send(data)


async def serve() -> None:
    """Be an echo server, over TCP and UDP."""

    async def packets() -> None:
        async with await anyio.create_udp_socket(family=socket.AF_INET, local_port=53) as server:
            async for packet, (host, port) in server:
                await server.sendto(packet, host, port)

    async with anyio.create_task_group() as group:
        group.start_soon(packets)
        async with await anyio.create_tcp_listener(local_port=80) as listener:
            await listener.serve(echo)


async def sink() -> None:
    """Read, and say nothing."""

    async def read(stream: anyio.abc.SocketStream) -> None:
        with suppress(anyio.BrokenResourceError):
            async with stream:
                async for _ in stream:
                    pass

    async with await anyio.create_tcp_listener(local_port=80) as listener:
        await listener.serve(read)


async def talk(number: int, target: str) -> None:
    """Send something to an echo server in pieces; some give up, some break off."""
    with (
        anyio.move_on_after(0.5 + number / 3),
        suppress(OSError, anyio.BrokenResourceError, anyio.EndOfStream),
    ):
        async with await anyio.connect_tcp(target, 80) as stream:
            for _ in range(4):
                data = random.randbytes(random.randint(1, 5000))  # noqa: S311 - not a secret
                await stream.send(data)
                back = 0
                while back < len(data):
                    back += len(await stream.receive())
                await anyio.sleep(random.random() / 5)  # noqa: S311 - ditto
            if number % 3:
                await stream.send_eof()


async def ping(target: str) -> None:
    """Send packets, of which some get lost."""
    async with await anyio.create_connected_udp_socket(target, 53, family=socket.AF_INET) as sock:
        for _ in range(20):
            with anyio.move_on_after(0.1), suppress(anyio.BrokenResourceError):
                await sock.send(b"ping")
                await sock.receive()


async def pour(target: str, size: int) -> None:
    """Send more than fits into any buffer, with small and with large pieces."""
    with anyio.move_on_after(4):
        async with await anyio.connect_tcp(target, 80) as stream:
            for _ in range(300):
                await stream.send(b"x")
            for _ in range(size // 100_000):
                await stream.send(b"x" * 100_000)


async def streams(target: str) -> None:
    """Talk as asyncio's own streams do."""
    reader, writer = await asyncio.open_connection(target, 80)
    with suppress(OSError, asyncio.IncompleteReadError):
        for size in (1, 10, 100_000):
            writer.write(b"y" * size)
            await writer.drain()
            await reader.readexactly(size)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def storm(backend: str) -> str:
    """Let everything happen that a network can do, and return a hash of what has happened."""
    net = Network(latency=0.02, jitter=0.01, segment=1400, loss=0.2, dns=0.003, seed=7)
    async with net:
        for name in ("one", "two"):
            net.host(name).start(serve)
        slow = net.host("slow")
        slow.start(sink)
        slow.read_rate = 300_000.0
        deaf = net.host("deaf")
        deaf.start(sink)
        deaf.read_rate = 0
        net.link("main", "two", latency=0.05, bandwidth=200_000.0)
        await anyio.sleep(0.1)
        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(talk, number, ("one", "two")[number % 2])
            group.start_soon(ping, "one")
            group.start_soon(pour, "slow", 1_000_000)
            group.start_soon(pour, "deaf", 3_000_000)
            if backend == "asyncio":
                group.start_soon(streams, "two")
            await anyio.sleep(0.3)
            fault = net.partition("main", "one", oneway=True)
            await anyio.sleep(0.3)
            net.heal(fault)
            net.hold("main", "two")
            await anyio.sleep(0.2)
            net.heal()
            await anyio.sleep(0.2)
            net.reset("main", "one", required=False)
            net.host("two").kill(silent=True)
            await anyio.sleep(0.4)
            net.host("two").restart()
            net.host("one").kill()
            with net.host("slow"):
                group.start_soon(talk, 5, "two")
            await anyio.sleep(0.2)
            net.host("one").restart()
            group.start_soon(talk, 3, "one")
    trace = "\n".join(f"{event.time!r} {event}" for event in net.trace)
    if "--trace" in sys.argv:
        print(trace)  # noqa: T201 - to be compared by hand
    return hashlib.sha256(trace.encode()).hexdigest()[:16]


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_process_does_the_same(backend: str) -> None:
    """Whatever the order of Python's sets: the trace is the same, also on other Pythons."""
    found = [_in_a_process(backend, seed) for seed in ("0", "1")]
    assert found == [DIGESTS[backend]] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_run_does_the_same(backend: str) -> None:
    """What ran before in the same process makes no difference."""
    random.seed()
    keep = [socket.socket() for _ in range(5)]  # so that the descriptors have other numbers
    first = run(storm, backend, backend=backend)
    for sock in keep:
        sock.close()
    assert [first, run(storm, backend, backend=backend)] == [DIGESTS[backend]] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_buffers_of_the_kernel_do_not_show(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program can send as much before it has to wait on each machine, in pieces of any size."""

    async def sent(piece: int) -> int:
        number = 0
        async with Network(latency=0.01) as net:
            net.host("deaf").start(sink)
            net.host("deaf").read_rate = 0
            await anyio.sleep(0.1)
            with anyio.move_on_after(5):
                async with await anyio.connect_tcp("deaf", 80) as stream:
                    while True:
                        await stream.send(b"x" * piece)
                        number += piece
        return number

    pieces = (100, 10_000, 1_000_000)
    usual = [run(sent, piece, backend=backend) for piece in pieces]
    monkeypatch.setattr(_endpoint, "BUFFER", 1_000_000)
    assert [run(sent, piece, backend=backend) for piece in pieces] == usual
    assert run(storm, backend, backend=backend) == DIGESTS[backend]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_reader_leaves_unread(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As much waits in the kernel of a reader on each machine, whatever it costs the kernel."""

    async def sent(piece: int) -> int:
        number = 0
        async with Network(latency=0.01) as net:
            with net.host("idle"):
                listener = await anyio.create_tcp_listener(local_port=80)
            async with listener:
                with anyio.move_on_after(20):
                    async with await anyio.connect_tcp("idle", 80) as stream:
                        while True:
                            await stream.send(b"x" * piece)
                            number += piece
                            await anyio.sleep(0.02)
        return number

    pieces = (1_000, 3_777, 16_200, 100_000)
    usual = [run(sent, piece, backend=backend) for piece in pieces]
    monkeypatch.setattr(_endpoint, "BUFFER", 1_000_000)
    assert [run(sent, piece, backend=backend) for piece in pieces] == usual


def _in_a_process(backend: str, hash_seed: str) -> str:
    command = [sys.executable, __file__, backend]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    answer = subprocess.run(  # noqa: S603 - this file
        command, check=True, capture_output=True, text=True, env=environment
    )
    return answer.stdout.strip()


if __name__ == "__main__":
    print(run(storm, sys.argv[1], backend=sys.argv[1]))  # noqa: T201 - for the process that asks
