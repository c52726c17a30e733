"""The command as its users see it: in a process of its own, on a terminal, stopped by Ctrl-C."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest

from mtaio.__main__ import BROKEN_PIPE
from mtaio.app._demo_command import Tally

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    from mtaio.app._demo import Outcome

    Demo = Callable[..., CompletedProcess[str]]

assert sys.platform != "win32"

MTAIO = [sys.executable, "-m", "mtaio", "demo"]


WITHOUT_HYPERCORN = """
import sys
from mtaio.__main__ import main

sys.modules["hypercorn"] = None
sys.exit(main())
"""


def test_run_from_start_to_end(backend: str, folder: Path) -> None:
    """With the extra ``cli`` alone a run ends by itself, with digests and a table."""
    (folder / "a").write_bytes(b"content")
    command = [sys.executable, "-c", WITHOUT_HYPERCORN, "demo"]
    arguments = ["--backend", backend, "--digests"]
    done = subprocess.run(  # noqa: S603 - this very Python, with words written here
        [*command, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    digest = hashlib.sha256(b"content").hexdigest()
    assert (done.returncode, done.stdout) == (0, f"{digest}  ./a\n")
    assert done.stderr.startswith("files ")


@pytest.mark.parametrize("files", [1, 10_000])
def test_digests_that_nobody_reads(folder: Path, files: int) -> None:
    """When the reader of the digests is gone, the run ends silently, however much it printed."""
    for number in range(files):
        (folder / str(number)).touch()
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(  # noqa: S603 - this very Python, with words written here
        [*MTAIO, "--digests"], stdout=theirs, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (BROKEN_PIPE, "")


ASGI = """
async def hello(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
"""


def test_served_until_a_signal(folder: Path) -> None:
    """``mtaio run`` serves an ASGI application where ``--bind`` says, until SIGTERM."""
    (folder / "shop.py").write_text(ASGI)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        host, port = free.getsockname()
    command = [sys.executable, "-m", "mtaio", "run", "shop:hello", "--bind", f"{host}:{port}"]
    environ = {**os.environ, "MTAIO_HEALTH_BIND": "127.0.0.1:0"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ) as process:  # noqa: S603 - this very Python, with words written here
        try:
            assert process.stderr is not None
            log = iter(process.stderr.readline, "")
            assert any("mtaio.app: started in" in line for line in log)
            with closing(HTTPConnection(host, port, timeout=60)) as client:
                client.request("GET", "/")
                assert client.getresponse().read() == b"hello"
            process.terminate()
            rest = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 0
    # Where the machine is slow, the monitor says that the import of hypercorn blocked the loop.
    ours = [line for line in rest.splitlines() if "mtaio.monitoring" not in line]
    assert "INFO mtaio.access [" in ours[0]
    assert " GET / 200, 5 bytes in 0." in ours[0]
    assert ours[1].endswith("stopping: SIGTERM")


def interrupt(*arguments: str) -> tuple[int, str]:
    """Press Ctrl-C when the FIFO "0" has been reported; return exit code and what came after."""
    with subprocess.Popen(  # noqa: S603 - this very Python, with words written here
        [*MTAIO, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "./0: skipped, FIFO\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert out == ""
    return process.returncode, err


def test_interrupt_between_files(backend: str, folder: Path) -> None:
    """Ctrl-C between two files ends the run at once."""
    os.mkfifo(folder / "0")
    for number in range(1, 100):
        (folder / str(number)).touch()
    arguments = ["--backend", backend, "--rate", "0.1", "--limit", "1"]
    assert interrupt(*arguments) == (130, "mtaio: interrupted\n")


def test_interrupt_waits_for_a_checkpoint(
    folder: Path, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C arrives where a task waits, and not inside what must not be interrupted."""
    (folder / "a").touch()
    with (folder / "huge").open("wb") as file:
        file.truncate(1 << 40)  # what is to be interrupted takes long
    steps: list[str] = []
    add = Tally.add

    def slowly(tally: Tally, outcome: Outcome) -> None:
        steps.append("begun")
        signal.raise_signal(signal.SIGINT)
        add(tally, outcome)
        steps.append("done")

    monkeypatch.setattr(Tally, "add", slowly)
    done = demo("--timeout", "86400")
    assert steps == ["begun", "done"]
    assert (done.returncode, done.stderr) == (130, "mtaio: interrupted\n")


def test_interrupt_within_a_file(backend: str, folder: Path) -> None:
    """Ctrl-C stops the reading of a file that would take hours."""
    os.mkfifo(folder / "0")
    with (folder / "huge").open("wb") as file:
        file.truncate(1 << 40)  # a hole, which takes no room
    # With a timeout each file has a call for itself: the FIFO is reported before the other is read.
    arguments = ["--backend", backend, "--timeout", "86400"]
    assert interrupt(*arguments) == (130, "mtaio: interrupted\n")


def test_bar_and_table_on_a_terminal(backend: str, folder: Path) -> None:
    """On a terminal of 80 columns there is a bar, reports stand above it, and the table follows."""
    os.mkfifo(folder / "0")
    for number in range(1, 30):
        (folder / str(number)).write_bytes(b"x" * 1000)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    arguments = ["--backend", backend, "--rate", "50"]
    with subprocess.Popen(  # noqa: S603 - this very Python, with words written here
        [*MTAIO, *arguments], stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        screen = read_all(ours)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen)
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert lines.count("./0: skipped, FIFO") == 1
    bars = [line for line in lines if line.startswith("hashing")]
    assert re.fullmatch(r"hashing ━{24} \d+ files, \d+.* 0:00:0\d", bars[-1])
    assert max(map(len, lines)) <= 80
    assert lines[-9] == bars[-1]  # it stays, above the table
    table = [line.split()[0] for line in lines[-8:]]
    assert table[:4] == ["files", "bytes", "failures", "skipped"]


def read_all(descriptor: int) -> str:
    """Read what a process writes to its terminal, until it is gone."""
    screen = b""
    try:
        while part := os.read(descriptor, 4096):
            screen += part
    except OSError:  # what Linux raises when the other end is closed
        pass
    finally:
        os.close(descriptor)
    return screen.decode()
