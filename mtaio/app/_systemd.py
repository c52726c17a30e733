"""
What a service tells systemd: that it is ready, that it stops, and that it is alive.

Promise: nothing here raises or waits longer than a tenth of a second, whatever the state of the
socket. Without ``NOTIFY_SOCKET``, which systemd sets for ``Type=notify``, and on Windows,
nothing is sent.
Cost: one datagram for each message, from a socket opened for it alone. So systemd may be restarted
between messages, a forked child shares nothing, and any thread may send.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from mtaio._internal import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Notifier"]

_log: Final = logging.getLogger("mtaio.app")

_PATIENCE: Final = 0.1
"""Seconds for systemd to take a message: its queue may be full for a moment."""
_LONGEST_STATUS: Final = 500
"""Characters: systemd ignores a message of more than 4096 bytes."""
_MICROSECONDS: Final = 1_000_000


class Notifier:
    """
    Sends systemd the messages of ``sd_notify(3)``.

    Not a checkpoint, and from any thread. A message that cannot be sent is lost; the first is
    logged as a warning.

    Args:
        environ: The variables that systemd has set; None for those of the process.
        send: What takes each message in systemd's place; None for systemd.
    """

    __slots__ = ("_address", "_instead", "_warned", "enabled", "watchdog_seconds")

    enabled: Final[bool]
    """Whether there is anyone to tell."""
    watchdog_seconds: Final[float | None]
    """Seconds within which systemd wants to hear of `watchdog` again; None if it does not."""

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        send: Callable[[bytes], None] | None = None,
    ) -> None:
        if environ is None:
            environ = os.environ
        self._warned = False
        self._instead: Final = send
        self._address: Final = _address(environ)
        self.enabled = send is not None or self._address is not None
        self.watchdog_seconds = _watchdog_seconds(environ) if self.enabled else None

    def ready(self) -> None:
        """Say that the service has started: systemd then starts the units that wait for it."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Say that the service has begun to stop."""
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """
        Ask for time: systemd waits ``seconds`` from now, or for the time in its unit if longer.

        Args:
            seconds: Until the service has started or stopped, or asks again.
        """
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * _MICROSECONDS)}")

    def status(self, text: str) -> None:
        """
        Say in words how the service is, for ``systemctl status``.

        Args:
            text: One line; cut after 500 characters.
        """
        self._send(f"STATUS={' '.join(text[:_LONGEST_STATUS].split())}")

    def watchdog(self) -> None:
        """Say that the service is alive; at least every half of `watchdog_seconds`."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self._instead is not None:
            self._instead(message.encode("utf-8", "replace"))
            return
        if sys.platform == "win32" or self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_PATIENCE)
                sender.connect(self._address)  # or the timeout would not see that its queue is full
                sender.send(message.encode("utf-8", "replace"))
        except OSError as error:
            if not self._warned:
                self._warned = True
                _aside(partial(self._warn, message, error))

    def _warn(self, message: str, error: OSError) -> None:
        _log.warning(
            "cannot send %r to systemd: NOTIFY_SOCKET=%r: %s. Further failures are not logged.",
            message,
            str(self._address).replace("\0", "@"),
            error,
        )


def _aside(say: Callable[[], None]) -> None:
    """Call ``say`` in a thread that is not waited for if a log handler's lock is held for long."""
    thread = threading.Thread(target=say, name="mtaio.app systemd", daemon=True)
    with suppress(RuntimeError):  # there can be no more threads
        thread.start()
        thread.join(_PATIENCE)


def _address(environ: Mapping[str, str]) -> str | None:
    """Return the address of systemd's socket; None if there is none that can be reached here."""
    path = environment.text(environ, "NOTIFY_SOCKET")
    if path is None or not hasattr(socket, "AF_UNIX"):
        return None
    if path.startswith("@"):  # Linux's abstract sockets, which are in no file system
        return "\0" + path[1:]
    if path.startswith("/"):
        return path
    _log.warning(
        "NOTIFY_SOCKET=%r is neither a path nor an abstract socket: systemd is not notified.", path
    )
    return None


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """Return the unit's ``WatchdogSec``, if it is this process that systemd wants to hear from."""
    try:
        period = environment.text(environ, "WATCHDOG_USEC")
        process = environment.text(environ, "WATCHDOG_PID")
        if period is None or (process is not None and int(process) != os.getpid()):
            return None
        microseconds = int(period)
    except ValueError as error:
        _log.warning("systemd's watchdog is off: WATCHDOG_USEC or WATCHDOG_PID: %s", error)
        return None
    return microseconds / _MICROSECONDS if microseconds > 0 else None
