"""
What a run reports: where its tasks wait, which steps they took, and why it failed.

Promise: the stacks of a `Deadlock` name every task of the run and every worker thread that holds
the clock. What a `Step` says depends on the program alone, not on addresses, hashes or the Python
version. Nothing here raises into the event loop.
Cost: a step costs a walk along its task's awaits, in a run whose steps are watched; no source is
read until it is wanted.
"""

from __future__ import annotations

import hashlib
import linecache
import os
import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import groupby
from types import CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeGuard, cast, final
from weakref import WeakKeyDictionary, ref

import anyio

from mtaio._internal.frames import await_chain, next_await
from mtaio._internal.waits import Wait, cycles, waits_of
from mtaio.testing._schedule import Choices, Schedule, choices_of

KEPT: Final = 10_000
"""How many steps the trace of a run goes back."""

SHOWN: Final = 60
"""How many lines of steps an error shows at most: the last ones."""

FOLDED: Final = 1_000
"""How many steps are looked at for repeats: the last ones."""

LONGEST: Final = 6
"""How many lines there are at most in what repeats."""

BROKEN: Final = "the run is broken off"
"""How the words on a failure of the whole run end."""

ALIKE: Final = 2
"""How many stacks of tasks that wait for the same are shown each for itself."""

NAMED: Final = 5
"""How many tasks are named at most of those that are shown together, or that hold something."""

LAST: Final = float("inf")
"""The age, among candidates that were woken together, of what is not a task."""


# ---- a run that is stuck -------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Where a task or a thread was when the run was stuck."""

    kind: Literal["task", "thread"]
    """``"task"`` for a task of the event loop, ``"thread"`` for a worker thread."""

    name: str
    """The name of the task or of the thread."""

    frames: tuple[str, ...]
    """``file:line in function: source``, outermost first; the last one is where it waits."""

    waits_for: str | None = None
    """
    What it waits for and which task holds that, as in
    ``slot of ConcurrencyLimiter 'db', held by 'load'``; None if only the line is known.
    """

    number: int | None = None
    """The task's number in the interleaving, if there are several tasks of this name."""

    def __str__(self) -> str:
        return f"  {self.kind} {_told_apart(self.name, self.number)} is at{_lines_of(self)}"


def _told_apart(name: str, number: int | None) -> str:
    return f"{name!r}" if number is None else f"{name!r} #{number}"


def _lines_of(stack: Stack) -> str:
    waits = () if stack.waits_for is None else (f"waits for {stack.waits_for}",)
    return "".join(f"\n    {line}" for line in (*stack.frames, *waits))


class _Stuck(AssertionError):  # noqa: N818 - the failure of a test, like AssertionError
    """The whole run is stuck; with the stacks."""

    reason: str
    stacks: tuple[Stack, ...]
    cycles: tuple[str, ...]

    def __init__(
        self, reason: str, stacks: tuple[Stack, ...] = (), cycles: tuple[str, ...] = ()
    ) -> None:
        super().__init__(reason, stacks, cycles)
        self.reason = reason
        self.stacks = stacks
        self.cycles = cycles

    def __str__(self) -> str:
        told = (f"  {cycle}" for cycle in self.cycles)
        return "\n".join([self.reason, *told, *_folded_stacks(self.stacks)])


def _folded_stacks(stacks: Iterable[Stack]) -> Iterator[str]:
    """Yield a text for each stack; one for all tasks that wait at the same place for the same."""
    alike: dict[object, list[Stack]] = {}
    for stack in stacks:
        alike.setdefault((stack.kind, stack.frames, stack.waits_for), []).append(stack)
    for same in alike.values():
        if len(same) <= ALIKE:
            yield from map(str, same)
            continue
        names = [*dict.fromkeys(repr(stack.name) for stack in same)]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        who = f"{len(same)} {same[0].kind}s {', '.join(names[:NAMED])}{more}"
        yield f"  {who} are at{_lines_of(same[0])}"


class Deadlock(_Stuck):
    """
    No task of a simulated run can wake up any more, so the test fails instead of hanging.

    It is raised by `run` and in tests on a `virtual_backend`, after the run was cancelled and has
    cleaned up. If the clean-up blocks too, ``__cause__`` is the first failure.

    Args:
        reason: What is stuck, since when, and what to do.
        stacks: Where each task and each worker thread was at that moment.
        cycles: Which tasks wait for each other.

    Example:
        ```python
        import anyio

        from mtaio.testing import Deadlock, run


        async def take_twice() -> None:
            lock = anyio.Semaphore(1)
            async with lock, lock:
                print("not reached: a semaphore is not re-entrant")


        try:
            run(take_twice)
        except Deadlock as stuck:
            assert "in take_twice" in str(stuck)
        ```
    """

    __module__ = "mtaio.testing"  # as users import it


class Livelock(_Stuck):
    """
    The tasks of a simulated run make no progress, so the test fails.

    The event loop has turned ``max_turns`` times without virtual time moving, because tasks loop
    over ``sleep(0)`` or keep waking each other up. Like `Deadlock`, it is raised after the run was
    cancelled.

    Args:
        reason: How long, at which time, and what to do.
        stacks: Where each task and each worker thread was at that moment.
        cycles: Which tasks wait for each other.

    Example:
        ```python
        import anyio

        from mtaio.testing import Livelock, run


        async def spin() -> None:
            while True:
                await anyio.sleep(0)


        try:
            run(spin, max_turns=100)
        except Livelock as stuck:
            assert "in spin" in str(stuck)
        ```
    """

    __module__ = "mtaio.testing"  # as users import it


class Suspended(NamedTuple):
    """A task as its engine knows it."""

    name: str
    coroutine: Any
    id: int
    """Of which its holders are known."""

    age: int = 0
    """Its number among the tasks of the run; 0 for those that are not of the code under test."""


class Ages:
    """The numbers of tasks as `Steps` gives them, for runs in which nobody watches the steps."""

    __slots__ = ("_ages", "_seen")

    def __init__(self) -> None:
        self._ages: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._seen = 0

    def start_test(self, host: Any) -> None:
        """Begin to count, from the task of the code under test."""
        self._ages.clear()
        self._seen = 0
        self.add(host)

    def add(self, task: Any) -> None:
        """Give a new task its number."""
        self._seen += 1
        self._ages[task] = self._seen

    def of(self, task: Any) -> int:
        """Return the number of a task; 0 if it is not of the code under test."""
        return self._ages.get(task, 0)


class Standstill(NamedTuple):
    """Where all tasks are, and which of them wait for each other."""

    stacks: tuple[Stack, ...]
    cycles: tuple[str, ...]


def standstill_of(
    tasks: Sequence[Suspended],
    at_socket: Callable[[list[FrameType]], str | None] | None = None,
    *,
    sure: bool = True,
) -> Standstill:
    """
    Return where tasks are, what they wait for, and the cycles among them.

    The frames that lead to the test's own code and on from it are left out, and so are tasks in
    which there is nothing else, such as the helpers of a test runner, unless there is no other
    task. What ``at_socket`` says of a task's frames, innermost first, ends its stack.

    Args:
        tasks: The tasks.
        at_socket: Says for which socket of a simulated network a task waits.
        sure: Whether anybody but the holders that were found may end a wait: nobody may where all
            are stuck.
    """
    chains = {task.id: await_chain(task.coroutine) for task in tasks}
    alike = Counter(task.name for task in tasks)
    numbers = {task.id: task.age or None for task in tasks if alike[task.name] > 1}
    names = {task.id: _told_apart(task.name, numbers.get(task.id)) for task in tasks}
    found = waits_of(chains, None, keys=True)
    own: list[Stack] = []
    others: list[Stack] = []
    for task in tasks:
        frames = [frame for frame in chains[task.id].frames if not isinstance(frame, str)]
        places = [*map(_location, frames)]
        theirs = [i for i, place in enumerate(places) if not MACHINERY[place[0]]]
        shown = places[theirs[0] : theirs[-1] + 1] if theirs else places
        lines = tuple(_line(code_file, line, where) for code_file, line, where in shown)
        said = None if at_socket is None else at_socket(frames[::-1])
        if said is not None:
            lines += (said,)
        wait = found[task.id].wait if task.id in found else None
        waits_for = None if wait is None or said is not None else _in_words(wait, names)
        stack = Stack(
            kind="task",
            name=task.name,
            frames=lines,
            waits_for=waits_for,
            number=numbers.get(task.id),
        )
        (own if theirs else others).append(stack)
    lists = cycles(found, sure=sure)
    told = tuple(
        _cycle_in_words([found[task].wait for task in each], each, names) for each in lists
    )
    return Standstill(tuple(own or others), told)


_PLAIN: Final = {"future", "sleep", "socket", "tasks", "thread"}
"""What the lines of a stack say themselves, if something is waited for."""


def _in_words(wait: Wait, names: Mapping[int, str]) -> str | None:
    """Return what a task waits for, and who holds it; None if the lines say as much."""
    if wait.of in {None, "Event"} or wait.on in _PLAIN:
        return None
    return f"{wait.what}{_held_by(wait, names)}"


def _held_by(wait: Wait, names: Mapping[int, str]) -> str:
    held = [names[holder] for holder in wait.holders if holder in names]
    if not held:
        return ""
    more = f" and {len(held) - NAMED} more" if len(held) > NAMED else ""
    return f", held by {', '.join(held[:NAMED])}{more}"


def _cycle_in_words(waits: list[Wait], cycle: Sequence[int], names: Mapping[int, str]) -> str:
    """Return a line for a cycle: each task waits for the next, and the last for the first."""
    steps: list[str] = []
    for task, holder, wait in zip(cycle, (*cycle[1:], cycle[0]), waits, strict=True):
        what = f"{wait.what}, held by" if wait.on not in _UNHELD else "the end of"
        steps.append(f"{names[task]} for {what} {names[holder]}")
    who = (
        "a task waits for itself" if len(cycle) == 1 else f"{len(cycle)} tasks wait for each other"
    )
    return f"{who}: {'; '.join(steps)}"


_UNHELD: Final = {"task", "tasks"}
"""What is waited for that are the tasks themselves."""


def thread_stack(ident: int, name: str) -> Stack:
    """Return the stack of a running thread; empty if the thread has ended."""
    frames_of = sys._current_frames  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - documented
    frame = frames_of().get(ident)
    frames: list[str] = []
    while frame is not None:
        frames.append(_line(*_location(frame)))
        frame = frame.f_back
    return Stack(kind="thread", name=name, frames=tuple(reversed(frames)))


def _location(frame: FrameType) -> tuple[str, int, str]:
    return frame.f_code.co_filename, _line_of(frame), frame.f_code.co_qualname


def _line_of(frame: FrameType) -> int:
    """Return the line at which a frame is; 0 if it does not say, as with compiled coroutines."""
    line: int | None = frame.f_lineno
    return line or 0


def _line(file: str, line: int, where: str) -> str:
    source = linecache.getline(file, line).strip()
    return f"{file}:{line} in {where}: {source}"


_ANYIO: Final = 1
_LOOP: Final = 2
"""What a file has of the machinery: AnyIO, or what is below it."""


class _Machinery(dict[str, int]):
    """Whether a file belongs to AnyIO or to Python, trio or this package; 0 for all others."""

    def __missing__(self, file: str) -> int:
        if _lies_beside(file, anyio.__file__):
            kind = _ANYIO
        elif file.startswith("<frozen ") or any(
            _lies_beside(file, home) for home in self._homes(file)
        ):
            kind = _LOOP
        else:
            kind = 0
        self[file] = kind
        return kind

    def _homes(self, file: str) -> Iterator[str]:
        yield __file__
        if "trio" in sys.modules:
            yield str(sys.modules["trio"].__file__)
        packages = (f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
        if not any(folder in file for folder in packages):
            yield os.__file__  # Python's own library, in which the packages' folder lies


def _lies_beside(file: str, other: str) -> bool:
    return file.startswith(os.path.dirname(other) + os.sep)  # noqa: PTH120 - str in, str out


MACHINERY: Final = _Machinery()


# ---- the steps of tasks --------------------------------------------------------------------------

_COMPREHENSION: Final = re.compile(r"\.<locals>\.<(?:list|set|dict)comp>$")


@final
@dataclass(frozen=True, slots=True)
class Place:
    """A line of the user's own code at which a task waits."""

    file: str
    """The file."""

    line: int
    """The number of the line."""

    _: KW_ONLY

    function: str
    """The qualified name of the function."""

    @classmethod
    def of(cls, code: CodeType, line: int) -> Place:
        """Return the place of a line of compiled code."""
        # Since Python 3.12 a comprehension is part of the function around it.
        function = _COMPREHENSION.sub("", code.co_qualname)
        return cls(code.co_filename, line, function=function)

    def __str__(self) -> str:
        source = linecache.getline(self.file, self.line).strip()
        return f"{source}  ({self.function}, line {self.line})"


@final
@dataclass(frozen=True, slots=True)
class Step:
    """One step of a task, from being woken to waiting again."""

    time: float
    """The virtual time in seconds."""

    task: str
    """
    The name of the task's function with its number among the tasks of the run; if ``struck``, a few
    words on what happens.
    """

    _: KW_ONLY

    waits_at: Place | None
    """Where it waits now; None if it has ended."""

    struck: bool = False
    """True if this is not a step, but a `Victim` is cancelled or the run is broken off."""

    host: str | None = None
    """The name of the task's host in a simulated network; None without one."""

    def __str__(self) -> str:
        return self.line()

    @property
    def who(self) -> str:
        """The name of the task, preceded by that of its host if it has one."""
        return self.task if self.host is None else f"{self.host}: {self.task}"

    def line(self, width: int = 0) -> str:
        """Return the step as a line of text, with `who` padded to ``width`` characters."""
        if self.struck:
            return f"t={self.time:<8g} ------- {self.task} -------"
        what = "ended" if self.waits_at is None else f"waits at  {self.waits_at}"
        return f"t={self.time:<8g} {self.who:<{width}}  {what}"


def _is_plumbing(code: CodeType) -> bool:
    """Whether code of AnyIO only hands a call on to the event loop."""
    return code.co_qualname.startswith(("AsyncIOBackend.", "TrioBackend.")) or (
        code.co_filename.endswith("lowlevel.py")
    )


def place_of(coroutine: Any) -> tuple[CodeType, int] | None:
    """
    Return the code and the line at which a suspended coroutine waits, as its reader knows them.

    That is the innermost frame of the user's code or of a library. Where there is none, as in a
    task that AnyIO itself has started, it is the innermost of AnyIO's, but for those that only hand
    a call on to the backend; and else the outermost.
    """
    # Called after every step. Asking for a frame makes one, so that is left for the end.
    machinery = MACHINERY
    found: Any = None
    below = _LOOP  # what is less than this is not further from the reader than what was found
    awaited = coroutine
    while awaited is not None:
        kind: type[object] = awaited.__class__
        here = awaited
        if kind is CoroutineType:
            code = awaited.cr_code
            awaited = awaited.cr_await
        elif kind is GeneratorType:
            code = awaited.gi_code
            awaited = awaited.gi_yieldfrom
        elif kind.__module__ == "_asyncio":  # the iterator of a future, which leads nowhere
            break
        else:
            here, awaited = next_await(awaited)
            if here is None:
                continue
            code = here.f_code
        whose = machinery[code.co_filename]
        if found is None or (whose < below and not (whose and _is_plumbing(code))):
            found = here
            below = _LOOP if whose else _ANYIO
    if isinstance(found, CoroutineType):
        found = found.cr_frame
    elif isinstance(found, GeneratorType):
        found = found.gi_frame
    return None if found is None else (found.f_code, _line_of(found))


_UNNAMED: Final = re.compile(r"Task-\d+")
"""What asyncio calls a task that was not given a name."""


class TaskRecord:
    """
    What the steps need to know of a task, also when it is gone.

    Attributes:
        age: Its number among the tasks of the run; 0 for those that are not of the code under test.
        name: Its name.
        function: The name of its function, None if its name is all that counts.
    """

    __slots__ = ("age", "function", "name")

    def __init__(self, age: int, task: Any) -> None:
        self.age: int = age
        self.function: str | None = None
        if hasattr(task, "get_name"):
            # An eager task that is already over has none; CPython 3.12.1 crashes on asking.
            coroutine = None if task.done() else task.get_coro()
            self.function = getattr(coroutine, "__qualname__", None)
            self.name: str = task.get_name()
        else:
            self.name = task.name

    def play(self, function: object) -> None:
        """Note which function a victim's task runs, if it was named after the victim."""
        if self.name.endswith("._inject") or self.function == "Victim.__call__":
            self.name = getattr(function, "__qualname__", type(function).__qualname__)
            self.function = None

    def __str__(self) -> str:
        name = self.name
        if self.function is not None and _UNNAMED.fullmatch(name):
            name = self.function
        return f"{name.rpartition('.')[2]}#{self.age}"


_Entry: TypeAlias = "tuple[float, TaskRecord | str, tuple[CodeType, int] | None, str | None]"
"""Of a step: when, whose or which words, where the task waits after it, and on which host."""


class Steps:
    """
    The steps of the tasks of one event loop: who may take the next, and what happens in between.

    Candidates are put in one canonical order, by the step that woke them and then by when they were
    made, since anyio cancels tasks in the order of a set, which differs from run to run.

    Args:
        schedule: Who chooses the next; None leaves that to the event loop.
        time: Returns the virtual time in seconds.
        fail: Called with the error that ends the run, when an invariant does not hold.

    Attributes:
        host_of: Returns the name of the host that a task acts on, as a simulated network knows it;
            None while there is no network.
        noted: What happened, the last of it; `steps_of` makes a trace of it.
        number: How many steps of the code under test have begun.
        stepping: The coroutine of the task whose step began last; None once that was noted.
        strikes: Called before each step.
    """

    # Invariant: _records has the order in which tasks were first seen, from 1, which is the task of
    # the code under test; those that were there before it, the event loop's own, have the age 0.
    __slots__ = (
        "_choices",
        "_fail",
        "_invariants",
        "_record",
        "_records",
        "_seen",
        "_started",
        "_task",
        "_time",
        "host_of",
        "noted",
        "number",
        "schedule",
        "stepping",
        "strikes",
    )

    def __init__(
        self,
        schedule: Schedule | None,
        time: Callable[[], float],
        fail: Callable[[BaseException], object],
    ) -> None:
        self.schedule: Schedule | None = schedule
        self._choices: Choices | None = None if schedule is None else choices_of(schedule)
        self.number: int = 0
        self.stepping: Any = None
        self.strikes: list[Callable[[], None]] = []
        self._time = time
        self._fail = fail
        self._invariants: list[Callable[[], BaseException | None]] = []
        self._task: Any = None
        self._record: TaskRecord | None = None
        self.host_of: Callable[[Any], str | None] | None = None
        self.noted: deque[_Entry] = deque(maxlen=KEPT)
        self._started = False
        self._seen = 1
        self._records: dict[ref[Any], TaskRecord] = {}

    def record(self, task: Any) -> TaskRecord:
        """Return what is known of a task, which has its age from the first call on."""
        return self._records.get(ref(task)) or self._add(task)

    def _add(self, task: Any) -> TaskRecord:
        self._seen += 1
        record = TaskRecord(self._seen, task)
        self._records[ref(task, self._records.__delitem__)] = record
        return record

    def start_test(self, host: Any, running: Any) -> None:
        """
        Begin to choose and to note, for new code under test.

        ``host`` is the task of that code, and ``running`` the one that takes a step now.
        """
        self._started = True
        self._seen = 1
        self.noted.clear()
        self.forget_invariants()
        for record in tuple(self._records.values()):  # tasks may be collected meanwhile
            record.age = 0
        self._records[ref(host, self._records.__delitem__)] = TaskRecord(1, host)
        self._task = running
        self._record = self.record(running)
        self.stepping = running.get_coro() if hasattr(running, "get_coro") else running.coro

    def end_test(self) -> None:
        """Let the event loop have its own way again; called in the task of the code under test."""
        self.between(ended=True)
        self._started = False

    def key(self, record: TaskRecord) -> tuple[int, float]:
        """Return the place of a task that is woken now among the candidates for the next step."""
        age = record.age
        return (self.number if age and self._started else -1), age

    def choose(self, candidates: Sequence[tuple[tuple[int, float], *tuple[Any, ...]]]) -> int:
        """Return which of the candidates, whose keys come first and are in order, is next."""
        if len(candidates) == 1 or not self._started or candidates[0][0][0] < 0:
            return 0
        assert self._choices is not None  # noqa: S101 - it is for a schedule that queues ask
        return self._choices.pick(len(candidates), (key[1] for key, *_ in candidates))

    def pick(self, candidates: int) -> int:
        """Return which of so many things that are due together happens next."""
        return self._choices.pick(candidates) if self._started and self._choices else 0

    def follow(self, schedule: Schedule) -> None:
        """Let a schedule choose from now on, where none did."""
        self.schedule = schedule
        self._choices = choices_of(schedule)

    def begin(self, task: Any, record: TaskRecord, coroutine: Any) -> None:
        """Note that a step of ``task`` begins, and let what waits for this moment strike."""
        if not self._started:
            return
        self.number += 1
        self.stepping = coroutine
        self._task = task
        self._record = record
        if self.strikes and record.age:
            for strike in self.strikes:
                strike()

    def between(self, *, ended: bool = False) -> None:
        """Note that the step that began last is over, and look at the invariants."""
        coroutine = self.stepping
        if coroutine is None:
            return
        self.stepping = None
        record = self._record
        assert record is not None  # noqa: S101 - a step has begun
        if record.function is not None:  # a task of asyncio may get a name after it was made
            record.name = self._task.get_name()
        host = None if self.host_of is None else self.host_of(self._task)
        place = None if ended else place_of(coroutine)
        self.noted.append((self._time(), record, place, host))
        for invariant in self._invariants:
            failure = invariant()
            if failure is not None:
                self._fail(failure)  # which forgets the others
                return

    def trace(self) -> tuple[Step, ...]:
        """Return the steps that are over, at most the `KEPT` last ones, but for the loop's own."""
        return steps_of(self.noted)

    def note(self, what: str) -> None:
        """Note what happens now between two steps: a victim is cancelled, the run broken off."""
        self.noted.append((self._time(), what, None, None))

    def always(self, invariant: Callable[[], BaseException | None]) -> None:
        """Call ``invariant`` after every step; what it returns ends the run."""
        self._invariants.append(invariant)

    def forget_invariants(self) -> None:
        """Look at none of them any more, until there are new ones."""
        self._invariants.clear()


def steps_of(noted: Iterable[_Entry]) -> tuple[Step, ...]:
    """Return what `Steps` noted as a trace, without the steps of the event loop's own tasks."""
    return tuple(
        Step(time, who, waits_at=None, struck=True)
        if isinstance(who, str)
        else Step(time, str(who), waits_at=place and Place.of(*place), host=host)
        for time, who, place, host in noted
        if isinstance(who, str) or who.age
    )


def digest(steps: Iterable[Step]) -> str:
    """Return a fingerprint of a trace, the same wherever the program did the same."""
    text: list[str] = []
    for step in steps:
        place = step.waits_at
        where = None if place is None else (place.function, place.line)
        text.append(f"{step.time!r} {step.who} {where} {step.struck}")
    return hashlib.sha256("\n".join(text).encode()).hexdigest()


def interleaving(steps: Sequence[Step]) -> str:
    """
    Return the last steps of a trace as lines of text, up to where the run was broken off.

    A step that comes several times in succession is one line with a count; so is what comes again
    when a few lines repeat.
    """
    if not steps:
        return "  no task took a step"
    broken = (at for at, step in enumerate(steps, 1) if step.struck and step.task.endswith(BROKEN))
    end = next(broken, len(steps))
    runs = [(step, len([*same])) for step, same in groupby(steps[max(0, end - FOLDED) : end])]
    shown = [*_folded(runs)][-SHOWN:]
    width = _width(each for each, _ in shown if _is_step(each))
    before = end
    lines: list[str] = []
    for each, times in shown:
        if isinstance(each, Step):
            before -= times
            lines.append(f"  {each.line(width)}{'' if times == 1 else f'  ({times} times)'}")
        else:
            before -= times * sum(count for _, count in each)
            lines.append(f"  … these {len(each)} lines {times} more times")
    if before > 0:
        lines.insert(0, f"  … {_steps(before)} before")
    if end < len(steps):
        lines.append(f"  … {_steps(len(steps) - end)} of cleaning up")
    return "\n".join(lines)


_Run: TypeAlias = "tuple[Step, int]"
"""A step, and how often it came in succession."""


def _folded(runs: list[_Run]) -> Iterator[tuple[Step | list[_Run], int]]:
    """Yield runs; in place of lines that come again, these and how often they do."""
    at = 0
    while at < len(runs):
        block, times = _repeated(runs, at)
        yield from block
        if times:
            yield block, times
        at += len(block) * (1 + times)


def _repeated(runs: list[_Run], at: int) -> tuple[list[_Run], int]:
    """Return the lines from ``at`` on that come again at least twice, and how often they do."""
    for length in range(2, LONGEST + 1):
        block, times = runs[at : at + length], 0
        while runs[at + length * (times + 1) : at + length * (times + 2)] == block:
            times += 1
        if times > 1:
            return block, times
    return runs[at : at + 1], 0


def _width(steps: Iterable[Step]) -> int:
    """Return how many letters the longest name of those that take the steps has."""
    return max((len(step.who) for step in steps), default=0)


def _is_step(each: Step | list[_Run]) -> TypeGuard[Step]:
    return isinstance(each, Step) and not each.struck


def _steps(number: int) -> str:
    return f"{number} step{'' if number == 1 else 's'}"


# ---- how two runs differ -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parting:
    """The first step in which a run differs from another that began in the same way."""

    number: int
    """The number of the step, from 1."""

    _: KW_ONLY

    here: Step
    """The step in this run."""

    there: Step
    """The step in the other."""

    def __str__(self) -> str:
        width = _width(step for step in (self.here, self.there) if not step.struck)
        return (
            f"step {self.number} is the first that differs:\n"
            f"  here   {self.here.line(width)}\n"
            f"  there  {self.there.line(width)}"
        )


def parting(here: Collection[_Entry], there: Collection[_Entry]) -> Parting | None:
    """
    Return where two runs part, of which this was noted.

    That a victim is cancelled is no step here: what counts is what the tasks make of it. A run
    ends with the end of its first task, so none is the beginning of another.

    Returns:
        None if they do not part, or if one of them has so many steps that its beginning is gone.
    """
    if max(len(here), len(there)) >= KEPT:
        return None
    pairs = zip(_without_strikes(here), _without_strikes(there), strict=False)
    for number, (one, other) in enumerate(pairs, 1):
        if one != other:
            return Parting(number, here=one, there=other)
    return None


def _without_strikes(noted: Iterable[_Entry]) -> list[Step]:
    return [step for step in steps_of(noted) if not step.struck or step.task.endswith(BROKEN)]


# ---- the failure of a test -----------------------------------------------------------------------


def is_failure(error: BaseException) -> bool:
    """
    Return whether a test that raises ``error`` has failed.

    What only breaks a test off, such as Ctrl-C or ``pytest.skip``, is not a failure.
    """
    if isinstance(error, Exception):
        return True
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return all(map(is_failure, group.exceptions))
    pytest: Any = sys.modules.get("pytest")  # whose fail(), as of pytest.raises(), is no Exception
    return pytest is not None and isinstance(error, pytest.fail.Exception)


def kind_of(error: BaseException) -> object:
    """Return what two failures of one kind have in common."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return frozenset(map(kind_of, group.exceptions))
    return type(error)


def add_note(error: BaseException, beginning: str, text: str) -> None:
    """Add a note, in place of one with the same beginning that an earlier run has left."""
    notes: list[str] = getattr(error, "__notes__", [])
    notes[:] = [each for each in notes if not each.startswith(beginning)]
    error.add_note(beginning + text)
