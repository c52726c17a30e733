"""
Signals and forced exit: what must work while the event loop does not.

Promise: the first SIGTERM or SIGINT is known in the loop as soon as the loop runs, and to a thread
at once. If the process is still there when the time to stop is over, that thread dumps the stack of
every thread, writes the logs, and ends it with `OVERRUN`; also when the application has long
stopped, and the interpreter's exit waits for a thread or for what atexit calls. A second signal
ends it with 128 and the signal's number, as long as the application has not stopped. SIGUSR1, where
nobody else handles it, has the tasks written to the standard error, also while the loop is blocked;
so does the end by force, within the second that its last words may take.
Cost: a thread that waits at a socket, and two signal handlers, which are put back by `release`.
Why not a receiver in the loop: docs/en/design/application.md. While C code holds the interpreter's
lock neither a handler nor a thread runs, and while it waits in the main thread without looking at
signals no handler does: nothing here can help. Nor after the last function that atexit calls, when
the interpreter stops its daemon threads.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from errno import EAGAIN
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from mtaio._internal import backend, clock, ending, loops
from mtaio.app._last_words import Speaker, end_process, say_last, write_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["OVERRUN", "Guard", "can_guard"]

OVERRUN: Final = 70
"""The exit code of a process that was ended because it took too long to stop (EX_SOFTWARE)."""

_AGAIN: Final = 0.3
"""Seconds within which another signal is the same wish: a terminal signals a whole group of
processes, and wrappers that are in it hand on what they get."""

_WAKE: Final = b"\x00"
"""What is sent to the thread besides the numbers of signals: to look what is due."""

logger: Final = logging.getLogger("mtaio.app")


def can_guard() -> bool:
    """Return whether signal handlers can be set here: in the main thread, in real time."""
    return threading.current_thread() is threading.main_thread() and clock.is_real()


class Beat(NamedTuple):
    """What the thread does again and again."""

    every: float
    """Seconds between two calls."""
    call: Callable[[], None]


class Guard:
    """
    The signals of a process that runs an application; made in the main thread.

    Args:
        total: Seconds from the first signal to the end by force.
        describe: Says what the application still waits for; called from the thread.
        beat: What the thread does between signals.
        tasks: Returns the tree of tasks as text, in pieces that are made when they are to be
            written: on SIGUSR1, if nobody else handles that, and before the end by force. Called
            from threads.

    Raises:
        OSError: There can be no more threads or file descriptors.
    """

    # Invariants:
    # - _came is known in the main thread at once, _first when the thread has read it;
    # - _ends_at is when the process is ended by force, infinity until it is told to stop;
    # - only the thread reads from _reader; handlers and others write to _writer;
    # - a forked child has both sockets too, and leaves them alone;
    # - it may be released before one that was made later, which has its handlers to put back;
    # - after a release the thread goes on if it _stays, with nothing to read any more: until the
    #   time is over, the process is, or another guard is made (_dismissed).
    def __init__(
        self,
        total: float,
        *,
        describe: Callable[[], str],
        beat: Beat | None = None,
        tasks: Callable[[], Iterable[bytes]] = tuple,
    ) -> None:
        self._total: Final = total
        self._describe: Final = describe
        self._beat: Final = beat
        self._tasks: Final = tasks
        self._showing: threading.Thread | None = None
        self._process: Final = os.getpid()
        self._lock: Final = threading.Lock()
        self._told: Callable[[int, float], None] | None = None
        self._noticed: Callable[[], None] | None = None
        self._loop: object = None
        self._came = False
        self._first: tuple[int, float] | None = None
        self._ends_at = math.inf
        self._stays = self._only_says = self._flushes = False
        self._speaker: Speaker | None = None
        self._dismissed: Final = threading.Event()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)  # noqa: FBT003 - as the socket module has it
        self._heard_all: Final = threading.Event()
        self._thread: Final = threading.Thread(
            target=self._watch, name="mtaio.app guard", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:  # as OSError, which it is in all but its name
            self._writer.close()
            self._reader.close()
            raise OSError(EAGAIN, str(error)) from None
        ending.call_off()
        self._released = False
        self._handed_on = False
        self._before: Final[dict[int, Any]] = {}
        requests = [_SHOW_TASKS] if self._is_free(_SHOW_TASKS) else []
        for number in [*_numbers(), *requests]:
            self._before[number] = signal.getsignal(number)
            signal.signal(number, self._on_signal)

    @property
    def signalled(self) -> bool:
        """Whether a signal has come, also before the thread has read it."""
        return self._came

    def shares_sigterm(self) -> bool:
        """Return whether somebody else handles SIGTERM too, as a server around it does."""
        return callable(self._handler(signal.SIGTERM))

    def attach(self, told: Callable[[int, float], None], noticed: Callable[[], None]) -> None:
        """
        Have the running event loop told of the first signal.

        Args:
            told: Called in the loop, with the signal's number and when it came; if it has come
                already, at the loop's next turn.
            noticed: Called from the thread at once, also while the loop stands still.
        """
        with self._lock:
            self._told, self._noticed, self._loop = told, noticed, loops.current_loop()
            if self._first is not None:
                self._tell(*self._first)

    def hand_on(self) -> None:
        """Have a server that handled signals before handle the first one; in the main thread."""
        # A server that handles SIGTERM itself must be told to stop as well, when that is due.
        if self._handed_on or self._first is None or not self.shares_sigterm():
            return
        self._handed_on = True
        number, _ = self._first
        before = self._handler(number)
        if not callable(before) or before is signal.default_int_handler:
            return
        try:
            before(number, None)
        except BaseException as error:  # noqa: BLE001 - it wants to end the program, which ends
            logger.warning("the previous signal handler raised %r", error)

    def begin(self, moment: float) -> None:
        """Let the time to stop run from ``moment``, without a signal."""
        with self._lock:
            self._ends_at = min(self._ends_at, moment + self._total)
        self._send(_WAKE)

    def release(self, *, lingers: bool = False) -> None:
        """
        Put the signal handlers back, and end the thread; in the main thread. May be repeated.

        After a signal the thread stays until the time to stop is over, to end a process that is
        still there then. Where a server handled SIGTERM before, it only says what is left.

        Args:
            lingers: Whether the process is about to end: a signal that is the same wish as the
                first does not end it then while it does so. The next one puts the handlers back.
                The thread stays without a signal too, and ends the process in any case.
        """
        if self._released:
            return
        self._released = True
        self._only_says = not lingers and self.shares_sigterm()
        if lingers and self._is_same_wish():
            atexit.register(self._ignore)
        else:
            for number in self._before:
                if number != _SHOW_TASKS or not lingers:  # at the exit it is ignored
                    self._put_back(number)
        if os.getpid() == self._process:
            if self._ends_at < math.inf and (lingers or self.signalled):
                self._stay()
            with suppress(OSError):
                self._writer.shutdown(socket.SHUT_WR)  # which is read after all that was sent
            self._heard_all.wait()
            if not self._stays:
                self._thread.join()
        self._writer.close()
        self._reader.close()
        if lingers and self._stays:
            self._flush_streams()

    def _flush_streams(self) -> None:
        """Write what was printed, while the thread is there: it may be a pipe that nobody reads."""
        self._flushes = True
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # there is none, or the interpreter meets the same and tells
                stream.flush()
        self._flushes = False

    def _stay(self) -> None:
        """Have the thread stay, and another to speak for it: at the exit none can be started."""
        self._stays = True
        ending.expect(self._ends_at - clock.now(), self._dismiss)
        with suppress(RuntimeError):  # there can be no more threads
            self._speaker = Speaker()

    def _dismiss(self) -> None:
        """End the thread that stayed, and put back the handlers that did; in the main thread."""
        for number in self._before:
            self._put_back(number)
        self._dismissed.set()
        self._thread.join()

    @staticmethod
    def _is_free(number: int) -> bool:
        """Return whether nobody handles or ignores a signal, be it in C as `faulthandler` does."""
        if sys.platform == "win32":  # pragma: no cover - Windows
            return False
        handler = signal.getsignal(number)
        owner = getattr(handler, "__self__", None)
        if isinstance(owner, Guard):
            return owner._released  # noqa: SLF001 - another of this class
        if handler is not signal.SIG_DFL:
            return False
        with suppress(OSError, ValueError, StopIteration):  # there is no /proc
            with open("/proc/self/status", encoding="ascii", errors="replace") as status:  # noqa: PTH123 - pathlib is not needed here
                caught = next(line for line in status if line.startswith("SigCgt:"))
            return not int(caught.split()[1], 16) >> (number - 1) & 1
        return True

    # ---- in a signal handler: the main thread, between two instructions --------------------------

    def _on_signal(self, number: int, _frame: Any) -> None:
        if os.getpid() != self._process:  # pragma: no cover - a forked child, which ends by this
            self._put_back(number)
            os.kill(os.getpid(), number)
        elif not self._released:
            self._came = self._came or number != _SHOW_TASKS
            self._send(bytes([number]))
        elif number != _SHOW_TASKS and not self._is_same_wish():
            self._put_back(number)
            signal.raise_signal(number)

    def _is_same_wish(self) -> bool:
        """Return whether a signal that came now would be the same wish as the first."""
        return self._first is not None and clock.now() - self._first[1] <= _AGAIN

    def _put_back(self, number: int) -> None:
        if signal.getsignal(number) == self._on_signal:
            before = self._handler(number)
            signal.signal(number, signal.SIG_DFL if before is None else before)
            if number == signal.SIGINT and self._loop is not None and loops.is_running(self._loop):
                backend.of(self._loop).end_sigint(before)

    def _ignore(self) -> None:
        """Ignore signals from now on: at the exit, where Python takes its own handlers away."""
        children: Any = sys.modules.get("multiprocessing")  # which may have to be waited for
        if self._is_same_wish() and (children is None or not children.active_children()):
            for number in self._before:
                if signal.getsignal(number) == self._on_signal:
                    signal.signal(number, signal.SIG_IGN)

    def _handler(self, number: int) -> Any:
        """Return the handler that was there before, and is still somebody's."""
        before = self._before.get(number)
        owner = getattr(before, "__self__", None)
        return owner._handler(number) if isinstance(owner, Guard) and owner._released else before  # noqa: SLF001 - another of this class

    def _send(self, byte: bytes) -> None:
        if os.getpid() == self._process:  # pragma: no branch - in a forked child
            with suppress(OSError):  # it is full: the thread has enough to read
                self._writer.send(byte)

    # ---- in the thread ---------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            self._listen()
        finally:
            self._heard_all.set()
        if self._stays:
            self._watch_exit()

    def _listen(self) -> None:
        while True:
            byte = self._receive()
            if not byte:
                return
            if clock.now() >= self._ends_at:
                self._overrun(self._describe())
            if byte == _WAKE:
                continue
            if byte[0] == _SHOW_TASKS:
                self._show_tasks()
                continue
            number, moment = byte[0], clock.now()
            if self._first is None and self._noticed is not None:
                self._noticed()
            with self._lock:
                if self._first is None:
                    self._first = number, moment
                    self._ends_at = min(self._ends_at, moment + self._total)
                    self._tell(number, moment)
                elif moment - self._first[1] > _AGAIN:
                    name = signal.Signals(number).name
                    end_process(
                        128 + number,
                        f"{name} was received again: exiting at once, {self._describe()}",
                    )

    def _receive(self) -> bytes:
        """Return what was sent, which is nothing at the end; `_WAKE` when something is due."""
        due = self._ends_at - clock.now()
        if self._beat is not None:
            self._beat.call()
            due = min(due, self._beat.every)
        self._reader.settimeout(None if due == math.inf else max(due, 0.001))
        try:
            return self._reader.recv(1)
        except TimeoutError:
            return _WAKE

    def _watch_exit(self) -> None:
        """Wait for the end of the process, which is the thread's; when its time is over, end it."""
        seconds = min(max(0.0, self._ends_at - clock.now()), threading.TIMEOUT_MAX)
        if not self._dismissed.wait(seconds):
            # After Ctrl-C a program may go on, as Python's prompt does; SIGTERM asks it to end.
            goes_on = threading.main_thread().is_alive() and not self._flushes
            if not goes_on or (self._first is not None and self._first[0] == signal.SIGTERM):
                state = f"though the application has stopped: {self._what_is_left()}"
                if not self._only_says:
                    self._overrun(state)
                say_last(self._reason(state), self._tasks)
        if self._speaker is not None:
            self._speaker.dismiss()

    def _what_is_left(self) -> str:
        """Return what keeps the process, in words."""
        if self._flushes:
            return "nobody reads its output"
        if threading.main_thread().is_alive():
            return (
                "the program is still running. End it when app.run() or app.wait_closed() returns"
            )
        # The main thread has ended, in name, and every other that is no daemon is waited for.
        waited_for = [each for each in threading.enumerate() if each.is_alive() and not each.daemon]
        names = ", ".join(each.name for each in waited_for)
        return f"the exit waits for {f'threads: {names}' if names else 'what atexit calls'}"

    def _show_tasks(self) -> None:
        """Have the tasks written by another thread: it may be a pipe that nobody reads."""
        if self._showing is not None and self._showing.is_alive():
            return
        thread = threading.Thread(
            target=write_tasks, args=(self._tasks,), name="mtaio.app tasks", daemon=True
        )
        with suppress(RuntimeError):  # there can be no more threads
            thread.start()
            self._showing = thread

    def _tell(self, number: int, moment: float) -> None:
        told = self._told
        if told is not None:
            loops.call_in(self._loop, lambda: told(number, moment))

    def _overrun(self, state: str) -> NoReturn:
        end_process(OVERRUN, self._reason(state), tasks=self._tasks, speaker=self._speaker)

    def _reason(self, state: str) -> str:
        return (
            f"not stopped {self._total:g} s after it was told to, {state}. Standard error shows "
            f"where each thread is. Raise MTAIO_SHUTDOWN_TIMEOUT if it only needs more time"
        )


if sys.platform == "win32":  # pragma: no cover - Windows
    _SHOW_TASKS: Final = -1
else:
    _SHOW_TASKS: Final = int(signal.SIGUSR1)
"""The signal that has the tasks written; a number that no signal has where there is none."""


def _numbers() -> list[int]:
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # started in the background
        numbers.append(signal.SIGINT)
    if sys.platform == "win32":  # pragma: no cover - Windows
        numbers.append(signal.SIGBREAK)
    return [int(each) for each in numbers]
