"""
Scripts that a real server runs, for tests on the virtual clock.

A call blocks the event loop until the server has answered, so that it counts as a single step.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from anyio.lowlevel import checkpoint

from tests.redis.exchanging import Slots
from tests.redis.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtaio.redis._store import Argument, Script
    from tests.redis.servers import Server


class Connection:
    """A connection that blocks; as much of the protocol as scripts need."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), 20)
        self._answers = self._socket.makefile("rb")

    def close(self) -> None:
        """Close it."""
        self._answers.close()
        self._socket.close()

    def ask(self, *words: Argument) -> Any:
        """Send a command, and return the answer."""
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        sent = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        self._socket.sendall(b"*%d\r\n%b" % (len(parts), sent))
        return self._read()

    def _read(self) -> Any:
        line = self._answers.readline()
        kind, text = line[:1], line[1:-2]
        if kind == b"*":
            return [self._read() for _ in range(int(text))]
        if kind == b"$":
            return None if text == b"-1" else self._answers.read(int(text) + 2)[:-2]
        if kind == b"+":
            return text
        assert kind == b":", line
        return int(text)


class RealScripts(Slots):
    """The store in memory, but for the scripts."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(latency=0)
        self._connection = connection

    async def script(
        self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()
    ) -> Any:
        """Have the server run it."""
        await checkpoint()
        answer = self._connection.ask("EVAL", script.source, len(keys), *keys, *args)
        await checkpoint()
        return answer


class VirtualScripts(MemoryStore):
    """
    A server in memory whose scripts a real server runs, at the time of the virtual clock.

    All are processes of one server that have the same connection; each is down by itself.
    """

    def __init__(self, connection: Connection, **options: Any) -> None:
        super().__init__(**{"latency": 0.002, **options})
        self._connection = connection

    async def script(
        self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()
    ) -> Any:
        """Have the server run it."""
        source = script.source.replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}")

        def run(data: dict[str, Any], now: float, keys: list[str], args: list[Argument]) -> Any:
            del data
            time = divmod(round(now * 1e6), 10**6)
            return self._connection.ask("EVAL", source, len(keys), *keys, *args, *time)

        return await self._call(run, list(keys), list(args), self.timeout)
