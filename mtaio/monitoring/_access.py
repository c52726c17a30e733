"""
Who may see the figures of a process.

Promise: with a token, clients that send it; without one, local clients that name a loopback
address, so that neither a web page (DNS rebinding) nor a proxy that identifies itself opens the
door to others. A proxy that does not cannot be told from a local client: set a token there. The
token appears in no message and no representation. While wrong tokens come, looking at one takes a
second: who guesses has as many guesses a second as connections.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode
from typing import TYPE_CHECKING, Final

import anyio

from mtaio._internal import checks, clock
from mtaio._internal.addresses import is_loopback
from mtaio.monitoring._delivery import logger

if TYPE_CHECKING:
    from mtaio.monitoring._endpoints import Request

__all__ = ["Access", "WrongTokens", "is_forwarded"]

_PAUSE: Final = 1.0
"""Seconds before a token is looked at, while wrong ones come."""
_PAUSE_AFTER: Final = 10.0
"""For how many seconds after a wrong token there is that pause."""
_BETWEEN_REPORTS: Final = 60.0


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


class WrongTokens:
    """
    The requests that came with a wrong token: counted, logged once a minute, and slowed.

    The pause is before a token is looked at, and the same for a right one: if only the refusal were
    late, an early answer would be what tells, and nobody who guesses would wait for a refusal. It
    does not depend on the client's address, of which an attacker may have many, and a proxy one for
    all.
    """

    __slots__ = ("_last", "_reported", "_unreported", "count")

    def __init__(self) -> None:
        self.count: int = 0
        self._unreported = 0
        self._last: float | None = None
        self._reported: float | None = None

    async def pause(self) -> None:
        """Wait before a token is looked at. A checkpoint while wrong ones come."""
        if _is_within(_PAUSE_AFTER, self._last):
            await anyio.sleep(_PAUSE)

    def add(self, client: str | None, path: str) -> None:
        """Take note of one."""
        self.count += 1
        self._unreported += 1
        self._last = clock.now()
        if not _is_within(_BETWEEN_REPORTS, self._reported):
            logger.warning(
                "wrong token for %s from %s; %d since the last such line",
                path,
                client or "a Unix socket",
                self._unreported,
            )
            self._reported, self._unreported = self._last, 0


def _is_within(seconds: float, moment: float | None) -> bool:
    """Return whether that moment is so many seconds ago at most; not if it is of another loop."""
    return moment is not None and 0 <= clock.now() - moment < seconds


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
