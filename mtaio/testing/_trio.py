"""
Virtual time on trio: a `trio.testing.MockClock` that knows about threads and deadlocks.

Promise: time moves only when every task is blocked and no event is pending, to the very moment of
the next deadline. Among tasks that fall due at one moment trio chooses the order, by lot.

trio jumps only with a `MockClock`, which is final, so its methods are replaced on one instance.
Private hooks, which canary tests watch: ``MockClock._autojump`` (called when all is blocked), and
to throw into a task behind shields ``Task._abort_func``, ``Task._attempt_abort`` and the variable
``task_register`` of ``to_thread.run_sync``; to end one that spins behind shields the ``_scope`` of
``Task._cancel_status`` and of its ancestors.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from contextlib import ExitStack
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import outcome
import trio
import trio.testing

from mtaio._internal.clock import Clock
from mtaio.testing._diagnostics import Suspended
from mtaio.testing._world import NAPS, Running, StepsHiddenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mtaio.testing._diagnostics import Steps, TaskRecord
    from mtaio.testing._schedule import Schedule
    from mtaio.testing._world import Beside, World

AUTOJUMP: Final = "_autojump"
CURRENT_TIME: Final = "current_time"
ABORT: Final = "_attempt_abort"
REGISTER: Final = "task_register"
STATUS: Final = "_cancel_status"
SCOPE: Final = "_scope"
CONTEXT_MODULE: Final = "trio._core._run"
CONTEXT: Final = "GLOBAL_RUN_CONTEXT"
RUNNER: Final = "runner"
RUNQ: Final = "runq"
IO_MANAGER: Final = "io_manager"
REGISTERED: Final = "_registered"

_OWN_FILES: Final = 1
"""The run loop's own wait for input: the socket with which threads and signals wake it."""

_ATTEMPTS: Final = 100
"""How often to throw a deadlock into the blocked tasks before the run is abandoned."""


class TrioEngine(trio.abc.Instrument):
    """
    The engine of a world on trio, one run after another, each with a clock that starts at 0.

    Raises:
        RuntimeError: This version of trio has not got the hooks that are needed.
    """

    # Invariants:
    # - _deadline is the next deadline, as of the last time the run loop found nothing to run;
    # - _wait is None, or the real seconds for which the run loop is to sleep (_sleeping: is asleep)
    #   instead of calling _idle at once; it has _slept through so many parts of them.
    def __init__(self, world: World) -> None:
        missing = [
            f"{owner.__name__}.{hook}"
            for owner, hook in ((trio.testing.MockClock, AUTOJUMP), (trio.lowlevel.Task, ABORT))
            if not hasattr(owner, hook)
        ]
        if missing:
            msg = (
                f"mtaio.testing cannot run trio {trio.__version__} under virtual time: it has no "
                f"{' and no '.join(missing)}. Use a version that mtaio was tested with."
            )
            raise RuntimeError(msg)
        self.world = world
        self._host: trio.lowlevel.Task | None = None
        self._exhausting = trio.lowlevel.ParkingLot()
        self.clock = trio.testing.MockClock(autojump_threshold=0)
        for method, ours in {
            "start_clock": self._start,
            CURRENT_TIME: self.time,
            "deadline_to_sleep_time": self._sleep_time,
            "jump": self._jump,
            AUTOJUMP: self._idle,
        }.items():
            setattr(self.clock, method, ours)
        self._running = ExitStack()

    # ---- the clock -------------------------------------------------------------------------------

    def time(self) -> float:
        """Return the virtual time in seconds since the run began."""
        return self._now

    def _start(self) -> None:
        self._now = 0.0
        self._deadline = math.inf
        self._files: dict[int, object] | None = None
        self._wait: float | None = None
        self._slept = 0
        self._sleeping = False
        self._attempts = 0
        self._kept = Clock(self.time)
        self._running.enter_context(Running(self.world, self._kept, "trio"))
        self.world.attach(self)
        setattr(self.clock, CURRENT_TIME, self.time)
        if self.world.schedule is not None:
            try:
                self.world.observed()
            except StepsHiddenError as error:
                self.world.failure = error  # or else trio says that the fault is its own
                raise
        self.clock.autojump_threshold = 0  # which tells the run loop of it

    def _jump(self, seconds: float) -> None:
        self._now += seconds

    def _sleep_time(self, deadline: float) -> float:
        # Called whenever there is nothing to run, before the threshold is looked at. After the
        # sleep that _idle asked for, the loop has had its event or its timeout: back to jumping.
        if self._sleeping:
            self._sleeping, self._wait = False, None
            self.clock.autojump_threshold = 0
        elif self._wait is not None:
            self._sleeping = True
        self._deadline = deadline
        network = self.world.network
        if network is not None and network.stirs():
            self.turned()
            return 0.0  # look for what has come of it
        return 0.0 if deadline <= self._now else math.inf

    def _idle(self) -> None:
        """Decide what to do when every task is blocked and no event is pending."""
        if self._wait is not None:  # it slept, and nothing came
            self._slept += 1
            if self._slept < NAPS:
                self._sleeping = False  # but is to once more
                return
            self.world.idle()
            self._blocked(self._wait)
            return
        self.world.idle()
        hidden = self._hidden_threads()
        if not self.world.frozen(hidden):
            if self._exhausting:
                self._exhausting.unpark_all()
                return
            network = self.world.network
            moment = self._deadline
            if network is not None:
                moment = min(moment, network.next_at())
            if moment < math.inf:
                self._now = moment
                if network is not None:
                    network.arrive()
                return
        patience = self.world.patience(real_io=_awaits_real_io(self.world), hidden=hidden)
        if patience:
            self._wait = patience
            self._slept = 0
            self.clock.autojump_threshold = patience / NAPS
        else:
            self._blocked(patience)

    def _hidden_threads(self) -> int:
        """Return how many threads are at work that trio has started on its own account."""
        return trio.testing.active_thread_count() - len(self.world.hosts)

    def _blocked(self, patience: float) -> None:
        failure = self.world.stuck(patience)
        if failure is None:
            return
        self._attempts += 1
        if self._attempts > _ATTEMPTS:
            raise failure  # trio gives up the run, with a TrioInternalError
        # Children first: a parent's nursery cancels them, and none may be woken twice.
        for task in reversed(tuple(_family([self._host] if self._host else _main_tasks()))):
            _throw(failure, task)

    # ---- the instrument --------------------------------------------------------------------------

    def __dir__(self) -> tuple[str, ...]:
        """Name what trio may call: it tries every name of an instrument, which takes its time."""
        if self.world.schedule is None:
            return "before_io_wait", "task_spawned", "after_run"
        return ("after_run",)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """Let a new task have its number; with steps it gets it with the first of them."""
        if self.world.steps is None:
            self.world.task_made(task)

    def before_io_wait(self, timeout: float) -> None:
        """Count a turn of the run loop in which something ran, where no schedule's queue does."""
        if timeout <= 0:
            self.turned()

    def turned(self) -> None:
        """Count a turn of the run loop in which something ran; give up when there are too many."""
        world = self.world
        if world.turns < world.max_turns:
            world.turns += 1
            return
        failure = world.turned(self._hidden_threads())
        if failure is None:
            return
        self._attempts += 1
        if self._attempts == 1:  # the cancellation of the first failure has met a shield
            for task in _family([self._host] if self._host else _main_tasks()):
                _unshield(task)
            return

        def break_off() -> NoReturn:
            raise failure

        # An instrument's errors are only logged. The run loop asks for the time next.
        setattr(self.clock, CURRENT_TIME, break_off)

    def after_run(self) -> None:
        """Let mtaio's clock go, and forget the world."""
        self._running.close()
        self._kept.stop()
        self.world.detach(self)

    # ---- the engine ------------------------------------------------------------------------------

    async def sleep_until(self, moment: float) -> None:
        """Sleep until virtual time is ``moment``, exactly."""
        await trio.sleep_until(moment)

    async def settle(self) -> None:
        """Wait until every other task is blocked."""
        await trio.testing.wait_all_tasks_blocked()

    async def exhaust(self) -> None:
        """Wait until every task is blocked, no event is pending and the clock is not frozen."""
        await self._exhausting.park()

    def suspended(self) -> list[Suspended]:
        """Return each task in the order of their start, trio's own tasks aside."""
        tasks = sorted(_family(_main_tasks()), key=lambda task: getattr(task, "_counter", 0))
        age_of = self.world.age_of
        return [Suspended(task.name, task.coro, id(task), age_of(task)) for task in tasks]

    def current_task(self) -> object:
        """Return the task that is running."""
        return trio.lowlevel.current_task()

    def watch(self, steps: Steps) -> None:
        """Tell ``steps`` of each step of a task, and let its schedule choose."""
        runner = running_runner()
        if runner is None:
            raise StepsHiddenError("trio", f"{RUNNER}.{RUNQ}")
        if steps.schedule is not None:
            runner.runq = PermutedQueue(steps, steps.schedule, self, runner.runq)
        else:
            trio.lowlevel.add_instrument(StepWatch(steps))
        root = trio.lowlevel.current_root_task()
        if root is not None and self._host is not None:
            for task in set(_family([root])).difference(_family([self._host])):
                steps.record(task)

    def start_test(self) -> object:
        """Note which task runs the code under test."""
        self._host = trio.lowlevel.current_task()
        self._attempts = 0
        return self._host

    def cancelled_outside(self) -> bool:
        """Return True: it was not the engine, which throws other things."""
        return True

    def end_test(self) -> None:
        """Forget the task."""
        self._host = None

    def awaits_writing(self, fd: int) -> bool:
        """Return whether a task waits until it can write to a descriptor."""
        if self._files is None:
            self._files = awaited_files()
        waiters: Any = self._files.get(fd)
        return waiters is not None and getattr(waiters, "write_task", waiters) is not None

    def bury(self, tasks: Iterable[Any]) -> None:
        """Do nothing: all tasks of trio are in nurseries."""

    def abandon(self, files: list[int]) -> None:
        """Do nothing: the tasks that waited for them were cancelled."""

    def join(self, network: Beside) -> Callable[[], None]:
        """Let trio's sockets and lookups of names be on a network."""
        from mtaio.testing._network import _trio_sockets  # noqa: PLC0415 - where there is one

        return _trio_sockets.join(network)


def _main_tasks() -> list[trio.lowlevel.Task]:
    """Return the main task, or when that is over the system tasks that keep the run from ending."""
    root = trio.lowlevel.current_root_task()
    assert root is not None  # noqa: S101 - it is there as long as the run lasts
    # Of the nurseries that the root task has nested, the innermost holds the main task alone.
    return [*root.child_nurseries[-1].child_tasks]


def _family(waiting: list[trio.lowlevel.Task]) -> Iterator[trio.lowlevel.Task]:
    """Yield tasks and all that descend from them, parents first."""
    while waiting:
        task = waiting.pop()
        yield task
        for nursery in task.child_nurseries:
            waiting.extend(nursery.child_tasks)


def _throw(error: BaseException, task: Any) -> None:
    """Raise ``error`` in a blocked task at the place where it waits, in spite of shields."""

    def raise_error() -> NoReturn:
        raise error

    if task._abort_func is not None:  # noqa: SLF001 - trio has no public way through a shield
        task._attempt_abort(raise_error)  # noqa: SLF001 - ditto
    elif not any(nursery.child_tasks for nursery in task.child_nurseries):
        # It refuses to be woken, like a task that waits for a hung thread. The thread must not wake
        # it either, later and elsewhere. (A task that waits for its children ends with them.)
        for frame, _ in task.iter_await_frames():
            frame.f_locals.get(REGISTER, [None])[0] = None
        trio.lowlevel.reschedule(task, outcome.Error(error))


def _unshield(task: Any) -> None:
    """Let a cancellation through to a task that cannot be thrown at, because it does not wait."""
    status = getattr(task, STATUS, None)
    while status is not None:
        scope = getattr(status, SCOPE, None)
        if scope is not None:
            scope.shield = False
        status = status.parent


def _awaits_real_io(world: World) -> bool:
    """Return whether a task waits for a file descriptor, a handle or a process that is real."""
    network = world.network
    if network is not None:
        return sum(not network.number_of(fd) for fd in awaited_files()) > _OWN_FILES
    statistics = trio.lowlevel.current_statistics().io_statistics
    kinds = ("", "_read", "_write", "_overlapped")  # each platform has some of them
    return sum(getattr(statistics, f"tasks_waiting{kind}", 0) for kind in kinds) > _OWN_FILES


def awaited_files() -> dict[int, object]:
    """Return who waits for which descriptor; on Linux, where there are simulated ones."""
    awaited: dict[int, object] = getattr(getattr(_runner(), IO_MANAGER, None), REGISTERED, {})
    return awaited


# ---- the steps of tasks --------------------------------------------------------------------------


def _runner() -> Any:
    """Return the runner of the run that is on in this thread, None if it is not to be found."""
    return getattr(getattr(sys.modules.get(CONTEXT_MODULE), CONTEXT, None), RUNNER, None)


def running_runner() -> Any:
    """Return the runner of the run that is on in this thread, None if the hook is not there."""
    found = _runner()
    return found if isinstance(getattr(found, RUNQ, None), deque) else None


class StepWatch(trio.abc.Instrument):
    """Tells of each step of each task, where no schedule chooses them."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Tell that a step begins."""
        self._steps.begin(task, self._steps.record(task), task.coro)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - trio's signature
        """Tell that it is over."""
        self._steps.between()


_Entry: TypeAlias = "tuple[tuple[int, float], trio.lowlevel.Task, TaskRecord, int]"
"""What can run: its key, task, record and batch."""

_key = itemgetter(0)
_BATCH: Final = 3


class PermutedQueue:
    """
    The order of a schedule: a queue of which the run loop sees one task at a time.

    The run loop takes that task and lets it take a step at once; so the steps are known without an
    instrument.
    """

    # Invariants:
    # - _entries is in the order of arrival;
    # - _batch is the number that new entries get; a fair schedule takes the oldest batch first.
    __slots__ = ("_batch", "_engine", "_entries", "_schedule", "_steps")

    def __init__(
        self,
        steps: Steps,
        schedule: Schedule,
        engine: TrioEngine,
        left: Iterable[trio.lowlevel.Task],
    ) -> None:
        self._steps = steps
        self._schedule = schedule
        self._engine = engine
        self._batch = 0
        self._entries: list[_Entry] = [self._entry(task) for task in left]

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, task: trio.lowlevel.Task) -> None:
        """Add a task that can run."""
        self._entries.append(self._entry(task))

    def _entry(self, task: trio.lowlevel.Task) -> _Entry:
        record = self._steps.record(task)
        return self._steps.key(record), task, record, self._batch

    def clear(self) -> None:
        """Keep what the run loop, which has taken one, believes to have taken."""

    def __iter__(self) -> Iterator[trio.lowlevel.Task]:
        """Take the one that the schedule wants, whose step begins with that."""
        steps = self._steps
        if steps.stepping is not None:
            steps.between()
        entries = self._entries
        if not entries:
            return iter(())
        self._engine.turned()
        if len(entries) == 1 and not self._schedule.fair:
            _, task, record, _ = entries.pop()
        else:
            entry = self._next()
            entries.remove(entry)
            _, task, record, _ = entry
        steps.begin(task, record, task.coro)
        return iter((task,))

    def _next(self) -> _Entry:
        """Return the entry that the schedule wants."""
        candidates = self._entries
        if self._schedule.fair:
            oldest = candidates[0][_BATCH]
            if oldest == self._batch:
                self._batch += 1
            candidates = [entry for entry in candidates if entry[_BATCH] == oldest]
        candidates = sorted(candidates, key=_key)
        return candidates[self._steps.choose(candidates)]
