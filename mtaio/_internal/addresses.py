"""
Where to listen: an IP address and a port, written as one text.

Promise: what is not such an address is refused, with the name of the setting that it came from.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

from mtaio._internal import checks

if TYPE_CHECKING:
    from typing import Self

_MAX_PORT: Final = 65535
_PORT_DIGITS: Final = 5
_V6: Final = 6


class Address(NamedTuple):
    """An IP address and a port."""

    host: str
    """An IP address."""
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @classmethod
    def parse(cls, name: str, value: object) -> Self:
        """Return the address that ``value`` writes: a host, a colon and a port."""
        way_out = "Pass a host and a port, such as '127.0.0.1:9464' or '0.0.0.0:9464'."
        if not isinstance(value, str):
            reason = f"{name}={value!r} is {checks.type_of(value)}, not a str"
            raise checks.refusal(TypeError, reason, way_out)
        host, colon, port = value.rpartition(":")
        digits = port.isascii() and port.isdigit() and len(port) <= _PORT_DIGITS
        if not (colon and digits and int(port) <= _MAX_PORT):
            reason = f"{name}={value!r} does not end in a port from 0 to {_MAX_PORT}"
            raise checks.refusal(ValueError, reason, way_out)
        if not host:
            reason = f"{name}={value!r} has no host"
            raise checks.refusal(ValueError, reason, way_out)
        bracketed = host.startswith("[") and host.endswith("]")
        address = (
            "127.0.0.1" if host.lower() == "localhost" else host.strip("[]") if bracketed else host
        )
        try:
            version = ip_address(address).version
        except ValueError:
            reason = f"{name}={value!r} does not begin with an IP address or localhost"
            raise checks.refusal(ValueError, reason, way_out) from None
        if bracketed != (version == _V6):
            reason = f"{name}={value!r} has misplaced brackets: only IPv6 addresses have them"
            raise checks.refusal(ValueError, reason, way_out)
        return cls(address, int(port))


def is_loopback(address: str) -> bool:
    """Return whether ``address`` is an IP address that only this machine can reach."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return ip.is_loopback if mapped is None else mapped.is_loopback
