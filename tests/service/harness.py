"""A service in a process of its own: started, watched, signalled, and seen to its end."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

import psutil

from tests.service.client import get

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from tests.service.client import Answer

PATIENCE: Final = 30.0
"""Seconds that anything may take on a busy machine."""

TOTAL: Final = 10.0
"""The seconds that the services here have from the signal to the exit."""

LATE: Final = 5.0
"""Seconds by which a busy machine may make an exit later than the service wants it to be."""

PROGRAM: Final = Path(__file__).with_name("scenarios.py")
MIB: Final = 2**20

_PORTS: Final = range(20000, 32000)
"""Below those that the system gives to clients: nobody else takes one while it is free."""

_ports = itertools.cycle([*_PORTS[os.getpid() * 97 % len(_PORTS) :], *_PORTS])


def free_address() -> str:
    """Return an address to listen on."""
    for port in _ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return f"127.0.0.1:{port}"
    raise AssertionError


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until something is so that nothing tells of."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class Output:
    """The lines of a stream, read by a thread as they come."""

    def __init__(self, stream: IO[str]) -> None:
        self.lines: list[str] = []
        self._stream = stream
        self._changed = threading.Condition()
        self._over = False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        for line in self._stream:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def wait(self, text: str, number: int = 1) -> list[str]:
        """Wait for so many lines that have ``text`` in them, and return them."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        with self._changed:
            self._changed.wait_for(lambda: self._over or len(found()) >= number, PATIENCE)
            assert len(found()) >= number, f"not {number} times {text!r} in {self.lines}"
            return found()

    @property
    def text(self) -> str:
        """All lines so far."""
        return "\n".join(self.lines)


class Service:
    """
    A program of `scenarios`, run on an event loop, or any other.

    Args:
        scenario: Its name.
        loop: ``"asyncio"``, ``"uvloop"`` or ``"trio"``.
        folder: Where its log goes.
        options: Variables of the environment, beside those that every service here gets.
        command: What Python is to run instead: a file and its arguments.
    """

    def __init__(
        self,
        scenario: str,
        loop: str,
        folder: Path,
        options: dict[str, str] | None = None,
        command: Sequence[str | Path] = (),
    ) -> None:
        self.address, self.probes = free_address(), free_address()
        self.log_file = folder / "service.log"
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("MTAIO_")},
            "BIND": self.address,
            "SHOP_BIND": self.address,
            "MTAIO_HEALTH_BIND": self.probes,
            "MTAIO_SHUTDOWN_TIMEOUT": str(TOTAL),
            "MTAIO_LOG_FILE": str(self.log_file),
            "PYTHONUNBUFFERED": "1",
            **(options or {}),
        }
        self._process = subprocess.Popen(  # noqa: S603 - this very Python, with a program of ours
            [sys.executable, *(command or (PROGRAM, scenario, loop))],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.out, self.err = Output(self._process.stdout), Output(self._process.stderr)
        self._signalled: float | None = None
        self.seconds = 0.0
        """How long it took from the first signal to the exit."""

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def readiness(self) -> int:
        """Return what ``/readyz`` says, 0 if nobody answers."""
        try:
            return get(self.probes, "/readyz").status
        except OSError:
            return 0

    def wait_readiness(self, status: int) -> Self:
        """Wait until ``/readyz`` says ``status``."""
        end = time.monotonic() + PATIENCE
        while (seen := self.readiness()) != status:
            assert self._process.poll() is None, f"it ended: {self.err.text}"
            assert time.monotonic() < end, f"/readyz says {seen}: {self.err.text}"
            time.sleep(0.02)
        return self

    def get(self, path: str) -> Answer:
        """Ask the service once."""
        return get(self.address, path)

    def metric(self, name: str) -> float:
        """Return the value of a metric, as Prometheus would read it."""
        text = get(self.probes, "/metrics").body.decode()
        values = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name)]
        assert len(values) == 1, f"{len(values)} times {name} in\n{text}"
        return float(values[0])

    def wait_metric(self, name: str, value: float) -> None:
        """Wait until a metric has a value."""
        end = time.monotonic() + PATIENCE
        while (seen := self.metric(name)) != value:
            assert time.monotonic() < end, f"{name} is {seen}"
            time.sleep(0.02)

    def send(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self._signalled = self._signalled or time.monotonic()
        self._process.send_signal(number)

    def wait(self, within: float = PATIENCE) -> int:
        """Wait for the exit, and return its code; all output is there then."""
        code = self._process.wait(within)
        if self._signalled is not None:
            self.seconds = time.monotonic() - self._signalled
        for output in (self.out, self.err):
            output.thread.join(PATIENCE)
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.send(number)
        return self.wait()

    def log(self) -> list[str]:
        """Return the lines of the log file."""
        return self.log_file.read_text(encoding="utf-8").splitlines()

    def rss(self) -> float:
        """Return how much memory the process has, in MiB."""
        return float(psutil.Process(self.pid).memory_info().rss) / MIB

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if sys.platform == "win32":
            return
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # also what it has forked
        self._process.wait()
        for output in (self.out, self.err):
            output.thread.join(PATIENCE)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
        # pytest shows it if the test has failed.
        sys.stderr.write("\n".join(["--- the end of its stderr:", *self.err.lines[-100:], ""]))
