"""
mtaio.testing.Network: messages and requests on the simulated network, compared with real loopback.

Client and server run in one process and one event loop in both cases, and nothing waits, so what
counts is the time of the processor, the kernel's included. httpx asks hypercorn over one
connection. A Network implies a Schedule, which notes each step of each task: so messages are also
compared with real loopback under a Schedule. Many connections and an explored run have no rival:
they have a limit.

"The least" is what a program must do at least that moves the same bytes through two pairs of
sockets, as any simulation with real descriptors does: no event loop, no tasks, no checks. A message
is written and read twice on each way, after a look of epoll, a place in a heap and an entry in a
list of steps. Many bytes are written and read twice, in pieces of 64 KiB.

"The least with its promises" is the same under a Schedule, with AnyIO's streams at both ends: the
event loop's own turns, a heap in virtual time and a trace. It knows no hosts, faults, windows or
errors, and one connection.
"""

from __future__ import annotations

import gc
import heapq
import logging
import math
import resource
import select
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio._core._eventloop import get_async_backend

from benchmarks._harness import OURS, Contest, Figure, expect, maybe
from mtaio.testing import Network, Schedule, current_simulation, explore, run, settle
from mtaio.testing._world import current_world

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import SocketStream

httpx = maybe("httpx")

MESSAGES: Final = 5_000
REQUESTS: Final = 400
CONNECTIONS: Final = 1_000
RUNS: Final = 200

LOOPBACK: Final = "loopback"
SCHEDULED: Final = "loopback under a Schedule"
LEAST: Final = "the least"
PROMISING: Final = "the least with its promises"
MESSAGE: Final = b"x" * 100

MEGABYTES: Final = 100
RATE: Final = 10_000_000


async def echo(stream: SocketStream) -> None:
    """Send back what comes."""
    async with stream:
        async for data in stream:
            await stream.send(data)


async def pings(host: str, port: int) -> float:
    """Return the microseconds for each message that goes to and fro."""
    async with await anyio.connect_tcp(host, port) as stream:
        return await pings_over(stream)


async def pings_over(stream: SocketStream) -> float:
    for number in range(MESSAGES + 100):
        if number == 100:  # noqa: PLR2004 - the first ones warm up
            started = time.thread_time()
        await stream.send(MESSAGE)
        expect(await stream.receive() == MESSAGE, "echoed the message")
    return (time.thread_time() - started) / MESSAGES * 1e6


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with ``3``."""
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"3"})


async def serve_http(
    host: str, port: int, *, backend: str, stop: Callable[[], Awaitable[object]]
) -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of callbacks of what was killed
    hypercorn = maybe(f"hypercorn.{backend}")
    config = maybe("hypercorn.config").Config.from_mapping(bind=f"{host}:{port}", errorlog=None)
    await hypercorn.serve(app, config, shutdown_trigger=stop)


async def requests(host: str, port: int) -> float:
    """Return the microseconds for each request on one connection that is kept."""
    async with httpx.AsyncClient() as client:
        for number in range(REQUESTS + 20):
            if number == 20:  # noqa: PLR2004 - the first ones warm up
                started = time.thread_time()
            answer = await client.get(f"http://{host}:{port}/")
            expect(answer.text == "3", "answered")
    return (time.thread_time() - started) / REQUESTS * 1e6


async def message_real() -> float:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - AnyIO's, not Django's
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            taken = await pings("127.0.0.1", port)
            group.cancel_scope.cancel()
    return taken


async def serve_echo() -> None:
    async with await anyio.create_tcp_listener(local_port=80) as listener:
        await listener.serve(echo)


async def message_simulated() -> float:
    async with Network() as net:
        net.host("server").start(serve_echo)
        await settle()
        return await pings("server", 80)


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def request_real(backend: str) -> float:
    port = free_port()
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(partial(serve_http, "127.0.0.1", port, backend=backend, stop=stop.wait))
        while True:
            try:
                await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
                break
            except OSError:
                await anyio.sleep(0.01)
        taken = await requests("127.0.0.1", port)
        stop.set()
    return taken


async def request_simulated(backend: str) -> float:
    async with Network() as net:
        net.host("server").start(
            partial(serve_http, "0.0.0.0", 80, backend=backend, stop=anyio.sleep_forever)  # noqa: S104 - simulated
        )
        await settle()
        return await requests("server", 80)


def real(backend: str, measure: Callable[..., Awaitable[float]], *args: Any) -> float:
    return anyio.run(measure, *args, backend=backend)


async def message_scheduled() -> float:
    with current_simulation().hold():
        return await message_real()


def scheduled(backend: str, measure: Callable[..., Awaitable[float]]) -> float:
    return run(measure, backend=backend, schedule=Schedule(), max_turns=None)


def simulated(backend: str, measure: Callable[..., Awaitable[float]], *args: Any) -> float:
    return run(measure, *args, backend=backend, max_turns=None)


# ---- the least -----------------------------------------------------------------------------------


def pairs() -> tuple[socket.socket, socket.socket, socket.socket, socket.socket]:
    """Return the sockets of two programs, each with the network's end of it."""
    ours = socket.socketpair()
    theirs = socket.socketpair()
    for each in (*ours, *theirs):
        each.setblocking(False)  # noqa: FBT003 - of the standard library
    return *ours, *theirs


def message_least() -> float:
    """Return the microseconds for each message to and fro between two pairs of sockets."""
    client, near, server, far = pairs()
    poll = select.epoll()
    poll.register(client, select.EPOLLIN)
    poll.register(server, select.EPOLLIN)
    due: list[tuple[float, int, socket.socket, bytes]] = []
    steps: list[tuple[float, str, int]] = []
    ways = ((client, near, far, server), (server, far, near, client))
    with client, near, server, far, poll:
        started = time.thread_time()
        for number in range(MESSAGES):
            for source, leaves, enters, target in ways:
                source.send(MESSAGE)
                heapq.heappush(due, (0.0, number, enters, leaves.recv(65536)))
                steps.append((0.0, "task", number))
                _, _, wire, data = heapq.heappop(due)
                wire.send(data)
                poll.poll(0)
                expect(target.recv(65536) == MESSAGE, "got the message")
        return (time.thread_time() - started) / MESSAGES * 1e6


class Wire:
    """What an event loop asks of a network, for two pairs of sockets and nothing else."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.ways = {near.fileno(): (near, far), far.fileno(): (far, near)}
        self.poll = select.epoll()
        for fd in self.ways:
            self.poll.register(fd, select.EPOLLIN)
        self.due: list[tuple[float, int, socket.socket, bytes]] = []
        self.trace: list[tuple[float, str, int]] = []
        self.taken = 0

    def stirs(self) -> bool:
        now = anyio.current_time()
        for fd, _ in self.poll.poll(0):
            source, target = self.ways[fd]
            self.taken += 1
            heapq.heappush(self.due, (now, self.taken, target, source.recv(65536)))
        stirred = False
        while self.due and self.due[0][0] <= now:
            _, number, target, data = heapq.heappop(self.due)
            self.trace.append((now, f"{len(data)} bytes", number))
            target.send(data)
            stirred = True
        return stirred

    def arrive(self) -> None:
        self.stirs()

    def next_at(self) -> float:
        return self.due[0][0] if self.due else math.inf

    def number_of(self, fd: int) -> int:
        return fd

    def task_made(self, task: Any) -> None:
        """Do nothing."""


async def message_promising() -> float:
    client, near, server, far = pairs()
    world: Any = current_world()
    wrap = get_async_backend().wrap_stream_socket  # with what TCP streams are made of
    asked, asker = await wrap(client), await wrap(server)
    async with asked, asker, anyio.create_task_group() as group:
        with near, far:
            world.network = Wire(near, far)
            try:
                group.start_soon(echo, asker)
                taken = await pings_over(asked)
            finally:
                world.network = None
            group.cancel_scope.cancel()
    return taken


def bulk_least() -> float:
    """Return the seconds of the processor for many bytes through two pairs of sockets."""
    client, near, server, far = pairs()
    piece = bytes(65536)
    size, received = MEGABYTES * 1_000_000, 0
    with client, near, server, far:
        started = time.thread_time()
        while received < size:
            client.send(piece)
            far.send(near.recv(65536))
            received += len(server.recv(65536))
        return time.thread_time() - started


# ---- what has a limit, and no rival --------------------------------------------------------------


async def connections() -> float:
    """Return the seconds for many connections that are open at once, from first to last."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8 * CONNECTIONS)), hard))
    started = time.thread_time()
    async with Network(latency=0.01) as net:
        net.host("server").start(serve_echo)
        await settle()
        streams = [await anyio.connect_tcp("server", 80) for _ in range(CONNECTIONS)]
        for stream in streams:
            await stream.send(MESSAGE)
        for stream in streams:
            expect(await stream.receive() == MESSAGE, "echoed the message")
        expect(len(net.open) == 2 * CONNECTIONS + 1, "kept all of them open")
        for stream in streams:
            await stream.aclose()
        await anyio.sleep(1)
        return time.thread_time() - started


async def pour(stream: SocketStream) -> None:
    """Send many bytes."""
    data = b"x" * 1_000_000
    async with stream:
        for _ in range(MEGABYTES):
            await stream.send(data)


async def drink(host: str, port: int) -> float:
    """Return the seconds of the processor for many bytes from a server that sends them."""
    async with await anyio.connect_tcp(host, port) as stream:
        started = time.thread_time()
        received = 0
        while received < MEGABYTES * 1_000_000:
            received += len(await stream.receive(1 << 20))
        return time.thread_time() - started


async def bulk_real() -> float:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - AnyIO's, not Django's
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, pour)
            taken = await drink("127.0.0.1", port)
            group.cancel_scope.cancel()
    return taken


async def bulk() -> float:
    """Have them go over a link of ten megabytes a second."""

    async def serve() -> None:
        async with await anyio.create_tcp_listener(local_port=80) as listener:
            await listener.serve(pour)

    seconds = MEGABYTES * 1_000_000 / RATE
    async with Network(latency=0.01, bandwidth=RATE) as net:
        net.host("server").start(serve)
        await settle()
        began = anyio.current_time()
        taken = await drink("server", 80)
        virtual = anyio.current_time() - began
        expect(seconds - 0.5 < virtual < seconds + 0.5, f"taken ten seconds, not {virtual}")
    return taken


async def small() -> None:
    """A client that reconnects after a partition, and a server: some fifty steps."""
    async with Network(latency=0.02, jitter=0.01) as net:
        net.host("server").start(serve_echo)
        await settle()
        for _ in range(2):
            async with await anyio.connect_tcp("server", 80) as stream:
                for _ in range(3):
                    await stream.send(MESSAGE)
                    expect(await stream.receive() == MESSAGE, "echoed the message")


def explored(backend: str) -> float:
    """Return the milliseconds for each run of a search."""
    search = explore(seeds=RUNS - 1, exhaustive=None, backends=(backend,))(small)
    started = time.thread_time()
    search()
    return (time.thread_time() - started) / RUNS * 1e3


def measured(backend: str, measure: Callable[..., Awaitable[float]]) -> float:
    gc.collect()
    return run(measure, backend=backend, max_turns=None)


EVENTS: list[Contest | Figure] = []
for backend in ("asyncio", "trio"):
    EVENTS += [
        Contest(
            title="a message of 100 bytes, to and fro",
            contenders={
                OURS: partial(simulated, backend, message_simulated),
                SCHEDULED: partial(scheduled, backend, message_scheduled),
                LOOPBACK: partial(real, backend, message_real),
                PROMISING: partial(scheduled, backend, message_promising),
                LEAST: message_least,
            },
            targets={SCHEDULED: 1.8, PROMISING: 1.6},
            loops=(backend,),
        ),
        Contest(
            title="a request from httpx to hypercorn",
            contenders={
                OURS: partial(simulated, backend, request_simulated, backend),
                LOOPBACK: partial(real, backend, request_real, backend),
            },
            targets={LOOPBACK: 1.5},
            loops=(backend,),
        ),
        Figure(
            title="1,000 connections that are open at once",
            measure=partial(measured, backend, connections),
            unit="s",
            most=3.0,
            loops=(backend,),
        ),
        Contest(
            title="100 MB through a link of 10 MB/s",
            contenders={
                OURS: partial(measured, backend, bulk),
                LOOPBACK: partial(real, backend, bulk_real),
                LEAST: bulk_least,
            },
            targets={LEAST: 5.0},  # 0.2 s
            unit="s",
            loops=(backend,),
        ),
        Figure(
            title="a run of a search: two connections, six messages",
            measure=partial(explored, backend),
            unit="ms",
            most=30.0,
            loops=(backend,),
        ),
    ]
