"""
The queue in which tasks wait, first come, first served: for a slot, a token, an event or space.

Promise: joining, leaving from anywhere and waking cost the same however many tasks wait. A queue is
made anywhere and used by one event loop after another: the waiters of a loop that is over are
forgotten, and two running loops are an error that says what to do.
Cost: for each task that waits one `Waiter`, which parks it natively: a future on asyncio, a task
that is rescheduled on trio. An ``anyio.Event`` takes twice the time and three times the memory.
Source: ``trio.lowlevel.ParkingLot``.

How a task waits::

    queue.attach(owner)                # the queue belongs to this loop from now on
    waiter = queue.join(payload)
    try:
        await waiter
    except BaseException:
        if queue.leave(waiter):        # woken, and cancelled before it could resume:
            queue.wake_next()          # pass on what it was woken for
        raise

Or it waits again and again, ``await waiter`` in a loop, and is woken by `Waiter.wake` to look for
what it needs: then it stays in the queue until it has that, and leaves by itself.

Waking by the queue is a hand-over: it takes the task out of the queue, and the caller gives it
something that no other task can take before the woken one resumes. So there are three ways out of
the queue, and exactly one of them happens to each waiter:

1. It is woken. If it is cancelled after that and before it resumes, `WaitQueue.leave` says so, and
   it passes on what it was given.
2. It is cancelled. Between that and the step in which the task leaves the queue, another task may
   try to wake it. `Waiter.wake` then answers False, and the next in the queue is woken.
3. Its loop is over. It is forgotten, and when its coroutine is closed, be it much later in the
   garbage collector, `leave` finds that it was not woken, so nothing is passed on.

`RateLimiter` hands nothing over. It calls `Waiter.wake` itself and leaves the task in its place:
the first in the queue looks again, and sleeps again if its tokens are not there yet.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from mtaio._internal import backend, clock, loops

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio._internal.backend import Waiter

__all__ = ["WaitQueue"]

T = TypeVar("T")


class WaitQueue(Generic[T]):
    """
    A FIFO queue of waiting tasks, with a payload for each: what it asks for.

    Attributes:
        place: A waiter of the loop that is attached, for a task that keeps its place in the queue
            while it does something else, as long as there is one such task at most.
        waiters: The payload of each task that waits, oldest first. For hot paths, to see whether
            there are any without a call; not to be changed.
        task_id: Returns the id of the running task, once a loop is attached.
        time: The clock of the loop that is attached, for measuring waits. `clock.now` finds it out
            anew in each task, which costs as much as the rest of a wait.
    """

    # Invariant: all in waiters wait in _loop, or are being cancelled there; _running_loop() returns
    # _loop if that runs here.
    __slots__ = ("_loop", "_new", "_running_loop", "place", "task_id", "time", "waiters")

    def __init__(self) -> None:
        self.waiters: OrderedDict[Waiter, T] = OrderedDict()
        self._loop: object = None
        self._running_loop: Callable[[], object] = object  # never the same, until one is attached
        self._new: Callable[[object], Waiter]
        self.place: Waiter
        self.task_id: Callable[[], int]
        self.time: clock.Tells

    def __len__(self) -> int:
        return len(self.waiters)

    # ---- for a task that waits ----

    def attach(self, owner: object, *, busy: bool = False) -> bool:
        """
        Make ready for a task of the running loop that is about to join.

        Args:
            owner: The object that the queue belongs to, for the message.
            busy: Whether another task of the loop before, which is not in the queue, serves it.

        Returns:
            Whether the loop of tasks that waited here is over, so that they were forgotten.

        Raises:
            RuntimeError: Tasks of another loop, which is not over, wait here.
        """
        if self.runs_here():
            return False
        before, loop = self._loop, loops.current_loop()
        forgets = before is not None and (busy or bool(self.waiters))
        if forgets:
            if not loops.is_over(before):
                raise loops.two_loops_error(owner)
            self.waiters.clear()
        half = backend.of(loop)
        self._loop, self._running_loop, self._new = loop, half.running_loop, half.new_waiter
        self.place = self._new(loop)
        self.task_id = half.task_id
        self.time = clock.here()
        return forgets

    def join(self, payload: T) -> Waiter:
        """Join the queue, to which the loop is attached; the caller then awaits the waiter."""
        waiter = self._new(self._loop)
        self.waiters[waiter] = payload
        return waiter

    def leave(self, waiter: Waiter) -> bool:
        """
        Leave the queue, because the wait was cancelled.

        Returns:
            Whether the task had been woken already, and has to pass on what it was woken for.
        """
        if waiter in self.waiters:
            del self.waiters[waiter]
            return False
        return waiter.woken

    async def wait(self, payload: T) -> None:
        """Wait to be woken; cancelled after that, wake the next. A checkpoint."""
        waiter = self.join(payload)
        try:
            await waiter
        except BaseException:
            if self.leave(waiter):
                self.wake_next()
            raise

    # ---- for those who wake them, in the loop of the tasks that wait ----

    def wake(self, waiter: Waiter) -> bool:
        """Take this one out of the queue and wake it; return False if it is being cancelled."""
        del self.waiters[waiter]
        return waiter.wake()

    def wake_next(self) -> bool:
        """Wake the task that has waited longest; return False if there is none."""
        waiters = self.waiters
        while waiters:
            if waiters.popitem(last=False)[0].wake():
                return True
        return False

    def wake_all(self) -> None:
        """Wake every task that waits."""
        while self.waiters:
            self.wake_next()

    # ---- from anywhere ----

    def call_there(self, fn: Callable[[], object]) -> None:
        """
        Call ``fn`` where the tasks may be woken: here at once, or else soon, in their loop.

        From any thread. If their loop is over, they are forgotten, and ``fn`` is called here.
        """
        loop = self._loop
        if loop is not None and not self.runs_here():
            # By the time that it is called there, tasks of another loop may wait here.
            if not loops.is_over(loop) and loops.call_in(loop, partial(self.call_there, fn)):
                return
            # So they may by now. Nothing is called between the look and the clearing, so no other
            # thread runs between: those of the next loop are not forgotten with the last.
            if self._loop is not loop:
                self.call_there(fn)
                return
            self.waiters.clear()
        fn()

    def call_in_loop(self, fn: Callable[[], object]) -> bool:
        """Have ``fn`` called soon in the loop of the tasks that wait; False if that is over."""
        return loops.call_in(self._loop, fn)

    def belongs_here(self) -> bool:
        """Return whether no other loop uses the queue: none did, or it is over, or runs here."""
        return self._loop is None or self.runs_here() or loops.is_over(self._loop)

    def runs_here(self) -> bool:
        """Return whether the queue's loop runs in this thread, also in a callback of it."""
        return self._running_loop() is self._loop

    def is_over(self) -> bool:
        """Return whether there are waiters, but of a loop that is over. From any thread."""
        return bool(self.waiters) and loops.is_over(self._loop)

    def forget(self) -> None:
        """Forget every task that waits: their loop is over."""
        self.waiters.clear()
