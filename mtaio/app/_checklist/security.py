"""The checklist, security: the token, the log, the user, the addresses."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mtaio._internal.addresses import Address
from mtaio._internal.checks import parts_of
from mtaio.app._checklist._item import ask, check, fail, ok, warn
from mtaio.app._checklist._look import configures, health_address, log_file
from mtaio.app._server_options import ServerOptions

if TYPE_CHECKING:
    from mtaio.app._certificate import Certificate
    from mtaio.app._checklist._item import Finding
    from mtaio.app._checklist._look import Look

_RENEWED: Final = timedelta(days=21)
_LAST_PART: Final = 0.2
"""A certificate is to be renewed so long before its end, or in this part of its time if it is good
for less than three months, as those are that are renewed by a program."""

_SHORTEST_TOKEN: Final = 16

_HAS_MODES: Final = os.name == "posix"
"""Whether a file says what its owner, its group and everybody may do."""


def _token_source(look: Look) -> str:
    return next(each.source for each in look.settings.describe() if each.secret)


@check("security")
def token(look: Look) -> Finding:
    token, address = look.settings.health_token, look.settings.health_bind
    if token is None:
        return ok(f"none, and only this machine reaches {address}")
    if len(token) < _SHORTEST_TOKEN:
        return fail(
            f"the token for {address} has only {len(token)} characters and can be guessed",
            "Make one with: openssl rand -hex 32",
        )
    if _token_source(look) == "environment":
        return warn(
            "MTAIO_HEALTH_TOKEN is a plain variable: child processes and docker inspect see it",
            "Put it in a file, and set MTAIO_HEALTH_TOKEN_FILE to its path.",
        )
    return ok("from a file" if _token_source(look) == "file" else "from the program")


@check("security")
def token_file(look: Look) -> Finding | None:
    if _token_source(look) != "file" or not _HAS_MODES:
        return None
    path = Path(look.text("MTAIO_HEALTH_TOKEN_FILE") or "")
    mode = path.stat().st_mode
    if mode & stat.S_IWOTH:
        return fail(f"{path} can be written by any user", f"chmod 400 {path}")
    if mode & stat.S_IROTH and not look.machine.container:
        return warn(f"{path} can be read by any user", f"chmod 400 {path}")
    return ok(f"{path} ({stat.filemode(mode)})")


@check("security")
def log_privacy(look: Look) -> Finding | None:
    path = log_file(look)
    if path is None or not path.parent.is_dir() or path.is_dir() or not _HAS_MODES:
        return None
    if path.exists():
        mode, tense = path.stat().st_mode, "is"
    else:
        mode, tense = 0o666 & ~look.machine.umask, "will be"
    if mode & stat.S_IWOTH:
        return fail(f"{path} {tense} writable by any user", _privately(path))
    reachable = all(each.stat().st_mode & stat.S_IXOTH for each in path.parents)
    if mode & stat.S_IROTH and reachable and not look.machine.container:
        return warn(f"{path} {tense} readable by any user", _privately(path))
    return ok("other users cannot read the log")


def _privately(path: Path) -> str:
    change = f"chmod 640 {path}, and " if path.exists() else ""
    return f"{change}UMask=0027 in the unit (umask 027 in a shell), so that new files are private."


@check("security")
def log_masking(look: Look) -> Finding:
    if configures(look):
        return ok("secrets are masked in the log")
    from mtaio.logging import RedactingFilter  # noqa: PLC0415 - only for what others have set up

    bare = [
        type(each).__name__
        for each in logging.getLogger().handlers
        if not any(isinstance(one, RedactingFilter) for one in each.filters)
    ]
    if bare:
        return warn(
            f"{', '.join(bare)} writes secrets as they are",
            "Add a RedactingFilter to it, or leave logging to the application.",
        )
    return ok("secrets are masked in the log")


@check("security", needs_settings=False)
def user(look: Look) -> Finding:
    if look.machine.root:
        return warn(
            "root: an attacker who takes over the service has the machine",
            "Run it as its own user (User= in the unit, USER in the Dockerfile).",
        )
    return ok("not root")


@check("security")
def servers(look: Look) -> Finding | None:
    if look.app is None or not look.app.servers:
        return None
    public = [
        f"{each.name} ({each.address})"
        for each in _served(look)
        if not each.address.is_local and not each.encrypted
    ]
    if public and not look.machine.container:
        return warn(
            f"{', '.join(public)} can be reached from other machines, without encryption",
            "Bind to 127.0.0.1 behind a proxy with TLS, or set MTAIO_CERTFILE and MTAIO_KEYFILE.",
        )
    return ok("open to the network of the container" if public else "local, or encrypted")


@check("security")
def certificate(look: Look) -> Finding | None:
    settings = look.settings
    if look.app is None:
        used = [ServerOptions().certificate(None, settings)]
    else:
        used = [each.certificate(settings) for each in look.app._registered.servers]  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
    found = [_how_long(each) for each in dict.fromkeys(used) if each is not None]
    return min(found, key=lambda each: ("fail", "warn", "ok").index(each.status), default=None)


def _how_long(certificate: Certificate) -> Finding:
    """Return how a certificate stands."""
    try:
        certificate.check()
    except (OSError, ValueError) as error:
        message, remedy = parts_of(error)
        return fail(message, remedy)
    since, until = certificate.validity()
    now = datetime.now(UTC)
    name, end = certificate.certfile, f"{until:%Y-%m-%d %H:%M} UTC"
    renew = "Renew it, and restart the service: it reads its certificate when it starts."
    if now >= until:
        return fail(f"{name} has run out: {end}", renew)
    if now < since:
        return fail(f"{name} is not good before {since:%Y-%m-%d %H:%M} UTC", "Set the clock.")
    if until - now < min(_RENEWED, (until - since) * _LAST_PART):
        return warn(f"{name} is good until {end}", renew)
    return ok(f"{name} is good until {end}")


@check("security")
def ports(look: Look) -> Finding:
    own = health_address(look)
    wanted = [*_served(look), *([] if own is None else [_Served("probes", own)])]
    for one, other in combinations(wanted, 2):
        port = one.address.port
        if port == other.address.port != 0 and _meet(one.address.host, other.address.host):
            return fail(f"{one.name} and {other.name} both want port {port}", "Move one of them.")
    for each in wanted:
        refused = _refused(each.address)
        if refused is not None:
            return fail(f"{each.name} cannot listen at {each.address}: {refused[0]}", refused[1])
    free = ", ".join(map(str, wanted))
    return ok(f"free: {free}" if free else "none is needed")


class _Served(NamedTuple):
    """What listens at an address and a port."""

    name: str
    address: Address
    encrypted: bool = False

    def __str__(self) -> str:
        where = str(self.address)
        return where if self.name == where else f"{self.name} {where}"


def _served(look: Look) -> list[_Served]:
    """Return the servers, without those that listen at a socket file or the like."""
    found: list[_Served] = []
    for each in [] if look.app is None else look.app._registered.servers:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
        try:
            address = Address.parse("bind", each.info.bind)
        except ValueError:
            continue
        encrypted = each.certificate(look.settings) is not None
        found.append(_Served(each.info.name, address, encrypted))
    return found


def _meet(one: str, other: str) -> bool:
    """Return whether two hosts with the same port are in each other's way."""
    return one == other or not {one, other}.isdisjoint({"0.0.0.0", "::"})  # noqa: S104 - compared


def _refused(address: Address) -> tuple[str, str] | None:
    """Return why an address cannot be listened at, and what to do."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            if os.name == "posix":  # pragma: no branch - elsewhere it would share the port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except OSError as error:
        remedies = {
            errno.EADDRINUSE: "Stop what listens there: the service itself, or another program.",
            errno.EACCES: "Use a port from 1024 on, or give the service CAP_NET_BIND_SERVICE.",
        }
        reason = error.strerror or str(error)
        return reason, remedies.get(error.errno or 0, "Use an address of this machine.")
    return None


@check("security")
def access(look: Look) -> Finding | None:
    if look.app is None or not look.app.servers:
        return None
    return ask(
        "who may call the servers? mtaio does not authenticate callers",
        "Authenticate callers in the application, or in a proxy in front of it.",
    )
