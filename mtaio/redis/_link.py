"""
One connection to a server: everything in this package that knows valkey-glide.

Promise: `Link` turns glide's errors, and answers that do not come, into `StoreError`, which names
the server. glide is imported when the first store is made, and logs nothing unless the program has
set up its logger.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import math
import os
import re
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import anyio

from mtaio._internal import checks, clock, loops
from mtaio._internal.backend import is_asyncio
from mtaio.exceptions import StoreError
from mtaio.redis._store import sendable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mtaio.redis._address import ServerAddress
    from mtaio.redis._store import Argument, Script

__all__ = ["ConnectedLoops", "Endpoint", "Link", "load_glide"]

_RECONCILE: Final = 200
"""Milliseconds between two checks by which glide makes sure of its subscriptions."""


_RECONNECT: Final = 200
"""Milliseconds between two attempts to restore a connection, within a fifth."""

_STEP: Final = 1000
"""About how many keys one step of a scan looks at."""

_TIMED_OUT: Final = "timed out"
"""How glide's errors end when its own timeout was over a moment before ours."""

_CLOSED: Final = "Multiplexed connection driver unexpectedly terminated"
"""What glide says when the other side closes the connection in place of an answer."""


def load_glide() -> Any:
    """
    Return the module.

    Raises:
        ImportError: It is not installed.
    """
    try:
        return importlib.import_module("glide")
    except ImportError as error:
        msg = (
            "mtaio.redis needs valkey-glide. Install it with: pip install 'mtaio[redis]'. Version "
            "2.6 has wheels for CPython up to 3.14 on macOS and on Linux with glibc; none for "
            "Windows or Alpine."
        )
        raise ImportError(msg, name=error.name) from error


class ConnectedLoops:
    """
    The loops of one process that have connected and are not over; for all threads.

    glide has one pipe for each process. The loop that connected first reads it, and hands on the
    answers of the others, until it ends. Two loops on trio would both read. So a loop that cannot
    be served beside another is refused, in place of calls that are never answered and a trio that
    dies.
    """

    # Invariant: _reader is the loop that reads the pipe, in _loops unless it is over.
    __slots__ = ("_lock", "_loops", "_reader")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Know no loops: this process has just been forked."""
        self._lock = Lock()
        self._loops: list[object] = []
        self._reader: object = None

    def join(self, name: str) -> None:
        """
        Add the running loop, before it connects.

        Args:
            name: To what it connects, for the message.

        Raises:
            RuntimeError: Another loop is there, and one of the two is trio's.
        """
        loop = loops.current_loop()
        with self._lock:
            others = [each for each in self._loops if each is not loop and not loops.is_over(each)]
            if others and not all(map(is_asyncio, (loop, *others))):
                msg = (
                    f"{name} cannot be reached from this event loop: another loop of this process "
                    f"is connected to a server, and valkey-glide serves several loops only if all "
                    f"of them are asyncio's. Hand the work to one event loop with "
                    f"anyio.from_thread.run(), or give each a process of its own."
                )
                raise RuntimeError(msg)
            if self._reader is None or loops.is_over(self._reader):
                self._reader = loop
            self._loops = [*others, loop]

    def is_unread(self, loop: object) -> bool:
        """Return whether no loop reads the pipe until one connects; ``loop`` is running here."""
        reader = self._reader
        return reader is not None and reader is not loop and loops.is_over(reader)


_CONNECTED: Final = ConnectedLoops()
"""Those of this process."""

if hasattr(os, "register_at_fork"):  # pragma: no branch - there is no fork on Windows
    os.register_at_fork(after_in_child=_CONNECTED.forget)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What is needed to connect."""

    address: ServerAddress
    name: str
    timeout: float
    cluster: bool
    pem: dict[str, bytes] = field(repr=False)

    async def open(self, channels: Iterable[str] | None = None, *, attempt: int = 0) -> Link:
        """
        Return a new link; its first command connects.

        Args:
            channels: What to subscribe to.
            attempt: Selects the node of a cluster to subscribe at: every node has all messages.

        Raises:
            RuntimeError: As `ConnectedLoops.join`.
            StoreError: glide refuses.
        """
        glide = load_glide()
        glide.Logger.init(glide.LogLevel.OFF)
        _CONNECTED.join(self.name)
        try:
            config = self._config(glide, channels, attempt)
            alone = channels is not None or not self.cluster
            client = await (glide.GlideClient if alone else glide.GlideClusterClient).create(config)
        except glide.GlideError as error:
            raise _failure(self.name, error) from error
        return Link(client, glide, self.name, self.timeout, hint=self._hint())

    def _hint(self) -> str:
        """Return what may be wrong, in words, if the server never answers."""
        if self.address.tls:
            return " A server without TLS does not answer to rediss://."
        if self.cluster:
            return " A server that is in no cluster does not answer with cluster=True."
        return ""

    def is_unread(self, loop: object) -> bool:
        """Return whether no answer arrives in the running loop before a new link is opened."""
        return _CONNECTED.is_unread(loop)

    def _config(self, glide: Any, channels: Iterable[str] | None, attempt: int) -> Any:
        address = self.address
        milliseconds = max(1, round(self.timeout * 1000))
        nodes = [glide.NodeAddress(host, port) for host, port in address.hosts] or [
            glide.NodeAddress(unix_socket_path=address.path)
        ]
        pem = self.pem
        tls = glide.TlsAdvancedConfiguration(
            root_pem_cacerts=pem.get("ca_file"),
            client_cert_pem=pem.get("cert_file"),
            client_key_pem=pem.get("key_file"),
        )
        advanced = {"connection_timeout": milliseconds, "tls_config": tls if pem else None}
        options: dict[str, Any] = {
            "use_tls": address.tls,
            "request_timeout": milliseconds,
            # Without retries, the first attempt to connect fails with its reason, in place of a
            # timeout. Those that restore a connection go on for ever all the same.
            "reconnect_strategy": glide.BackoffStrategy(0, _RECONNECT, 2, 20),
            "lazy_connect": True,
            "database_id": address.database or None,
            "client_info_tag": "mtaio",
        }
        if address.password is not None:
            options["credentials"] = glide.ServerCredentials(address.password, address.username)
        if self.cluster and channels is None:
            extra = glide.AdvancedGlideClusterClientConfiguration(**advanced)
            return glide.GlideClusterClientConfiguration(nodes, advanced_config=extra, **options)
        kind = glide.GlideClientConfiguration
        if channels is not None:
            advanced["pubsub_reconciliation_interval"] = _RECONCILE
            options["pubsub_subscriptions"] = kind.PubSubSubscriptions(
                {kind.PubSubChannelModes.Exact: set(channels)}, callback=None, context=None
            )
            if self.cluster:
                nodes = [nodes[attempt % len(nodes)]]
                options["node_discovery_mode"] = glide.NodeDiscoveryMode.STATIC
        extra = glide.AdvancedGlideClientConfiguration(**advanced)
        return kind(nodes, advanced_config=extra, **options)


class Link:
    """
    A connection, with the methods of `Connection`.

    Once it is closed, calls fail.

    Args:
        client: glide's client.
        glide: The module.
        name: The server's name in messages.
        timeout: The most seconds that a call waits.
        hint: What errors add when no call has been answered yet.

    Attributes:
        failing_since: Since when every call has failed; ``inf`` if the last one succeeded.
    """

    __slots__ = (
        "_client",
        "_closed",
        "_errors",
        "_glide",
        "_hint",
        "_name",
        "_timeout",
        "failing_since",
    )

    def __init__(
        self, client: Any, glide: Any, name: str, timeout: float, *, hint: str = ""
    ) -> None:
        self._client = client
        self._glide = glide
        self._errors: type[Exception] = glide.GlideError
        self._name = name
        self._timeout = timeout
        self._hint = hint
        self._closed: str | None = None
        self.failing_since: float = math.inf

    async def script(
        self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()
    ) -> Any:
        """Run a script on the server."""
        known = _scripts.get(script)
        if known is None:
            known = _scripts[script] = self._glide.Script(script.source)
        call = self._client.invoke_script(
            known, keys=[*map(_encoded, keys)], args=[*map(_encoded, args)]
        )
        return await self._answer(call, self._timeout)

    async def command(self, *args: Argument, timeout: float | None = None) -> Any:
        """Run a command on the server."""
        if timeout is not None and timeout != math.inf:
            way_out = "Pass the most seconds to wait, or None for the store's timeout."
            checks.positive("timeout", timeout, way_out=way_out)
        call = self._client.custom_command([*map(_encoded, args)])
        return await self._answer(call, self._timeout if timeout is None else timeout)

    async def scan(self, pattern: str, cursor: Any = None) -> tuple[Any, list[bytes]]:
        """Find some keys; return where to go on, and None at the end."""
        cluster: bool = isinstance(self._client, self._glide.GlideClusterClient)
        if cursor is None:
            cursor = self._glide.ClusterScanCursor() if cluster else b"0"
        call = self._client.scan(cursor, match=_encoded(pattern), count=_STEP)
        cursor, keys = await self._answer(call, self._timeout)
        over = cursor.is_finished() if cluster else cursor == b"0"
        return None if over else cursor, keys

    async def message(self) -> tuple[str, bytes] | None:
        """Wait for the next message of the channels subscribed to; None once this is closed."""
        # Shielded: `close` ends the wait. To one that was cancelled glide may still give a message,
        # which asyncio's loop reports as an InvalidStateError.
        got: Any = None
        with anyio.CancelScope(shield=True), contextlib.suppress(self._errors):
            got = await self._client.get_pubsub_message()
        return None if got is None else (got.channel.decode(), got.message)

    async def close(self, reason: str = "the block that used it has ended") -> None:
        """
        Close the connection. Not a checkpoint.

        Args:
            reason: What the errors of calls in progress say.
        """
        self._closed = reason
        await self._client.close()

    async def _answer(self, call: Any, timeout: float) -> Any:
        with anyio.move_on_after(timeout):
            try:
                answer = await call
            except self._errors as error:
                self._failed()
                if self._closed is not None:  # glide does not say why
                    msg = (
                        f"{self._name} did not answer before the connection was closed: "
                        f"{self._closed}."
                    )
                    raise StoreError(msg, server=self._name) from error
                if not str(error).rstrip().endswith(_TIMED_OUT):
                    raise _failure(self._name, error) from error
            else:
                self.failing_since = math.inf
                self._hint = ""
                return answer
        self._failed()
        msg = f"{self._name} did not answer within {timeout:g} s.{self._hint}"
        raise StoreError(msg, server=self._name)

    def _failed(self) -> None:
        self.failing_since = min(self.failing_since, clock.now())


_scripts: WeakKeyDictionary[Script, Any] = WeakKeyDictionary()
"""glide's own objects; it keeps a script for as long as its object lives."""

atexit.register(_scripts.clear)  # an object that outlives the modules prints a traceback


_REFUSED: Final = re.compile(r"[A-Z]+:|An error was signalled by the server")
"""How glide begins what a server has answered; an attempt to connect begins otherwise."""


def _encoded(arg: Argument) -> str | bytes:
    if isinstance(arg, bytes):
        return arg
    if isinstance(arg, str):
        if arg.isascii():  # as almost all are
            return arg
        return sendable("argument", arg, way_out="Pass what UTF-8 can express, or bytes.")
    return repr(checks.number("argument", arg, way_out="Pass a str, bytes or a number."))


def _failure(name: str, error: Exception) -> StoreError:
    text = " ".join(str(error).split())
    refused = _REFUSED.match(text) is not None
    if _CLOSED in text:
        text = (
            "the connection was closed by the server, which may want TLS (rediss://) or a client "
            "certificate (cert_file=), or may not be a Redis or Valkey server"
        )
    return StoreError(f"{name}: {text}", server=name, refused=refused)
