"""
What the rest of the package needs of a server, apart from the client that provides it.

That is the protocol of a store, what every user of one checks and raises, and a task group.

Promise: everything here goes through a `Store`. Anything with these methods can stand in for a
server, as the one in memory does that the tests use.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import anyio

from mtaio._internal import checks
from mtaio.exceptions import StoreError

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = [
    "Argument",
    "Connection",
    "Script",
    "Store",
    "check_entered",
    "check_key",
    "check_store",
    "name",
    "own_error",
    "sendable",
    "start",
    "store_left_error",
    "tasks_of_block",
]

Argument: TypeAlias = str | bytes | int | float
"""An argument of a command or a script. Numbers are sent as their ``repr``."""


class Script:
    """
    A Lua script, which the server runs as one step; created once, at module level.

    Args:
        source: The script. All keys that it touches are in ``KEYS``, so that it runs on a cluster
            too. There, they have to be in one slot: put the part that they share in braces.
    """

    __slots__ = ("__weakref__", "source")

    def __init__(self, source: str) -> None:
        self.source: str = source


class Connection(Protocol):
    """One connection to the server."""

    async def script(
        self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()
    ) -> Any:
        """
        Run a script on the server.

        A checkpoint. If it is cancelled, or raises `StoreError`, the script may have been run or
        not.

        Returns:
            What the script returned: ints, bytes, None, and lists of these. Lua's numbers lose
            their fractions on the way; return them as strings.

        Raises:
            StoreError: The server cannot be reached, did not answer in time, or refused.
        """
        ...

    async def command(self, *args: Argument, timeout: float | None = None) -> Any:
        """
        Run a command on the server. A checkpoint, like `script`.

        Args:
            *args: The name of the command, and its arguments.
            timeout: The most seconds to wait for the answer, for a command that waits at the
                server, ``math.inf`` for no limit; such a command needs a dedicated connection.
                Default: the store's timeout.
        """
        ...


class Store(Connection, Protocol):
    """A server that several processes share."""

    @property
    def name(self) -> str:
        """The server's name in messages."""
        ...

    @property
    def timeout(self) -> float:
        """The most seconds that a call waits for an answer."""
        ...

    @property
    def cluster(self) -> bool:
        """
        Whether it is a cluster, where the keys of a script have to be in one slot.

        Without this property a store is taken for a single server.
        """
        ...

    async def scan(self, pattern: str, cursor: Any = None) -> tuple[Any, Sequence[bytes]]:
        """
        Find keys, some at a time: of every node of a cluster. A checkpoint, like `script`.

        Without this method a store serves everything but `TieredCache.clear`.

        Args:
            pattern: As for ``SCAN``.
            cursor: Where to go on, as the last call has returned it.

        Returns:
            Where to go on, None at the end, and some of the keys. At the end, those that were there
            all the time have been found.
        """
        ...

    async def publish(self, channel: str, message: str | bytes) -> None:
        """Send a message to the subscribers of a channel. A checkpoint, like `script`."""
        ...

    def subscribe(
        self,
        channels: Collection[str],
        on_message: Callable[[str, bytes], object],
        on_subscribed: Callable[[], object],
        on_lost: Callable[[], object] | None = None,
        *,
        check_interval: float = 0.5,
    ) -> AbstractAsyncContextManager[None]:
        """
        Return a block in which the messages of some channels are delivered.

        The block begins at once, whether or not the server can be reached. The callbacks are called
        in the event loop, one at a time, and must neither wait nor raise.

        Args:
            channels: Their exact names.
            on_message: Called with the channel and the message, in the server's order.
            on_subscribed: Called when the subscription comes into force: the first time, and after
                each loss of the connection. Messages from before may be missing. A connection that
                is lost and restored between two checks is noticed at the second, so the call may
                come up to ``check_interval`` seconds after the first message.
            on_lost: Called when the subscription no longer delivers even what it sends to itself;
                once, until the next `on_subscribed`.
            check_interval: Seconds between two checks of the subscription.
        """
        ...

    def dedicated(self) -> AbstractAsyncContextManager[Connection]:
        """Return a block with another connection, for commands that wait at the server."""
        ...

    def _block(self) -> _Block:
        """
        Return the store's block.

        Raises:
            RuntimeError: The store is not entered in the running event loop.
        """
        ...


class _Block(Protocol):
    """The block of a store."""

    def start(self, fn: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> object:
        """Start a task that belongs to the block; cancelled when it ends."""
        ...


def check_entered(store: Store) -> None:
    """
    Refuse to be used outside of the store's block.

    Raises:
        RuntimeError: The store is not entered in the running event loop.
    """
    store._block()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package


def start(store: Store, fn: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
    """
    Start a task that belongs to the store's block; cancelled when the block ends.

    Raises:
        RuntimeError: The store is not entered in the running event loop.
    """
    store._block().start(fn, *args)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as above


E = TypeVar("E", bound=Exception)


def own_error(error: E, what: str = "") -> E:
    """
    Return an error that says the same, for one of several tasks: each raises one of its own.

    Args:
        error: A `StoreError`, or one that is made of its message alone.
        what: What it prevented.
    """
    text = f"{what}: {error}" if what else str(error)
    if isinstance(error, StoreError):
        return type(error)(text, server=error.server, refused=error.refused)
    return type(error)(text)


def store_left_error(store: Store, limiter: object) -> RuntimeError:
    """Return the error for tasks that still wait for a limiter when its store's block ends."""
    return RuntimeError(
        f"{store!r} was left while {limiter!r} was in use. Put 'async with store:' around the "
        f"tasks that use it."
    )


@asynccontextmanager
async def tasks_of_block() -> AsyncGenerator[TaskGroup]:
    """
    Yield a task group for tasks that the block needs, which are cancelled when it ends.

    A single error leaves the block as it is, not in a group of one.
    """
    try:
        async with anyio.create_task_group() as tasks:
            try:
                yield tasks
            finally:
                tasks.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        if len(errors.exceptions) == 1:
            raise errors.exceptions[0] from None
        raise


def check_key(key: object) -> None:
    """
    Refuse what cannot be the key of a limit: later it would end the store's block.

    Raises:
        TypeError: It is not a str.
        ValueError: It is empty, or cannot be encoded.
    """
    name("key", key, way_out="Pass a str that all processes share.")


def check_store(store: object) -> None:
    """Raise ``TypeError`` if it is no store."""
    if not hasattr(store, "subscribe"):
        msg = f"store={store!r} is {checks.type_of(store)}, not a store. Pass a RedisStore."
        raise TypeError(msg)


def name(argument: str, value: object, *, way_out: str) -> str:
    """Return ``value`` if it is `sendable` and not empty."""
    accepted = sendable(argument, value, way_out=way_out)
    if not accepted:
        msg = f"{argument}={value!r} is empty. {way_out}"
        raise ValueError(msg)
    return accepted


def sendable(argument: str, value: object, *, way_out: str) -> str:
    """Return ``value`` if it is a str that can be sent."""
    if not isinstance(value, str):
        msg = f"{argument}={value!r} is {checks.type_of(value)}, not a str. {way_out}"
        raise TypeError(msg)
    try:
        value.encode()
    except UnicodeEncodeError:
        msg = (
            f"{argument}={value!r:.100} has half of a surrogate pair, which cannot be sent. "
            f"{way_out}"
        )
        raise ValueError(msg) from None
    return value
