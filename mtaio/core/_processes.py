"""
Plain functions in worker processes.

Promise: never more processes than calls in progress, so never more than the limit; a call that is
cancelled, in whatever way, kills its process, and the slot comes back when the process has gone;
no process outlives its event loop.
Cost: a socket and a process for each call in progress; the first call of each waits for the process
to start.

Why not ``anyio.to_process``: docs/en/design/executor.md.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio
from anyio.lowlevel import RunVar, checkpoint

from mtaio._internal import clock
from mtaio._internal.callables import name_of
from mtaio._internal.notes import note
from mtaio.core import _worker
from mtaio.core._errors import RemoteTraceback
from mtaio.core._threads import ThreadCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from functools import partial

    from mtaio.core._slots import Slot
    from mtaio.core._threads import WorkerLimiter
    from mtaio.core._timeouts import Timing

_MAX_IDLE_SECONDS: Final = 300
"""How long a process is kept for the next call."""
_END_SECONDS: Final = 1
"""How long a process that was told to end may take before it is killed."""

_WAY_OUT: Final = (
    "Pass a function from the top level of a module, and plain data; "
    "for anything else use run_in_thread()."
)

_GUARD: Final = 'Programs that use processes must start under if __name__ == "__main__":'

_Reply: TypeAlias = tuple[int, str, bytes | bytearray]
"""The kind of a reply, a text for messages, and something pickled: see `_worker`."""


async def run_in_process(limiter: WorkerLimiter, call: partial[Any], timing: Timing) -> Any:
    """Make a call in a worker process, which is killed if the caller is cancelled."""
    _check_main()
    await checkpoint()
    slot = await limiter.enter()
    worker: _Worker | None = None
    try:
        request = _dump(call)
        with timing.limit(call), clock.held():
            pool = await _pool()
            worker = pool.take()
            reply = await worker.ask(request)
    except BaseException as error:
        if worker is None:
            limiter.leave(slot)
            raise
        worker.end(kill=not isinstance(error, _GoneError | anyio.BrokenWorkerProcess))
        status = await _bury(worker, limiter, slot)
        if isinstance(error, _GoneError):
            raise _broken(call, worker, status) from None
        raise
    pool.put_back(worker)
    limiter.leave(slot)
    return _outcome(call, *reply)


async def _bury(worker: _Worker, limiter: WorkerLimiter, slot: Slot) -> int | None:
    """Wait until a worker has gone, and give its slot back; return what `_Worker.reap` does."""
    thread = ThreadCall(limiter, slot, worker.reap)
    status: int | None = None
    try:
        # AnyIO's shield does not hold Task.cancel(). The slot is safe all the same.
        with anyio.CancelScope(shield=True):
            status = await thread.make()
    finally:
        if not thread.has_started():
            worker.reap()
        thread.leave()
    return status


class _GoneError(Exception):
    """The worker process has ended, or closed its connection."""


class _Worker:
    """A worker process."""

    # Invariant: is_idle says that it is in its pool, to be taken.

    def __init__(self) -> None:
        self.is_idle: bool = False
        self._is_prepared = False
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)  # noqa: FBT003 - positional only
        with theirs:
            number = theirs.fileno()
            inherit: dict[str, Any] = {"pass_fds": [number]}
            if sys.platform == "win32":  # pragma: no cover - handles there, not descriptors
                theirs.set_inheritable(True)
                attributes = {"handle_list": [number]}
                inherit = {"startupinfo": subprocess.STARTUPINFO(lpAttributeList=attributes)}
            # -P: the folder of that file is not a place to import from.
            command = [sys.executable, "-P", _worker.__file__, str(number)]
            self._process = subprocess.Popen(  # noqa: S603 - our own file
                command, stdin=subprocess.DEVNULL, **inherit
            )

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Return whether the process has not ended."""
        return self._process.poll() is None

    async def ask(self, request: bytes) -> _Reply:
        """
        Send a request and wait for the reply; before the first, have it load the main module.

        Raises:
            BrokenWorkerProcess: The main module could not be loaded.
            _GoneError: It has gone.
        """
        if not self._is_prepared:
            kind, text, body = await self._exchange(pickle.dumps(_main_module()))
            if kind != _worker.RETURNED:
                msg = f"a worker process could not load the main module: {text}. {_GUARD}"
                raise anyio.BrokenWorkerProcess(msg) from _load_error(body, text)
            self._is_prepared = True
        return await self._exchange(request)

    def end(self, *, kill: bool) -> None:
        """Have the process end: by itself, which it does when it is idle, or at once."""
        if kill:
            self._process.kill()
        self._socket.close()

    def reap(self, until: float | None = None) -> int | None:
        """
        Wait until the process has gone (blocking), and kill it if it has not by ``until``.

        Returns:
            Its exit status; None if it had to be killed.
        """
        now = time.monotonic()
        until = now + _END_SECONDS if until is None else until
        try:
            return self._process.wait(timeout=max(0, until - now))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None

    async def _exchange(self, request: bytes) -> _Reply:
        try:
            await self._send(_worker.REQUEST.pack(len(request)))
            await self._send(request)
            await anyio.wait_readable(self._socket)
            header = await self._receive(_worker.REPLY.size)
            kind, described, length = _worker.REPLY.unpack(header)
            return kind, (await self._receive(described)).decode(), await self._receive(length)
        except (EOFError, OSError):
            raise _GoneError from None

    async def _send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)

    async def _receive(self, length: int) -> bytearray:
        data = bytearray(length)
        rest = memoryview(data)
        while rest:
            try:
                received = self._socket.recv_into(rest)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
                continue
            if not received:
                raise EOFError
            rest = rest[received:]
        return data


class _Pool:
    """
    The worker processes of one event loop, for all executors.

    Idle ones are kept for later calls. They end with their loop, or when a call finds that they
    have not been used for five minutes.
    """

    # Invariants:
    # - _workers holds those that may be alive, _idle those of them that do nothing, the most
    #   recently used last, and since when;
    # - a worker is started only when none is idle, so there are never more than calls at once.

    def __init__(self) -> None:
        self._workers: set[_Worker] = set()
        self._idle: deque[tuple[_Worker, float]] = deque()
        self.close = weakref.finalize(self, _end, self._workers, os.getpid())
        """End all workers; also when the loop is thrown away, and at the end of the program."""

    def take(self) -> _Worker:
        """Return a worker for one call: an idle one, or a new one."""
        self._prune()
        while self._idle:
            worker, _ = self._idle.pop()
            worker.is_idle = False
            if worker.is_alive():
                return worker
            worker.end(kill=False)
        self._workers -= {each for each in self._workers if not each.is_alive()}
        worker = _Worker()
        self._workers.add(worker)
        return worker

    def put_back(self, worker: _Worker) -> None:
        """Keep a worker for later."""
        worker.is_idle = True
        self._idle.append((worker, time.monotonic()))

    def _prune(self) -> None:
        eldest = time.monotonic() - _MAX_IDLE_SECONDS
        while self._idle and self._idle[0][1] <= eldest:
            self._idle.popleft()[0].end(kill=True)


def _end(workers: Iterable[_Worker], process: int) -> None:
    if process != os.getpid():
        return  # a fork: they are another process's
    for worker in workers:
        worker.end(kill=not worker.is_idle)
    until = time.monotonic() + _END_SECONDS
    for worker in workers:
        worker.reap(until)


_POOL: Final[RunVar[tuple[_Pool, object]]] = RunVar("mtaio.core.processes")
"""The pool of the running loop, and what closes it when the loop ends."""


async def _pool() -> _Pool:
    try:
        return _POOL.get()[0]
    except LookupError:
        pool = _Pool()
        closing = _close_with_loop(pool)
        await anext(closing)
        _POOL.set((pool, closing))
        return pool


async def _close_with_loop(pool: _Pool) -> AsyncGenerator[None]:
    """Close ``pool`` when the loop ends: both backends close async generators then."""
    try:
        yield
    finally:
        pool.close()


def _outcome(call: partial[Any], kind: int, text: str, body: bytes | bytearray) -> Any:
    """Return what the call returned, or raise what it raised."""
    name = f"{name_of(call)}()"
    match kind:
        case _worker.RETURNED:
            return _load(body, f"what {name} returned in its worker process")
        case _worker.RAISED:
            raise _load_error(body, f"the error {text} that {name} raised in its worker process")
        case _worker.ENDED:
            msg = f"{name} raised {text} in its worker process"
            raise anyio.BrokenWorkerProcess(msg) from _cause(body)
        case _worker.UNREADABLE:
            text = f"A worker process cannot load the call of {name}. {_WAY_OUT}"
        case _:  # UNSENDABLE
            text = (
                f"{text}, which {name} returned, cannot be sent back from a worker process by "
                f"pickle. Return plain data, or use run_in_thread()."
            )
    error = _load_error(body, text)
    note(error, text)
    try:
        raise error
    finally:
        del error


def _broken(call: partial[Any], worker: _Worker, status: int | None) -> anyio.BrokenWorkerProcess:
    if status is None:
        how = "had closed its connection and was killed"
    elif status < 0:
        how = f"was killed by {_signal_name(-status)}"
    else:
        how = f"ended with exit status {status}"
    msg = f"worker process {worker.pid} {how} before {name_of(call)}() returned"
    return anyio.BrokenWorkerProcess(msg)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time signal


def _main_module() -> tuple[list[str], list[str], str | None, str | None]:
    """Return what a worker needs to load the program's main module, as `_worker.load_main` does."""
    main = sys.modules["__main__"]
    # What a worker knows as __mp_main__ comes back under that name.
    sys.modules.setdefault("__mp_main__", main)
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None)
    if spec is not None:
        # The __main__ of a package or folder seldom guards what it does.
        module = None if spec.name.rpartition(".")[2] == "__main__" else str(spec.name)
        return sys.path, sys.argv, module, None
    return sys.path, sys.argv, None, file if file is not None and Path(file).is_file() else None


def _check_main() -> None:
    """Refuse to start processes from a main module that a worker process is loading."""
    if getattr(sys.modules["__main__"], "__file__", None) == _worker.__file__:
        raise RuntimeError("run_in_process() was called while the main module was being loaded")


def _dump(call: partial[Any]) -> bytes:
    try:
        return pickle.dumps(call, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        note(error, f"{_culprit(call)} cannot be sent to a worker process by pickle. {_WAY_OUT}")
        raise


def _culprit(call: partial[Any]) -> str:
    """Return a description of the part of ``call`` that cannot be pickled."""
    named = [*enumerate(call.args, 1), *call.keywords.items()]
    parts = {f"Argument {name}, {_worker.describe(value)},": value for name, value in named}
    for what, part in parts.items():
        try:
            pickle.dumps(part, pickle.HIGHEST_PROTOCOL)
        except Exception:  # noqa: BLE001 - it may raise anything
            return what
    return f"The function {_worker.describe(call.func)}"


def _load(body: bytes | bytearray, what: str) -> Any:
    try:
        return pickle.loads(body)  # noqa: S301 - from a process that this one has started
    except Exception as error:
        note(error, f"This is from unpickling {what}.")
        raise


def _load_error(body: bytes | bytearray, what: str) -> BaseException:
    """Return the error that a worker has sent; its cause is its traceback there."""
    dumped, _ = pickle.loads(body)  # noqa: S301 - as above
    try:
        error: BaseException = _load(dumped, what)
    except Exception as unreadable:
        raise unreadable from _cause(body)
    BaseException.__setattr__(error, "__cause__", _cause(body))  # however immutable it may be
    return error


def _cause(body: bytes | bytearray) -> RemoteTraceback:
    _, text = pickle.loads(body)  # noqa: S301 - as above
    return RemoteTraceback(text)
