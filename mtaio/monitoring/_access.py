"""
Who may see the figures of a process.

Promise: with a token, clients that send it; without one, local clients that name a loopback
address, so that neither a web page (DNS rebinding) nor a proxy that identifies itself opens the
door to others. A proxy that does not cannot be told from a local client: set a token there. The
token appears in no message and no representation.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode
from typing import TYPE_CHECKING, Final

from mtaio._internal import checks
from mtaio._internal.addresses import is_loopback

if TYPE_CHECKING:
    from mtaio.monitoring._endpoints import Request

__all__ = ["Access", "is_forwarded"]


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
        self._token: Final = None if token is None else checks.token("token", token).encode()

    def status(self, request: Request) -> int:
        """Return 200; 401 if the token is missing or wrong, 403 if the client is not local."""
        if self._token is not None:
            given = _credentials(request.authorization)
            return 200 if given is not None and hmac.compare_digest(given, self._token) else 401
        local = request.client_is_local and not request.forwarded
        return 200 if local and _names_loopback(request.host) else 403


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
