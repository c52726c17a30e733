"""The other side of the guide's programs: answers as it is told, and notes what it is asked."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

PATIENCE: Final = 30.0
"""Seconds that anything may take on a busy machine."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request."""

    path: str
    headers: Mapping[str, str]
    body: str
    at: float


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int = 200
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing: a client has left."""


class Site:
    """
    An HTTP server in threads of its own, one for each connection.

    Args:
        answer: Called with each request in the thread of its connection; may take its time.
    """

    def __init__(self, answer: Callable[[Asked], Reply]) -> None:
        self.asked: list[Asked] = []
        self.in_flight = 0
        self.peak = 0
        self._answer = answer
        self._changed = threading.Condition()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length).decode()
                headers = dict(self.headers.items())
                reply = site.answer(Asked(self.path, headers, body, time.monotonic()))
                content = reply.body.encode()
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET  # noqa: N815 - http.server's name

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.address}"

    def answer(self, asked: Asked) -> Reply:
        """Note a request, and answer it."""
        with self._changed:
            self.asked.append(asked)
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            self._changed.notify_all()
        try:
            return self._answer(asked)
        finally:
            with self._changed:
                self.in_flight -= 1
                self._changed.notify_all()

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so that a request has changed."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), [each.path for each in self.asked]

    def wait_asked(self, number: int) -> None:
        """Wait for so many requests."""
        self.wait(lambda: len(self.asked) >= number)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.socket.close()  # not server_close(), which waits for all connections
