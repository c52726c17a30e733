"""
``mtaio tasks``: what the tasks of a running service wait for, in the terminal.

Promise: it only asks the probes of that service, with the token that the service has. No signal is
sent and no file is written, so neither a wrong number nor another user's file can do harm. What
comes back is shown as text, and nothing in it is acted upon by the terminal.

A process is found by the ports at which it listens, of which one is that of its probes. The token
goes only to where an answer without it has shown that it is asked for there. Why not a signal:
docs/en/design/monitoring.md.
"""

from __future__ import annotations

import http.client
import json as json_format
import os
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from mtaio._internal.addresses import is_loopback
from mtaio._internal.task_document import FORMAT
from mtaio._internal.task_text import TextLine, text_lines
from mtaio.app._usage import CommandError, UsageError
from mtaio.config import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Self

    from mtaio._internal.task_document import Document
    from mtaio._internal.task_text import Style

__all__ = ["tasks"]

_PATIENCE: Final = 10.0
"""Seconds for an answer."""
_PATIENCE_AT_A_PORT: Final = 2.0
"""Seconds for the answer of a port that may not be that of the probes."""
_MOST_PORTS: Final = 20
_MOST_BYTES: Final = 2**26
_MOST_SAID: Final = 200
"""Characters of a refusal that are shown."""
_EVERY: Final = 2.0
"""Seconds between two looks."""

_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "[::1]"}  # noqa: S104 - to be asked, not to listen at
"""What stands for all addresses of a machine, and the one of them to ask."""

_STYLES: Final[dict[Style, str]] = {
    "title": "bold",
    "heading": "bold",
    "bad": "bold red",
    "warn": "yellow",
    "soft": "dim",
    "": "",
}

_OK: Final = 200
_NO_TOKEN: Final = 401
_WAYS_OUT: Final = {
    401: "Set MTAIO_HEALTH_TOKEN, or MTAIO_HEALTH_TOKEN_FILE, to the service's token.",
    403: "It has no token, so ask it on its own machine, by a loopback address.",
    404: "Pass the address of the service's probes, which MTAIO_HEALTH_BIND sets; of several "
    "workers each has its own below that: 127.0.0.1:9464/1.",
    503: "Other clients are reading its tasks: try again.",
}
"""What to do about each status."""

_Flag = Annotated[bool, Parameter(negative="", show_default=False)]


def tasks(
    target: str | None = None,
    /,
    *,
    containing: Annotated[str | None, Parameter(name="--filter")] = None,
    stacks: _Flag = False,
    json: _Flag = False,
    watch: _Flag = False,
) -> None:
    """
    Show what the tasks of a running service wait for, and which task holds it.

    TARGET is the address of the service's probes, such as 127.0.0.1:9464 or
    https://shop.example/health, or the id of its process on this machine. The default is the
    address in MTAIO_HEALTH_BIND. The token is read from MTAIO_HEALTH_TOKEN or
    MTAIO_HEALTH_TOKEN_FILE, as in the service.

    Exit status: 0 if the tasks were shown, 1 without an answer, 2 for a usage error, 130 if
    interrupted.

    Args:
        target: An address, or the id of a process.
        containing: Show only tasks and waits whose line contains this text, with their parents and
            children in the tree.
        stacks: Also show the stack of each task.
        json: Print the service's answer, which is JSON.
        watch: Show the tasks again every 2 seconds, until Ctrl-C.
    """
    console = Console(highlight=False)
    if watch and (json or not console.is_terminal):
        msg = (
            "--watch and --json cannot be combined. Leave one of them out."
            if json
            else "--watch needs a terminal, and the output is not one. Leave it out."
        )
        raise UsageError(msg)
    bind, token = _settings()
    if target is not None and target.isascii() and target.isdigit():
        place = _probes_of(int(target))
    else:
        place = Place.parse(bind if target is None else target)

    def look() -> list[TextLine]:
        shown = _document(place, _ask(place, token))
        return list(text_lines(shown, stacks=stacks, containing=containing))

    if json:
        answer = _ask(place, token)
        _document(place, answer)
        print(answer.decode())  # noqa: T201 - this is what was asked for
    elif watch:
        _watch(console, look)
    else:
        _print(console, look())


def _settings() -> tuple[str, str | None]:
    """Return where a service would answer probes in this environment, and its token."""
    names = ("MTAIO_HEALTH_BIND", "MTAIO_HEALTH_TOKEN", "MTAIO_HEALTH_TOKEN_FILE")
    try:
        settings = Settings.from_env({name: os.environ.get(name, "") for name in names})
    except SettingsError as error:
        raise UsageError(str(error)) from None
    host, _, port = settings.health_bind.rpartition(":")
    return f"{_EVERYWHERE.get(host, host)}:{port}", settings.health_token


# ---- on the screen -------------------------------------------------------------------------------


def _print(console: Console, lines: Iterable[TextLine]) -> None:
    for style, text in lines:
        console.print(Text(text, _STYLES[style]), soft_wrap=True)


def _watch(console: Console, look: Callable[[], list[TextLine]]) -> None:
    """Show the first screen again and again; while there is no answer, the last one and why."""
    lines, problem = look(), list[TextLine]()
    with console.screen(hide_cursor=True):
        while True:
            console.clear()
            width, height = console.size
            for style, text in [*problem, *lines][: height - 1]:
                console.print(Text(text[:width], _STYLES[style]), no_wrap=True, crop=True)
            time.sleep(_EVERY)
            try:
                lines, problem = look(), []
            except CommandError as error:
                problem = [TextLine("bad", str(error))]


# ---- asking --------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where probes are answered."""

    host: str
    port: int
    path: str = "/tasks"
    secure: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}{self.path}"

    @classmethod
    def parse(cls, target: str) -> Self:
        """
        Return the place that an address names.

        Raises:
            UsageError: It is not the address of a server.
        """
        try:
            parts = urlsplit(target if "://" in target else f"http://{target}")
            secure = parts.scheme == "https"
            port = parts.port or (443 if secure else 80)
        except ValueError:
            parts, secure, port = urlsplit(""), False, 0
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
            msg = (
                f"{target!r} is neither an address nor the number of a process. Pass the address "
                f"of the service's probes, such as 127.0.0.1:9464 or https://shop.example/health."
            )
            raise UsageError(msg)
        path = parts.path.rstrip("/").removesuffix("/tasks")
        return cls(parts.hostname, port, f"{path}/tasks", secure)


class _Answer(NamedTuple):
    status: int
    reason: str
    body: bytes
    asks_for_token: bool
    """Whether it comes from probes that want the token."""


def _fetch(place: Place, token: str | None, patience: float) -> _Answer:
    """
    Request the tasks there.

    Raises:
        OSError: Nobody answers.
        http.client.HTTPException: What comes back is not HTTP.
    """
    kind = http.client.HTTPSConnection if place.secure else http.client.HTTPConnection
    connection = kind(place.host, place.port, timeout=patience)
    headers = {"Accept": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request("GET", f"{place.path}?format=json", headers=headers)
        answer = connection.getresponse()
        wanted = answer.getheader("www-authenticate", "")
        body = answer.read(_MOST_BYTES)
        return _Answer(answer.status, answer.reason, body, 'realm="mtaio"' in wanted)
    finally:
        connection.close()


def _ask(place: Place, token: str | None) -> bytes:
    """
    Return the document of the probes there.

    Raises:
        CommandError: There is none.
    """
    try:
        answer = _fetch(place, token, _PATIENCE)
    except (OSError, http.client.HTTPException) as error:
        msg = (
            f"no answer from {place}: {str(error) or type(error).__name__}. Pass the address of "
            f"the service's probes, which MTAIO_HEALTH_BIND sets."
        )
        raise CommandError(msg) from None
    if answer.status == _OK:
        return answer.body
    way_out = _WAYS_OUT.get(answer.status, "")
    if answer.status == _NO_TOKEN and token is not None:
        way_out = "The token in MTAIO_HEALTH_TOKEN is not the service's."
    said = "".join(filter(str.isprintable, answer.body[:_MOST_SAID].decode("ascii", "replace")))
    what = f"{answer.status} {answer.reason}{f': {said}' if said else ''}"
    msg = f"{place} answers {what}. {way_out}".rstrip()
    raise CommandError(msg)


def _document(place: Place, answer: bytes) -> Document:
    """
    Return what an answer says.

    Raises:
        CommandError: It is not the tasks of mtaio.
    """
    try:
        shown = json_format.loads(answer)
        if shown["format"] == FORMAT:
            return cast("Document", shown)
    except (ValueError, TypeError, KeyError):
        msg = f"the answer from {place} is not mtaio's. Pass the address of the service's probes."
        raise CommandError(msg) from None
    msg = f"{place} runs another version of mtaio. Use the version that the service uses."
    raise CommandError(msg)


# ---- processes -----------------------------------------------------------------------------------


def _probes_of(process: int) -> Place:
    """
    Return where a process answers probes.

    Raises:
        UsageError: There is no such process, or it cannot be looked into.
        CommandError: It answers none.
    """
    for place in islice(_listening(process), _MOST_PORTS):
        with suppress(OSError, http.client.HTTPException):
            answer = _fetch(place, None, _PATIENCE_AT_A_PORT)
            if answer.asks_for_token or (answer.status == _OK and _is_document(place, answer.body)):
                return place
    msg = (
        f"process {process} does not answer probes. If it is an mtaio application, kill -USR1 "
        f"{process} makes it write its tasks to standard error; any other program may be ended by "
        f"that."
    )
    raise CommandError(msg)


def _is_document(place: Place, answer: bytes) -> bool:
    try:
        _document(place, answer)
    except CommandError:
        return False
    return True


def _listening(process: int) -> Iterator[Place]:
    """
    Return where a process listens, on this machine alone first.

    Raises:
        UsageError: There is no such process, or it cannot be looked into.
    """
    from mtaio._internal.processes import psutil  # noqa: PLC0415 - for a process alone

    reason = ""
    found: list[Any] = []
    try:
        examined: Any = psutil.Process(process)
        # Called connections() before psutil 6.
        connections = getattr(examined, "net_connections", None) or examined.connections
        found = [each.laddr for each in connections("tcp") if each.status == psutil.CONN_LISTEN]
        if _network_of(process) != _network_of(os.getpid()):
            reason = "is in another network, as in a container. Run the command there"
    except psutil.NoSuchProcess:
        reason = "does not exist. Pass the number of one of this machine"
    except psutil.AccessDenied:
        reason = "is another user's. Run the command as that user"
    if reason:
        msg = f"process {process} {reason}."
        raise UsageError(msg)
    hosts = [(str(each.ip), int(each.port)) for each in found]
    places = {Place(_EVERYWHERE.get(host, host), port) for host, port in hosts}
    yield from sorted(places, key=lambda each: (not is_loopback(each.host), each.port))


def _network_of(process: int) -> str | None:
    """Return the network that a process sees, None where that is always the same."""
    try:
        return str(Path(f"/proc/{process}/ns/net").readlink())
    except OSError:
        return None
