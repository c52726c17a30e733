"""Whatever happens on the way, what arrives is what was sent, in order, and in the end all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.abc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtaio.testing import Network, Schedule, assert_quiescent, run, settle
from mtaio.testing.schedules import schedules
from tests.backends import BACKENDS

LINK = st.fixed_dictionaries(
    {
        "latency": st.sampled_from([0.0, 0.01, 0.3]),
        "jitter": st.sampled_from([0.0, 0.05]),
        "bandwidth": st.sampled_from([None, 200_000.0]),
        "segment": st.sampled_from([None, 3_000]),
    }
)

SIZES = st.sampled_from([1, 7, 1_000, 70_000, 150_000])

STEPS = st.one_of(
    st.tuples(st.sampled_from(["ask", "answer"]), SIZES),
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.005, 0.01, 0.15, 0.3, 2.0])),
    st.tuples(st.sampled_from(["partition", "hold"]), st.sampled_from(["both", "there", "back"])),
    st.tuples(st.just("heal"), st.integers(0, 3)),
    st.tuples(st.just("link"), LINK),
    st.tuples(st.sampled_from(["read_main", "read_peer"]), st.sampled_from([None, 90_000.0, 5e6])),
    st.tuples(st.sampled_from(["eof_main", "eof_peer"]), st.none()),
)


class Side:
    """One end of a connection: what it has sent, and what has arrived at it."""

    def __init__(self, stream: anyio.abc.SocketStream, offset: int) -> None:
        self.stream = stream
        self.offset = offset
        self.sent = 0
        self.got = bytearray()
        self.orders, self.ordered = anyio.create_memory_object_stream[int](1000)

    def order(self, size: int) -> None:
        """Let it send so much, unless it has said its last word."""
        with suppress(anyio.ClosedResourceError):
            self.orders.send_nowait(size)

    async def send(self) -> None:
        """Send what it is told to send, and then the end."""
        with self.ordered:
            async for size in self.ordered:
                data = pattern(self.offset + self.sent, size)
                self.sent += size
                await self.stream.send(data)
        await self.stream.send_eof()

    async def receive(self) -> None:
        """Receive until the end."""
        async for data in self.stream:
            self.got += data


PATTERN = bytes(number * 7 % 251 for number in range(251)) * 20_000


def pattern(at: int, size: int) -> bytes:
    """Return bytes that say where in a stream they are."""
    return PATTERN[at % 251 :][:size]


async def converse(steps: list[tuple[str, Any]], link: dict[str, Any], seed: int) -> object:
    """Do the steps, end all faults, and see that all has arrived."""
    accepted: list[anyio.abc.SocketStream] = []

    async def serve() -> None:
        async with await anyio.create_tcp_listener(local_port=9) as listener:
            await listener.serve(take)

    async def take(stream: anyio.abc.SocketStream) -> None:
        accepted.append(stream)
        await anyio.sleep_forever()

    async with Network(**link, seed=seed) as net:
        net.host("peer").start(serve)
        await settle()
        stream = await anyio.connect_tcp("peer", 9)
        await anyio.sleep(1)
        main, peer = Side(stream, 0), Side(accepted[0], 100)
        async with anyio.create_task_group() as group:
            for side in (main, peer):
                group.start_soon(side.send)
                group.start_soon(side.receive)
            await act(net, steps, main, peer)
            net.heal()
            net.host("main").read_rate = net.host("peer").read_rate = None
            main.orders.close()
            peer.orders.close()
        assert peer.got == pattern(0, main.sent)
        assert main.got == pattern(100, peer.sent)
        for each in (stream, accepted[0]):
            await each.aclose()
        await anyio.sleep(10)
        assert [socket for socket in net.open if socket.peer] == []
    assert_quiescent(net)
    return net.trace


async def act(net: Network, steps: list[tuple[str, Any]], main: Side, peer: Side) -> None:
    """Do one step after another."""
    faults: list[Any] = []
    ways = {"both": ("main", "peer", False), "there": ("main", "peer", True)}
    ways["back"] = ("peer", "main", True)
    doing: dict[str, Callable[[Any], object]] = {
        "ask": main.order,
        "answer": peer.order,
        "link": lambda options: net.link("main", "peer", **options),
        "read_main": lambda rate: setattr(net.host("main"), "read_rate", rate),
        "read_peer": lambda rate: setattr(net.host("peer"), "read_rate", rate),
        "eof_main": lambda _: main.orders.close(),
        "eof_peer": lambda _: peer.orders.close(),
    }
    for what, how in steps:
        if what == "sleep":
            await anyio.sleep(how)
        elif what == "heal":
            if faults:
                net.heal(faults.pop(how % len(faults)))
        elif what in {"partition", "hold"}:
            a, b, oneway = ways[how]
            faults.append(getattr(net, what)(a, b, oneway=oneway, required=False))
        else:
            doing[what](how)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    steps=st.lists(STEPS, max_size=25),
    link=LINK,
    seed=st.integers(0, 3),
    schedule=schedules(),
)
def test_all_arrives_in_order(
    backend: str,
    steps: list[tuple[str, Any]],
    link: dict[str, Any],
    seed: int,
    schedule: Schedule,
) -> None:
    """Faults that overlap, links that change, slow readers and half-closes lose nothing."""
    run(converse, steps, link, seed, backend=backend, schedule=schedule)
