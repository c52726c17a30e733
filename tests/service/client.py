"""Clients of a service: plain sockets, so that a test sees how each connection ends."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

PATIENCE: Final = 30.0
"""Seconds that an answer may take on a busy machine."""


class UnansweredError(ConnectionError):
    """The connection ended before the first byte of an answer: the request may be sent again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One connection, kept open from request to request."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, int(self._port))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def send(self, path: str) -> None:
        """Send a request."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read status and headers."""
        try:
            first = await self._reader.readexactly(1)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise UnansweredError from error
        lines = (first + await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.partition(":") for line in lines[1:] if line)
        return int(lines[0].split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def chunk(self) -> bytes:
        """Read the next part of a body that comes in chunks; ``b""`` at its end."""
        length = int(await self._reader.readuntil(b"\r\n"), 16)
        return (await self._reader.readexactly(length + 2))[:-2]

    async def get(self, path: str) -> Answer:
        """Ask, and read the whole answer."""
        self.send(path)
        status, headers = await self.head()
        if "content-length" in headers:
            return Answer(
                status, headers, await self._reader.readexactly(int(headers["content-length"]))
            )
        body = b""
        while part := await self.chunk():
            body += part
        return Answer(status, headers, body)


def get(address: str, path: str) -> Answer:
    """Ask once, on a connection of its own."""

    async def main() -> Answer:
        async with Connection(address) as connection:
            return await connection.get(path)

    return asyncio.run(asyncio.wait_for(main(), PATIENCE))


def accepts(address: str) -> bool:
    """Return whether a connection can be opened."""

    async def main() -> bool:
        try:
            async with Connection(address):
                return True
        except ConnectionRefusedError:
            return False

    return asyncio.run(main())


@dataclass
class Load:
    """
    Many connections at once, in a thread of their own; each takes the next path and asks for it.

    A connection ends when there is no path left, when the server says that it closes it, and when
    the server has closed it.
    """

    address: str
    paths: Iterable[str]
    connections: int = 50
    answers: dict[str, Answer] = field(default_factory=dict)
    """What was answered, by path."""
    unanswered: list[str] = field(default_factory=list)
    """What the server has closed the connection on, or refused to listen to."""
    broken: list[BaseException] = field(default_factory=list)
    """Whatever else has happened: an answer that was cut short, for example."""

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    async def _main(self) -> None:
        paths = iter(self.paths)
        await asyncio.gather(*(self._ask(paths) for _ in range(self.connections)))

    async def _ask(self, paths: Iterable[str]) -> None:
        path = ""
        try:
            async with Connection(self.address) as connection:
                for path in paths:
                    answer = await connection.get(path)
                    with self._changed:
                        self.answers[path] = answer
                        self._changed.notify_all()
                    if answer.headers.get("connection") == "close":
                        return
        except (UnansweredError, ConnectionRefusedError):
            self.unanswered.append(path)
        except Exception as error:  # noqa: BLE001 - the test asserts that there was none
            self.broken.append(error)

    def start(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def wait_answers(self, number: int) -> None:
        """Wait until so many answers have come."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.answers) >= number, PATIENCE)
        assert came, (len(self.answers), self.broken)

    def join(self, within: float = PATIENCE) -> Self:
        """Wait until all connections have ended."""
        self._thread.join(within)
        assert not self._thread.is_alive(), f"{len(self.answers)} answers after {within} s"
        return self


class Feed:
    """A stream that is read in a thread of its own, until its end."""

    def __init__(self, address: str, path: str) -> None:
        self._address, self._path = address, path
        self._first = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self.body = b""
        self.whole = False
        """Whether the stream had an end, and was not cut off."""

    async def _main(self) -> None:
        try:
            async with Connection(self._address) as connection:
                connection.send(self._path)
                await connection.head()
                while part := await connection.chunk():
                    self.body += part
                    self._first.set()
                self.whole = True
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass  # cut off: not whole
        finally:
            self._first.set()

    def start(self) -> Self:
        """Open the stream, and wait for its first bytes."""
        self._thread.start()
        assert self._first.wait(PATIENCE)
        return self

    def join(self, within: float = PATIENCE) -> Self:
        """Wait for the end of the stream."""
        self._thread.join(within)
        assert not self._thread.is_alive()
        return self
