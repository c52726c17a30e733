"""What systemd is told, on the socket that it listens to."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from mtaio.app._systemd import Notifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

assert sys.platform != "win32"


class Listener:
    """The end that systemd holds."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + path[1:] if path.startswith("@") else path)
        self.socket.settimeout(30)
        self.environ = {"NOTIFY_SOCKET": path}

    def received(self) -> str:
        """Return the next message."""
        return self.socket.recv(65536).decode()


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """Return a socket in the file system, under a short path: macOS allows 104 characters."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "notify"
    made = Listener(str(path) if len(str(path)) < 100 else f"/tmp/mtaio-{os.getpid()}")  # noqa: S108 - short
    with made.socket:
        yield made
    os.unlink(made.environ["NOTIFY_SOCKET"])  # noqa: PTH108 - a str


@pytest.mark.parametrize(
    ("say", "message"),
    [
        (Notifier.ready, "READY=1"),
        (Notifier.stopping, "STOPPING=1"),
        (Notifier.watchdog, "WATCHDOG=1"),
        (lambda notifier: notifier.extend(2.5), "EXTEND_TIMEOUT_USEC=2500000"),
        (lambda notifier: notifier.status("3 of 5 loaded"), "STATUS=3 of 5 loaded"),
        (lambda notifier: notifier.status("in\ntwo lines\n"), "STATUS=in two lines"),
        (lambda notifier: notifier.status("\udcff"), "STATUS=?"),
        (lambda notifier: notifier.status("long" * 1000), "STATUS=" + "long" * 125),
    ],
    ids=["ready", "stopping", "watchdog", "extend", "status", "lines", "surrogate", "long"],
)
def test_messages_are_those_of_sd_notify(
    listener: Listener, say: Callable[[Notifier], None], message: str
) -> None:
    """Each message is one datagram, in systemd's own words."""
    notifier = Notifier(listener.environ)
    assert notifier.enabled
    say(notifier)
    assert listener.received() == message


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_abstract_sockets_are_reached() -> None:
    """A name that begins with @ is that of a socket in no file system."""
    made = Listener(f"@mtaio-{os.getpid()}")
    with made.socket:
        Notifier(made.environ).ready()
        assert made.received() == "READY=1"


def test_environment_of_the_process_is_the_default(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an argument the variables are those that systemd has set."""
    monkeypatch.setenv("NOTIFY_SOCKET", listener.environ["NOTIFY_SOCKET"])
    Notifier().ready()
    assert listener.received() == "READY=1"


def test_any_thread_may_send(listener: Listener) -> None:
    """The thread that holds the deadlines asks for time itself."""
    notifier = Notifier(listener.environ)
    thread = threading.Thread(target=notifier.extend, args=(1,))
    thread.start()
    thread.join()
    assert listener.received() == "EXTEND_TIMEOUT_USEC=1000000"


def test_without_systemd_nothing_is_sent(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without NOTIFY_SOCKET, and where there are no such sockets, every call does nothing."""
    absent = [Notifier({}), Notifier({"NOTIFY_SOCKET": " ", "WATCHDOG_USEC": "1000000"})]
    monkeypatch.delattr(socket, "AF_UNIX")  # as on Windows
    absent.append(Notifier(listener.environ))
    for notifier in absent:
        notifier.ready()
        assert (notifier.enabled, notifier.watchdog_seconds) == (False, None)


def test_socket_that_is_gone_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A message that cannot be sent raises nothing, and the log says so once."""
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    notifier.ready()
    notifier.watchdog()
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert caplog.messages[0].startswith("cannot send 'READY=1' to systemd: NOTIFY_SOCKET=")


def test_full_queue_holds_nothing_up(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    """Messages that systemd does not take are given up, and what it took is complete."""
    notifier = Notifier(listener.environ)
    while not caplog.records:
        notifier.watchdog()
    assert listener.received() == "WATCHDOG=1"


def test_unknown_kind_of_address_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An address of another family is said not to be reached."""
    assert not Notifier({"NOTIFY_SOCKET": "vsock:2:1234"}).enabled
    (message,) = caplog.messages
    assert message.startswith("NOTIFY_SOCKET='vsock:2:1234' is neither a path nor an abstract")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
    ids=["unset", "set", "for us", "for another", "zero"],
)
def test_watchdog_is_that_of_this_process(
    listener: Listener, environ: dict[str, str], seconds: float | None
) -> None:
    """The period counts if it is meant for this process."""
    assert Notifier(listener.environ | environ).watchdog_seconds == seconds


def test_watchdog_that_cannot_be_read_is_off(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """A period that is no number is logged, and stops nothing."""
    assert Notifier(listener.environ | {"WATCHDOG_USEC": "soon"}).watchdog_seconds is None
    assert caplog.messages[0].startswith("systemd's watchdog is off: WATCHDOG_USEC")


def test_log_that_takes_nothing(tmp_path: Path) -> None:
    """Nobody waits for the warning while the log's reader sleeps: least of all the guard."""

    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            let_go.wait(60)
            logged.append(record.getMessage())
            done.set()

    let_go, done, logged = threading.Event(), threading.Event(), list[str]()
    logger, handler = logging.getLogger("mtaio.app"), Stuck()
    logger.addHandler(handler)
    try:
        Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
        assert logged == []
        let_go.set()
        assert done.wait(60)
    finally:
        logger.removeHandler(handler)
    assert len(logged) == 1
