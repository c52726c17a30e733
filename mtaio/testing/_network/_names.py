"""Names and addresses: what a name resolves to, at which moment, and what ``getaddrinfo`` says."""

from __future__ import annotations

import ipaddress
import operator
import socket
from typing import TYPE_CHECKING, Any, Final, TypeGuard

if TYPE_CHECKING:
    from mtaio.testing._network._faults import Faults

__all__ = ["ANY", "LOOPBACK", "Names"]

ANY: Final = "0.0.0.0"  # noqa: S104 - in the simulation, as in the kernel: all addresses of a host
LOOPBACK: Final = "127.0.0.1"
LAST_PORT: Final = 65_535

_WELL_KNOWN: Final = {
    "": ANY,
    ANY: ANY,
    "<broadcast>": "255.255.255.255",
    "localhost": LOOPBACK,
    "ip6-localhost": LOOPBACK,
}
_KINDS: Final = (
    (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
)


def is_tuple(value: object) -> TypeGuard[tuple[Any, ...]]:
    """Return whether a value is a tuple, of whatever."""
    return isinstance(value, tuple)


class Names:
    """
    What names of hosts mean.

    Args:
        faults: Those of the network, some of which keep names from being resolved.
    """

    __slots__ = ("_addresses", "_faults")

    def __init__(self, faults: Faults) -> None:
        self._addresses: dict[str, str] = {}
        self._faults = faults

    def set(self, name: str, address: str | None) -> None:
        """Let a name mean an address from now on; None for no address."""
        name = name.lower().removesuffix(".")
        if address is None:
            self._addresses.pop(name, None)
        else:
            self._addresses[name] = address

    def resolve(self, name: str | bytes) -> str:
        """
        Return the address of a name; an address is its own.

        Raises:
            socket.gaierror: It has none, or a fault says that it cannot be told.
        """
        text = name.decode("idna") if isinstance(name, bytes) else name
        text = text.lower().removesuffix(".")
        if text in _WELL_KNOWN:
            return _WELL_KNOWN[text]
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return self._look_up(text)
        if address.version != 4:  # noqa: PLR2004 - IPv4
            raise socket.gaierror(
                socket.EAI_ADDRFAMILY, "Address family for hostname not supported"
            )
        return str(address)

    def address(self, call: str, address: Any) -> tuple[str, int]:
        """
        Return what a program has passed as an address, with its name resolved.

        Raises:
            TypeError: It is none; with the words of `socket.socket`, as is the next.
            OverflowError: There is no such port.
            socket.gaierror: The name has no address.
        """
        if not is_tuple(address):
            msg = f"{call}(): AF_INET address must be tuple, not {type(address).__name__}"
            raise TypeError(msg)
        if len(address) != len(("host", "port")):
            raise TypeError("AF_INET address must be a pair (host, port)")
        host, port = address[0], operator.index(address[1])
        if not isinstance(host, (str, bytes, bytearray)):
            msg = f"str, bytes or bytearray expected, not {type(host).__name__}"
            raise TypeError(msg)
        ip = self.resolve(host if isinstance(host, str) else bytes(host))
        if not 0 <= port <= LAST_PORT:
            msg = f"{call}(): port must be 0-65535."
            raise OverflowError(msg)
        return ip, port

    def _look_up(self, name: str) -> str:
        fault = self._faults.failing(name)
        if fault is not None:
            fault.strike()
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        address = self._addresses.get(name)
        if address is None:
            error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            error.add_note(
                f"The simulated network has no host {name!r}. It has {', '.join(self._addresses)}. "
                f"Network.host() makes one, Network.name() gives it another name."
            )
            raise error
        return address

    def name_of(self, address: str) -> str:
        """Return a name of an address, or the address."""
        for name, each in self._addresses.items():
            if each == address:
                return name
        return address

    def is_numeric(self, name: object) -> bool:
        """Return whether nobody has to be asked for what a name means."""
        if name is None:
            return True
        text = name.decode("idna") if isinstance(name, bytes) else str(name)
        try:
            ipaddress.ip_address(text)
        except ValueError:
            return text in {"", "localhost"}
        return True

    def getaddrinfo(  # noqa: PLR0917 - the parameters of socket.getaddrinfo
        self,
        host: str | bytes | None,
        port: str | bytes | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - ditto
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Return what ``socket.getaddrinfo`` says on a machine without IPv6."""
        if family not in {0, socket.AF_INET}:
            raise socket.gaierror(
                socket.EAI_ADDRFAMILY, "Address family for hostname not supported"
            )
        if host is None:
            host = ANY if flags & socket.AI_PASSIVE else LOOPBACK
        elif flags & socket.AI_NUMERICHOST and not self.is_numeric(host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        address = self.resolve(host)
        kinds = [
            (kind, number) for kind, number in _KINDS if type in {0, kind} and proto in {0, number}
        ]
        canonical = self.name_of(address) if flags & socket.AI_CANONNAME else ""
        where = (address, _port(port))
        return [(socket.AF_INET, kind, number, canonical, where) for kind, number in kinds]

    def getnameinfo(self, sockaddr: tuple[str, int], flags: int) -> tuple[str, str]:
        """Return what ``socket.getnameinfo`` says; ports are numbers."""
        host, port = sockaddr[:2]
        address = self.resolve(host)
        return address if flags & socket.NI_NUMERICHOST else self.name_of(address), str(port)

    def gethostbyname(self, host: str) -> str:
        """Return what ``socket.gethostbyname`` says."""
        return self.resolve(host)

    def gethostbyname_ex(self, host: str) -> tuple[str, list[str], list[str]]:
        """Return what ``socket.gethostbyname_ex`` says."""
        return host, [], [self.resolve(host)]

    def gethostbyaddr(self, host: str) -> tuple[str, list[str], list[str]]:
        """Return what ``socket.gethostbyaddr`` says."""
        address = self.resolve(host)
        name = self.name_of(address)
        if name == address:
            raise socket.herror(1, "Unknown host")
        return name, [], [address]


def _port(port: str | bytes | int | None) -> int:
    text = port.decode() if isinstance(port, bytes) else port
    if isinstance(text, str) and not text.isdigit():
        try:
            return socket.getservbyname(text)  # reads a file of the machine's, or knows
        except OSError:
            raise socket.gaierror(
                socket.EAI_SERVICE, "Servname not supported for ai_socktype"
            ) from None
    return int(text or 0)
