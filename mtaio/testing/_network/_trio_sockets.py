"""
What trio needs to be on a simulated network.

trio asks for names in a thread, for which there is a public way in. And it took some methods of
``socket.socket`` when it was imported, which are the real ones: meanwhile its sockets have methods
that call what ``socket.socket`` has now.

Private hooks, which canary tests watch: ``trio._socket._SocketType`` and its ``_sock``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import trio
import trio.socket
from trio import _socket

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.testing._world import Beside

__all__ = ["join"]


TAKEN: Final = (
    "recv",
    "recv_into",
    "recvfrom",
    "recvfrom_into",
    "recvmsg",
    "recvmsg_into",
    "send",
)
"""The methods that trio took when it was imported; the others it looks up as it needs them."""


def join(network: Beside) -> Callable[[], None]:
    """Let trio use a network, in this run; return what ends that."""
    kind: Any = _socket._SocketType  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    resolver = trio.socket.set_custom_hostname_resolver(Resolver(network))
    before = {name: getattr(kind, name) for name in TAKEN}
    for name in TAKEN:
        setattr(kind, name, _method(name))

    def leave() -> None:
        trio.socket.set_custom_hostname_resolver(resolver)
        for name in TAKEN:
            setattr(kind, name, before[name])

    return leave


class Resolver(trio.abc.HostnameResolver):
    """Asks the network what names mean."""

    def __init__(self, network: Beside) -> None:
        self._network = network

    async def getaddrinfo(  # noqa: PLR0917 - the signature of the interface
        self,
        host: Any,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002 - ditto
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """Look a name up."""
        return await self._network.look_up(host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """Look an address up."""
        return self._network.name_info(sockaddr, flags)


def _method(name: str) -> Any:
    """Return a method that does what trio's own does, with the method that sockets have now."""
    wait = trio.lowlevel.wait_writable if name == "send" else trio.lowlevel.wait_readable

    async def method(self: Any, *args: Any) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            result = getattr(self._sock, name)(*args)
        except BlockingIOError:
            pass
        except BaseException:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return result
        while True:
            await wait(self._sock)
            with suppress(BlockingIOError):
                return getattr(self._sock, name)(*args)

    method.__name__ = name
    return method
