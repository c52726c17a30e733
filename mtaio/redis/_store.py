"""
What the rest of the package needs of a server, and nothing of the client that provides it.

Promise: everything here goes through a `Store`; whatever has these methods can stand in for a
server, as the one that the tests keep in memory does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from mtaio._internal import checks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager

__all__ = ["Argument", "Connection", "Script", "Store", "check_key"]

Argument: TypeAlias = str | bytes | int | float
"""What a command or a script can be given. Numbers are sent as ``repr`` writes them."""


def check_key(key: object) -> None:
    """
    Refuse what cannot be the key of a limit: later it would end the store's block.

    Raises:
        TypeError: It is not a str.
        ValueError: It is empty, or is not text that can be sent.
    """
    way_out = "Pass a str that all processes share."
    if not isinstance(key, str):
        msg = f"key={key!r} is {checks.type_of(key)}, not a str. {way_out}"
        raise TypeError(msg)
    if not key or any("\ud800" <= letter <= "\udfff" for letter in key):
        msg = f"key={key!r} names no limit: it is empty, or has half a character. {way_out}"
        raise ValueError(msg)


class Script:
    """
    A Lua script, which the server runs as one step; made once, at module level.

    Args:
        source: The script. It names the keys that it touches by ``KEYS`` alone, so that it runs on
            a cluster as well, where all of them must be in one slot: put the part that they share
            in braces.
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

        A checkpoint. Cancelled, or ended by a `StoreError`, the script may have been run or not.

        Returns:
            What the script returned: ints, bytes, None, and lists of these. Lua's numbers lose
            their fractions on the way; return them as strings.

        Raises:
            StoreError: The server cannot be reached, did not answer in time, or refused.
        """
        ...

    async def command(self, *args: Argument, timeout: float | None = None) -> Any:
        """
        Run a command on the server; as `script`.

        Args:
            *args: The command's name, and what it takes.
            timeout: Seconds to wait for the answer in place of the store's own, for a command that
                itself waits at the server; such a one needs a connection of its own.
        """
        ...


class Store(Connection, Protocol):
    """A server, which several processes share."""

    @property
    def name(self) -> str:
        """What messages call the server."""
        ...

    @property
    def timeout(self) -> float:
        """The most seconds that a call waits for an answer."""
        ...

    async def publish(self, channel: str, message: str | bytes) -> None:
        """Send a message to all that are subscribed to a channel now; as `script`."""
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
            on_subscribed: Called whenever the subscription has come into force, the first time and
                again after each loss of the connection: what was published before may be missing.
                A connection that was lost and came back between two looks is noticed at the second,
                so the call may come up to ``watch`` seconds after messages do.
            on_lost: Called when nothing can be heard any longer: the subscription does not even
                deliver what it sends to itself. Called once, until `on_subscribed`.
            watch: Seconds between two looks at the subscription.
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
        """Return a block with a connection of its own, for commands that wait at the server."""
        ...
