"""
``mtaio run --workers``: the processes, sockets and signals of a `Supervisor`.

Promise: a worker is a new interpreter that runs the same command; it inherits standard output and
error, and of the descriptors only its connection to here. It has a session of its own, so that a
terminal sends its signals to the supervisor alone. POSIX only.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from mtaio._internal import environment
from mtaio.app._listening import Bind, Listening
from mtaio.app._supervisor import SIGHUP, SIGUSR1, SILENT, Supervisor
from mtaio.app._systemd import Notifier
from mtaio.app._usage import UsageError
from mtaio.app._worker import CONTROL
from mtaio.config import Settings
from mtaio.logging import configure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyio.abc import Process, TaskGroup

__all__ = ["supervise", "workers_wanted"]

logger: Final = logging.getLogger("mtaio.app")

_SYSTEMD: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What systemd says to the supervisor, and not to its workers."""
_OWN: Final = ("MTAIO_LOG_", "MTAIO_START_TIMEOUT")
"""How the names of the settings begin that the supervisor reads."""
_LONGEST: Final = 65536


def workers_wanted(option: int | None) -> int:
    """
    Return how many processes there are to be: what the option says, or else the variable.

    Raises:
        UsageError: That cannot be.
    """
    try:
        said = {"MTAIO_WORKERS": os.environ.get("MTAIO_WORKERS", "")}
        settings = Settings.from_env(said) if option is None else Settings(workers=option)
    except ValueError as error:
        raise UsageError(str(error)) from None
    workers = settings.workers
    if workers > 1 and sys.platform == "win32":
        msg = (
            f"workers={workers} needs POSIX: sockets and signals cannot be handed on here. Start "
            f"one process for each address."
        )
        raise UsageError(msg)
    return workers


def supervise(arguments: Sequence[str], workers: int) -> int:
    """
    Run a command in so many processes, until told to stop, and return the exit code.

    Args:
        arguments: Those of ``mtaio``.
        workers: How many.

    Raises:
        UsageError: A setting is wrong.
    """
    # What concerns the supervisor alone: all others are the workers' matter, of whose program it
    # depends which are read.
    own = {key: value for key, value in os.environ.items() if key.startswith(_OWN)}
    try:
        settings = Settings.from_env(own)
        logs = configure(settings, fields={"worker": "0"})
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from None
    try:
        return anyio.run(_supervise, _command(arguments), workers, settings.start_timeout)
    finally:
        logs.close()


async def _supervise(command: Sequence[str], workers: int, start_timeout: float) -> int:
    code = 0
    async with anyio.create_task_group() as group:
        listeners = _Listeners(group)
        launch = partial(_launch, command, workers)
        supervisor = Supervisor(launch, workers, listeners, Notifier(), start_timeout)
        listeners.supervisor = supervisor
        numbers = [signal.SIGTERM, signal.SIGINT, SIGHUP, SIGUSR1]
        # Ignored by whoever has started this, as in the background or by nohup: they stay ignored.
        heard = [each for each in numbers if signal.getsignal(each) is not signal.SIG_IGN]
        try:
            with anyio.open_signal_receiver(*map(signal.Signals, heard)) as signals:
                code = await supervisor.run(signals)
        finally:
            listeners.close()
        group.cancel_scope.cancel()
    return code


def _command(arguments: Sequence[str]) -> list[str]:
    """Return the command of a worker: this interpreter, with its options."""
    flags: Any = vars(subprocess)["_args_from_interpreter_flags"]  # as multiprocessing does
    options: list[str] = flags()
    if not {"", str(Path.cwd())} & set(sys.path[:1]):
        options = [*options, "-P"]  # -m would look for mtaio's own modules in this folder first
    return [sys.executable, *options, "-m", "mtaio", *arguments]


# ---- processes -----------------------------------------------------------------------------------


async def _launch(command: Sequence[str], workers: int, number: int) -> _Process:
    own, others = socket.socketpair()
    with others:
        environ = {key: value for key, value in os.environ.items() if key not in _SYSTEMD}
        environ |= {
            environment.WORKER: str(number),
            "MTAIO_WORKERS": str(workers),  # also where the option has said it
            CONTROL: str(others.fileno()),
            "WATCHDOG_USEC": str(int(SILENT * 1e6)),
        }
        try:
            process = await anyio.open_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=None,
                stderr=None,
                env=environ,
                start_new_session=True,
                pass_fds=[others.fileno()],
            )
        except BaseException:
            own.close()
            raise
    return _Process(process, own)


class _Process:
    """A worker's process, and the connection to it."""

    def __init__(self, process: Process, control: socket.socket) -> None:
        control.setblocking(False)  # noqa: FBT003 - its only argument
        self._process: Final = process
        self._control: Final = control
        self._rest = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    async def receive(self) -> list[str]:
        """Return the next whole lines; none at the end."""
        while True:
            try:
                data = self._control.recv(_LONGEST)
            except BlockingIOError:
                await anyio.wait_readable(self._control)
                continue
            except OSError:
                data = b""
            *lines, self._rest = (self._rest + data).split(b"\n")
            if lines or not data:
                return [line.decode() for line in lines]

    def send(self, line: str, sockets: Sequence[socket.socket] = ()) -> None:
        """Send a line; it is lost if the worker is gone."""
        if sys.platform == "win32":  # pragma: no cover - Windows
            return
        with suppress(OSError):
            descriptors = [each.fileno() for each in sockets]
            socket.send_fds(self._control, [line.encode() + b"\n"], descriptors)

    def kill(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.Signals(number))

    async def wait(self) -> int:
        """Wait for its end, and close the connection."""
        try:
            return await self._process.wait()
        finally:
            self._control.close()


# ---- sockets -------------------------------------------------------------------------------------


class _Listeners:
    """
    The listening sockets of all workers, each bound when the first asks for it.

    Args:
        group: Where probes are answered.
    """

    supervisor: Supervisor

    def __init__(self, group: TaskGroup) -> None:
        self._group: Final = group
        self._listening: Final[dict[tuple[str, int], Listening]] = {}
        self._has_probes = False

    async def open(self, hello: Mapping[str, Any]) -> list[socket.socket]:
        """Return the sockets that a worker asks for, and answer probes from the first on."""
        wanted: dict[tuple[str, int], Mapping[str, Any]] = {}
        for each in hello["listen"]:
            nth = sum(bind == each["bind"] for bind, _ in wanted)  # port 0 may be there twice
            wanted[each["bind"], nth] = each
        if not self._has_probes and hello["health"] is not None:
            await self._answer_probes(hello["health"])
        for key, each in wanted.items():
            if key not in self._listening:
                owner = None if each["owner"] is None else tuple(each["owner"])
                bind = Bind.parse(each["bind"])
                self._listening[key] = Listening(bind, umask=each["umask"], owner=owner)
        return [self._listening[key].socket for key in wanted]

    async def _answer_probes(self, bind: str) -> None:
        from mtaio.monitoring import ProbesRelay, Source  # noqa: PLC0415 - most of what this loads

        def own() -> list[Source]:
            statistics = self.supervisor.statistics()
            return [Source(kind="supervisor", name=None, statistics=statistics)]

        relay = ProbesRelay(self.supervisor.probes, bind=bind, sources=own)
        address = await self._group.start(relay.serve, name="probes")
        logger.info("probes and metrics: %s", address)
        self._has_probes = True

    def refuse(self) -> None:
        """Let nobody join the queues any more."""
        for each in self._listening.values():
            each.refuse()

    def close(self) -> None:
        """Close all sockets."""
        for each in self._listening.values():
            each.close()
