"""
What a tree of tasks shows, as a JSON document: a summary, and the tree with equal siblings folded.

Promise: the document is of bounded size, however many tasks there are and however deep they are
nested, and says how many it leaves out. It holds names of tasks, files, functions and lines, and
never a value or a line of source. `mtaio.monitoring` promises its members: they are described in
docs/en/guides/tasks.md, and ``format`` changes if one of them is removed or changes its meaning.
Cost: a few microseconds for each task. Each piece of JSON is made when it is to be sent.

Siblings are equal if they run the same function, are at the same lines, wait for the same thing,
have names that differ in a number at the end, and have equal children. A number is given to each
kind of node, from the leaves upwards, so that a subtree is compared by its number. Then the tree is
written from the root downwards: the children of all tasks in a line are folded together.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from itertools import islice
from math import isfinite
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias, TypedDict, cast

from mtaio._internal.task_tree import GroupNode, TaskNode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mtaio._internal.task_tree import TaskTree, Wait

__all__ = [
    "FORMAT",
    "Document",
    "Held",
    "Line",
    "Stalled",
    "Task",
    "Waiting",
    "Waits",
    "document",
    "json_pieces",
]

FORMAT: Final = 1

_MOST_LINES: Final = 1000
"""Of the tree."""
_MOST_SIBLINGS: Final = 100
"""Lines below one line."""
_MOST_FRAMES: Final = 30
"""Of each stack, the innermost ones."""
_MOST_IDS: Final = 100
"""Of the tasks in one line."""
_MOST_WAITS: Final = 20
_MOST_CYCLES: Final = 5
_MOST_IN_CYCLE: Final = 20
_MOST_HOLDERS: Final = 3
"""Names of holders, and places at which they or those who wait are."""
_LONGEST_TEXT: Final = 200
"""Characters of a name."""

_LINES_IN_PIECE: Final = 50

_DIGITS: Final = "0123456789"
_SEPARATORS: Final = " -_:#"
"""What stands between a name and a number."""

_CHILDREN: Final = "tasks"
_SLEEP: Final = "sleep"

_DEFAULT_NAMES: Final = "Task-"
"""What asyncio's names of tasks begin with that were given none."""


Node: TypeAlias = GroupNode | TaskNode


class Held(TypedDict):
    """Who holds something."""

    count: int
    names: list[str]
    """Of the first of them."""
    places: list[tuple[str, int]]
    """Where most of them are, and how many."""


class Waiting(TypedDict):
    """What a task waits for."""

    on: str
    of: str | None
    seconds: float | None
    at_least: bool
    """Whether it may have waited longer: since before somebody looked for the first time."""
    held_by: Held | None


class Waits(Waiting):
    """What several tasks wait for; ``seconds`` is the longest wait."""

    count: int
    places: list[tuple[str, int]]
    """Where most of them are in the program's own code, and how many."""


class Shown(TypedDict):
    """One task, or several equal ones: of those the one that has waited longest."""

    count: int
    name: str | None
    function: str | None
    state: str | None
    where: str | None
    seconds: float | None
    stack: list[str]
    wait: Waiting | None


class Task(Shown):
    """What tasks of the summary are."""

    id: int


class Line(Shown):
    """A node of the tree, or several equal ones."""

    depth: int
    kind: str
    ids: list[int]
    in_cycle: bool


class Stalled(TypedDict):
    """What blocks the event loop."""

    seconds: float
    place: str


class Document(TypedDict):
    """All that is shown of a tree."""

    format: int
    name: str | None
    pid: int
    backend: str
    taken_at: float
    complete: bool
    stall: Stalled | None
    count: int
    states: dict[str, int]
    cycles: list[list[Task]]
    more_cycles: int
    waits: list[Waits]
    more_waits: int
    longest: list[Task]
    lines: list[Line]
    omitted: int


class Blocked(Protocol):
    """A stall of the event loop, as `mtaio.monitoring.Stall` is."""

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        ...

    @property
    def place(self) -> str:
        """Where the loop is."""
        ...


def document(tree: TaskTree, *, name: str | None = None, stall: Blocked | None = None) -> Document:
    """
    Return what is shown of a tree.

    Args:
        tree: The tree.
        name: What the service is called.
        stall: What blocks the event loop now.
    """
    return _Reading(tree).document(name, stall)


def json_pieces(shown: Document) -> Iterator[bytes]:
    """Return a document as JSON, in pieces."""
    head = {name: value for name, value in shown.items() if name != "lines"}
    yield json.dumps(head, allow_nan=False)[:-1].encode() + b', "lines": ['
    lines = iter(shown["lines"])
    between = ""
    while piece := list(islice(lines, _LINES_IN_PIECE)):
        text = json.dumps(piece, allow_nan=False)[1:-1]
        yield f"{between}{text}".encode()
        between = ", "
    yield b"]}"


class _Fold(NamedTuple):
    """Nodes that are shown in one line."""

    depth: int
    nodes: Sequence[Node]
    is_rest: bool = False
    """Whether they are those for which there are no lines."""


class _Reading:
    """
    A tree that is being summed up.

    Args:
        tree: The tree.
    """

    def __init__(self, tree: TaskTree) -> None:
        self._tree: Final = tree
        self._nodes: Final = [node for _, node in tree.walk()]
        self._tasks: Final = {
            node.id: node for node in self._nodes if isinstance(node, TaskNode) and _is_task(node)
        }
        self._cycles: Final = [
            [self._tasks[each] for each in cycle[:_MOST_IN_CYCLE] if each in self._tasks]
            for cycle in tree.cycles[:_MOST_CYCLES]
        ]
        self._in_cycle: Final = {task.id for cycle in self._cycles for task in cycle}
        self._kinds: Final = self._kinds_of_nodes()
        self._held: Final[dict[object, Held | None]] = {}

    def document(self, name: str | None, stall: Blocked | None) -> Document:
        """Return what is shown of it."""
        tree = self._tree
        lines = self._lines()
        waits = self._waits()
        shown = sum(line["count"] for line in lines if line["kind"] == "task")
        return Document(
            format=FORMAT,
            name=name,
            pid=os.getpid(),
            backend=tree.backend,
            taken_at=tree.taken_at,
            complete=tree.complete,
            stall=None if stall is None else Stalled(seconds=stall.seconds, place=stall.place),
            count=tree.count,
            states=dict(Counter(task.state for task in self._tasks.values()).most_common()),
            cycles=[[self._task([each]) for each in cycle] for cycle in self._cycles],
            more_cycles=len(tree.cycles) - len(self._cycles),
            waits=waits[:_MOST_WAITS],
            more_waits=max(0, len(waits) - _MOST_WAITS),
            longest=self._longest(),
            lines=lines,
            omitted=max(0, len(self._tasks) - shown),
        )

    # ---- the summary -----------------------------------------------------------------------------

    def _waits(self) -> list[Waits]:
        """
        Return what is waited for.

        First comes what others hold, then what the program's own code waits for, then the rest;
        of each kind first what has most waiters.
        """
        groups: dict[object, tuple[list[Wait], Counter[str]]] = {}
        for task in self._tasks.values():
            if task.wait is not None:
                waits, places = groups.setdefault(_what(task.wait), ([], Counter()))
                waits.append(task.wait)
                if task.where is not None:
                    places[task.where] += 1
        found = [
            Waits(
                count=len(waits),
                places=places.most_common(_MOST_HOLDERS),
                **self._waiting(waits),
            )
            for waits, places in groups.values()
        ]
        found.sort(
            key=lambda each: (
                each["held_by"] is None,
                not each["places"],
                each["of"] is None,
                -each["count"],
            )
        )
        return found

    def _longest(self) -> list[Task]:
        found: dict[int, list[TaskNode]] = {}
        for each in self._tree.longest:
            if each in self._tasks:
                task = self._tasks[each]
                found.setdefault(self._kinds[id(task)], []).append(task)
        return [self._task(equal) for equal in found.values()]

    def _task(self, tasks: Sequence[TaskNode]) -> Task:
        return Task(id=tasks[0].id, **self._shown(tasks))

    def _shown(self, tasks: Sequence[TaskNode]) -> Shown:
        """Return what is shown of equal tasks."""
        first = tasks[0]
        is_one = all(task.name == first.name for task in tasks)
        waits = [task.wait for task in tasks if task.wait is not None]
        return Shown(
            count=len(tasks),
            name=_called(first.name if is_one else _unnumbered(first.name), first.function),
            function=first.function,
            state=first.state,
            where=first.where,
            seconds=_most(task.seconds for task in tasks),
            stack=list(first.stack[-_MOST_FRAMES:]),
            wait=self._waiting(waits) if waits else None,
        )

    def _waiting(self, waits: Sequence[Wait]) -> Waiting:
        """Return what is waited for, the same by all of them, and how long at most."""
        first = waits[0]
        what = _what(first)
        of = None if first.on == _SLEEP and len(waits) > 1 else first.of  # for how long
        if what not in self._held:
            self._held[what] = self._holders(first.holders) if _is_held(first) else None
        return Waiting(
            on=first.on,
            of=None if of is None else _clipped(of),
            seconds=_most(wait.seconds for wait in waits),
            at_least=any(wait.at_least for wait in waits),
            held_by=self._held[what],
        )

    def _holders(self, ids: Sequence[int]) -> Held:
        holders = [self._tasks[each] for each in ids if each in self._tasks]
        places = Counter(task.where for task in holders if task.where is not None)
        return Held(
            count=len(ids),
            names=[_called(task.name, task.function) for task in holders[:_MOST_HOLDERS]],
            places=places.most_common(_MOST_HOLDERS),
        )

    # ---- the tree --------------------------------------------------------------------------------

    def _kinds_of_nodes(self) -> dict[int, int]:
        """Return a number for each node, the same for equal ones."""
        numbers: dict[object, int] = {}
        kinds: dict[int, int] = {}
        in_cycle = self._in_cycle
        what: object
        for node in reversed(self._nodes):  # the children before their parent
            children = node.children
            below = tuple([kinds[id(child)] for child in children]) if children else ()
            if isinstance(node, TaskNode):
                wait, number = node.wait, node.id
                what = (
                    _unnumbered(node.name),
                    node.kind,
                    node.function,
                    node.state,
                    node.stack or node.where,
                    None if wait is None else _what(wait),
                    number if number in in_cycle else None,
                    below,
                )
            else:
                what = (node.kind, node.where, below)
            kinds[id(node)] = numbers.setdefault(what, len(numbers))
        return kinds

    def _lines(self) -> list[Line]:
        lines: list[Line] = []
        todo = self._below(0, self._tree.roots)
        while todo and len(lines) < _MOST_LINES:
            fold = todo.pop()
            lines.append(self._line(fold))
            children = [child for node in fold.nodes for child in node.children]
            if children and not fold.is_rest:
                todo += self._below(fold.depth + 1, children)
        return lines

    def _below(self, depth: int, nodes: Sequence[Node]) -> list[_Fold]:
        """Return the lines for siblings, the last first."""
        folds: dict[int, list[Node]] = {}
        for node in nodes:
            folds.setdefault(self._kinds[id(node)], []).append(node)
        each = iter(folds.values())
        shown = [_Fold(depth, fold) for fold in islice(each, _MOST_SIBLINGS)]
        if rest := [node for fold in each for node in fold]:
            shown.append(_Fold(depth, rest, is_rest=True))
        shown.reverse()
        return shown

    def _line(self, fold: _Fold) -> Line:
        first, count = fold.nodes[0], len(fold.nodes)
        if fold.is_rest:
            return _bare_line(fold.depth, "more", count, None)
        if isinstance(first, GroupNode):
            return _bare_line(fold.depth, first.kind, count, first.where)
        tasks = cast("Sequence[TaskNode]", fold.nodes)
        return Line(
            depth=fold.depth,
            kind=first.kind,
            ids=[task.id for task in tasks[:_MOST_IDS]],
            in_cycle=first.id in self._in_cycle,
            **self._shown(tasks),
        )


def _bare_line(depth: int, kind: str, count: int, where: str | None) -> Line:
    """Return a line without a task."""
    return Line(
        depth=depth,
        kind=kind,
        count=count,
        ids=[],
        name=None,
        function=None,
        state=None,
        where=where,
        seconds=None,
        stack=[],
        wait=None,
        in_cycle=False,
    )


def _is_task(node: TaskNode) -> bool:
    return node.kind == "task"


def _unnumbered(name: str) -> str:
    return name.rstrip(_DIGITS)


def _what(wait: Wait) -> object:
    """Return what is waited for, to group by: one object if somebody holds it."""
    if wait.on == _SLEEP:
        return _SLEEP
    if not _is_held(wait):
        return wait.on, wait.of
    return wait.on, wait.of, wait.holders if wait.key is None else wait.key


def _is_held(wait: Wait) -> bool:
    """Return whether others hold what is waited for; a task's children stand below it."""
    return bool(wait.holders) and wait.on != _CHILDREN


def _most(seconds: Iterable[float | None]) -> float | None:
    known = [each for each in seconds if each is not None and isfinite(each)]  # as JSON has them
    return round(max(known), 3) if known else None


def _called(name: str, function: str | None) -> str:
    """Return what a task is called: what it runs, if nobody has given it a name."""
    if name.startswith(_DEFAULT_NAMES) and function is not None:
        number = f" ({name})" if name != _DEFAULT_NAMES else ""
        name = f"{function.rpartition(' in ')[2]}{number}"
    return _clipped(name.rstrip(_SEPARATORS) or name)


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
