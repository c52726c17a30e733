"""
Who may see the figures of a process.

Promise: with a token, those who send it; without one, local clients that ask for a loopback address
by its name, so that neither a web page (DNS rebinding) nor a proxy that says it is one opens the
door to others. One that says nothing cannot be told from a local client, and wants a token. The
token is in no message and no representation.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mtaio.monitoring._endpoints import Request

__all__ = ["Access", "is_forwarded", "is_loopback"]


class Access:
    """
    Decides who gets more than a probe's answer.

    Args:
        token: What clients must send; None for local clients only.

    Raises:
        TypeError: ``token`` is not a str.
        ValueError: ``token`` is empty, or cannot be sent in a header field.
    """

    __slots__ = ("_token",)

    def __init__(self, token: str | None) -> None:
        self._token: Final = None if token is None else _checked(token).encode()

    def status(self, request: Request) -> int:
        """Return 200; 401 if the token is missing or wrong, 403 if the client is not local."""
        if self._token is not None:
            given = _credentials(request.authorization)
            return 200 if given is not None and hmac.compare_digest(given, self._token) else 401
        local = request.client_is_local and not request.forwarded
        return 200 if local and _names_loopback(request.host) else 403


def is_loopback(address: str) -> bool:
    """Return whether ``address`` is an IP address that only this machine can reach."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return ip.is_loopback if mapped is None else mapped.is_loopback


def is_forwarded(name: bytes) -> bool:
    """Return whether a header field of this name, in lower case, shows that a proxy sent it."""
    return name in {b"forwarded", b"via", b"x-real-ip"} or name.startswith(b"x-forwarded-")


def _names_loopback(host: str | None) -> bool:
    """Return whether a Host field names this machine, with or without a port."""
    if host is None:
        return False
    name, _, port = host.rpartition(":")
    if not name or host.endswith("]"):
        name, port = host, ""
    if port and not (port.isascii() and port.isdigit()):
        return False
    if name.startswith("[") and name.endswith("]"):
        return is_loopback(name[1:-1])
    return name.lower() == "localhost" or (":" not in name and is_loopback(name))


def _credentials(authorization: bytes | None) -> bytes | None:
    """Return the token in an Authorization field: a Bearer's, or the password of Basic."""
    scheme, _, value = (authorization or b"").partition(b" ")
    value = value.strip(b" ")
    if scheme.lower() == b"bearer":
        return value
    if scheme.lower() == b"basic":
        try:
            _, colon, password = b64decode(value, validate=True).partition(b":")
        except binascii.Error:
            return None
        return password if colon else None
    return None


def _checked(token: object) -> str:
    """Return ``token`` if it can be sent in a header field."""
    if not isinstance(token, str):
        msg = f"token is a {type(token).__name__}, not a str. Pass a long random string."
        raise TypeError(msg)
    if not token.strip():
        raise ValueError("token is empty. Pass a long random string, or None for local use only.")
    if token != token.strip() or not token.isprintable():
        raise ValueError(
            "token begins or ends with whitespace, or has characters that cannot be printed. Pass "
            "token.strip(): a file often ends with a line break."
        )
    return token
