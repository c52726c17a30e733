"""Knots: tasks that wait for each other and for nobody else, and no others."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from mtaio._internal.knots import Need, cycle_in, knots

TASKS = range(6)


def reach(task: int, needs: dict[int, Need], inside: set[int]) -> set[int]:
    """Return all that a task waits for, directly or through others, inside a set."""
    found: set[int] = set()
    todo = [task]
    while todo:
        for holder in needs[todo.pop()].holders:
            if holder in inside and holder not in found:
                found.add(holder)
                todo.append(holder)
    return found


def is_knot(tasks: set[int], needs: dict[int, Need]) -> bool:
    """Return whether a set is a knot, by the words of the definition."""
    if not tasks <= needs.keys():
        return False
    for task in tasks:
        if reach(task, needs, tasks) != tasks:
            return False
        inside = [holder in tasks for holder in needs[task].holders]
        if not (any(inside) if needs[task].every else all(inside)):
            return False
    return True


def by_force(needs: dict[int, Need]) -> list[set[int]]:
    """Return the knots that are in no other, of all sets of tasks."""
    every = [{*some} for size in TASKS for some in combinations(TASKS, size + 1)]
    found = [some for some in every if is_knot(some, needs)]
    return [one for one in found if not any(one < other for other in found)]


HOLDERS = st.lists(st.sampled_from(TASKS), max_size=3).map(tuple)


@st.composite
def many_needs(draw: st.DrawFn) -> dict[int, Need]:
    """Draw who waits for whom; some wait for the same object."""
    shared = draw(st.lists(HOLDERS, min_size=2, max_size=2))
    holders = HOLDERS | st.sampled_from(shared)
    need = st.builds(Need, holders, st.booleans())
    return draw(st.dictionaries(st.sampled_from(TASKS), need))


@given(many_needs())
def test_knots_are_those_found_by_force(needs: dict[int, Need]) -> None:
    """Exactly the largest knots are found; a cycle in each goes from task to holder, and back."""
    found = knots(needs)
    assert sorted(map(sorted, found)) == sorted(map(sorted, by_force(needs)))
    for knot in found:
        cycle = cycle_in(knot, needs)
        assert len({*cycle}) == len(cycle)
        assert {*cycle} <= {*knot}
        for task, holder in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
            assert holder in needs[task].holders


def test_one_free_slot_is_no_knot() -> None:
    """A task that waits for one of ten slots is stuck only if all who hold them are."""
    ten = tuple(range(1, 11))
    needs = {0: Need(ten, every=False)} | {task: Need((0,), every=False) for task in ten}
    assert knots(needs) == [tuple(range(11))]
    del needs[7]
    assert knots(needs) == []
    needs[0] = Need(ten, every=True)
    assert len(knots(needs)) == 1


def test_knot_within_tasks_that_reach_each_other() -> None:
    """One that could be freed from elsewhere is left out, and the others are a knot without it."""
    needs = {
        0: Need((1, 2), every=True),
        1: Need((0,), every=False),
        2: Need((0, 3), every=False),
        3: Need((3,), every=False),
    }
    assert knots(needs) == [(0, 1), (3,)]


def test_many_that_wait_for_many_are_cheap() -> None:
    """Five thousand that wait for one of five thousand slots are not 25 million steps."""
    held = tuple(range(5_000))
    needs = {task: Need(held, every=False) for task in range(10_000)}
    (knot,) = knots(needs)
    assert len(knot) == 5_000
    assert cycle_in(knot, needs) == (0,)
