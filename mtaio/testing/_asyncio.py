"""
Virtual time on asyncio: a selector event loop that jumps where it would sleep.

Promise: `VirtualLoop.time` moves only when nothing is ready and no event is pending, to the very
moment of the next timer; timers due at one moment fire in the order in which they were set.
Sockets, subprocesses and threads are real. uvloop keeps its timers in C, out of reach.

Private hooks of asyncio, unchanged since Python 3.4, which a canary test watches: ``_scheduled``
(the timers, and on each the flag that it is among them) and ``_clock_resolution``.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple, cast

from mtaio.testing._asyncio_clock import JumpingSelector, Timer
from mtaio.testing._asyncio_hooks import missing_hook
from mtaio.testing._asyncio_steps import PermutedQueue, WatchedQueue
from mtaio.testing._claims import refuse_second, turned
from mtaio.testing._deadlock import task_stacks
from mtaio.testing._engine import steps_unseen

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from contextvars import Context

    from mtaio.testing._deadlock import Stack
    from mtaio.testing._steps import Steps
    from mtaio.testing._world import World

T = TypeVar("T")
Args = TypeVarTuple("Args")

_OWN_FILES: Final = 1
"""The loop's own entry in the selector: the socket with which threads and signals wake it."""


class LoopFactory:
    """Makes the event loops of one world, each with a clock that starts at 0."""

    __slots__ = ("world",)

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self) -> VirtualLoop:
        refuse_second(self.world)  # before there is half a loop
        return VirtualLoop(self.world)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop under virtual time; the engine of a world."""

    _scheduled: list[asyncio.TimerHandle]
    _clock_resolution: float
    _ready: Any

    def __init__(self, world: World) -> None:
        self.world = world
        self._now = 0.0
        self._timers = 0
        self._settling: list[asyncio.Future[None]] = []
        self._exhausting: list[asyncio.Future[None]] = []
        self._host: asyncio.Task[Any] | None = None
        self._outside: set[asyncio.Task[Any]] = set()
        self._forced = False
        self._left: deque[asyncio.Handle] = deque()
        self._children: list[asyncio.SubprocessTransport] = []
        self._files = JumpingSelector()
        self._files.loop = self
        super().__init__(self._files)
        self._resolve()
        world.attach(self)
        if world.schedule is not None:
            try:
                world.observed()
            except BaseException:
                self.close()  # there is nobody yet who could
                raise

    # ---- an asyncio event loop -------------------------------------------------------------------

    def time(self) -> float:
        """Return the virtual time in seconds since the loop was made."""
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[[*Args], object],
        *args: *Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Set a timer, after those that were set for the same moment."""
        if self.get_debug() or self.is_closed():
            super().call_at(when, callback, *args, context=context).cancel()  # for its checks
        if when == math.inf:  # sleep_forever; the base class would wake for it once a day
            return asyncio.TimerHandle(when, callback, args, self, context)
        self._timers += 1
        timer = Timer((when, self._timers), callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        return timer

    def create_task(self, coro: Any, **options: Any) -> Any:
        """Create a task, which has its age from now on, even if it is eager and never queued."""
        create: Any = super().create_task
        task = cast("object", create(coro, **options))  # a factory makes what it likes
        if self.world.steps is not None and isinstance(task, asyncio.Task):
            self.world.steps.key(task)
        return cast("Any", task)

    def run_forever(self) -> None:
        """Turn the loop; mtaio's clock follows it meanwhile."""
        with turned(self.world, self, "asyncio"):
            super().run_forever()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Args], T], *args: *Args
    ) -> asyncio.Future[T]:
        """Hand ``func`` to an executor; the clock is frozen until its result is here."""
        future = super().run_in_executor(executor, func, *args)
        self.world.jobs += 1
        future.add_done_callback(self._job_done)
        return future

    def _job_done(self, _: object) -> None:
        self.world.jobs -= 1

    async def shutdown_default_executor(self, *args: Any) -> None:
        """Wait for the executor's threads, with the clock frozen."""
        self.world.jobs += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self.world.jobs -= 1

    async def subprocess_exec(self, *args: Any, **options: Any) -> Any:
        """Start a program, whose end is something real to wait for."""
        return self._watch(await super().subprocess_exec(*args, **options))

    async def subprocess_shell(self, *args: Any, **options: Any) -> Any:
        """Start a shell, whose end is something real to wait for."""
        return self._watch(await super().subprocess_shell(*args, **options))

    def _watch(self, child: tuple[asyncio.SubprocessTransport, Any]) -> Any:
        self._children.append(child[0])
        return child

    def close(self) -> None:
        """Close the loop, and forget its world."""
        if self.is_closed():
            return
        super().close()
        self.world.detach(self)
        self._ready = deque()  # an end to circles: a loop that is closed goes at once
        del self._files.loop

    # ---- the engine ------------------------------------------------------------------------------

    async def sleep_until(self, moment: float) -> None:
        """Sleep until virtual time is ``moment``, exactly."""
        future = self.create_future()
        timer = self.call_at(moment, _wake, future)
        try:
            await future
        finally:
            timer.cancel()

    async def settle(self) -> None:
        """Wait until nothing is ready and no event is pending."""
        future = self.create_future()
        self._settling.append(future)
        await future

    async def exhaust(self) -> None:
        """Wait until nothing is ready, no event is pending and the clock is not frozen."""
        future = self.create_future()
        self._exhausting.append(future)
        await future

    def stacks(self) -> tuple[Stack, ...]:
        """Return where each task is."""
        tasks = ((task.get_name(), task.get_coro()) for task in asyncio.all_tasks(self))
        return task_stacks(sorted(tasks, key=itemgetter(0)))

    def current_task(self) -> object:
        """Return the task that is running."""
        return asyncio.current_task(self)

    def watch(self, steps: Steps) -> None:
        """Tell ``steps`` of each step of a task, and let its schedule choose."""
        hook = missing_hook(self)
        if hook is not None:
            raise steps_unseen("asyncio", hook)
        left, schedule = self._ready, steps.schedule
        ready = WatchedQueue(steps) if schedule is None else PermutedQueue(steps, schedule)
        self._ready, self._left = ready, left
        self._move_left()
        steps.know(self._outside)

    def _move_left(self) -> None:
        while self._left:
            self._ready.append(self._left.popleft())

    def guard_begins(self) -> object:
        """Note which task runs the code under test, and which tasks were there before."""
        self._host = asyncio.current_task(self)
        self._outside = set() if self.world.alone else asyncio.all_tasks() - {self._host}
        self._forced = False
        return self._host

    def cancelled_outside(self) -> bool:
        """Tell whether the host task has been cancelled by others than `blocked`."""
        assert self._host is not None  # noqa: S101 - asked inside a guard
        return self._host.cancelling() > self._forced

    def guard_ends(self) -> None:
        """Forget the tasks, and take back what `blocked` has done to the host."""
        if self._forced and self._host is not None:
            self._host.uncancel()
        self._host = None
        self._outside = set()

    def idle(self) -> float | None:
        """
        Decide what to do when nothing is ready and no event is pending.

        Returns:
            None if something is ready now, else the real seconds to wait for something real.
        """
        if self._left:  # by a thread that had got hold of the queue when it was replaced
            self._move_left()
            return None
        self.world.idle()
        if self._ready:  # because an invariant has broken the run off
            return None
        if self._settling:
            _wake_all(self._settling)
        elif self.world.frozen():
            return self.world.patience(real_io=self._awaits_real_io())
        elif self._exhausting:
            _wake_all(self._exhausting)
        elif self._scheduled:
            self._now = self._scheduled[0].when()
            self._resolve()
        else:
            return self.world.patience(real_io=self._awaits_real_io())
        return None

    def active(self) -> None:
        """Note that something real has come, and so that the run is not spinning."""
        self.world.turns = 0

    def turned(self) -> None:
        """Count a turn of the loop in which something ran; give up when there are too many."""
        self._force(self.world.turned())

    def blocked(self, patience: float) -> None:
        """Give up after ``patience``: end the code under test, or else break off the loop."""
        self._force(self.world.stuck(patience))

    def _force(self, verdict: BaseException | None) -> None:
        if verdict is None:
            return
        if self._host is None or self._forced:
            raise verdict
        self._forced = True  # Task.cancel() minds no shield
        for task in asyncio.all_tasks(self) - self._outside:
            task.cancel()

    def _resolve(self) -> None:
        # Timers up to time() + resolution fire. With a fixed resolution they would fire too early
        # near 0, and never again once time() + resolution == time(): past 2**24 s, after 194 days.
        self._clock_resolution = math.ulp(self._now)

    def _awaits_real_io(self) -> bool:
        self._children = [child for child in self._children if child.get_returncode() is None]
        return bool(self._children) or len(self._files.get_map()) > _OWN_FILES


def _wake_all(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        _wake(future)
    futures.clear()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
