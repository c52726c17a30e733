"""
The supervisor: starts worker processes, keeps them running, and stops them.

Promise: each listening socket is bound once, here, and handed to each worker. A worker that dies is
followed by another, at once if it had lived for a while, else after a wait that doubles each time.
One that is not ready in time counts as dead. If the first cannot start, or later none can, the
supervisor ends with the worker's exit code. All workers stop together, within the time of one, and
none outlives the supervisor.
Cost: a small process, which never imports the program: nothing of it can block or end this one.

`Supervisor` decides, and knows workers by what a `Process` offers; `mtaio.app._workers` starts real
ones. Why the program says where to listen, and the supervisor binds: docs/en/design/application.md.
"""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import anyio

from mtaio._internal import clock
from mtaio._internal.statistics import COUNTER, GAUGE, LIMIT, snapshot
from mtaio.app._guard import OVERRUN
from mtaio.config import Settings

if TYPE_CHECKING:
    import socket

    from anyio.abc import TaskGroup

    from mtaio.app._systemd import Notifier

__all__ = ["Listeners", "Process", "Supervisor", "SupervisorStatistics"]

SILENT: Final = 30.0
"""Seconds without an answer of its loop after which a worker is stopped, as for ``/livez``."""
STAYED: Final = 30.0
"""Seconds after which a worker counts as one that works: the next may start at once."""

_SHORTEST: Final = 0.5
_LONGEST: Final = 30.0
"""Seconds to wait before another worker is started, at first and at most."""
_TRIES: Final = 5
"""Starts in a row that may fail while no worker is ready."""

_AGAIN: Final = 0.3
"""Seconds within which another signal is the same wish, as for a single process."""
_MARGIN: Final = 2.0
"""Seconds after its own deadline in which a worker has ended itself, or is killed."""

_NOT_STARTED: Final = 3

# Windows has none of these, and no supervisor.
SIGHUP: Final[int] = getattr(signal, "SIGHUP", -1)
SIGUSR1: Final[int] = getattr(signal, "SIGUSR1", -2)
SIGKILL: Final[int] = getattr(signal, "SIGKILL", -9)

logger: Final = logging.getLogger("mtaio.app")


class Process(Protocol):
    """A worker's process."""

    @property
    def pid(self) -> int:
        """Its number in the system."""
        ...

    async def receive(self) -> list[str]:
        """Wait for what it says next, in lines; empty when it says nothing more."""
        ...

    def send(self, line: str, sockets: Sequence[socket.socket] = ()) -> None:
        """Tell it something, with sockets; without waiting, and lost if it is gone."""
        ...

    def kill(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        ...

    async def wait(self) -> int:
        """Wait for its end, and return its exit code; below 0 for a signal."""
        ...


class Listeners(Protocol):
    """The listening sockets of all workers."""

    async def open(self, hello: Mapping[str, Any]) -> list[socket.socket]:
        """Return the sockets that a worker asks for; raise ``OSError`` if one cannot listen."""
        ...

    def refuse(self) -> None:
        """Let nobody connect any more, while those who have can still be accepted."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorStatistics:
    """The state and counts of the supervisor of ``mtaio run --workers``."""

    workers: int = field(metadata=LIMIT)
    """The number of workers that should run."""
    ready: int = field(metadata=GAUGE)
    """Workers that are ready."""
    started: int = field(metadata=COUNTER)
    """Workers that were started."""
    died: int = field(metadata=COUNTER)
    """Workers that ended without having been told to."""
    silent: int = field(metadata=COUNTER)
    """Workers that were stopped because their event loop did not answer."""


class _Worker:
    """A worker, from its start to its end."""

    def __init__(self, process: Process) -> None:
        self.process: Final = process
        self.began: Final = clock.now()
        self.total = Settings().shutdown.total
        self.probes: str | None = None
        self.beats = self.prints_tasks = False
        self.ready = self.stop_sent = self.overran = self.late = False
        self.settled: Final = anyio.Event()
        """Set when it is ready, or has ended before that."""
        self.stopping: Final = anyio.Event()
        self.interrupted: Final = anyio.Event()
        self.replaced: Final = anyio.Event()
        """Set when there is another in its place, or will be none."""
        self.answered = anyio.Event()

    @property
    def is_up(self) -> bool:
        return self.ready and not self.stopping.is_set()

    def stop(self) -> None:
        """Tell it to stop, once."""
        if not self.stop_sent:
            self.stop_sent = True
            self.stopping.set()
            self.process.send("stop")

    def interrupt(self, number: int) -> None:
        """Send it a signal that ends it at once."""
        self.process.kill(number)
        self.stopping.set()
        self.interrupted.set()

    def code(self, code: int) -> int:
        """Return its exit code as a shell would have it."""
        if self.late:
            return _NOT_STARTED
        if self.overran:
            return OVERRUN
        if code == -signal.SIGTERM and self.stop_sent and not self.ready:
            return 0  # it had nothing to close yet
        return code if code >= 0 else 128 - code


class _Slot:
    """A worker's number, and who has it."""

    def __init__(self, number: int) -> None:
        self.number: Final = number
        self.worker: _Worker | None = None
        self.latest: _Worker | None = None
        """The same, and when it has ended."""
        self.failures = 0
        """Workers in a row that ended soon."""
        self.hurry = anyio.Event()
        """Set when another is not to be waited for any longer."""


class _Counts:
    __slots__ = ("died", "silent", "started")

    def __init__(self) -> None:
        self.started = self.died = self.silent = 0


class Supervisor:
    """
    Keeps a number of workers running; made in an event loop.

    Args:
        launch: Starts the process of the worker with a number.
        workers: How many there are to be.
        listeners: The listening sockets.
        notifier: Tells systemd.
        start_timeout: Seconds within which a worker must be ready.
    """

    # Invariants:
    # - a slot has one process at most, so a number, and what is named after it, has one owner;
    # - _stop is set once, and no worker is told to go on after that.
    def __init__(
        self,
        launch: Callable[[int], Awaitable[Process]],
        workers: int,
        listeners: Listeners,
        notifier: Notifier,
        start_timeout: float,
    ) -> None:
        self._launch: Final = launch
        self._slots: Final = [_Slot(number) for number in range(1, workers + 1)]
        self._listeners: Final = listeners
        self._notifier: Final = notifier
        self._start_timeout: Final = start_timeout
        self._counts: Final = _Counts()
        self._group: TaskGroup
        self._stop: Final = anyio.Event()
        self._up: Final = anyio.Event()  # a worker has been ready, or will be none
        self._restart: anyio.Event = anyio.Event()
        self._signalled_at: float | None = None
        self._drain_delay = 0.0
        self._announced = False
        self._failed_starts = 0
        self._code = 0

    async def run(self, signals: AsyncIterator[int]) -> int:
        """
        Start the workers, and keep them running until told to stop; return the exit code.

        That is the greatest of those of the workers that it has told to stop, or that of the one
        that could not start.

        Args:
            signals: Those that come.
        """
        async with anyio.create_task_group() as self._group:
            self._group.start_soon(self._take_signals, signals)
            self._group.start_soon(self._restart_all)
            self._group.start_soon(self._feed_watchdog)
            async with anyio.create_task_group() as group:
                # The first alone: what keeps it from starting is said once, and not by each.
                for slot in self._slots:
                    group.start_soon(self._keep, slot)
                    await self._up.wait()
                    if self._stop.is_set():
                        break
            self._group.cancel_scope.cancel()
        return self._code

    def probes(self) -> dict[str, str]:
        """Return where the probes of those workers are that are up, by number."""
        return {
            str(slot.number): slot.worker.probes
            for slot in self._slots
            if slot.worker is not None and slot.worker.is_up and slot.worker.probes is not None
        }

    def statistics(self) -> SupervisorStatistics:
        """Return the state and the counts. Not a checkpoint."""
        ready = sum(worker.is_up for worker in self._workers())
        return snapshot(SupervisorStatistics, self._counts, workers=len(self._slots), ready=ready)

    def _workers(self) -> Iterator[_Worker]:
        return (slot.worker for slot in self._slots if slot.worker is not None)

    # ---- signals, and the end --------------------------------------------------------------------

    async def _take_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == SIGHUP:
                self._restart.set()
            elif number == SIGUSR1:
                for worker in self._workers():
                    if worker.prints_tasks:
                        worker.process.kill(number)
            elif self._signalled_at is None:
                self._signalled_at = clock.now()
                self._end(signal.Signals(number).name)
            elif clock.now() - self._signalled_at > _AGAIN:
                name = signal.Signals(number).name
                logger.critical("%s was received again: exiting at once", name)
                self._code = 128 + number
                for worker in self._workers():
                    worker.interrupt(number)

    def _end(self, reason: str, code: int = 0) -> None:
        """Stop all workers, and have `run` return when they have ended."""
        if self._stop.is_set():
            return
        logger.info("stopping: %s", reason)
        self._code = code
        self._stop.set()
        self._up.set()
        for slot in self._slots:
            slot.hurry.set()
        totals = [worker.total for worker in self._workers()]
        self._notifier.stopping()
        self._notifier.extend(max(totals, default=0) + _MARGIN)
        # Before the workers have taken what is in the queue: nobody may join it after them.
        if self._drain_delay:
            self._group.start_soon(self._refuse_later)
        else:
            self._listeners.refuse()
        for worker in self._workers():
            worker.stop()

    async def _refuse_later(self) -> None:
        await anyio.sleep(self._drain_delay)
        self._listeners.refuse()

    async def _feed_watchdog(self) -> None:
        """Tell systemd's watchdog that this process is alive; it watches the workers itself."""
        every = self._notifier.watchdog_seconds
        while every is not None:
            self._notifier.watchdog()
            await anyio.sleep(every / 2)

    # ---- one worker after another ----------------------------------------------------------------

    async def _keep(self, slot: _Slot) -> None:
        """Keep one worker running, until all are to stop."""
        try:
            while not self._stop.is_set():
                try:
                    worker = _Worker(await self._launch(slot.number))
                except OSError as error:
                    logger.error("worker %d cannot be started: %s", slot.number, error)  # noqa: TRY400 - the system's
                    self._note_failed_start(_NOT_STARTED)
                    slot.failures += 1
                    await self._wait(slot)
                    continue
                before, slot.worker, slot.latest = slot.latest, worker, worker
                if before is not None:
                    before.replaced.set()
                self._counts.started += 1
                logger.info("worker %d has started: pid %d", slot.number, worker.process.pid)
                code = await self._run_worker(slot, worker)
                slot.worker = None
                worker.settled.set()
                self._note_end(slot, worker, code)
                await self._wait(slot)
        finally:
            if slot.latest is not None:
                slot.latest.replaced.set()

    async def _wait(self, slot: _Slot) -> None:
        """Wait before another worker is started, the longer the more have failed in a row."""
        if slot.failures:
            seconds = min(_SHORTEST * 2.0 ** min(slot.failures - 1, 10), _LONGEST)
            if not self._stop.is_set():
                slot.hurry = anyio.Event()
                logger.warning("worker %d: starting it again in %g s", slot.number, seconds)
            with anyio.move_on_after(seconds):
                await slot.hurry.wait()

    def _note_end(self, slot: _Slot, worker: _Worker, code: int) -> None:
        code = worker.code(code)
        if self._stop.is_set():
            self._code = max(self._code, code)
        elif worker.stop_sent:
            slot.failures = 0
        else:
            self._counts.died += 1
            if not worker.late:  # which has been said
                logger.log(
                    logging.ERROR if code else logging.WARNING,
                    "worker %d (pid %d) has ended with exit code %d",
                    slot.number,
                    worker.process.pid,
                    code,
                )
            stayed = not worker.late and clock.now() - worker.began >= STAYED
            slot.failures = 0 if stayed else slot.failures + 1
            if not worker.ready:
                self._note_failed_start(code)

    def _note_failed_start(self, code: int) -> None:
        """Give up if no worker can start: whoever has started this one is to know."""
        self._failed_starts += 1
        if any(worker.is_up for worker in self._workers()):
            return
        if not self._up.is_set() or self._failed_starts >= _TRIES:
            self._end("no worker can start", code or _NOT_STARTED)

    async def _run_worker(self, slot: _Slot, worker: _Worker) -> int:
        """Attend to a worker until it has ended, and return its exit code."""
        code = 0
        async with anyio.create_task_group() as group:
            group.start_soon(self._read_messages, worker)
            group.start_soon(self._end_late_start, slot, worker)
            group.start_soon(self._watch_beats, slot, worker)
            group.start_soon(self._kill_late, slot, worker)
            if self._stop.is_set():  # while it was being launched
                worker.stop()
            code = await worker.process.wait()
            group.cancel_scope.cancel()
        return code

    async def _end_late_start(self, slot: _Slot, worker: _Worker) -> None:
        """End a worker that is not ready in time: whoever renews the workers waits for it."""
        with anyio.move_on_after(self._start_timeout):
            await worker.settled.wait()
        if not (worker.ready or worker.stopping.is_set()):
            worker.late = True
            logger.error(
                "worker %d (pid %d) is not ready after %g s (MTAIO_START_TIMEOUT): ending it",
                slot.number,
                worker.process.pid,
                self._start_timeout,
            )
            worker.interrupt(signal.SIGTERM)

    async def _kill_late(self, slot: _Slot, worker: _Worker) -> None:
        """Kill a worker that has not ended in time: not even the end of its time can end it."""
        await worker.stopping.wait()
        with anyio.move_on_after(worker.total + _MARGIN):
            await worker.interrupted.wait()
            await anyio.sleep(_MARGIN)
        worker.overran = not worker.interrupted.is_set()
        logger.critical("worker %d does not end: killing it", slot.number)
        worker.process.kill(SIGKILL)

    async def _watch_beats(self, slot: _Slot, worker: _Worker) -> None:
        """Stop a worker whose event loop does not answer any more."""
        await worker.settled.wait()
        while worker.beats:
            worker.answered = anyio.Event()
            # In two parts, since all may have stood still, as in a container that was paused: then
            # the first ends at once, and the worker answers within the second.
            for part in (SILENT - _MARGIN, _MARGIN):
                with anyio.move_on_after(part):
                    await worker.answered.wait()
                if worker.answered.is_set():
                    break
            if worker.answered.is_set():
                continue
            self._counts.silent += 1
            logger.error(
                "worker %d has not answered for %g s: replacing it",
                slot.number,
                SILENT,
            )
            worker.stop()
            return

    async def _read_messages(self, worker: _Worker) -> None:
        """Act upon the messages of a worker."""
        while lines := await worker.process.receive():
            for line in lines:
                name, _, value = line.partition("=")
                if line.startswith("{"):
                    await self._open_sockets(worker, json.loads(line))
                elif name == "PROBES":
                    worker.probes = value
                elif name == "SIGUSR1":
                    worker.prints_tasks = True
                elif name == "READY":
                    self._note_ready(worker)
                elif name == "STOPPING":
                    worker.stopping.set()
                elif name == "WATCHDOG":
                    worker.answered.set()

    async def _open_sockets(self, worker: _Worker, hello: Mapping[str, Any]) -> None:
        worker.total, worker.beats = hello["total"], hello["beats"]
        self._drain_delay = hello["drain_delay"]
        try:
            sockets = await self._listeners.open(hello)
        except OSError as error:
            worker.process.send(json.dumps({"error": error.strerror or str(error)}))
        else:
            worker.process.send("{}", sockets)

    def _note_ready(self, worker: _Worker) -> None:
        if worker.late:  # it is ended all the same: nobody is to be renewed, or started, upon it
            return
        worker.ready = True
        worker.settled.set()
        self._failed_starts = 0
        self._up.set()
        ready = self.statistics().ready
        self._notifier.status(f"{ready} of {len(self._slots)} workers are ready")
        if ready == len(self._slots) and not self._announced:
            self._announced = True
            self._notifier.ready()
            logger.info("all %d workers are ready", ready)

    async def _restart_all(self) -> None:
        """Restart the workers one after another, at each SIGHUP."""
        while True:
            await self._restart.wait()
            self._restart = anyio.Event()  # one that comes meanwhile begins it anew, afterwards
            logger.info("SIGHUP: restarting the workers one after another")
            for slot in self._slots:
                before = slot.latest
                if before is None:  # it could never be started, and is tried with what is there now
                    continue
                if slot.worker is None:
                    slot.hurry.set()
                else:
                    slot.worker.stop()
                await before.replaced.wait()
                worker = slot.worker
                if worker is None:
                    break
                await worker.settled.wait()
                if self._stop.is_set():
                    return
                if not worker.ready:
                    logger.error("worker %d cannot start: the others stay as they are", slot.number)
                    break
