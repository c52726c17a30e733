"""
The tree of an event loop's tasks: which started which, and where each waits.

Promise: what is returned are strings and numbers. No frame, no task and no object of the program is
kept alive by it.

What a task waits for is told by ``waits.wait_of(frames, awaited, now)``: its frames, the outermost
first, and what the innermost of them awaits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["GroupNode", "Node", "TaskNode", "TaskTree", "Wait"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What a task waits for."""

    on: str
    """One noun: ``"slot"``, ``"token"``, ``"lock"``, ``"sleep"``, ``"tasks"``, ``"thread"`` ..."""
    of: str | None = None
    """The kind and the name of the object: ``"ConcurrencyLimiter 'db'"``; None if unknown."""
    key: int | None = None
    """The same for all that wait for one object, and for no other; None if unknown."""
    seconds: float | None = None
    """How long it has waited; None if unknown."""
    holders: tuple[int, ...] = ()
    """The ids of the tasks that hold what it waits for."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TaskNode:
    """A task, or a worker thread that a task waits for."""

    id: int
    """Its id, as ``anyio.get_current_task().id``; of a thread ``Thread.ident``."""
    name: str
    """Its name."""
    kind: Literal["task", "thread"] = "task"
    """Whether it is a task or a worker thread."""
    function: str | None = None
    """What it runs, and where that is defined: ``orders.py:40 in fetch``; None if unknown."""
    state: Literal["running", "ready", "waiting", "cancelled"] = "waiting"
    """
    ``"running"``: it takes a step now. ``"ready"``: it will take one as soon as the loop gets to
    it. ``"cancelled"``: it was cancelled and has not ended yet.
    """
    where: str | None = None
    """The innermost line in your own code: ``orders.py:44 in fetch``; None if there is no line."""
    stack: tuple[str, ...] = field(default=(), repr=False)
    """Where it is, as ``orders.py:44 in fetch``: the outermost line first, the one at which it
    waits last."""
    wait: Wait | None = None
    """What it waits for; None if it does not wait, or if that cannot be told."""
    seconds: float | None = None
    """How long ago it was started; None if unknown."""
    children: tuple[GroupNode | TaskNode, ...] = field(default=(), repr=False)
    """The task groups that it has opened, the outermost first; then threads and other tasks."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GroupNode:
    """A task group of asyncio or AnyIO, or a nursery of trio, that a task has opened."""

    kind: Literal["task group", "nursery"]
    """What the backend calls it."""
    where: str | None = None
    """The line that has opened it: ``orders.py:38 in fetch_all``; None if unknown."""
    children: tuple[GroupNode | TaskNode, ...] = field(default=(), repr=False)
    """The tasks in it, in the order in which they were started as far as that is known."""


Node: TypeAlias = GroupNode | TaskNode


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTree:
    """The tasks of an event loop at one moment."""

    backend: Literal["asyncio", "uvloop", "trio"]
    """The event loop."""
    taken_at: float
    """When it was read, in seconds since the epoch (``time.time()``)."""
    count: int
    """How many tasks there are; threads do not count."""
    roots: tuple[GroupNode | TaskNode, ...] = field(repr=False)
    """The tasks that no other one is known to have started."""
    cycles: tuple[tuple[int, ...], ...] = ()
    """The ids of tasks that wait for each other, each for the next and the last for the first."""
    longest: tuple[int, ...] = ()
    """The ids of the tasks that have waited longest, at most ten."""
    complete: bool = True
    """Whether it was read in the loop. From another thread it may lack tasks or mix moments."""

    def walk(self) -> Iterator[tuple[int, GroupNode | TaskNode]]:
        """Yield each node with its depth, the parent before its children; roots have 0."""
        todo: list[tuple[int, GroupNode | TaskNode]] = [(0, root) for root in reversed(self.roots)]
        while todo:  # not by recursion, which a deep tree would exhaust
            depth, node = todo.pop()
            yield depth, node
            todo += [(depth + 1, child) for child in reversed(node.children)]
