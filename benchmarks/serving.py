"""
Serving: what ``mtaio run`` adds to a request, beside hypercorn alone with the same configuration.

uvicorn is there for the size of it: its parser of HTTP, httptools, is in C, that of hypercorn, h11,
in Python.

Each server is a process, and has eight clients in this one, which send a minimal request as soon as
they have the answer to the last, on connections that they keep. Neither writes an access log; what
else ``mtaio run`` does goes on: the monitor samples, and the health endpoint listens.

Held is the processor time that a server spends for a request, not the requests a second: the
clients and other programs share the processors, and decide about the latter. Where the server is
what limits them, one is the inverse of the other: 0.95 of hypercorn's requests are 1.053 of its
time.
"""

from __future__ import annotations

import atexit
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks._harness import LOOPS, OURS, Contest, expect, maybe

uvicorn, httptools = maybe("uvicorn"), maybe("httptools")

CLIENTS: Final = 8
REQUESTS: Final = 6_000
"""In a contest's turn: the system counts a process's time in steps of 10 ms, 1.7 µs for each."""
REQUEST: Final = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
ANSWER_ENDS: Final = b"ok"
MOST: Final = 1 / 0.95
ENVIRONMENT: Final = {**os.environ, "MTAIO_HEALTH_BIND": "127.0.0.1:0"}
"""Servers of several loops are there at once, and each needs a port of its own."""


class Served:
    """A server in a process of its own, and the connections to it."""

    def __init__(self, command: list[str], path: str) -> None:
        process = subprocess.Popen(  # noqa: S603 - own code
            command, env=ENVIRONMENT, stderr=subprocess.DEVNULL
        )
        atexit.register(process.wait)
        atexit.register(process.terminate)
        self.process = psutil.Process(process.pid)
        self.clients = [connected(path) for _ in range(CLIENTS)]
        self.ask(REQUESTS)

    def ask(self, requests: int) -> None:
        """Send so many requests, one at a time on each connection."""
        with selectors.DefaultSelector() as selector:
            for client in self.clients:
                selector.register(client, selectors.EVENT_READ)
                client.sendall(REQUEST)
            asked, open_ = CLIENTS, CLIENTS
            while open_:
                for key, _ in selector.select():
                    ready: Any = key.fileobj
                    piece = ready.recv(4096)
                    expect(bool(piece), "kept its connections")
                    if not piece.endswith(ANSWER_ENDS):
                        continue  # the headers come alone
                    if asked < requests:
                        ready.sendall(REQUEST)
                        asked += 1
                    else:
                        open_ -= 1

    def spent(self) -> float:
        """Return the seconds of processor time that the server has taken."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def connected(path: str) -> socket.socket:
    """Return a connection to a server that may still be starting."""
    for _ in range(500):
        family: int = getattr(socket, "AF_UNIX")  # noqa: B009 - Windows has none
        client = socket.socket(family)
        try:
            client.connect(path)
        except OSError:
            client.close()
            time.sleep(0.02)
        else:
            return client
    msg = f"nobody listens at {path}"
    raise TimeoutError(msg)


@cache
def folder() -> str:
    """Return the folder of the sockets."""
    made = tempfile.TemporaryDirectory()
    atexit.register(made.cleanup)
    return made.name


@cache
def served(name: str, loop: str) -> Served:
    """Return the server, which goes on until this process ends."""
    path = str(Path(folder()) / f"{name}-{loop}")
    bind = f"unix:{path}"
    if name == OURS:
        options = ["--backend", loop, "--bind", bind, "--no-access-log"]
        return Served(
            [sys.executable, "-m", "mtaio", "run", "benchmarks._served:application()", *options],
            path,
        )
    if name == "uvicorn":
        options = ["--uds", path, "--loop", loop, "--http", httptools.__name__]
        quiet = ["--no-access-log", "--log-level", "warning", "--timeout-keep-alive", "600"]
        command = [sys.executable, "-m", uvicorn.__name__, "benchmarks._served:app"]
        return Served([*command, *options, *quiet], path)
    return Served([sys.executable, "-m", "benchmarks._served", loop, bind], path)


def processor(name: str, loop: str) -> float:
    """Return the microseconds of processor time that a server takes for a request."""
    server = served(name, loop)
    before = server.spent()
    server.ask(REQUESTS)
    return (server.spent() - before) / REQUESTS * 1e6


def a_second(name: str, loop: str) -> float:
    """Return the requests a second."""
    server = served(name, loop)
    began = time.perf_counter()
    server.ask(REQUESTS)
    return REQUESTS / (time.perf_counter() - began)


def contest(title: str, measure: Any, loop: str, **more: Any) -> Contest:
    contenders: dict[str, Any] = {
        name: partial(measure, name, loop) for name in (OURS, "hypercorn", "uvicorn")
    }
    alone = frozenset({"uvicorn"})
    return Contest(title=title, contenders=contenders, loops=(loop,), asyncio_only=alone, **more)


EVENTS = [
    event
    for loop in LOOPS
    for event in (
        contest("a request: processor time", processor, loop, targets={"hypercorn": MOST}),
        contest("requests a second", a_second, loop, unit="/s"),
    )
]
