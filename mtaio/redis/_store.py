"""
What the rest of the package needs of a server, apart from the client that provides it.

Promise: everything here goes through a `Store`. Anything with these methods can stand in for a
server, as the one in memory does that the tests use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from mtaio.exceptions import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager

__all__ = ["Argument", "Connection", "Script", "Store", "own_error", "store_left_error"]

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
                server; such a command needs a dedicated connection. Default: the store's timeout.
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
        watch: float = 0.5,
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
                come up to ``watch`` seconds after the first message.
            on_lost: Called when the subscription no longer delivers even what it sends to itself;
                once, until the next `on_subscribed`.
            watch: Seconds between two checks of the subscription.
        """
        ...

    def check_entered(self) -> None:
        """
        Refuse to be used outside of the block.

        Raises:
            RuntimeError: The store is not entered in the running event loop.
        """
        ...

    def start(self, fn: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> object:
        """
        Start a task that belongs to the store's block; cancelled when the block ends.

        Raises:
            RuntimeError: The store is not entered in the running event loop.
        """
        ...

    def dedicated(self) -> AbstractAsyncContextManager[Connection]:
        """Return a block with another connection, for commands that wait at the server."""
        ...


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
