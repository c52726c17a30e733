"""
The address of a server, read from a URL, and the files that TLS needs.

Promise: anything but the URL of a server is refused when the store is made, and so is a file that
cannot be read or is no certificate: glide would ignore it, and connect to nothing. No message and
no ``repr`` shows a password.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote, urlsplit

from mtaio._internal import checks

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

__all__ = ["ServerAddress", "read_files"]

_PORT: Final = 6379
_WAY_OUT: Final = (
    "Pass a URL such as 'redis://127.0.0.1:6379/0', 'rediss://user:password@host:6380/0' for TLS, "
    "or 'unix:///run/redis.sock'."
)
_TLS: Final = {
    "redis": False,
    "valkey": False,
    "rediss": True,
    "valkeys": True,
    "unix": False,
}


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server is, and how to authenticate."""

    name: str
    """The URL without the password, for messages."""
    hosts: tuple[tuple[str, int], ...] = ()
    """Host and port of each node; empty with a Unix socket."""
    path: str | None = None
    """The path of the Unix socket."""
    tls: bool = False
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: object) -> Self:
        """
        Return the address in ``url``.

        Raises:
            TypeError: ``url`` is not a str.
            ValueError: It is not the URL of a server.
        """
        if not isinstance(url, str):
            msg = f"url is {checks.type_of(url)}, not a str. {_WAY_OUT}"
            raise TypeError(msg)
        scheme, colon, rest = url.partition("://")
        tls = _TLS.get(scheme)
        if not colon or tls is None:
            msg = f"url does not begin with a known scheme. {_WAY_OUT}"
            raise ValueError(msg)
        login, at, place = rest.rpartition("@")
        username, password = _login(login) if at else (None, None)
        if scheme == "unix":
            parts = urlsplit(f"unix://{place}")
            if parts.netloc or not parts.path:
                msg = f"url does not contain the absolute path of a socket. {_WAY_OUT}"
                raise ValueError(msg)
            database = _database(parse_qs(parts.query).get("db", ["0"])[-1])
            path = unquote(parts.path)
            name = f"unix://{path}" + (f"?db={database}" if database else "")
            return cls(name, (), path, tls, database, username, password)
        authority, _, tail = place.partition("/")
        database = _database(tail or "0")
        hosts = tuple(_host(host) for host in authority.split(","))
        shown = ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts
        )
        return cls(f"{scheme}://{shown}/{database}", hosts, None, tls, database, username, password)


def _login(login: str) -> tuple[str | None, str | None]:
    username, _, password = login.partition(":")
    return unquote(username) or None, unquote(password) or None


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        msg = f"url has the database {text!r}, which is not a number. {_WAY_OUT}"
        raise ValueError(msg)
    return int(text)


def _host(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or any(mark in text for mark in "?#"):
        msg = f"url has the host {text!r}, which is not valid. {_WAY_OUT}"
        raise ValueError(msg)
    return host, _PORT if port is None else port


def read_files(files: dict[str, Path]) -> dict[str, bytes]:
    """
    Return what is in the files.

    Args:
        files: By the names of the arguments: ``ca_file``, ``cert_file`` and ``key_file``.

    Raises:
        ValueError: A file cannot be read, or is not what it should be.
    """
    if not files:
        return {}
    used = " and ".join(f"{name}={str(path)!r}" for name, path in files.items())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if "ca_file" in files:
            context.load_verify_locations(files["ca_file"])
        if "cert_file" in files:
            password = ""  # else OpenSSL asks for that of an encrypted key
            context.load_cert_chain(files["cert_file"], files["key_file"], password)
        return {name: path.read_bytes() for name, path in files.items()}
    except OSError as error:  # an ssl.SSLError is one too
        msg = (
            f"{used} cannot be used: {error}. Pass readable PEM files, the key without a password."
        )
        raise ValueError(msg) from error
