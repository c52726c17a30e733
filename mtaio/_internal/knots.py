"""
Tasks that wait for each other and for nobody else.

Each task waits for others in one of two ways: until all of them are done, as the task that leaves a
task group waits for those in it, or until any of them gives something back, as one that waits for a
slot does. So a task of the first kind is stuck as soon as one of the others is; one of the second
kind only if all of them are.

A *knot* is a set of tasks in which each waits for others of the set, directly or through the rest,
and which nothing outside of it can untie: of a task that needs any, all of whom it waits for are in
the set. No more than that is called a cycle: a task that waits for one of ten slots, nine of which
are held by tasks that wait for it, will go on.

Promise: the largest knots, each once, in the order in which the tasks were given.
Cost: linear in tasks and holders; those that wait for the same holders count once.
Source: strongly connected components, R. Tarjan, 1972; deadlocks in the AND-OR model, E. Knapp,
1987.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Need", "cycle_in", "knots"]


class Need(NamedTuple):
    """Whom a task waits for."""

    holders: tuple[int, ...]
    """They."""
    every: bool
    """Whether it waits until all of them are done, not just until any is."""


def knots(needs: Mapping[int, Need]) -> list[tuple[int, ...]]:
    """Return the largest knots of tasks; ``needs`` has the need of each task that waits."""
    graph = _through_objects(needs)
    found = _knots_in(graph, _settled(graph, graph))
    order = {task: at for at, task in enumerate(needs)}
    tasks = [
        sorted((node for node in knot if node in order), key=order.__getitem__) for knot in found
    ]
    return sorted(map(tuple, tasks), key=lambda knot: order[knot[0]])


def cycle_in(knot: tuple[int, ...], needs: Mapping[int, Need]) -> tuple[int, ...]:
    """
    Return the shortest cycle through the first task of a knot.

    Each of its tasks waits for the next, and the last one for the first.
    """
    first, members = knot[0], set(knot)
    before: dict[int, int] = {}
    todo = deque([first])
    while todo:
        task = todo.popleft()
        for holder in needs[task].holders:
            if holder == first:
                cycle = [task]
                while cycle[-1] != first:
                    cycle.append(before[cycle[-1]])
                return tuple(reversed(cycle))
            if holder in members and holder not in before:
                before[holder] = task
                todo.append(holder)
    return knot  # pragma: no cover - a knot has one


_Node: TypeAlias = int | tuple[int, bool]
"""A task, or the holders that some tasks wait for, and whether for all of them."""

_Graph: TypeAlias = dict[_Node, tuple[Sequence[_Node], bool]]
"""The nodes that each node waits for, and whether for all of them."""


def _through_objects(needs: Mapping[int, Need]) -> _Graph:
    """
    Return the graph, with a node between those that wait for one object and its holders.

    A thousand tasks that wait for one of a thousand slots are two thousand edges, not a million.
    Those for which nobody waits are in no knot, and left out.
    """
    different = {id(need.holders): need.holders for need in needs.values()}
    held = {holder for holders in different.values() for holder in holders}
    graph: _Graph = {}
    for task, (holders, every) in needs.items():
        if task in held:
            middle = (id(holders), every)
            graph[task] = ((middle,), True)
            graph[middle] = (holders, every)
    return graph


def _settled(graph: _Graph, nodes: Iterable[_Node]) -> dict[_Node, None]:
    """Return those of the nodes that are stuck, if all other nodes go on, in their order."""
    stuck = dict.fromkeys(nodes)
    waiting: defaultdict[_Node, list[_Node]] = defaultdict(list)
    left: dict[_Node, int] = {}
    free: list[_Node] = []
    for node in stuck:
        holders, every = graph[node]
        inside = [each for each in holders if each in stuck]
        for each in inside:
            waiting[each].append(node)
        # How many of them may go on before it does.
        left[node] = len(inside) if every else len(inside) - len(holders) + bool(holders)
        if left[node] <= 0:
            free.append(node)
    while free:
        gone = free.pop()
        if gone not in stuck:
            continue
        del stuck[gone]
        for node in waiting[gone]:
            left[node] -= 1
            if left[node] <= 0:
                free.append(node)
    return stuck


def _knots_in(graph: _Graph, nodes: dict[_Node, None]) -> list[dict[_Node, None]]:
    """Return the knots among nodes."""
    found: list[dict[_Node, None]] = []
    todo = [nodes]
    while todo:
        for part in _components(graph, todo.pop()):
            stuck = _settled(graph, part)
            if len(stuck) == len(part):
                found.append(stuck)
            elif stuck:
                todo.append(stuck)
    return found


def _components(graph: _Graph, nodes: dict[_Node, None]) -> list[list[_Node]]:
    """
    Return the strongly connected components of some nodes.

    Tarjan's algorithm, without recursion: ``path`` has the nodes from a root to where it is, each
    with those that it has still to visit; ``stack`` those whose component is not complete. ``low``
    is, for a node, the earliest of them that is known to be reached from it. A node from which none
    before it is reached is the first of its component, and the rest of that is above it.
    """
    number: dict[_Node, int] = {}
    low: dict[_Node, int] = {}
    stack: dict[_Node, None] = {}
    found: list[list[_Node]] = []
    path: list[tuple[_Node, Iterator[_Node]]] = []

    def visit(node: _Node) -> None:
        number[node] = low[node] = len(number)
        stack[node] = None
        path.append((node, iter([each for each in graph[node][0] if each in nodes])))

    for root in nodes:
        if root not in number:
            visit(root)
        while path:
            node, rest = path[-1]
            other = next(rest, None)
            if other is None:
                path.pop()
                if path:
                    before = path[-1][0]
                    low[before] = min(low[before], low[node])
                if low[node] == number[node]:
                    found.append(_cut(stack, node))
            elif other not in number:
                visit(other)
            elif other in stack:
                low[node] = min(low[node], number[other])
    return found


def _cut(stack: dict[_Node, None], node: _Node) -> list[_Node]:
    """Take a node, and what is above it, off a stack."""
    part = [stack.popitem()[0]]
    while part[-1] != node:
        part.append(stack.popitem()[0])
    return part
