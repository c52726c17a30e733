"""
The tree of an event loop's tasks: which started which, and where each waits.

Promise: what is returned are strings and numbers: no frame, no task and no object of the program is
kept alive by it. Nothing is recorded while nobody looks: everything is read from what the loops
keep anyway. Reading runs no code of the program, and changes nothing in it.
Cost: some 15 µs for each task, in the thread that reads, half of them for what it waits for.

What a task waits for, and who holds that, is told by `waits`.

From another thread, the loop is asked to read itself. If it does not within ``timeout``, it is
read from here, where it may run on at any moment. With the interpreter's lock each single look is
safe, but two looks may show two moments: a task may be missing, or its stack may be that of one
moment and its state that of the next. So what does not fit together is left out. Without the lock
even a single look at a coroutine that another thread may resume is unsafe: then there are only the
names of asyncio's tasks, and nothing of trio's. Either is said by ``complete``.
"""

from __future__ import annotations

import gc
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from operator import is_
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, final
from weakref import WeakKeyDictionary, ref

from mtaio._internal import backend, clock, loops
from mtaio._internal.frames import (
    Chain,
    await_chain,
    chain_of,
    forms_of,
    frames_here,
    frames_of_others,
    innermost_own,
    is_own,
    line_at,
    local,
    module,
    opened_blocks,
    place,
    slot,
)
from mtaio._internal.gil import has_gil
from mtaio._internal.waits import Found, Wait, cycles, longest, waits_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import CodeType, FrameType

    from mtaio._internal.backend import SeenTask

__all__ = ["GroupNode", "TaskNode", "TaskTree", "Wait", "read", "read_from_anywhere"]

_KEPT: Final = 100
"""Lines of a stack that are kept, the innermost."""

_NAPS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
"""Seconds between attempts to read a loop that changes meanwhile, a tenth of a second in all."""

_BUSY: Final = ("running", "ready")
"""The states of tasks that do not wait."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TaskNode:
    """A task, or a worker thread that a task waits for."""

    id: int
    """``anyio.get_current_task().id`` of the task, or ``Thread.ident`` of the thread."""
    name: str
    """Its name."""
    kind: Literal["task", "thread"] = "task"
    """Whether it is a task or a worker thread."""
    function: str | None = None
    """The function that it runs and where that is defined, as in ``orders.py:40 in fetch``; None if
    unknown."""
    state: Literal["running", "ready", "waiting", "cancelled"] = "waiting"
    """
    ``"running"``: it takes a step now. ``"ready"``: it will take one as soon as the loop gets to
    it. ``"cancelled"``: it was cancelled and has not ended yet.
    """
    where: str | None = None
    """The innermost line in your own code, as in ``orders.py:44 in fetch``; None if there is
    none."""
    stack: tuple[str, ...] = field(default=(), repr=False)
    """Its stack as lines like ``orders.py:44 in fetch``; the last one is where it waits."""
    wait: Wait | None = None
    """What it waits for; None if it does not wait or that is unknown."""
    seconds: float | None = None
    """Seconds since it was started; None if unknown."""
    children: tuple[GroupNode | TaskNode, ...] = field(default=(), repr=False)
    """The task groups that it has opened, the outermost first, then threads and other tasks."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GroupNode:
    """A task group of asyncio or AnyIO, or a nursery of trio, that a task has opened."""

    kind: Literal["task group", "nursery"]
    """What the backend calls it."""
    where: str | None = None
    """The line that opened it, as in ``orders.py:38 in fetch_all``; None if unknown."""
    children: tuple[GroupNode | TaskNode, ...] = field(default=(), repr=False)
    """The tasks in it, in the order in which they were started, if that is known."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTree:
    """The tasks of an event loop at one moment."""

    backend: Literal["asyncio", "uvloop", "trio"]
    """The event loop."""
    taken_at: float
    """When it was read, in seconds since the epoch (``time.time()``)."""
    count: int
    """The number of tasks, without threads."""
    roots: tuple[GroupNode | TaskNode, ...] = field(repr=False)
    """The tasks that are not known to have been started by another task."""
    cycles: tuple[tuple[int, ...], ...] = ()
    """Deadlocks: the ids of tasks of which each waits for the next, and the last for the first."""
    longest: tuple[int, ...] = ()
    """The ids of the tasks that have waited longest, at most ten."""
    complete: bool = True
    """Whether it was read in the event loop. Otherwise it may lack tasks or mix moments."""

    def walk(self) -> Iterator[tuple[int, GroupNode | TaskNode]]:
        """Yield each node with its depth, parents before children; roots have depth 0."""
        todo: list[tuple[int, GroupNode | TaskNode]] = [(0, root) for root in reversed(self.roots)]
        while todo:  # not by recursion, which a deep tree would exhaust
            depth, node = todo.pop()
            yield depth, node
            todo += [(depth + 1, child) for child in reversed(node.children)]


# ---- reading ----


def read(loop: object, *, complete: bool = True) -> TaskTree:
    """
    Return the tasks of a loop that runs in this thread.

    With ``complete=False``, of any loop: see the module.
    """
    # It makes some hundred thousand objects and drops nearly all of them. In between, the collector
    # would look at everything in the process several times, which takes as long as all the rest.
    collects = gc.isenabled()
    gc.disable()
    reading = _Reading(loop, complete=complete)
    try:
        return reading.tree()
    finally:
        reading.forget()
        if collects:
            gc.enable()


def read_from_anywhere(loop: object, timeout: float) -> TaskTree:
    """Return the tasks of a loop; where it runs elsewhere, wait at most ``timeout`` for it."""
    if backend.of(loop).runs_in_this_thread(loop):
        return read(loop)
    if timeout > 0:
        found = _Request(loop).wait(timeout)
        if found is not None:
            return found
    for nap in _NAPS:
        try:
            return read(loop, complete=False)
        except Exception:  # noqa: BLE001 - it has changed while it was looked at
            time.sleep(nap)
    return _Reading(loop, complete=False).tree_of((), 0)


_Look: TypeAlias = "dict[int, tuple[ref[Any], float]]"
"""What tasks were suspended in at a look, by its id; and when that was seen first."""

_looks: Final[WeakKeyDictionary[object, _Look]] = WeakKeyDictionary()
"""The last look at each loop."""


class _Request:
    """A loop that runs in another thread, asked to read its tasks."""

    __slots__ = ("_answered", "_loop", "_tree", "_wanted")

    def __init__(self, loop: object) -> None:
        self._loop = loop
        self._wanted = True
        self._tree: TaskTree | None = None
        self._answered = threading.Event()

    def wait(self, timeout: float) -> TaskTree | None:
        """Return the answer, or None if there is none in time."""
        if loops.is_running(self._loop) and loops.call_in(self._loop, self._answer):
            self._answered.wait(timeout)
            self._wanted = False
        return self._tree

    def _answer(self) -> None:
        if self._wanted:
            with suppress(Exception):  # it would end trio; then it is read from the other thread
                self._tree = read(self._loop)
            self._answered.set()


_IN_THREAD: Final = ("run_sync_in_worker_thread", "to_thread_run_sync")
"""The functions of AnyIO for asyncio and of trio that wait for a worker thread."""

_WRAPPER: Final = "TaskHandle._run_coro"
"""The function in which AnyIO runs what a task group was given."""

_WRAPPERS: Final = (_WRAPPER, "AsyncIOBackend.run.<locals>.wrapper")
"""Likewise, and what `anyio.run` was given."""

_OURS: Final = (__name__, "mtaio.monitoring._tasks")
"""The modules whose frames are on the stack only because somebody looks."""

_KNOWN: Final = ("anyio", "mtaio", "trio")
"""The packages whose objects are asked for their group: to ask any other may run its code."""

_PARTS: Final = ("_blocks", "current", "_block", "group", "_group", "_nursery")
"""The attributes by which an object leads to its group."""


@dataclass(slots=True)
class _Lines:
    """What all tasks that stand at the same instructions have in common."""

    stack: tuple[str, ...]
    where: str | None
    function: str | None
    in_thread: int | None
    """The index of the frame that waits for a worker thread; None if there is none."""
    opened: list[tuple[int, str, str]]
    """
    Where it may have opened a group: the index of a frame, its variable that may hold the group,
    and the line.
    """


@dataclass(slots=True)
class _Below:
    """Tasks that one task has started in one group; or, without a group, that it awaits."""

    group: Any
    tasks: list[SeenTask] = field(default_factory=list["SeenTask"])


class _Reading:
    """
    One look at the tasks of a loop; it holds frames and tasks, so it is not kept.

    Args:
        loop: The loop.
        complete: Whether it runs in this thread.
    """

    # Invariant: no frame that it holds refers to it, so that all is gone as soon as it is.
    __slots__ = (
        "_chains",
        "_complete",
        "_forms",
        "_half",
        "_jobs",
        "_lines",
        "_loop",
        "_names",
        "_threads",
        "_waits",
    )

    def __init__(self, loop: object, *, complete: bool) -> None:
        self._loop = loop
        self._half = backend.of(loop)
        self._complete = complete
        self._chains: dict[int, Chain] = {}
        self._waits: dict[int, Found] = {}
        self._forms: dict[int, int] = {}
        self._lines: dict[int, _Lines] = {}
        """By the forms of chains."""
        self._threads: dict[int, list[FrameType]] | None = None
        self._jobs: dict[int, int] | None = None
        self._names: dict[int | None, str] | None = None

    def tree(self) -> TaskTree:
        """Read the tasks, and put each below the one that started it."""
        every = self._half.tasks(self._loop)
        order, roots, below = _arranged(every)
        self._chains = {seen.id: self._chain(seen) for seen in every}
        self._forms = forms_of(self._chains)
        ready = {seen.id for seen in every if not seen.waits}
        now, since = self._half.time(self._loop), self._since(every)
        self._waits = waits_of(self._chains, now, ready, forms=self._forms, since=since)
        nodes: dict[int, TaskNode] = {}
        for seen in reversed(order):  # what is below comes first
            nodes[seen.id] = self._node(seen, below.get(seen.id), nodes)
        return self.tree_of(tuple([nodes[seen.id] for seen in roots]), len(every))

    def forget(self) -> None:
        """Let go of frames: two readers in two threads have each other's."""
        self._threads = None

    def tree_of(self, roots: tuple[TaskNode, ...], count: int) -> TaskTree:
        """Return a tree of these."""
        return TaskTree(
            backend=self._half.loop_name(self._loop),
            taken_at=clock.wall(),
            count=count,
            roots=roots,
            cycles=self._cycles(),
            longest=longest(self._waits),
            complete=self._complete,
        )

    def _node(
        self, seen: SeenTask, below: dict[int, _Below] | None, nodes: dict[int, TaskNode]
    ) -> TaskNode:
        chain = self._chains[seen.id]
        found = self._waits.get(seen.id)
        form = self._forms[seen.id]
        lines = self._lines.get(form)
        if lines is None:
            lines = self._lines[form] = _lines_of(chain)
        children: list[GroupNode | TaskNode] = []
        awaited: list[TaskNode] = []
        if below:
            groups = [*below.values()]
            if len(groups) > 1:
                groups.sort(key=self._depth)
            for each in groups:
                if each.group is None:
                    awaited = [nodes[task.id] for task in each.tasks]
                else:
                    children.append(self._group(chain, lines, each, nodes))
        if seen.state not in _BUSY and (lines.in_thread is not None or self._jobs_found()):
            children += self._threads_of(seen, chain, lines)
        return TaskNode(
            id=seen.id,
            name=seen.name,
            function=lines.function,
            state=seen.state,
            where=lines.where,
            stack=lines.stack,
            wait=None if found is None else found.wait,
            children=(*children, *awaited) if children or awaited else (),
        )

    def _depth(self, below: _Below) -> int:
        return 0 if below.group is None else self._half.group_depth(below.group)

    def _cycles(self) -> tuple[tuple[int, ...], ...]:
        """Return the cycles; where the loop may run on, of tasks that have not gone on since."""
        found = cycles(self._waits)
        if self._complete or not found:
            return found
        busy = {seen.id for seen in self._half.tasks(self._loop) if not seen.waits}

        def still_waits(task: int) -> bool:
            before = self._chains[task]
            now = await_chain(before.links[0])
            same = now.end is before.end and all(map(is_, now.links, before.links))
            return same and task not in busy

        return cycles(self._waits, still=still_waits)

    def _since(self, every: list[SeenTask]) -> dict[int, float]:
        """Return since which look each task is known to stand where it does, by `clock.now`."""
        # A task waits for another future, or in another call of trio's, each time: so if it is
        # still the same one, the task has not gone on. The next look needs no more than this one
        # has found; of two at once one is forgotten, which may only make waits seem shorter.
        before, now = _looks.get(self._loop, {}), clock.now()
        found: _Look = {}
        since: dict[int, float] = {}
        for seen in every:
            if not seen.waits:
                continue
            on = seen.awaited
            if on is None:
                on = next(reversed(self._chains[seen.id].links), None)
            last = before.get(id(on))
            if last is not None and last[0]() is on:
                since[seen.id] = last[1]
                found[id(on)] = last
            else:
                with suppress(TypeError):  # not every future of another make can be referred to
                    found[id(on)] = ref(on), now
        _looks[self._loop] = found
        return since

    # ---- where it stands ----

    def _chain(self, seen: SeenTask) -> Chain:
        if seen.state == "running":
            return self._running(seen.coroutine)
        found = await_chain(seen.coroutine)
        return _begun(found) if len(found.frames) == 1 else found

    def _running(self, coroutine: Any) -> Chain:
        """Return the part of a thread's stack that is of a coroutine that takes a step."""
        outermost = slot(coroutine, "cr_frame")
        for frames in self._stacks().values():
            if outermost in frames:
                return chain_of(frames[frames.index(outermost) :: -1])
        return chain_of([] if outermost is None else [outermost])

    def _stacks(self) -> dict[int, list[FrameType]]:
        """Return the frames of all threads, the innermost first, where it is safe to look."""
        if self._threads is None:
            here = frames_here()
            ours = 0
            while here[ours].f_globals.get("__name__") in _OURS:
                ours += 1
            del here[:ours]  # this very frame, which has the list
            self._threads = {threading.get_ident(): here}
            if has_gil():
                self._threads |= frames_of_others()
        return self._threads

    def _group(
        self, chain: Chain, lines: _Lines, below: _Below, nodes: dict[int, TaskNode]
    ) -> GroupNode:
        where = None
        for index, name, line in lines.opened:
            if _holds(local(cast("FrameType", chain.frames[index]), name), below.group):
                where = line
                break
        return GroupNode(
            kind=self._half.GROUP,
            where=where,
            children=tuple([nodes[seen.id] for seen in below.tasks]),
        )

    # ---- the worker thread that it waits for ----

    def _threads_of(self, seen: SeenTask, chain: Chain, lines: _Lines) -> list[TaskNode]:
        jobs = self._jobs_found()
        if lines.in_thread is not None:
            worker = local(cast("FrameType", chain.frames[lines.in_thread]), "worker")  # AnyIO's
            ident = jobs.get(seen.id) if worker is None else worker.ident
        else:
            held = self._half.held_by(seen.awaited)
            ident = next(filter(None, map(jobs.get, map(id, held))), None)
        return [] if ident is None else [self._thread(ident)]

    def _jobs_found(self) -> dict[int, int]:
        """Return which thread works for what: a future of an executor's, or a task of trio's."""
        jobs = self._jobs
        if jobs is not None:
            return jobs
        jobs = self._jobs = {}
        for ident, frames in self._stacks().items():
            for frame in frames:
                module = frame.f_globals.get("__name__")
                name = frame.f_code.co_name
                if module == "concurrent.futures.thread" and name == "run":
                    jobs[id(getattr(local(frame, "self"), "future", None))] = ident
                elif module == "trio._threads" and name == "worker_fn":
                    jobs[id((local(frame, "task_register") or [None])[0])] = ident
        jobs.pop(id(None), None)
        return jobs

    def _thread(self, ident: int) -> TaskNode:
        if self._names is None:
            self._names = {each.ident: each.name for each in threading.enumerate()}
        lines = _lines_of(chain_of([*self._stacks().get(ident, ())][::-1]), thread=True)
        return TaskNode(
            id=ident,
            name=self._names.get(ident, "thread"),
            kind="thread",
            function=lines.function,
            state="running",
            where=lines.where,
            stack=lines.stack,
        )


_Arranged: TypeAlias = "tuple[list[SeenTask], list[SeenTask], dict[int, dict[int, _Below]]]"


def _arranged(every: list[SeenTask]) -> _Arranged:
    """
    Arrange tasks to a tree.

    Returns:
        The tasks, each before those below it; the roots; and what is below each task, by its id and
        that of the group, which is 0 for those that it awaits.
    """
    known = {seen.id: seen for seen in every}
    below: dict[int, dict[int, _Below]] = {}
    roots: list[SeenTask] = []
    for seen in every:
        if seen.starter in known:
            groups = below.setdefault(seen.starter, {})
            key = 0 if seen.group is None else id(seen.group)
            groups.setdefault(key, _Below(seen.group)).tasks.append(seen)
        else:
            roots.append(seen)
    order: list[SeenTask] = []
    placed: set[int] = set()
    # Tasks that await each other are below each other, and below no root: then one of them is one.
    # Only who awaits whom can make a circle, but a loop that runs on may show anything.
    spare = chain((seen for seen in every if seen.group is None), every)
    todo = roots[::-1]
    while True:
        while todo:
            seen = todo.pop()
            order.append(seen)
            placed.add(seen.id)
            for each in below.get(seen.id, {}).values():
                todo += each.tasks[::-1]
        if len(order) == len(every):
            return order, roots, below
        seen = next(each for each in spare if each.id not in placed)
        key = 0 if seen.group is None else id(seen.group)
        below[cast("int", seen.starter)][key].tasks.remove(seen)
        roots.append(seen)
        todo.append(seen)


def _lines_of(chain: Chain, *, thread: bool = False) -> _Lines:
    """Return what is shown of a chain."""
    stack: list[str] = []
    in_thread = where = None
    opened: list[tuple[int, str, str]] = []
    for index, frame in enumerate(chain.frames):
        if isinstance(frame, str):
            stack.append(frame)
            continue
        code = frame.f_code
        # A task inside of a block has the group, or what holds it, in the variable of `with`.
        at = chain.offsets[index]  # the frame itself may have gone on
        for name, line in opened_blocks(code, at):
            opened.append((index, name, place(code, line)))
        # One that leaves it is in __aexit__, and the line before is that of the `with`.
        if code.co_name == "__aexit__" and stack:
            opened.append((index, "self", stack[-1]))
        stack.append(place(code, line_at(code, at)))
        if code.co_name in _IN_THREAD and _is_known(frame):
            in_thread = index
    steps = zip(chain.codes, chain.offsets, strict=True)
    inwards = [(code, at) for code, at in steps if not isinstance(code, str)]
    if inwards:
        files = [code.co_filename for code, _ in reversed(inwards)]
        code, at = inwards[-1 - innermost_own(files)]
        if is_own(code.co_filename):
            where = place(code, line_at(code, at))
    function = _function([code for code, _ in inwards], thread=thread)
    return _Lines(tuple(stack[-_KEPT:]), where, function, in_thread, opened)


def _is_known(frame: FrameType) -> bool:
    """Return whether it runs AnyIO's code, ours or trio's, by whose variables we find our way."""
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _KNOWN


def _begun(chain: Chain) -> Chain:
    """Add to AnyIO's wrapper what it is going to run, if it has not begun."""
    frame = chain.frames[0]
    if isinstance(frame, str) or frame.f_code.co_qualname != _WRAPPER or not _is_known(frame):
        return chain
    wrapped = await_chain(getattr(local(frame, "self"), "_coro", None))
    return Chain(
        chain.frames + wrapped.frames,
        chain.codes + wrapped.codes,
        chain.offsets + wrapped.offsets,
        chain.links + wrapped.links,
        wrapped.end,
    )


def _function(codes: Sequence[CodeType], *, thread: bool) -> str | None:
    """Return what a task runs, which AnyIO wraps; of a thread the outermost of the user's own."""
    for code in codes:
        if is_own(code.co_filename) if thread else code.co_qualname not in _WRAPPERS:
            return place(code, code.co_firstlineno)
    return None


def _holds(holder: object, group: object) -> bool:
    """Return whether a variable is a group, or what AnyIO, trio or this package has made of it."""
    while holder is not None:
        if holder is group:
            return True
        if module(type(holder)).partition(".")[0] not in _KNOWN:
            return False
        parts = (getattr(holder, name, None) for name in _PARTS)
        holder = next((part for part in parts if part is not None), None)
    return False
