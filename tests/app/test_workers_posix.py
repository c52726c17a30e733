"""``mtaio run --workers`` with real processes: one life, and starts that do not get far."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from mtaio.app import _workers
from mtaio.app._cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

assert sys.platform != "win32"

SHOP = """
import os

from mtaio.app import Application

app = Application()


async def web(scope, receive, send):
    if scope["type"] == "http":
        body = os.environ["MTAIO_WORKER"].encode()
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})


app.serve(web, bind="127.0.0.1:0")
app.serve(web, bind="127.0.0.1:0", name="second")
app.serve(web, bind="unix:shop.sock", name="local")
"""


@pytest.fixture(autouse=True)
def _program(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "shop.py").write_text(SHOP)
    for name in [each for each in os.environ if each.startswith("MTAIO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MTAIO_HEALTH_BIND", "127.0.0.1:0")


def get(address: str, path: str = "/") -> tuple[int, str]:
    """Ask once."""
    with closing(HTTPConnection(address, timeout=60)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def lines_until(process: subprocess.Popen[str], text: str) -> Iterator[str]:
    """Yield what a process writes to its standard error, up to the line with ``text`` in it."""
    assert process.stderr is not None
    for line in process.stderr:
        yield line
        if text in line:
            return
    raise AssertionError(text)


def test_one_life(folder: Path) -> None:
    """Two workers answer at the same sockets, each with its number; SIGTERM ends them with 0."""
    command = [sys.executable, "-X", "utf8", "-m", "mtaio", "run", "shop:app", "--workers=2"]
    environ = os.environ | {"MTAIO_LOG_FILE": str(folder / "shop-{worker}.log")}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ) as process:  # noqa: S603 - this very Python
        said = "".join(lines_until(process, "all 2 workers are ready"))
        listening = set(re.findall(r"Running on http://(127\.0\.0\.1:\d+) ", said))
        assert len(listening) == 2
        assert {get(each)[1] for _ in range(10) for each in listening} <= {"1", "2"}
        with socket.socket(socket.AF_UNIX) as local:
            local.connect(str(folder / "shop.sock"))
        (probes,) = re.findall(r"probes and metrics: (127\.0\.0\.1:\d+)", said)
        assert get(probes, "/readyz") == (200, "ok\n")
        while (metrics := get(probes, "/metrics")[1]).count("\nmtaio_application_up{") < 2:
            time.sleep(0.05)  # each worker has them from its first sample on
        assert metrics.count("\nmtaio_application_up{worker=") == 2
        assert "mtaio_supervisor_ready 2" in metrics
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not (folder / "shop.sock").exists()
    assert "all 2 workers are ready" in (folder / "shop-0.log").read_text()
    for number in (1, 2):
        assert "stopped" in (folder / f"shop-{number}.log").read_text()


def test_module_that_is_missing(capfd: pytest.CaptureFixture[str]) -> None:
    """What keeps all workers from starting is said once, and its exit code is the supervisor's."""
    assert main(["run", "nowhere:app", "--workers", "9"]) == 2
    said = capfd.readouterr().err
    assert said.count("mtaio: there is no module 'nowhere'") == 1
    assert said.count("has started") == 1


def test_address_that_is_taken(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can listen there: one line, and exit code 3. The variable is as good as the option."""
    monkeypatch.setenv("MTAIO_WORKERS", "2")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        monkeypatch.setenv("MTAIO_HEALTH_BIND", address)
        assert main(["run", "shop:app"]) == 3
    assert capfd.readouterr().err.count(f"mtaio: cannot listen at {address}: Address") == 1


def test_process_that_cannot_be_started(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system without another process to give is named, and ends the start with 3."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert main(["run", "shop:app", "--workers", "2"]) == 3
    assert "worker 1 cannot be started: [Errno 2]" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("option", "variables", "message"),
    [
        (["--workers", "0"], {}, "workers=0 is less than 1. Pass a whole number, 1 or more."),
        ([], {"MTAIO_WORKERS": "two"}, "MTAIO_WORKERS='two' is not a whole number. Set it to"),
        (["--workers", "2"], {"MTAIO_LOG_LEVEL": "LOUD"}, "MTAIO_LOG_LEVEL='LOUD'"),
        (["--workers", "2"], {"MTAIO_LOG_FILE": "/no/shop.log"}, "[Errno 2] No such file"),
    ],
)
def test_what_makes_no_sense(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    option: list[str],
    variables: dict[str, str],
    message: str,
) -> None:
    """A number or a log that cannot be is refused before anything has started, with exit code 2."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["run", "shop:app", *option]) == 2
    assert capsys.readouterr().err.startswith(f"mtaio: {message}")


def test_windows_has_no_workers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where sockets cannot be handed on, several workers are refused."""
    monkeypatch.setattr(sys, "platform", "win32")
    assert main(["run", "shop:app", "--workers", "2"]) == 2
    assert capsys.readouterr().err.startswith("mtaio: workers=2 needs POSIX: ")


def test_one_worker_has_no_supervisor(capsys: pytest.CaptureFixture[str]) -> None:
    """``--workers 1`` is what it is without the option, whatever the variable says."""
    assert main(["run", "nowhere:app", "--workers", "1"]) == 2
    assert "has started" not in capsys.readouterr().err


CHILD = """
import os, socket, sys, time
control = socket.socket(fileno=int(os.environ["MTAIO_WORKER_SOCKET"]))
control.sendall(b"one\\n")
control.recv(100)
control.sendall(b"two\\n" + os.environ["MTAIO_WORKER"].encode() + b"\\n")
time.sleep(60)
"""


async def test_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker says arrives in whole lines; one that is gone says and hears no more."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    process = await _workers._launch([sys.executable, "-S", "-c", CHILD], 3, 3)
    assert await process.receive() == ["one"]
    process.send("go on")
    said: list[str] = []
    while len(said) < 2:
        said += await process.receive()
    assert said == ["two", "3"]
    process.send("never read")
    process.kill(signal.SIGKILL)
    while await process.receive():
        raise AssertionError
    assert await process.wait() == -9
    process.kill(signal.SIGTERM)
    process.send("into nothing")


async def test_lines_in_pieces() -> None:
    """A line that arrives in two pieces is one."""
    own, other = socket.socketpair()
    process = _workers._Process(cast("Any", None), own)
    said: list[list[str]] = []

    async def listen() -> None:
        said.append(await process.receive())

    with own, other:
        other.send(b"o")
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            assert said == []
            other.send(b"ne\ntw")
    assert said == [["one"]]


def test_mtaio_is_found_as_by_the_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the current folder take no place of mtaio's own, unless they do here too."""
    monkeypatch.setattr(sys, "path", ["/usr/bin", *sys.path])
    assert "-P" in _workers._command(["run"])
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert "-P" not in _workers._command(["run"])
