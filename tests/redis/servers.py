"""Real servers for tests: Redis and Valkey, each on a free port, stopped at the end."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

KINDS = ("redis-server", "valkey-server")


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Server:
    """
    A server of its own, without persistence.

    Args:
        kind: The program.
        folder: Where it keeps what it has to.
        *options: More of its options, as on the command line.
        port: On which to listen; a free one if None.
    """

    def __init__(self, kind: str, folder: Path, *options: str, port: int | None = None) -> None:
        self.kind = kind
        self.folder = folder
        self.port = free_port() if port is None else port
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        program = shutil.which(self.kind)
        if program is None:
            pytest.skip(f"{self.kind} is not installed")
        self._process = subprocess.Popen(  # noqa: S603 - a server of ours
            [
                *(program, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--dir", str(self.folder), *self.options),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < until, f"{self.kind} does not listen"
                assert self._process.poll() is None, f"{self.kind} has ended"
                time.sleep(0.01)
            else:
                return

    def ask(self, *words: str) -> str:
        """Return what the server's own client answers."""
        program = shutil.which(self.kind.replace("-server", "-cli"))
        assert program is not None
        done = subprocess.run(  # noqa: S603 - a server of ours
            [program, "-p", str(self.port), *words], capture_output=True, text=True, check=True
        )
        return done.stdout

    def wait_for(self, answer: str, *words: str) -> None:
        """Wait until the server's own client answers something with ``answer`` in it."""
        until = time.monotonic() + 30
        while answer not in self.ask(*words):
            assert time.monotonic() < until, f"{self.kind} does not answer {answer!r} to {words}"
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it stand still: connections stay, and nothing is answered."""
        if sys.platform == "win32":
            raise NotImplementedError
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        if sys.platform == "win32":
            raise NotImplementedError
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def serving(kind: str = KINDS[0], *options: str, port: int | None = None) -> Generator[Server]:
    """Have a server in the block."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(kind, Path(folder), *options, port=port)
        server.start()
        try:
            yield server
        finally:
            server.kill()
