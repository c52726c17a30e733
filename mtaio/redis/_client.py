"""
A server that processes share, reached through valkey-glide.

Promise: no call waits longer than its timeout, and every error names the server; if it cannot be
reached, it says why as soon as that is known. If the server is down when the block is entered, each
call tries to connect; if it goes down later, it is reconnected; until then calls fail with
`StoreError`. Nothing stays connected after the block.
Cost: a call is a task switch and a message to a thread of glide's, about 0.1 ms.
Why valkey-glide: docs/en/design/redis.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, cast, final

import anyio

from mtaio._internal import checks, clock
from mtaio._internal.block import Blocks, OwnedBlock
from mtaio.redis._address import ServerAddress, read_files
from mtaio.redis._link import Endpoint, load_glide
from mtaio.redis._store import Argument, Connection, Script, sendable, tasks_of_block
from mtaio.redis._subscription import Subscription

if TYPE_CHECKING:
    from mtaio.redis._link import Link

__all__ = ["RedisStore"]

_REOPEN: Final = 2.0
"""Seconds of nothing but failures after which a new connection is opened."""

_LISTS: Final = ("BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BRPOPLPUSH")
_SETS: Final = ("BZMPOP", "BZPOPMAX", "BZPOPMIN")
_BLOCKING: Final = frozenset((*_LISTS, *_SETS, "WAIT", "WAITAOF"))
_READS: Final = frozenset(("XREAD", "XREADGROUP"))
_SUBSCRIBING: Final = frozenset(("MONITOR", "PSUBSCRIBE", "SSUBSCRIBE", "SUBSCRIBE"))
_CHANGING: Final = frozenset(("AUTH", "HELLO", "MULTI", "QUIT", "RESET", "SELECT"))

_WAY_OUT: Final = (
    "Run it over a connection of its own: 'async with store.dedicated() as connection:', then "
    "connection.command(..., timeout=...)."
)


@final
class RedisStore:
    """
    A Redis or Valkey server that processes share.

    It can be created anywhere, and is used inside ``async with store:`` by one event loop at a
    time. Entering does not connect, so a program can start before its server; the first call
    connects, or fails at once with the reason why it cannot. A lost connection is re-established,
    with about five attempts per second.

    Args:
        url: ``redis://host:port/database``; ``rediss://`` for TLS; ``unix:///path?db=0`` for a Unix
            socket. A user and password go before the host, percent-encoded:
            ``redis://user:password@host``. Of several nodes, ``redis://one:6379,two:6379``, the
            primary is used. Sentinels are not supported.
        timeout: Maximum seconds that a call waits for its answer, including the time to connect.
        cluster: Whether the nodes belong to a cluster; the URL must name at least one of them.
        ca_file: PEM file with the CA certificates that TLS trusts. Default: the system's.
        cert_file: PEM file with the client certificate for TLS.
        key_file: PEM file with the private key of the client certificate. All three files are read
            when the store is created.
        name: Name shown in messages and metrics. Default: the URL without the password.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``url`` is not the URL of a server; ``timeout`` is not greater than 0 or is
            infinite; a file is given for a URL without TLS, or ``cert_file`` without ``key_file``;
            a file cannot be read or is not a valid PEM file; or ``cluster`` is given for a Unix
            socket.
        ImportError: valkey-glide is not installed.

    Example:
        ```python
        import anyio

        from mtaio.redis import RedisStore

        store = RedisStore("redis://127.0.0.1:6379/0", timeout=0.5)


        async def main() -> None:
            async with store:
                print(await store.ping())


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariant: _link and the current block are there between entering and leaving it.
    __slots__ = ("__weakref__", "_blocks", "_endpoint", "_link")

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 1.0,
        cluster: bool = False,
        ca_file: str | PathLike[str] | None = None,
        cert_file: str | PathLike[str] | None = None,
        key_file: str | PathLike[str] | None = None,
        name: str | None = None,
    ) -> None:
        address = ServerAddress.parse(url)
        way_out = "Pass the most seconds that a call may wait, such as 1.0."
        checks.positive("timeout", timeout, way_out=way_out)
        files = {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file}
        given = {key: checks.path(key, value) for key, value in files.items() if value is not None}
        if given and not address.tls:
            msg = (
                f"{' and '.join(given)} given for {address.name}, which does not use TLS. Begin "
                f"the URL with rediss://."
            )
            raise ValueError(msg)
        if ("cert_file" in given) != ("key_file" in given):
            msg = "cert_file and key_file need each other. Pass both or neither."
            raise ValueError(msg)
        if checks.flag("cluster", cluster) and address.path is not None:
            msg = (
                f"cluster=True with {address.name}: the nodes of a cluster have ports. Pass "
                f"redis://host:port."
            )
            raise ValueError(msg)
        if name is not None:
            sendable("name", name, way_out="Pass what messages are to call the server.")
        load_glide()
        self._endpoint = Endpoint(
            address=address,
            name=address.name if name is None else name,
            timeout=timeout,
            cluster=cluster,
            pem=read_files(given),
        )
        self._link: Link | None = None
        self._blocks: Blocks[OwnedBlock] = Blocks()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def __reduce__(self) -> NoReturn:
        msg = (
            f"{self!r} cannot be copied or pickled: it has a connection, and perhaps a password. "
            f"Make another with the same arguments."
        )
        raise TypeError(msg)

    @property
    def name(self) -> str:
        """Name shown in messages and metrics."""
        return self._endpoint.name

    @property
    def timeout(self) -> float:
        """Maximum seconds that a call waits for its answer."""
        return self._endpoint.timeout

    @property
    def cluster(self) -> bool:
        """Whether the nodes belong to a cluster."""
        return self._endpoint.cluster

    async def __aenter__(self) -> Self:
        """
        Enter the block, without connecting.

        A checkpoint only on some event loops.

        Raises:
            RuntimeError: The store is entered already; or another event loop of this process has
                connections, and one of the two is trio's.
            StoreError: The path of a Unix socket is too long for the system.
        """
        self._blocks.vacate(self)
        link = await self._endpoint.open()
        block = OwnedBlock(self)
        await block.enter()
        self._blocks.current = block
        self._link = link
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Close the connection; calls in progress fail.

        A checkpoint.

        Raises:
            RuntimeError: Another task entered the store.
        """
        block = self._blocks.leaving(exc_value)
        if block is None:
            return
        if block.is_over():
            self._blocks.current = self._link = None
            return
        block.cancel()
        # An Exception does not concern the group, and would come back in a group of its own.
        seen = None if isinstance(exc_value, Exception) else exc_value
        left = await block.leave(seen)  # its tasks may still make calls, even open a new connection
        link = self._link
        self._blocks.current = self._link = None
        await cast("Link", link).close("the store was left")
        if seen is None and left.errors:
            raise left.errors[0]  # from a task of this package

    async def ping(self) -> float:
        """
        Check that the server answers, and return the seconds that it took.

        A checkpoint.

        Returns:
            The seconds that the answer took.

        Raises:
            StoreError: The server cannot be reached, did not answer in time, or refused.
            RuntimeError: The store is not entered.
        """
        start = anyio.current_time()
        await self.command("PING")
        return anyio.current_time() - start

    async def script(
        self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()
    ) -> Any:
        """Run a script on the server. For use by this package."""
        return await (await self._current()).script(script, keys, args)

    async def command(self, *args: Argument, timeout: float | None = None) -> Any:
        """
        Run a command on the server.

        A checkpoint. If it is cancelled or raises `StoreError`, the command may or may not have
        run.

        Args:
            *args: Name of the command and its arguments.
            timeout: Maximum seconds to wait for the answer. Default: the store's timeout, which
                only commands that wait at the server may exceed.

        Returns:
            The answer as valkey-glide returns it: ints, floats, bytes, None, lists and dicts.

        Raises:
            StoreError: The server cannot be reached, did not answer in time, or refused.
            ValueError: The command waits at the server, as ``BLPOP`` does, or changes the
                connection, as ``SELECT`` does; it cannot be sent; or ``timeout`` is not greater
                than 0.
            TypeError: An argument has the wrong type, or there are none.
            RuntimeError: The store is not entered.
        """
        _refuse_unshared(args)
        return await (await self._current()).command(*args, timeout=timeout)

    async def scan(self, pattern: str, cursor: Any = None) -> tuple[Any, list[bytes]]:
        """
        Find keys, some at a time, on all nodes of a cluster.

        Call it again with the cursor that it returned until that is None. A checkpoint.

        Args:
            pattern: As for ``SCAN``, where ``*`` stands for any text.
            cursor: Where to continue; None to start.

        Returns:
            The next cursor, None at the end, and some of the keys, possibly none. At the end, every
            key that existed all the time has been returned at least once.

        Raises:
            StoreError, RuntimeError: As for `command`.
        """
        return await (await self._current()).scan(pattern, cursor)

    async def publish(self, channel: str, message: str | bytes) -> None:
        """
        Send a message to the subscribers of a channel.

        A checkpoint, like `command`.
        """
        await (await self._current()).command("PUBLISH", channel, message)

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
        """Deliver the messages of some channels in a block. For use by this package."""
        self._block()
        subscription = Subscription(
            self, self._endpoint, on_message, on_subscribed, on_lost, check_interval=check_interval
        )
        async with tasks_of_block() as tasks:
            tasks.start_soon(subscription.run, frozenset(channels))
            yield

    @asynccontextmanager
    async def dedicated(self) -> AsyncGenerator[Connection]:
        """
        Open a connection of its own for a block, for commands that wait at the server.

        The block gets an object with a method `command` like that of the store. Pass it a
        ``timeout`` that is longer than the command waits.

        Raises:
            RuntimeError: The store is not entered.
        """
        self._block()
        link = await self._endpoint.open()
        try:
            yield link
        finally:
            await link.close()

    async def _current(self) -> Link:
        """Return the connection, or a new one if this one has failed for too long."""
        loop = self._block().loop
        link = cast("Link", self._link)
        # glide keeps trying to reach the primary that it found first, even when another node has
        # become primary. And it reads no answers when the event loop that read them is over.
        patience = max(_REOPEN, 2 * self.timeout)
        if clock.now() - link.failing_since > patience or self._endpoint.is_unread(loop):
            new = await self._endpoint.open()
            old, self._link = self._link, new
            await cast("Link", old).close("it had become silent, and was replaced")
            return new
        return link

    def _block(self) -> OwnedBlock:
        block = self._blocks.current
        if block is None or not block.is_current():
            msg = (
                f"{self!r} is not entered in this event loop. Use it inside 'async with store:', "
                f"in the event loop that entered it."
            )
            raise RuntimeError(msg)
        return block


def _refuse_unshared(args: tuple[Argument, ...]) -> None:
    """
    Raise ``ValueError`` if a command needs a connection of its own.

    On one that others use, everything behind a command that waits at the server waits as well:
    leases run out meanwhile. And one that changes the connection changes what later commands do:
    after ``SELECT``, limits would be counted in another database.
    """
    if not args:
        msg = "command() was called without a command. Pass its name and its arguments."
        raise TypeError(msg)
    name, *options = map(_word, args)
    if "STREAMS" in options:
        options = options[: options.index("STREAMS")]
    if name in _SUBSCRIBING:
        msg = (
            f"{args[0]!r} is followed by messages, which command() cannot return. Use a Redis "
            f"client for it."
        )
    elif name in _BLOCKING or (name in _READS and "BLOCK" in options):
        msg = f"{args[0]!r} would hold up everything else that uses the store. {_WAY_OUT}"
    elif name in _CHANGING:
        msg = f"{args[0]!r} would change the connection that everything else uses. {_WAY_OUT}"
    else:
        return
    raise ValueError(msg)


def _word(arg: Argument) -> str:
    return (arg.decode(errors="replace") if isinstance(arg, bytes) else str(arg)).upper()
