"""A server in this process's memory, for what is to run on the virtual clock."""

from __future__ import annotations

import math
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias
from zlib import crc32

import anyio

from mtaio._internal import clock
from mtaio.exceptions import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Sequence
    from types import TracebackType
    from typing import Self

    from anyio.abc import TaskGroup

    from mtaio.redis._store import Argument, Connection, Script

Handler: TypeAlias = "Callable[[dict[str, Any], float, list[str], list[Argument]], Any]"


class MemoryStore:
    """
    Honours the protocol `Store`, with a function in Python for each script.

    Args:
        scripts: What each script does: called with the data, the server's time, keys and arguments.
        commands: The same for commands, by name in upper case; called with no keys.
        latency: Seconds that a call takes.
        timeout: What it says of itself, and how long a call waits while the server is `down`.

    Attributes:
        data: What is stored.
        calls: How many scripts and commands have reached the server.
        down: Whether the server does not answer.
    """

    def __init__(
        self,
        scripts: dict[Script, Handler] | None = None,
        commands: dict[str, Handler] | None = None,
        *,
        latency: float = 0.001,
        timeout: float = 1.0,
    ) -> None:
        self.scripts = scripts or {}
        self.commands = commands or {}
        self.latency = latency
        self.timeout = timeout
        self.name = "memory://"
        self.data: dict[str, Any] = {}
        self.calls = 0
        self.down = False
        self.cluster = False
        self.skew = 1e6  # its clock is not ours
        self._subscribers: list[_Subscriber] = []
        self._group: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        group, self._group = self._group, None
        if group is None:  # the block of a closed loop, after another was left
            return
        group.cancel_scope.cancel()
        await group.__aexit__(kind, error, trace)

    def _block(self) -> Self:
        return self

    def start(self, fn: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> object:
        """Start a task in the block."""
        if self._group is None:
            msg = "the store in memory is not entered"
            raise RuntimeError(msg)
        return self._group.start_soon(fn, *args)

    async def script(
        self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()
    ) -> Any:
        """Call the function that stands for the script."""
        return await self._call(self.scripts[script], list(keys), list(args), self.timeout)

    async def command(self, *args: Argument, timeout: float | None = None) -> Any:
        """Call the function that stands for the command."""
        handler = self.commands[str(args[0]).upper()]
        return await self._call(
            handler, [], list(args[1:]), self.timeout if timeout is None else timeout
        )

    async def scan(self, pattern: str, cursor: Any = None) -> tuple[Any, list[bytes]]:
        """Find those of one third of the keys that match: one in three places, by their hash."""
        part = cursor or 0

        def find(data: dict[str, Any], *_: object) -> list[bytes]:
            known = re.sub(
                r"\\(.)|\*|[^\\*]",
                lambda found: ".*" if found[0] == "*" else re.escape(found[1] or found[0]),
                pattern,
            )
            return [
                key.encode()
                for key in data
                if crc32(key.encode()) % 3 == part and re.fullmatch(known, key, re.DOTALL)
            ]

        found = await self._call(find, [], [], self.timeout)
        return None if part == 2 else part + 1, found

    async def publish(self, channel: str, message: str | bytes) -> None:
        """Deliver a message at once."""
        await self._call(_nothing, [], [], self.timeout)
        self.deliver(channel, message.encode() if isinstance(message, str) else message)

    def deliver(self, channel: str, content: bytes) -> None:
        """Have all that are subscribed hear a message."""
        for subscriber in self._subscribers:
            if channel in subscriber.channels and subscriber.heard:
                subscriber.on_message(channel, content)

    @asynccontextmanager
    async def subscribe(
        self,
        channels: Collection[str],
        on_message: Callable[[str, bytes], object],
        on_subscribed: Callable[[], object],
        on_lost: Callable[[], object] | None = None,
        *,
        check_interval: float = 0.5,
    ) -> AsyncGenerator[None]:
        """Deliver messages in the block."""
        del check_interval
        subscriber = _Subscriber(channels, on_message, on_subscribed, on_lost)
        self._subscribers.append(subscriber)
        if not self.down:
            subscriber.begin()
        try:
            yield
        finally:
            self._subscribers.remove(subscriber)

    @asynccontextmanager
    async def dedicated(self) -> AsyncGenerator[Connection]:
        """Yield the store itself."""
        yield self

    def fail(self) -> None:
        """No longer answer."""
        self.down = True
        for subscriber in self._subscribers:
            subscriber.lose()

    def deafen(self) -> None:
        """Deliver no more messages, and let those who listen know."""
        for subscriber in self._subscribers:
            subscriber.lose()

    def listeners(self, channel: str | None = None) -> int:
        """Return how many hear messages, or those of a channel."""
        return sum(each.heard for each in self._subscribers if channel in {None, *each.channels})

    def recover(self) -> None:
        """Answer again, with what was stored."""
        self.down = False
        for subscriber in self._subscribers:
            subscriber.begin()

    def reconnect(self) -> None:
        """Break and restore every subscription, as glide does."""
        self.fail()
        self.recover()

    async def _call(
        self, handler: Handler, keys: list[str], args: list[Argument], timeout: float
    ) -> Any:
        await anyio.sleep(self.latency / 2)
        if self.down:
            await anyio.sleep(max(0.0, timeout - self.latency / 2))
            msg = f"{self.name} did not answer within {timeout:g} s."
            raise StoreError(msg, server=self.name)
        self.calls += 1
        answer = handler(self.data, clock.now() + self.skew, keys, args)
        await anyio.sleep(self.latency / 2)
        return answer


class _Subscriber:
    def __init__(
        self,
        channels: Collection[str],
        on_message: Callable[[str, bytes], object],
        on_subscribed: Callable[[], object],
        on_lost: Callable[[], object] | None,
    ) -> None:
        self.channels = frozenset(channels)
        self.on_message = on_message
        self.heard = False
        self._on_subscribed = on_subscribed
        self._on_lost = on_lost

    def begin(self) -> None:
        self.heard = True
        self._on_subscribed()

    def lose(self) -> None:
        if self.heard:
            self.heard = False
            if self._on_lost is not None:
                self._on_lost()


def _nothing(data: dict[str, Any], now: float, keys: list[str], args: list[Argument]) -> Any:
    del data, keys, args
    return math.floor(now)
