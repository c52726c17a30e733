"""Where a server listens, and what it refuses, without serving."""

from __future__ import annotations

import builtins
import logging
import os
import socket
import sys
from errno import EAGAIN
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypercorn.config import Config
from hypercorn.events import Closed, RawData, Updated

from mtaio.app import _server
from mtaio.app._listening import Bind, Listening
from mtaio.app._server import Server, _connections, _copy_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither")


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Be an ASGI application."""


@pytest.mark.parametrize(
    ("bind", "reason"),
    [
        ("8000", "has no host"),
        ("127.0.0.1", "does not end in a port"),
        ("127.0.0.1:http", "does not end in a port"),
        ("127.0.0.1:65536", "does not end in a port from 0 to 65535"),
        (":8000", "has no host"),
        ("unix:", "names no path"),
        ("fd:3", "names no file descriptor"),
        ("fd://x", "names no file descriptor"),
    ],
)
def test_bind_refused(bind: str, reason: str) -> None:
    """An address that says less than it must is refused when the server is made."""
    with pytest.raises(ValueError, match=rf"^bind='{bind}' {reason}.*Pass a host and a port"):
        Server(nothing, bind)


def test_types_refused() -> None:
    """What is no text, and no application, is refused."""
    with pytest.raises(TypeError, match=r"^bind=8000 is an int, not a str\. Pass a host"):
        Server(nothing, 8000)  # type: ignore[arg-type] # refused
    with pytest.raises(TypeError, match=r"^asgi=None is a NoneType, which is not callable\."):
        Server(None, "127.0.0.1:0")  # type: ignore[arg-type] # refused


def test_not_serving() -> None:
    """A server that does not serve has nothing in flight, and nothing to close."""
    server = Server(nothing, "[::1]:0")
    server.close()
    assert server.cancel() == 0
    assert server.in_flight == 0
    assert server.address == "[::1]:0"
    assert repr(server) == "<Server at [::1]:0>"
    assert server.statistics().requests == 0


@pytest.fixture
def taken() -> Iterator[int]:
    """Return a port at which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


async def test_taken(taken: int) -> None:
    """A taken port is an error that names the address and the way out, and leaves nothing open."""
    server = Server(nothing, f"127.0.0.1:{taken}")
    for _ in range(2):
        with pytest.raises(
            OSError, match=rf"cannot listen at 127\.0\.0\.1:{taken}: .*port 0 takes"
        ):
            await server.serve()


async def test_no_such_host() -> None:
    """A name that cannot be resolved is an error that names it."""
    with pytest.raises(OSError, match=r"cannot listen at nowhere\.invalid:0: .*Choose an address"):
        await Server(nothing, "nowhere.invalid:0").serve()


async def test_hypercorn_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without hypercorn the error says how to get it."""
    true = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.startswith("hypercorn"):
            raise ModuleNotFoundError(name=name)
        return true(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"needs hypercorn.*pip install 'mtaio\[app\]'$"):
        await Server(nothing, "127.0.0.1:0").serve()


async def test_error_of_hypercorn(tmp_path: Path) -> None:
    """What is wrong with hypercorn's configuration is raised as it is, and no socket stays open."""
    config = Config()
    config.certfile = config.keyfile = str(tmp_path / "missing.pem")
    with pytest.raises(FileNotFoundError):
        await Server(nothing, "127.0.0.1:0", config=config).serve()
    config.certfile = None
    config.workers = 3  # of which hypercorn warns
    with pytest.raises(Warning, match="workers"):
        await Server(nothing, "127.0.0.1:0", config=config).serve()


@pytest.mark.parametrize(("accepted_after", "closes_after"), [(0.1, 0.1), (60.0, 1.02)])
async def test_queued_connections_come_first(
    accepted_after: float, closes_after: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing waits until the connections that are queued have been accepted, at most a second."""
    closed: list[float] = []

    async def busy(_: object, config: Config, *, shutdown_trigger: Any, mode: str) -> None:
        """Be hypercorn, which accepts nobody for a while."""
        assert mode == "asgi"
        (listening,) = config.create_sockets().insecure_sockets

        async def accept() -> None:
            await anyio.sleep(accepted_after)
            listening.accept()[0].close()

        with socket.create_connection(listening.getsockname()):
            async with anyio.create_task_group() as group:
                group.start_soon(accept)
                began = anyio.current_time()
                server.close()
                await shutdown_trigger()
                closed.append(anyio.current_time() - began)
                group.cancel_scope.cancel()

    monkeypatch.setattr(_server, "_serving", lambda _: busy)
    server = Server(nothing, "127.0.0.1:0")
    await server.serve()
    assert closed == [pytest.approx(closes_after, abs=0.003)]


def test_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration is copied; what it would log to the console goes to loggers as they are."""
    for name in ("error", "access"):  # which the whole process shares
        monkeypatch.setattr(logging.getLogger(f"hypercorn.{name}"), "handlers", [])
    given = Config()
    given.accesslog = "-"
    given.keep_alive_timeout = 11
    config = _copy_of(given)
    assert given.errorlog == given.accesslog == "-"
    assert config.keep_alive_timeout == 11
    for logger in (config.log.error_logger, config.log.access_logger):
        assert logger is not None
        assert logger.handlers == []
        assert logger.propagate
    given.errorlog = str(tmp_path / "errors.log")
    assert _copy_of(given).errorlog == given.errorlog


def test_addresses() -> None:
    """The address is the one that was taken."""
    for host in ("127.0.0.1", "0.0.0.0", "[::1]", "[::]"):  # noqa: S104 - all addresses are a case
        listening = Listening(Bind.parse(f"{host}:0"))
        port = listening.socket.getsockname()[1]
        assert listening.address == f"{host}:{port}"
        again = f"{host}:{port}"
        with pytest.raises(OSError, match="cannot listen at"):
            Listening(Bind.parse(again))
        listening.close()
        Listening(Bind.parse(again)).close()


@posix
def test_unix_socket(tmp_path: Path) -> None:
    """A dead socket gives way to a new one, a live one does not, and the file goes in the end."""
    if sys.platform == "win32":
        return
    path = tmp_path / "s"
    bind = Bind.parse(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listening = Listening(bind, umask=0o177, owner=(os.getuid(), os.getgid()), backlog=0)
    assert listening.address == f"unix:{path}"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(OSError, match=rf"cannot listen at unix:{path}: Address already in use"):
        Listening(bind)
    clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for client in clients:
        client.settimeout(0)
    assert [client.connect_ex(str(path)) for client in clients][-1] == EAGAIN
    with pytest.raises(OSError, match=rf"cannot listen at unix:{path}: Address already in use"):
        Listening(bind)
    for client in clients:
        client.close()
    listening.close()
    assert not path.exists()
    for text in (str(tmp_path / "no" / "s"), str(tmp_path / ("s" * 200))):
        with pytest.raises(OSError, match=r"cannot listen at unix:.*Choose a path that no"):
            Listening(Bind.parse(f"unix:{text}"))
    path.write_text("not a socket")
    with pytest.raises(OSError, match="cannot listen at unix:"):
        Listening(bind)
    assert path.read_text() == "not a socket"


@posix
def test_unix_socket_of_a_successor(tmp_path: Path) -> None:
    """The file of a server that took over stays when this one ends."""
    path = tmp_path / "s"
    listening = Listening(Bind.parse(f"unix:{path}"))
    path.unlink()
    successor = Listening(Bind.parse(f"unix:{path}"))
    listening.close()
    assert path.exists()
    path.unlink()
    successor.close()


@posix
def test_inherited(taken: int) -> None:
    """A socket that the process has inherited is used, and left open; what is none is refused."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        for _ in range(2):
            own = Listening(Bind.parse(f"fd://{listening.fileno()}"))
            assert own.address == f"127.0.0.1:{listening.getsockname()[1]}"
            own.close()
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    del taken
    reader, writer = os.pipe()
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        for number in (reader, datagrams.fileno(), 999_999, 10**30):
            with pytest.raises(
                OSError, match=rf"cannot listen at fd://{number}: .*systemd's first"
            ):
                Listening(Bind.parse(f"fd://{number}"))
    os.close(reader)
    os.close(writer)


@posix
@pytest.mark.parametrize("where", ["127.0.0.1:0", "0.0.0.0:0", "unix"])
def test_disconnect(where: str, tmp_path: Path) -> None:
    """Connections that came in here are shut down, and no others."""
    listening = Listening(Bind.parse(f"unix:{tmp_path / 's'}" if where == "unix" else where))
    other = Listening(Bind.parse("127.0.0.1:0"))
    sockets = [listening.socket, other.socket]
    for socket_ in (listening.socket, listening.socket, other.socket):
        socket_.settimeout(None)
        client = socket.socket(socket_.family)
        name = socket_.getsockname()
        client.connect(("127.0.0.1", name[1]) if isinstance(name, tuple) else name)
        sockets += [client, socket_.accept()[0]]
        client.settimeout(0.05)
    first, second, third = sockets[2::2]
    keep = {first.getsockname()} if where != "unix" else set()
    assert listening.disconnect(keep) == (1 if keep else 2)
    assert second.recv(1) == b""
    for client in [third, first] if keep else [third]:
        with pytest.raises(TimeoutError):
            client.recv(1)
    for socket_ in sockets:
        socket_.close()
    listening.close()
    other.close()


@pytest.mark.skipif(sys.platform != "linux", reason="others go on connecting")
@pytest.mark.parametrize("where", ["127.0.0.1:0", "[::1]:0", "unix"])
def test_refuse(where: str, tmp_path: Path) -> None:
    """Who is in the queue can be accepted, and nobody joins it any more."""
    listening = Listening(Bind.parse(f"unix:{tmp_path / 's'}" if where == "unix" else where))
    name = listening.socket.getsockname()
    early, late = (socket.socket(listening.socket.family) for _ in range(2))
    assert not listening.has_queue()
    early.connect(name)
    early.sendall(b"hello")
    assert listening.has_queue()
    listening.refuse()
    late.settimeout(0.1)
    with pytest.raises((TimeoutError, FileNotFoundError)):
        late.connect(name)
    with listening.socket.accept()[0] as accepted:
        accepted.settimeout(20)
        assert accepted.recv(5) == b"hello"
    assert not listening.has_queue()
    listening.refuse()
    listening.close()
    early.close()
    late.close()


@posix
def test_refuse_at_an_inherited_socket() -> None:
    """What others listen at too goes on as it was."""
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        listening = Listening(Bind.parse(f"fd://{inherited.fileno()}"))
        listening.refuse()
        with socket.create_connection(inherited.getsockname()):
            assert listening.has_queue()
        listening.close()


def test_disconnect_without_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where descriptors cannot be listed, nothing is shut down."""

    def refuse(_: str) -> list[str]:
        raise FileNotFoundError

    listening = Listening(Bind.parse("127.0.0.1:0"))
    monkeypatch.setattr(os, "listdir", refuse)
    assert listening.disconnect() == 0
    listening.close()


class Hypercorns:
    """What hypercorn's class of connections does, as far as it matters here."""

    keep_alive_timeout = 5

    def __init__(self) -> None:
        self.done: list[str] = []
        self.protocol = self.idle_task = self.config = self.context = self
        self.terminated = anyio.Event()

    async def run(self) -> None:
        """Close the connection as idle, and then read a request on it."""
        await self._initiate_server_close()
        await self._read_data()

    async def _read_data(self) -> None:
        await self.protocol_send(Updated(idle=False))

    async def _initiate_server_close(self) -> None:
        self.done.append("closed as idle")

    async def protocol_send(self, event: object) -> None:
        """Do what the protocol wants done."""
        self.done.append(repr(event))

    async def handle(self, event: object) -> None:
        """Take in what comes from the client, or that it is gone."""
        self.done.append(f"handled {event!r}")

    async def stop(self) -> None:
        """Stop waiting for the keep-alive time to be over."""
        self.done.append("stopped")


def connected(base: type[Hypercorns] = Hypercorns) -> Any:
    """Return a connection."""
    return _connections(base, RawData, Updated, Closed)()


async def test_idle_or_at_work(caplog: pytest.LogCaptureFixture) -> None:
    """A connection is closed as idle, or a request on it is begun, but never both."""
    connection = connected()
    await connection.run()
    assert connection.done == ["closed as idle"]
    assert caplog.messages == []
    other = connected()
    await other.protocol_send(Updated(idle=False))
    await other._initiate_server_close()
    assert other.done == []
    await other.protocol_send(Updated(idle=True))
    await other._initiate_server_close()
    assert other.done == ["closed as idle"]


async def test_first_call() -> None:
    """A connection on which nothing was asked yet is not closed as idle before its client can."""
    began = anyio.current_time()
    connection = connected()
    async with anyio.create_task_group() as group:
        group.start_soon(connection._initiate_server_close)
        await anyio.sleep(0.09)
        await connection.protocol_send(Updated(idle=False))
    assert connection.done == []
    await connection.protocol_send(Updated(idle=True))
    await connection._initiate_server_close()
    assert connection.done == ["closed as idle"]
    other = connected()
    await other._initiate_server_close()
    assert other.done == ["closed as idle"]
    assert anyio.current_time() == pytest.approx(began + 0.2)


async def test_idle_for_too_long() -> None:
    """A connection is closed when the time to keep it is over, counted from its last answer."""
    began = anyio.current_time()
    connection = connected()
    async with anyio.create_task_group() as group:
        group.start_soon(connection._idle_timeout)
        for moment, idle in ((2, False), (3, True), (7.5, False), (20, True)):
            await anyio.sleep_until(began + moment)
            await connection.protocol_send(Updated(idle=idle))
        await anyio.sleep_until(began + 24.9)
        assert connection.done == []
    assert connection.done == ["closed as idle"]
    assert anyio.current_time() == pytest.approx(began + 25)


@pytest.mark.parametrize("at_work", [False, True])
async def test_idle_when_the_server_closes(at_work: bool) -> None:  # noqa: FBT001 - a parameter
    """Once the server closes, a connection is closed with its answer, or at once if it has none."""
    began = anyio.current_time()
    connection = connected()
    async with anyio.create_task_group() as group:
        group.start_soon(connection._idle_timeout)
        await anyio.sleep(1)
        await connection.protocol_send(Updated(idle=not at_work))
        connection.terminated.set()
        await anyio.sleep(1)
        assert connection.done == ([] if at_work else ["closed as idle"])
        await anyio.sleep(28)
        await connection.protocol_send(Updated(idle=True))
    assert connection.done == ["closed as idle"]
    assert anyio.current_time() == pytest.approx(began + 30)


async def test_request_as_the_time_is_over() -> None:
    """A request that comes in as an idle connection is looked at keeps it."""
    began = anyio.current_time()
    connection = connected()
    async with anyio.create_task_group() as group:
        connection.first_call = began + 6  # it is old enough a second after its time is over
        group.start_soon(connection._idle_timeout)
        await anyio.sleep_until(began + 5.5)
        await connection.protocol_send(Updated(idle=False))
        await anyio.sleep_until(began + 7)
        await connection.protocol_send(Updated(idle=True))
    assert connection.done == ["closed as idle"]
    assert anyio.current_time() == pytest.approx(began + 12)


async def test_no_bytes_are_not_sent() -> None:
    """Hypercorn sends bytes, and is not asked to send none."""
    connection = connected()
    await connection.protocol_send(RawData(b"a"))
    await connection.protocol_send(RawData(b""))
    assert connection.done == [repr(RawData(b"a"))]


async def test_closed_is_not_read() -> None:
    """A connection that was closed is read no further, and waits for nothing."""

    class Reading(Hypercorns):
        async def _initiate_server_close(self) -> None:
            """Leave it open."""

        async def _read_data(self) -> None:
            await self.protocol_send(Closed())
            await anyio.sleep_forever()

    connection = connected(Reading)
    await connection.run()
    assert connection.done == ["Closed()", "handled Closed()", "stopped"]
