"""The side of a worker: what it says to its supervisor, and what it does when told to."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypercorn.config import Config

from mtaio.app import Application
from mtaio.app._usage import CommandError, UsageError
from mtaio.app._worker import CONTROL, Worker
from mtaio.config import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

assert sys.platform != "win32"

PATIENCE = 30


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    """An ASGI application that is not asked for anything."""
    raise NotImplementedError


class Held:
    """What a supervisor has of a worker: the other end, and what signals the worker gets."""

    def __init__(self, worker: Worker, control: socket.socket) -> None:
        self.worker = worker
        self.control = control
        self.signalled = threading.Event()
        self.count = 0
        self.control.settimeout(PATIENCE)

    def lines(self, number: int) -> list[str]:
        """Return so many lines that the worker has said."""
        said = b""
        while said.count(b"\n") < number:
            said += self.control.recv(65536)
        return said.decode().splitlines()

    def is_signalled(self) -> bool:
        """
        Wait for a signal, in short pieces.

        Python 3.13 without the GIL does not look at one that comes just as a wait begins.
        """
        return any(self.signalled.wait(0.01) for _ in range(PATIENCE * 100))

    def note(self, _number: int, _frame: object) -> None:
        """Count a signal."""
        self.count += 1
        self.signalled.set()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """Make this process a worker."""
    own, other = socket.socketpair()
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setenv(CONTROL, str(other.detach()))
    worker = Worker.begin()
    assert worker is not None
    assert CONTROL not in os.environ
    held = Held(worker, own)
    signal.signal(signal.SIGTERM, held.note)
    monkeypatch.setattr(Worker, "current", worker)
    with own:
        yield held
    assert held.is_signalled()  # the connection has ended
    worker._control.close()
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def answering(held: Held, answer: object, sockets: list[socket.socket]) -> Iterator[list[Any]]:
    """Answer the worker's first line, in a thread, and yield the list that this gets into."""
    said: list[Any] = []

    def speak() -> None:
        said.extend(map(json.loads, held.lines(1)))
        descriptors = [each.fileno() for each in sockets]
        socket.send_fds(held.control, [json.dumps(answer).encode() + b"\n"], descriptors)

    thread = threading.Thread(target=speak)
    thread.start()
    yield said
    thread.join()


def test_no_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that no supervisor has started is no worker."""
    monkeypatch.delenv(CONTROL, raising=False)
    assert Worker.begin() is None


def test_listens_at_sockets_of_the_supervisor(held: Held) -> None:
    """The worker says where it wants to listen, as the program has it, and gets the sockets."""
    config = Config()
    config.umask = 0o007
    config.user, config.group = 1, 2
    app = Application(Settings(health_bind="127.0.0.1:7", drain_delay=1, shutdown_timeout=9))
    app.serve(nothing, bind="127.0.0.1:0")
    app.serve(nothing, bind="unix:/run/shop.sock", config=config)
    with socket.create_server(("127.0.0.1", 0)) as first, socket.socket() as second:
        with answering(held, {}, [first, second]) as said:
            binds = held.worker.listen(app, beats=True)
        assert said == [
            {
                "listen": [
                    {"bind": "127.0.0.1:0", "umask": None, "owner": None},
                    {"bind": "unix:/run/shop.sock", "umask": 0o007, "owner": [1, 2]},
                ],
                "health": "127.0.0.1:7",
                "drain_delay": 1.0,
                "beats": True,
                "total": 9.0,
            }
        ]
        descriptor = int(binds[0].removeprefix("fd://"))
        assert not os.get_inheritable(descriptor)
        with socket.socket(fileno=descriptor) as got:
            assert got.getsockname() == first.getsockname()
        os.close(int(binds[1].removeprefix("fd://")))


def test_what_a_worker_cannot_do(held: Held) -> None:
    """A job would be done by each worker; an address that is taken ends the start with 3."""
    app = Application(Settings(), probes=False)
    with (
        answering(held, {"error": "cannot listen at 127.0.0.1:80: taken"}, []),
        pytest.raises(CommandError, match=r"^cannot listen at 127\.0\.0\.1:80: taken") as raised,
    ):
        held.worker.listen(app, beats=True)
    assert raised.value.exit_code == 3

    @app.job
    async def rebuild() -> None:
        raise NotImplementedError

    with pytest.raises(UsageError, match=r"has the job '.*rebuild', and each worker would"):
        held.worker.listen(app, beats=True)


def test_says_what_systemd_would_hear(held: Held) -> None:
    """With READY it says where its probes are, and whether SIGUSR1 does no harm."""
    app = Application(Settings(health_bind="127.0.0.1:7"))
    assert app.probes is not None
    with answering(held, {}, []):
        held.worker.listen(app, beats=True)
    notifier = app._notifier  # what tells systemd elsewhere
    notifier.ready()
    assert held.lines(2) == ["PROBES=127.0.0.1:0", "READY=1"]
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    try:
        notifier.ready()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert held.lines(3) == ["PROBES=127.0.0.1:0", "SIGUSR1=1", "READY=1"]
    held.worker._app = Application(probes=False)
    notifier.ready()
    assert held.lines(1) == ["READY=1"]


def test_is_told_to_stop(held: Held) -> None:
    """It stops as by SIGTERM, once; the end of the connection is no second signal."""
    os.kill(os.getpid(), signal.SIGHUP)  # as from a terminal that closes: not for it to decide
    held.control.sendall(b"stop\nstop\n")
    assert held.is_signalled()
    held.control.shutdown(socket.SHUT_RDWR)
    while held.worker._replies.empty():  # the thread is done
        threading.Event().wait(0.01)
    assert held.count == 1


def test_stops_already(held: Held) -> None:
    """A worker that has had its signal, as systemd sends it to all, gets none from here."""
    held.worker.notify(b"STOPPING=1")
    held.control.sendall(b"stop\n")
    held.control.shutdown(socket.SHUT_RDWR)
    with pytest.raises(CommandError, match=r"^the supervisor is gone"):
        held.worker.listen(Application(Settings(), probes=False), beats=True)
    assert held.count == 0
    held.signalled.set()  # no signal comes at the end
