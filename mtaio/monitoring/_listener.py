"""
A small HTTP server for probes: whatever clients do, the next one is answered.

Promise: at most 100 connections are open, and the one that has been idle longest makes room for a
new one; a head is limited to 8 KiB and 5 seconds, from the first byte to the last; an answer that
is not taken is given up. So neither many clients, nor slow ones, nor large requests keep out a
probe.
Cost: none while idle; an eighth of a millisecond for each request.

Why not ``http.server``: it has a thread for each connection, and limits neither their number, nor
the time for a head, nor its size.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio
from anyio.lowlevel import checkpoint

from mtaio.monitoring import _http
from mtaio.monitoring._endpoints import Request, Response, text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Counts", "Limits", "Listener"]

_MOST_BUFFERED: Final = _http.MAX_HEAD + len(_http.END)
_AFTER_ERROR: Final = 0.1
"""Seconds until accepting is tried again where there are too many open files."""


class Limits(NamedTuple):
    """What clients may take."""

    connections: int = 100
    """The most that are held."""
    head_seconds: float = 5.0
    """For the first byte of a new connection, and from the first byte of a head to its last."""
    idle_seconds: float = 75.0
    """For the first byte of a further request."""
    answer_seconds: float = 5.0
    """For an answer, and a second more for each `slowest` bytes of it."""
    slowest: int = 65536
    linger_seconds: float = 1.0
    """How long what a refused client still sends is read, so that it gets to read why."""


@dataclass(slots=True)
class Counts:
    """The counts in `ProbesStatistics`."""

    peak: int = 0
    requests: int = 0
    rejected: int = 0
    timed_out: int = 0
    dropped: int = 0


class Listener:
    """
    Accepts connections and answers what comes.

    Args:
        listening: A non-blocking socket that listens.
        respond: Answers one request: it awaits its second argument with the answer.
        limits: What clients may take.
    """

    # Invariant: _connections are those that are open, the one that has been quiet for the longest
    # time first; each leaves it when it is closed, or is to close.
    __slots__ = (
        "_connections",
        "_listening",
        "_respond",
        "counts",
        "limits",
    )

    def __init__(
        self,
        listening: socket.socket,
        respond: Callable[[Request, Callable[[Response], Awaitable[None]]], Awaitable[None]],
        limits: Limits,
    ) -> None:
        self._listening: Final = listening
        self._respond: Final = respond
        self.limits: Final = limits
        self._connections: dict[_Connection, None] = {}
        self.counts: Final = Counts()

    def __len__(self) -> int:
        return len(self._connections)

    async def serve(self) -> None:
        """Serve until cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                try:
                    accepted, address = self._listening.accept()
                except BlockingIOError:
                    await anyio.wait_readable(self._listening)
                    continue
                except OSError:  # pragma: no cover - in a process without a free file descriptor
                    await anyio.sleep(_AFTER_ERROR)
                    continue
                connection = _Connection(self, accepted, address[0])
                group.start_soon(connection.run, name=f"probe from {address[0]}")
                self._admit(connection)
                await checkpoint()

    def close(self) -> None:
        """Close every socket."""
        self._listening.close()
        for connection in self._connections:
            connection.socket.close()
        self._connections.clear()

    async def answer(self, head: _http.Head, connection: _Connection) -> None:
        """Answer a request that is whole."""
        self.counts.requests += 1
        self._connections.pop(connection, None)
        self._connections[connection] = None
        request = Request.of(
            head.method, head.path, head.query, head.fields, client=connection.client
        )
        send = partial(
            connection.send,
            keep_alive=head.keep_alive,
            with_body=head.method != "HEAD",
            chunked=head.takes_chunks,
        )
        await self._respond(request, send)

    def forget(self, connection: _Connection) -> None:
        """Count a connection no longer."""
        self._connections.pop(connection, None)

    def _admit(self, connection: _Connection) -> None:
        if len(self._connections) >= self.limits.connections:
            quiet = next(iter(self._connections))
            del self._connections[quiet]
            quiet.scope.cancel()
            self.counts.dropped += 1
        self._connections[connection] = None
        self.counts.peak = max(self.counts.peak, len(self._connections))


class _Connection:
    """
    One client.

    Args:
        listener: Whose client it is.
        accepted: The socket, which it closes.
        client: The client's address.
    """

    __slots__ = ("_buffer", "_listener", "client", "scope", "socket")

    def __init__(self, listener: Listener, accepted: socket.socket, client: str) -> None:
        accepted.setblocking(False)  # noqa: FBT003 - its only argument
        self._listener = listener
        self._buffer = bytearray()
        self.socket: Final = accepted
        self.client: Final = client
        self.scope: Final = anyio.CancelScope()

    async def run(self) -> None:
        """Answer one request after another, and close the connection."""
        try:
            with self.scope:
                await self._answer_all()
        except OSError:
            pass  # the client is gone
        finally:
            self._listener.forget(self)
            self.socket.close()

    async def send(
        self,
        response: Response,
        *,
        keep_alive: bool,
        with_body: bool = True,
        chunked: bool = True,
    ) -> None:
        """
        Send an answer.

        Args:
            response: The answer.
            keep_alive: Whether another request may follow.
            with_body: False for HEAD.
            chunked: Whether the client understands an answer in chunks.

        Raises:
            ConnectionError: The client does not take it.
        """
        limits = self._listener.limits
        pieces = _http.encode(
            *response, keep_alive=keep_alive, with_body=with_body, chunked=chunked
        )
        with anyio.move_on_after(limits.answer_seconds) as scope:
            for piece in pieces:
                scope.deadline += len(piece) / limits.slowest
                data = memoryview(piece)
                while data:
                    try:
                        data = data[self.socket.send(data) :]
                    except BlockingIOError:
                        await anyio.wait_writable(self.socket)
                await checkpoint()  # others have their turn before the next piece is made
            return
        self._listener.counts.timed_out += 1
        raise ConnectionAbortedError  # the client does not take it

    async def _answer_all(self) -> None:
        limits = self._listener.limits
        patience = limits.head_seconds
        try:
            while (data := await self._head(patience)) is not None:
                head = _http.parse(data)
                await self._listener.answer(head, self)
                if not head.keep_alive:
                    return
                patience = limits.idle_seconds
                await checkpoint()  # a client may send requests faster than they are answered
        except _http.RefusedError as error:
            self._listener.counts.rejected += 1
            await self.send(text(error.status, error.reason), keep_alive=False)
            await self._linger()

    async def _head(self, patience: float) -> bytes | None:
        """
        Return the next head; None if the client has ended, or sends nothing.

        Raises:
            RefusedError: It is too long, too slow, or not the beginning of a request.
        """
        buffer = self._buffer
        seconds = self._listener.limits.head_seconds
        if not buffer:
            with anyio.move_on_after(patience):
                await self._receive()
            if not buffer:
                return None
        with anyio.move_on_after(seconds):
            while (end := buffer.find(_http.END, 0, _MOST_BUFFERED)) < 0:
                if not buffer[:1].isalpha():  # as when a client begins to speak TLS
                    raise _http.RefusedError(400, "this is not HTTP")
                if len(buffer) >= _MOST_BUFFERED:
                    raise _http.RefusedError(
                        431, f"the request head has more than {_http.MAX_HEAD} bytes"
                    )
                if not await self._receive():
                    return None
            head = bytes(buffer[:end])
            del buffer[: end + len(_http.END)]
            return head
        self._listener.counts.timed_out += 1
        raise _http.RefusedError(408, f"the request head did not arrive within {seconds:g} s")

    async def _receive(self) -> bool:
        """Wait for bytes; return False if there are none to come."""
        while True:
            try:
                data = self.socket.recv(_MOST_BUFFERED)
            except BlockingIOError:
                await anyio.wait_readable(self.socket)
            else:
                self._buffer += data
                return bool(data)

    async def _linger(self) -> None:
        """
        Read for a while what a refused client still sends.

        A socket that is closed with bytes unread resets the connection, and with it the answer.
        """
        self.socket.shutdown(socket.SHUT_WR)
        with anyio.move_on_after(self._listener.limits.linger_seconds):
            while True:
                self._buffer.clear()
                if not await self._receive():
                    return
                await checkpoint()
