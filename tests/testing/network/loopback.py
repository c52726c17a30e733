"""
Scripts on sockets that run on the machine's own loopback and in a simulated network.

A script says what it saw, without times and port numbers; both networks have to show it the same.
"""

from __future__ import annotations

import difflib
import errno
import re
import socket
from contextlib import ExitStack, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSListener

from mtaio.testing import Network, Schedule, run
from tests.backends import BACKENDS

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
    from contextlib import AbstractContextManager

    from anyio import TypedAttributeProvider
    from anyio.abc import Listener

Address: TypeAlias = tuple[str, int]

LIMIT: Final = 20.0
"""Seconds after which what has to happen counts as never happening."""

SERVER: Final = "server"
"""The host of the servers, where they are not on the client's."""

ERRNO: Final = errno.errorcode


def told(error: BaseException) -> str:
    """Say of an error what must not differ: kinds, numbers, words; not addresses or ports."""
    if isinstance(error, BaseExceptionGroup):
        return f"{type(error).__name__}[{', '.join(told(each) for each in error.exceptions)}]"
    said = type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        words = re.sub(r"\d+", "N", str(error.strerror))
        said += f" {ERRNO.get(error.errno, error.errno)} {words!r}"
    if error.__cause__ is not None:
        said += f" from {told(error.__cause__)}"
    return said


class Stage:
    """
    Where a script runs: it makes sockets here, and says what it saw.

    Args:
        ours: The addresses of the client's host and, last, the server's.
        server: Returns a block in which sockets are the server's.
        pause: Seconds after which everything that was sent has arrived.
    """

    def __init__(
        self, *ours: str, server: Callable[[], AbstractContextManager[Any]], pause: float
    ) -> None:
        self.ours = ours
        self.address = ours[-1]
        self.server = server
        self.seen: list[str] = []
        self._pause = pause
        self._sockets = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._sockets.close()

    # ---- saying --------------------------------------------------------------------------------

    def see(self, what: str, result: object) -> None:
        """Note what something came to."""
        self.seen.append(f"{what}: {result!r}")

    def call(self, what: str, function: Callable[..., object], *args: Any) -> None:
        """Call a function, and note its result or error."""
        try:
            self.see(what, function(*args))
        except Exception as error:  # noqa: BLE001 - any of them is what both networks must show
            self.seen.append(f"{what}: {told(error)}")

    async def wait(
        self, what: str, function: Callable[..., Awaitable[object]], *args: Any, **options: Any
    ) -> None:
        """Await a coroutine function, and note its result or error."""
        try:
            with anyio.fail_after(LIMIT):
                result = await function(*args, **options)
            self.see(what, result)
        except Exception as error:  # noqa: BLE001 - any of them is what both networks must show
            self.seen.append(f"{what}: {told(error)}")

    def name(self, what: str, function: Callable[[], Address]) -> None:
        """Note an address: whose it is, and whether there is a port."""

        def named() -> tuple[str, str]:
            host, port = function()
            return self.host(host), "a port" if port else "port 0"

        self.call(what, named)

    def host(self, host: str) -> str:
        """Return an address in words that are the same in each network."""
        return "ours" if host in self.ours else host

    # ---- sockets -------------------------------------------------------------------------------

    def keep(self, sock: socket.socket) -> socket.socket:
        """Have a socket closed at the end, and not block."""
        self._sockets.callback(sock.close)
        sock.settimeout(0)
        return sock

    def near(self, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """Return a new socket of the client's host."""
        return self.keep(socket.socket(socket.AF_INET, kind))

    def far(self, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """Return a new socket of the server's host."""
        with self.server():
            return self.near(kind)

    def bound(self, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """Return a socket of the server's host, with an address that others can send to."""
        sock = self.far(kind)
        sock.bind((self.address, 0))
        return sock

    def listener(self, backlog: int = 10) -> socket.socket:
        """Return a socket that listens."""
        sock = self.bound()
        sock.listen(backlog)
        return sock

    async def connect(self, sock: socket.socket, to: socket.socket | Address) -> socket.socket:
        """Connect, and raise what that fails with."""
        code = sock.connect_ex(to if isinstance(to, tuple) else to.getsockname())
        if code == errno.EINPROGRESS:
            await self.writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, "cannot connect")
        return sock

    async def accept(self, listener: socket.socket) -> socket.socket:
        """Return the next connection."""
        await self.readable(listener)
        return self.keep(listener.accept()[0])

    async def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return the two ends of a connection, the client's first, which send without delay."""
        listener = self.listener()
        client = await self.connect(self.near(), listener)
        server = await self.accept(listener)
        listener.close()
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client, server

    # ---- waiting -------------------------------------------------------------------------------

    async def pause(self) -> None:
        """Let everything arrive that is on its way."""
        await anyio.sleep(self._pause)

    async def readable(self, sock: socket.socket) -> None:
        """Wait until a socket can be read from."""
        with anyio.fail_after(LIMIT):
            await anyio.wait_readable(sock)

    async def writable(self, sock: socket.socket) -> None:
        """Wait until a socket can be written to."""
        with anyio.fail_after(LIMIT):
            await anyio.wait_writable(sock)

    async def ready(self, what: str, sock: socket.socket) -> None:
        """Note what a socket is ready for, now that everything has arrived."""
        await self.pause()
        ways = {"read": anyio.wait_readable, "write": anyio.wait_writable}
        found = [way for way, wait in ways.items() if await self.is_ready(sock, wait)]
        self.see(what, " ".join(found) or "nothing")

    async def is_ready(self, sock: socket.socket, wait: Callable[..., Awaitable[None]]) -> bool:
        """Return whether a wait for a socket ends."""
        for _ in range(2):  # a machine that stands still for a while spoils but one of them
            with anyio.move_on_after(self._pause):
                await wait(sock)
                return True
        return False

    async def receive(self, what: str, sock: socket.socket, size: int = 65536) -> None:
        """Note what is received next: bytes, their end, or an error."""
        await self.readable(sock)
        self.call(what, sock.recv, size)

    async def send_all(self, sock: socket.socket, data: bytes) -> None:
        """Send all of it, waiting where the buffers are full."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[sock.send(rest) :]
            except BlockingIOError:
                await self.writable(sock)

    async def receive_all(self, sock: socket.socket) -> bytes:
        """Return all that comes until the end."""
        parts = []
        while True:
            await self.readable(sock)
            parts.append(sock.recv(65536))
            if not parts[-1]:
                return b"".join(parts)


@asynccontextmanager
async def serving(
    stage: Stage, handler: Callable[[Any], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Address]:
    """Serve connections with AnyIO while the block runs, which gets the address."""
    with stage.server():
        inner = await anyio.create_tcp_listener(local_host=stage.address, local_port=0)
    listener: Listener[Any] = inner if tls is None else TLSListener(inner, tls)
    address: Address = raw_socket(inner.listeners[0]).getsockname()
    async with listener, anyio.create_task_group() as group:
        with stage.server():
            group.start_soon(listener.serve, handler)
        yield address
        group.cancel_scope.cancel()


def raw_socket(stream: TypedAttributeProvider) -> socket.socket:
    """Return the socket of one of AnyIO's streams or listeners."""
    sock: socket.socket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - not Django's
    return sock


# ---- the networks ------------------------------------------------------------------------------

Script: TypeAlias = "Callable[[Stage], Coroutine[Any, Any, None]]"


def on_loopback(script: Script, backend: str) -> list[str]:
    """Return what a script sees on the machine's own loopback, in real time."""

    async def main() -> list[str]:
        with Stage("127.0.0.1", server=nullcontext, pause=0.003) as stage:
            await script(stage)
            return stage.seen

    return anyio.run(main, backend=backend)


def simulated(
    script: Script,
    backend: str,
    *,
    apart: bool = False,
    ordered: bool = False,
    schedule: Schedule | None = None,
) -> list[str]:
    """
    Return what a script sees in a simulated network.

    Args:
        script: The script.
        backend: The backend that runs it.
        apart: Whether client and server are on two hosts.
        ordered: Whether no datagram overtakes another between them.
        schedule: Which task goes on, and what arrives, where several could.
    """

    async def main() -> list[str]:
        async with Network(latency=0.02, jitter=0.0 if ordered else 0.01, seed=7) as net:
            if apart:
                ours = net.host("main").address, net.host(SERVER).address
                stage = Stage(*ours, server=lambda: net.host(SERVER), pause=5.0)
            else:
                stage = Stage("127.0.0.1", server=nullcontext, pause=5.0)
            with stage:
                await script(stage)
                return stage.seen

    return run(main, backend=backend, schedule=schedule)


def like_loopback(
    *, apart: bool = True, alike: bool = True, only: str | None = None, ordered: bool = False
) -> Callable[[Script], Callable[[], None]]:
    """
    Make a test of a script: every network has to show it the same.

    Args:
        apart: Whether it also runs with the client and the server on two simulated hosts.
        alike: Whether it has to see the same on both backends.
        only: The backend that it is for. Default: both.
        ordered: Whether it needs datagrams in the order in which they were sent, as they come on
            the loopback. In a simulation they do where nothing jitters and no schedule chooses.
    """
    backends = [each for each in BACKENDS if only in (None, each)]

    def decorate(script: Script) -> Callable[[], None]:
        def test() -> None:
            real: dict[str, list[str]] = {}
            for backend in backends:
                real[backend] = on_loopback(script, backend)
                others = {"simulated": simulated(script, backend)}
                if apart:
                    others["two hosts"] = simulated(script, backend, apart=True, ordered=ordered)
                if not ordered:
                    others["in another order"] = simulated(
                        script, backend, apart=apart, schedule=Schedule(seed=7)
                    )
                for name, seen in others.items():
                    compare(f"{backend} on loopback", real[backend], f"{backend}, {name}", seen)
            if alike and len(real) == len(("asyncio", "trio")):
                compare("asyncio", real["asyncio"], "trio", real["trio"])

        test.__name__ = test.__qualname__ = script.__name__
        test.__doc__, test.__module__ = script.__doc__, script.__module__
        return test if backends else pytest.mark.skip(reason=f"{only} is not installed")(test)

    return decorate


def compare(one: str, first: list[str], other: str, second: list[str]) -> None:
    """Fail where two networks have shown different things."""
    __tracebackhide__ = True
    assert first, "the script has seen nothing"
    if first != second:
        lines = difflib.unified_diff(first, second, one, other, n=3, lineterm="")
        pytest.fail("\n".join(lines), pytrace=False)
