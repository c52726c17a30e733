"""
Whom a request comes from, by the word of the proxies in front of a server.

Promise: only what a trusted proxy has written is believed. Of ``X-Forwarded-For``, to which each
proxy appends the address that it was asked from, the last that is no trusted proxy is the client;
whatever a client itself has put there comes before it, and is not looked at.
Cost: nothing without trusted proxies; with them some microseconds a request.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from mtaio._internal import checks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network
    from typing import Self

    from mtaio._internal.asgi import Message

__all__ = ["Proxies"]

_UNIX: Final = "unix"
_SECURE: Final = {b"http": False, b"ws": False, b"https": True, b"wss": True}
_SCHEMES: Final = {"http": ("http", "https"), "websocket": ("ws", "wss")}


class Proxies:
    """
    The proxies that are trusted.

    Args:
        networks: Where they are.
        unix: Whether who comes through a Unix socket is one.
    """

    __slots__ = ("_networks", "_unix")

    def __init__(self, networks: Sequence[IPv4Network | IPv6Network], *, unix: bool) -> None:
        self._networks: Final = networks
        self._unix: Final = unix

    @classmethod
    def parse(cls, name: str, value: object) -> Self | None:
        """Return those that ``value`` lists; None for None and ``""``."""
        way_out = (
            "Pass IP addresses or networks, separated by commas, such as '127.0.0.1,10.0.0.0/8', "
            "and 'unix' for a Unix socket."
        )
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            reason = f"{name}={value!r} is {checks.type_of(value)}, not a str"
            raise checks.refusal(TypeError, reason, way_out)
        words = [each.strip() for each in value.split(",")]
        try:
            networks = [ip_network(each) for each in words if each != _UNIX]
        except ValueError as error:
            reason = f"{name}={value!r} is not a list of addresses and networks: {error}"
            raise checks.refusal(ValueError, reason, way_out) from None
        return cls(networks, unix=_UNIX in words)

    def apply(self, scope: Message) -> None:
        """Put the client and the scheme that a trusted proxy tells of into a request's scope."""
        peer = scope.get("client")
        if not (self._unix if peer is None else self._trusts(_address(peer[0]))):
            return
        forwarded: list[bytes] = []
        proto = b""
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                forwarded.append(value)
            elif name == b"x-forwarded-proto":
                proto = value
        client = None
        for each in reversed(b",".join(forwarded).split(b",")):
            address = _address(each.decode("latin-1"))
            if address is None:  # "unknown", or nothing: who has passed it on is all that is known
                break
            client = address
            if not self._trusts(address):
                break
        if client is not None:
            scope["client"] = (str(client), 0)
        secure = _SECURE.get(proto.rpartition(b",")[2].strip().lower())
        if secure is not None:
            scope["scheme"] = _SCHEMES[scope["type"]][secure]

    def _trusts(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in each for each in self._networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address that an entry writes, perhaps with a port; None if it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped
