"""
What trio needs to be on a simulated network.

trio asks for names in a thread, and took the C methods of ``socket.socket`` when it was imported.
For names there is a public way in, and for streams the C methods are right; sockets for datagrams,
whose packets carry the address of the sender, are made by a public factory.

Private hooks, which canary tests watch: ``trio._socket._SocketType`` and its ``_sock``.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import trio
import trio.socket
from trio import _socket

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.testing._world import Beside

__all__ = ["join"]


def join(network: Beside) -> Callable[[], None]:
    """Let trio use a network, in this run; return what ends that."""
    resolver = trio.socket.set_custom_hostname_resolver(Resolver(network))
    factory = trio.socket.set_custom_socket_factory(Factory())

    def leave() -> None:
        trio.socket.set_custom_hostname_resolver(resolver)
        trio.socket.set_custom_socket_factory(factory)

    return leave


class Resolver(trio.abc.HostnameResolver):
    """Asks the network what names mean."""

    def __init__(self, network: Beside) -> None:
        self._network = network

    async def getaddrinfo(self, *args: Any) -> Any:
        """Look a name up."""
        return await self._network.look_up(*args)

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:  # noqa: ARG002
        """Return an address as it is."""
        return str(sockaddr[0]), str(sockaddr[1])


class Factory(trio.abc.SocketFactory):
    """Makes sockets for datagrams whose methods are Python's."""

    def socket(
        self,
        family: Any = socket.AF_INET,
        type: Any = socket.SOCK_STREAM,  # noqa: A002 - the name of the interface
        proto: int = 0,
    ) -> Any:
        """Make a socket."""
        made = socket.socket(family, type, proto)
        if made.type != socket.SOCK_DGRAM:
            return trio.socket.from_stdlib_socket(made)
        return DatagramSocket(made)


class DatagramSocket(_socket._SocketType):  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    """A trio socket for datagrams that calls what ``socket.socket`` has now."""

    async def _call(self, wait: Any, name: str, *args: Any) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                result = getattr(self._sock, name)(*args)
            except BlockingIOError:
                await wait(self._sock)
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return result

    async def recv(self, *args: Any) -> Any:
        """Receive a datagram."""
        return await self._call(trio.lowlevel.wait_readable, "recv", *args)

    async def recv_into(self, *args: Any) -> Any:
        """Receive a datagram into a buffer."""
        return await self._call(trio.lowlevel.wait_readable, "recv_into", *args)

    async def recvfrom(self, *args: Any) -> Any:
        """Receive a datagram and the address of its sender."""
        return await self._call(trio.lowlevel.wait_readable, "recvfrom", *args)

    async def recvfrom_into(self, *args: Any) -> Any:
        """Receive a datagram into a buffer, and the address of its sender."""
        return await self._call(trio.lowlevel.wait_readable, "recvfrom_into", *args)

    async def send(self, *args: Any) -> Any:
        """Send a datagram to the peer."""
        return await self._call(trio.lowlevel.wait_writable, "send", *args)

    async def sendto(self, data: Any, *args: Any) -> Any:
        """Send a datagram to an address."""
        address = await self._resolve_address_nocp(args[-1], local=False)
        return await self._call(trio.lowlevel.wait_writable, "sendto", data, *args[:-1], address)
