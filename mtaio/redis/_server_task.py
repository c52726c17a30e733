"""
The task of a limiter that calls the server for all tasks that wait, and what its calls have shown.

Promise: one call at a time, in the store's block, so that a task that waits can be cancelled at any
moment without losing an answer. What is known belongs to one event loop: another one has another
name at the server, and so has each fork of a process.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import anyio

from mtaio._internal import backend, clock
from mtaio.exceptions import StoreError
from mtaio.redis._outage import Outage
from mtaio.redis._store import own_error

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mtaio._internal.backend import Waiter
    from mtaio._internal.wait_queue import WaitQueue
    from mtaio.redis._store import Store

__all__ = ["ServerTask", "sleep"]

T = TypeVar("T")


async def sleep(waiter: Waiter, until: float) -> None:
    """Have the running task sleep until a moment of `clock.now`, or until its waiter is woken."""
    if until == math.inf:
        await waiter
    else:
        with anyio.move_on_after(until - clock.now()):
            await waiter


class ServerTask:
    """
    The one task that calls the server for a limiter, started when it is needed.

    Args:
        store: The server.
        queue: The tasks that wait for the limiter; it knows in which event loop.
        on_failure: What the limiter does while the server is down.

    Attributes:
        process: What the server calls this process; empty before `attach`.
        failure: Why the server counts as down: set by the limiter, cleared by the next answer.
        server_calls: How many calls were made.
        server_failures: How many of them failed.
    """

    # Invariants: all but the counts belongs to one event loop, and `attach` makes it new for the
    # next; _waiter is where the task sleeps, and there once a loop is attached.
    __slots__ = (
        "_answered",
        "_on_failure",
        "_outage",
        "_pending",
        "_queue",
        "_runs",
        "_store",
        "_waiter",
        "failure",
        "process",
        "server_calls",
        "server_failures",
    )

    def __init__(self, store: Store, queue: WaitQueue[Any], on_failure: str) -> None:
        self._store = store
        self._queue = queue
        self._on_failure = on_failure
        self.server_calls = self.server_failures = 0
        self.process = ""
        self._waiter: Waiter
        self._begin()

    def _begin(self) -> None:
        """Know nothing of the server."""
        self._runs = False
        self.failure: StoreError | None = None
        self._answered: float = -math.inf
        self._pending = False
        self._outage = Outage(self._on_failure)

    # ---- its event loop ----

    def attach(self, owner: object) -> bool:
        """
        Belong to the running event loop, and the queue with it.

        Args:
            owner: The limiter, for the message.

        Returns:
            Whether this is another loop than before: what was held in that one is gone.

        Raises:
            RuntimeError: The other loop is running too, and has tasks that use the limiter.
        """
        if self._queue.runs_here():
            return False
        self._queue.attach(owner, busy=self._runs)
        self.process = uuid4().hex  # no sooner: a fork would have the same name
        self._waiter = backend.new_waiter()
        self._begin()
        return True

    def is_current(self, process: str) -> bool:
        """
        Return whether the running loop is the one in which this process got that name.

        Not so for a task that is closed, by the garbage collector, after its loop has been: what it
        would tidy up may be in use by the next loop.
        """
        return process == self.process and self._queue.runs_here()

    # ---- its life ----

    def start(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """
        Start the task, unless it runs.

        Raises:
            RuntimeError: The store is not entered.
        """
        if not self._runs:
            self._store._block().start(run)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as `start` of _store, a file less
            self._runs = True

    def ended(self) -> None:
        """Note that the task has ended; what is known of the server stays."""
        self._runs = self._pending = False

    async def sleep(self, until: float) -> None:
        """Sleep until a moment or until `wake`; called by the task."""
        await sleep(self._waiter, until)

    def wake(self) -> None:
        """Wake the task if it sleeps; it has to look at what has changed before it sleeps again."""
        if self._queue.runs_here():  # else its loop is over, or none was there yet
            self._waiter.wake()

    # ---- its calls ----

    async def call(self, call: Coroutine[Any, Any, T]) -> T:
        """
        Await a call of the server.

        Raises:
            StoreError: It failed.
        """
        self.server_calls += 1
        self._pending = True
        try:
            answer = await call
        except StoreError:
            self.server_failures += 1
            self._pending = False
            raise
        self._pending = False
        self._answered = clock.now()
        self.failure = None
        return answer

    def explain(self, what: str, asked: float) -> str:
        """
        Say why a task that asked at that moment was not served in time, if that is the server's.

        Args:
            what: What could not be done.
            asked: When the task asked.

        Returns:
            The whole message; empty if the server has answered since.

        Raises:
            StoreError: The server is down, with ``on_failure="raise"``.
        """
        if self.failure is not None:
            if self._on_failure == "raise":
                raise own_error(self.failure, what)
            return f"{what}: {self.failure}"
        if self._pending and self._answered <= asked:
            return f"{what}: {self._store.name} has not answered yet."
        return ""

    def log(self, owner: object, error: StoreError) -> None:
        """Log a failure that raises no error, unless one was logged a moment ago."""
        self._outage.tell(owner, error)
