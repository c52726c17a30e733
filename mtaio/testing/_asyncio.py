"""
Virtual time on asyncio: a selector event loop that jumps where it would sleep.

Promise: `VirtualLoop.time` moves only when nothing is ready and no event is pending, to the very
moment of the next timer; timers due at one moment fire in the order in which they were set. Under a
schedule, task steps and timers that fall due together may be reordered; plain callbacks keep the
order in which they were given to ``call_soon``, as asyncio documents, and nothing that came after
one overtakes it. Sockets, subprocesses and threads are real. uvloop keeps its timers in C, out of
reach.

Private hooks of asyncio, which canary tests watch. For virtual time: ``_scheduled`` (the timers,
and on each the flag that it is among them) and ``_clock_resolution``; for speed alone: the pipe
with which threads and signals wake a loop that sleeps (``_make_self_pipe``, ``_close_self_pipe``,
``_write_to_self``, ``_csock``). For schedules: ``_ready``, a
``deque`` of which the loop uses ``append``, ``popleft``, ``clear``, ``len`` and truth, and the
``_callback`` and ``_cancelled`` of a handle. A hook of schedules that is missing is named
(`missing_hook`), so that no search runs that could choose nothing.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import selectors
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, TypeVarTuple

from mtaio._internal.clock import Clock
from mtaio.testing._diagnostics import LAST, Suspended, TaskRecord
from mtaio.testing._world import NAPS, Running, StepsHiddenError, refuse_second

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor
    from contextvars import Context

    from mtaio.testing._diagnostics import Steps
    from mtaio.testing._schedule import Schedule
    from mtaio.testing._world import Beside, World

T = TypeVar("T")
Args = TypeVarTuple("Args")

READY: Final = "_ready"
CALLBACK: Final = "_callback"
CANCELLED: Final = "_cancelled"
STEP: Final = "__self__ on the callback of a task's step"


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
    _csock: Any
    _ssock: Any

    def __init__(self, world: World) -> None:
        self.world = world
        self._now = 0.0
        self._kept = Clock(self.time)
        self._timers = 0
        self._settling: list[asyncio.Future[None]] = []
        self._exhausting: list[asyncio.Future[None]] = []
        self._host: asyncio.Task[Any] | None = None
        self._outside: set[asyncio.Task[Any]] = set()
        self._forced = False
        # Not a WeakSet: who was gathered is asked for when that is garbage, and they with it.
        self._dead: set[Any] = set()
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
                self.close()  # its caller does not have it yet
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
        task: Any = super().create_task(coro, **options)
        kind: type[Any] = asyncio.Task  # a factory makes what it likes
        if isinstance(task, kind):
            self.world.task_made(task)
        if self.world.network is not None:
            self.world.network.task_made(task)
        return task

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        """Look a name up, on the simulated network where there is one."""
        if self.world.network is not None:
            return await self.world.network.look_up(*args, **kwargs)
        return await super().getaddrinfo(*args, **kwargs)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        """Look an address up, on the simulated network where there is one."""
        if self.world.network is not None:
            return self.world.network.name_info(sockaddr, flags)
        return await super().getnameinfo(sockaddr, flags)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report what nobody has caught, unless it comes of a program that was killed."""
        if not self._is_of_the_dead(context):
            super().call_exception_handler(context)

    def _is_of_the_dead(self, context: dict[str, Any]) -> bool:
        gathered: Any = getattr(context.get("future"), "_children", ())
        if any(task in self._dead for task in gathered):
            return True
        network, handle = self.world.network, context.get("handle")
        return network is not None and handle is not None and network.is_dead(handle._context)  # noqa: SLF001

    def run_forever(self) -> None:
        """Turn the loop; mtaio's clock follows it meanwhile."""
        with Running(self.world, self._kept, "asyncio"):
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

    # A run in which nothing is real never sleeps, so it needs no pipe that wakes it up; the sockets
    # cost more than the rest of the loop.

    def _make_self_pipe(self) -> None:
        self._ssock = self._csock = None

    def _close_self_pipe(self) -> None:
        if self._csock is not None:
            self._files.own_files = 0
            super()._close_self_pipe()  # type: ignore[misc] # private, in typeshed as well

    def _write_to_self(self) -> None:
        self.world.turns = 0  # something real has come
        super()._write_to_self()  # type: ignore[misc] # likewise; does nothing without a pipe

    def _ensure_pipe(self) -> None:
        if self._csock is None:
            self._files.own_files = 1
            super()._make_self_pipe()  # type: ignore[misc] # likewise

    def add_signal_handler(
        self, sig: int, callback: Callable[[*Args], object], *args: *Args
    ) -> None:
        """Have a signal handled in the loop, which it wakes by the pipe."""
        self._ensure_pipe()
        super().add_signal_handler(sig, callback, *args)

    def close(self) -> None:
        """Close the loop, and forget its world."""
        if self.is_closed():
            return
        super().close()
        self._kept.stop()
        self.world.detach(self)
        self._ready = deque()  # an end to circles: a loop that is closed goes at once
        del self._files.loop, self._files.map

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

    def suspended(self) -> list[Suspended]:
        """Return each task."""
        tasks = (
            Suspended(task.get_name(), task.get_coro(), id(task), self.world.age_of(task))
            for task in asyncio.all_tasks(self)
        )
        return sorted(tasks, key=attrgetter("name", "age"))

    def current_task(self) -> object:
        """Return the task that is running."""
        return asyncio.current_task(self)

    def watch(self, steps: Steps) -> None:
        """Tell ``steps`` of each step of a task, and let its schedule choose."""
        hook = missing_hook(self)
        if hook is not None:
            raise StepsHiddenError("asyncio", hook)
        left, schedule = self._ready, steps.schedule
        ready = WatchedQueue(steps) if schedule is None else PermutedQueue(steps, schedule)
        self._ready, self._left = ready, left
        self.woken()
        for task in self._outside:  # which are not of the code under test
            steps.record(task)

    def start_test(self) -> object:
        """Note which task runs the code under test, and which tasks were there before."""
        self._host = asyncio.current_task(self)
        self._outside = set() if self.world.alone else asyncio.all_tasks() - {self._host}
        self._forced = False
        return self._host

    def cancelled_outside(self) -> bool:
        """Return whether the host task has been cancelled by others than `blocked`."""
        assert self._host is not None  # noqa: S101 - asked inside a guard
        return self._host.cancelling() > self._forced

    def end_test(self) -> None:
        """Forget the tasks, and take back what `blocked` has done to the host."""
        if self._forced and self._host is not None:
            self._host.uncancel()
        self._host = None
        self._outside = set()

    def awaits_writing(self, fd: int) -> bool:
        """Return whether a transport or a callback waits until it can write to a descriptor."""
        key = self._files.map.get(fd)
        return key is not None and bool(key.events & selectors.EVENT_WRITE)

    def bury(self, tasks: Iterable[Any]) -> None:
        """Cancel tasks of a program that was killed, which nobody will ask how they ended."""
        for task in tasks:
            self._dead.add(task)
            task.add_done_callback(_forget)
            task.cancel()

    def abandon(self, files: list[int]) -> None:
        """Wait no more for descriptors whose program was killed."""
        for fd in files:
            if fd in self._files.map:
                self._files.unregister(fd)

    def join(self, network: Beside) -> Callable[[], None]:  # noqa: ARG002 - an engine's
        """Do nothing: the loop asks its world."""
        return _nothing

    def idle(self) -> float | None:
        """
        Decide what to do when nothing is ready and no event is pending.

        Returns:
            None if something is ready now, else the real seconds to wait for something real.
        """
        if self.woken():
            return None
        network = self.world.network
        if network is not None and network.stirs():
            self.spun()
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
        elif (moment := self._next_moment()) < math.inf:
            self._now = moment
            self._resolve()
            if network is not None:
                network.arrive()
        else:
            return self.world.patience(real_io=self._awaits_real_io())
        return None

    def _next_moment(self) -> float:
        """Return when something happens next, ``inf`` if nothing will."""
        moment = self._scheduled[0].when() if self._scheduled else math.inf
        network = self.world.network
        return moment if network is None else min(moment, network.next_at())

    def due(self) -> bool:
        """Return whether the loop itself has something to do now."""
        return bool(self._ready) or (
            bool(self._scheduled) and self._scheduled[0].when() <= self._now
        )

    def woken(self) -> bool:
        """Return whether something is ready all the same, as a thread may have seen to."""
        while self._left:  # from a thread that had got hold of the queue when it was replaced
            self._ready.append(self._left.popleft())
        return bool(self._ready)

    def may_sleep(self) -> bool:
        """Return whether the loop may sleep, from which threads and signals can wake it now."""
        self._ensure_pipe()
        return not self.woken()

    def active(self) -> None:
        """Note that something real has come, and so that the run is not spinning."""
        self.world.turns = 0

    def spun(self) -> None:
        """Count a turn in which something ran and time did not pass; give up at too many."""
        if self.world.turns < self.world.max_turns:
            self.world.turns += 1
        else:
            self._force(self.world.turned())

    def blocked(self, patience: float) -> None:
        """Give up after ``patience``: end the code under test, or else break off the loop."""
        self._force(self.world.stuck(patience))

    def _force(self, failure: BaseException | None) -> None:
        if failure is None:
            return
        if self._host is None or self._forced:
            raise failure
        self._forced = True  # Task.cancel() minds no shield
        for task in asyncio.all_tasks(self) - self._outside:
            task.cancel()

    def _resolve(self) -> None:
        # Timers up to time() + resolution fire. With a fixed resolution they would fire too early
        # near 0, and never again once time() + resolution == time(): past 2**24 s, after 194 days.
        self._clock_resolution = math.ulp(self._now)

    def _awaits_real_io(self) -> bool:
        self._children = [child for child in self._children if child.get_returncode() is None]
        files, network = self._files.map, self.world.network
        simulated = (
            0 if network is None else sum(network.number_of(key.fd) > 0 for key in files.values())
        )
        return bool(self._children) or len(files) - simulated > self._files.own_files


def _forget(task: asyncio.Task[Any]) -> None:
    """Let nobody be told that nobody asked how a task has ended."""
    if not task.cancelled():
        task.exception()


def _nothing() -> None:
    """Do nothing."""


def _wake_all(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        _wake(future)
    futures.clear()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


# ---- when the loop sleeps, and in which order it wakes -------------------------------------------


class Timer(asyncio.TimerHandle):
    """A timer that is ordered by its moment, and at one moment by when it was set."""

    __slots__ = ("_key",)

    _scheduled: bool

    def __init__(
        self,
        key: tuple[float, int],
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        super().__init__(key[0], callback, args, loop, context)
        self._key = key
        self._scheduled = True  # it will be, and cancel() must tell the loop

    def __lt__(self, other: object) -> bool:
        return self._key < other._key if isinstance(other, Timer) else NotImplemented


class JumpingSelector(selectors.DefaultSelector):
    """Asks the loop what to do whenever the loop is about to sleep."""

    loop: VirtualLoop

    def __init__(self) -> None:
        super().__init__()
        self.map = self.get_map()
        self.own_files = 0
        """How many files are there for the loop itself: its pipe."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Look for events; sleep only for as long as the loop's engine wants."""
        events = self._look()
        if not events and (timeout is None or timeout > 0):
            return self._wait()
        if self._is_real(events):
            self.loop.active()
        else:
            self.loop.spun()
        return events

    def _look(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the events that there are, those of simulated sockets in a stable order."""
        events = super().select(0) if len(self.map) else []  # Windows refuses to look at no file
        network = self.loop.world.network
        if network is not None and len(events) > 1:
            events.sort(key=lambda event: network.number_of(event[0].fd))
        return events

    def _is_real(self, events: list[tuple[selectors.SelectorKey, int]]) -> bool:
        """Return whether something outside of the simulation has happened."""
        network = self.loop.world.network
        if network is None or not events:
            return bool(events)
        return any(not network.number_of(key.fd) for key, _ in events)

    def _wait(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Let time jump, or wait for something real; give up when nothing comes."""
        patience = self.loop.idle()
        while patience is None and self.loop.world.network is not None and not self.loop.due():
            events = self._look()  # the network has stirred
            if events:
                return events
            patience = self.loop.idle()
        if patience is None or (patience and not self.loop.may_sleep()):
            return []
        if patience == math.inf:
            return super().select(None)
        for _ in range(NAPS if patience else 0):
            events = super().select(patience / NAPS)
            if events:
                return events
        self.loop.blocked(patience)
        return []


# ---- the order of what is ready ------------------------------------------------------------------


def task_of(callback: Any) -> asyncio.Task[Any] | None:
    """Return the task of which a callback is a step; None if it is not a step."""
    owner: Any = getattr(callback, "__self__", None)
    kind: type[Any] = asyncio.Task
    if not isinstance(owner, kind):
        return None
    name = getattr(callback, "__name__", "_")
    public = not name.startswith("_") and hasattr(kind, name)  # such as task.cancel
    return None if public else owner


class WatchedQueue(deque[asyncio.Handle]):
    """asyncio's own order, watched."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self._steps = steps

    def popleft(self) -> asyncio.Handle:
        """Take the oldest."""
        self._steps.between()
        handle = super().popleft()
        callback: Any = getattr(handle, CALLBACK)
        task = task_of(callback)
        if task is not None:
            self._steps.begin(task, self._steps.record(task), task.get_coro())
        return handle


_Entry: TypeAlias = (
    "tuple[tuple[int, float], Any, asyncio.Task[Any] | None, TaskRecord | None, bool, int]"
)
"""What is ready: its key, handle, task and record, whether it is a plain callback, its batch."""

_key = itemgetter(0)
_HANDLE: Final = 1
_PLAIN: Final = 4
_BATCH: Final = 5


class PermutedQueue(list[_Entry]):
    """
    The order of a schedule.

    Other threads may append meanwhile, as ``call_soon_threadsafe`` does. It is a list of entries to
    itself, in the order of arrival, and a queue of handles to the event loop.
    """

    # Invariants:
    # - _due counts the plain callbacks that an eager schedule runs before it chooses again: those
    #   that were there when the step before was over, so that one that comes back each time, as
    #   anyio's delivery of a cancellation does, does not run for ever;
    # - _places are those of the callbacks among them that come next, as they were at the last
    #   choice, and _taken is how many were taken since: others are added behind them;
    # - _batch is the number that new entries get; a fair schedule takes the oldest batch first.
    __slots__ = ("_batch", "_due", "_eager", "_fair", "_places", "_stepped", "_steps", "_taken")

    def __init__(self, steps: Steps, schedule: Schedule) -> None:
        super().__init__()
        self._steps = steps
        self._fair = schedule.fair
        self._eager = schedule.eager
        self._batch = 0
        self._due = 0
        self._places: list[int] = []
        self._taken = 0
        self._stepped = False

    def append(self, handle: Any) -> None:
        """Add what has become ready."""
        steps = self._steps
        task = task_of(handle._callback)  # noqa: SLF001 - the only way to find out
        if task is not None:
            record = steps.record(task)
            super().append((steps.key(record), handle, task, record, False, self._batch))
        else:
            plain = not isinstance(handle, asyncio.TimerHandle)
            super().append(((steps.number, LAST), handle, None, None, plain, self._batch))

    def popleft(self) -> Any:
        """Take what the schedule wants."""
        steps = self._steps
        if steps.stepping is not None:
            steps.between()
        if self._taken < len(self._places):
            at = self._places[self._taken] - self._taken
            self._taken += 1
        else:
            at = 0 if len(self) == 1 and not self._fair else self._next(self[:])
        _, handle, task, record, plain, _ = self.pop(at)
        if plain:
            self._due -= 1
            return handle
        self._stepped = True
        if task is not None and record is not None:
            steps.begin(task, record, task.get_coro())
        return handle

    def _next(self, entries: list[_Entry]) -> int:
        """Return the position of the entry that is next."""
        # There may be thousands of entries, so Python's loops over all of them are short. A handle
        # that was cancelled is given to the loop, which drops it.
        plains = [entry[_PLAIN] for entry in entries]
        if self._stepped and self._eager:
            self._due = plains.count(True)
        self._stepped = False
        first = plains.index(True) if True in plains else len(entries)
        dropped = [entry[_HANDLE]._cancelled for entry in entries[: first + 1]]  # noqa: SLF001 - as it asks
        if True in dropped:
            return dropped.index(True)
        candidates = entries[:first]
        plain = entries[first] if first < len(entries) else None
        if self._fair:
            candidates, plain = self._of_oldest_batch(entries[0][_BATCH], candidates, plain)
        if plain is not None and (not candidates or (self._eager and self._due > 0)):
            chosen = plain
        else:
            candidates.sort(key=_key)
            if plain is not None and not self._eager:
                candidates.append(plain)
            chosen = candidates[self._steps.choose(candidates)]
        if chosen is not plain:
            return [*map(id, entries)].index(id(chosen))
        if self._eager and not self._fair and self._due > 1:
            self._places = [at for at, each in enumerate(plains) if each][: self._due]
            self._taken = 1
        return first

    def _of_oldest_batch(
        self, oldest: int, candidates: list[_Entry], plain: _Entry | None
    ) -> tuple[list[_Entry], _Entry | None]:
        """Leave out what came after a batch that is not through yet."""
        if oldest == self._batch:
            self._batch += 1
        candidates = [entry for entry in candidates if entry[_BATCH] == oldest]
        if candidates and plain is not None and plain[_BATCH] != oldest:
            plain = None
        return candidates, plain


# ---- whether this version of asyncio shows the steps of its tasks --------------------------------


def missing_hook(loop: object) -> str | None:
    """Return what ``loop`` lacks of that which the queues need, None if it has all."""
    if not isinstance(getattr(loop, READY, None), deque):
        return f"loop.{READY}"
    for slot in (CALLBACK, CANCELLED):
        if not hasattr(asyncio.Handle, slot):
            return f"Handle.{slot}"
    return None if shows_tasks() else STEP


@cache
def shows_tasks() -> bool:
    """Return whether each of the ways in which a task is made to run is known to be its step."""
    with ThreadPoolExecutor(1) as aside:  # a loop of its own may be running here
        return aside.submit(_probe).result()


def _probe() -> bool:
    seen: list[asyncio.Task[Any] | None] = []

    class Queue(deque[asyncio.Handle]):
        def popleft(self) -> asyncio.Handle:
            handle = super().popleft()
            seen.append(task_of(getattr(handle, CALLBACK)))
            return handle

    async def steps(loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
        await asyncio.sleep(0)
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future
        return asyncio.current_task()

    loop: Any = asyncio.SelectorEventLoop()
    try:
        setattr(loop, READY, Queue())
        task = loop.run_until_complete(steps(loop))
    finally:
        loop.close()
    # Starting, continuing after a bare yield, a plain callback, being woken.
    return seen[:4] == [task, task, None, task]
