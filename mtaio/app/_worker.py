"""
The side of a worker: one process of several, which a supervisor has started.

Promise: the worker listens at the sockets that its supervisor has bound, says when it is ready and
that it is alive, and stops when it is told to, or when the supervisor is gone, however that ended.
Cost: a thread that waits at a socket.

What is said on that socket, in lines: the worker begins with one of JSON, which says where it wants
to listen, and the answer has the sockets. What systemd would be told follows: ``READY=1``,
``WATCHDOG=1``, ``STOPPING=1``. The supervisor says ``stop``; the end of the connection says so too.
docs/en/design/application.md has the reasons.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from mtaio._internal import environment
from mtaio.app._usage import CommandError, UsageError

if TYPE_CHECKING:
    from mtaio.app._application import Application

__all__ = ["CONTROL", "Worker"]

CONTROL: Final = "MTAIO_WORKER_SOCKET"
"""The variable with the descriptor of the connection to the supervisor."""

_MOST_SOCKETS: Final = 250
"""Linux passes 253 descriptors at once."""
_LONGEST: Final = 65536


class CannotListenError(CommandError):
    """The supervisor cannot listen where the worker wants to."""

    exit_code = 3


class Worker:
    """
    What a worker has of its supervisor.

    Args:
        control: The connection to the supervisor.

    Attributes:
        current: That of this process; None where no supervisor has started it.
    """

    # Invariants:
    # - the thread alone reads from _control; others write whole lines, each in one call;
    # - this process sends itself SIGTERM once at most, and not if it is stopping already: systemd
    #   may have sent it one too, and a second would be taken for a wish to end at once.
    current: ClassVar[Worker | None] = None

    def __init__(self, control: socket.socket) -> None:
        self._control: Final = control
        self._replies: Final[SimpleQueue[tuple[dict[str, Any], list[int]]]] = SimpleQueue()
        self._app: Application | None = None
        self._stopping = False
        threading.Thread(target=self._read_commands, name="mtaio.app worker", daemon=True).start()

    @classmethod
    def begin(cls) -> Self | None:
        """Return what this process has of its supervisor; None if there is none."""
        descriptor = os.environ.pop(CONTROL, None)  # which is not that of a program started here
        if descriptor is None or sys.platform == "win32":
            return None
        # Sent to a whole group, as by a terminal that closes: the supervisor decides.
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)
        os.set_inheritable(int(descriptor), False)  # noqa: FBT003 - as os has it
        return cls(socket.socket(fileno=int(descriptor)))

    @staticmethod
    def fields() -> dict[str, object]:
        """Return what is in each line of a log in JSON: the number of this worker, if it is one."""
        number = os.environ.get(environment.WORKER)
        return {} if number is None else {"worker": number}

    def listen(self, app: Application, *, beats: bool) -> list[str]:
        """
        Return where the application's servers listen: sockets that the supervisor has bound.

        Args:
            app: The application.
            beats: Whether it will go on saying that it is alive.

        Raises:
            UsageError: It has a job, of which each worker would do all.
            CannotListenError: The supervisor cannot listen there.
        """
        if app.jobs:
            msg = (
                f"{app!r} has the job {app.jobs[0].name!r}, of which each worker would do all. Run "
                f"it without workers."
            )
            raise UsageError(msg)
        self._app = app
        settings = app.settings
        hello = {
            "listen": [each.listening() for each in app._registered.servers],  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
            "health": None if app.probes is None else settings.health_bind,
            "drain_delay": settings.drain_delay,
            "beats": beats,
            "total": settings.shutdown.total,
        }
        self._send(json.dumps(hello).encode())
        reply, descriptors = self._replies.get()
        if "error" in reply:
            raise CannotListenError(reply["error"])
        return [f"fd://{each}" for each in descriptors]

    def notify(self, message: bytes) -> None:
        """Tell the supervisor what systemd would be told; from any thread."""
        if message == b"STOPPING=1":
            self._stopping = True
        if message == b"READY=1":
            if self._app is not None and self._app.probes is not None:
                self._send(f"PROBES={self._app.probes.address}".encode())
            if sys.platform != "win32" and callable(signal.getsignal(signal.SIGUSR1)):
                self._send(b"SIGUSR1=1")
        self._send(message)

    def _send(self, line: bytes) -> None:
        if sys.platform == "win32":  # pragma: no cover - Windows
            return
        with suppress(OSError):  # the supervisor is gone, which the thread sees, or stands still
            self._control.send(line + b"\n", socket.MSG_DONTWAIT)

    # ---- in the thread ---------------------------------------------------------------------------

    def _read_commands(self) -> None:
        if sys.platform == "win32":  # pragma: no cover - Windows
            return
        with suppress(OSError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(self._control, _LONGEST, _MOST_SOCKETS)
                if not data:
                    break
                for each in descriptors:
                    os.set_inheritable(each, False)  # noqa: FBT003 - as above
                for line in data.splitlines():
                    if line == b"stop":
                        self._stop()
                    else:
                        self._replies.put((json.loads(line), descriptors))
        self._replies.put(({"error": "the supervisor is gone."}, []))
        self._stop()

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            os.kill(os.getpid(), signal.SIGTERM)
