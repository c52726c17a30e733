"""The tree of tasks as a document, as text and as JSON; the trees are made by hand."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from mtaio._internal.task_document import document, json_pieces
from mtaio._internal.task_text import text_lines, text_pieces
from mtaio._internal.task_tree import GroupNode, TaskNode, TaskTree, Wait
from mtaio.monitoring import tasks_to_json, tasks_to_text

if TYPE_CHECKING:
    from collections.abc import Sequence


def task(number: int, name: str, line: int = 44, **fields: Any) -> TaskNode:
    """Return a task that runs ``query``."""
    where = f"db.py:{line} in query"
    return TaskNode(
        id=number,
        name=name,
        **{
            "function": "db.py:30 in handle",
            "where": where,
            "stack": ("db.py:31 in handle", where),
            **fields,
        },
    )


def tree(*roots: TaskNode | GroupNode, **fields: Any) -> TaskTree:
    """Return a tree that was read in its loop."""
    found = TaskTree(backend="trio", taken_at=0.0, count=0, roots=roots, **fields)
    count = sum(isinstance(node, TaskNode) and node.kind == "task" for _, node in found.walk())
    return TaskTree(backend="trio", taken_at=0.0, count=count, roots=roots, **fields)


def shown(found: TaskTree, **options: Any) -> list[str]:
    """Return the text without its first line."""
    stall = options.pop("stall", None)
    lines = [line.text for line in text_lines(document(found, stall=stall), **options)]
    count = "1 task" if found.count == 1 else f"{found.count} tasks"
    assert lines[0].startswith(f"{count} on trio, process {os.getpid()}, at 00:00:00 UTC")
    return lines[1:]


HOLDERS = tuple(range(1, 11))
SLOT = {"on": "slot", "of": "ConcurrencyLimiter 'db'", "key": 7, "holders": HOLDERS}


def orders() -> TaskTree:
    """Return what a limiter looks like that has 37 waiters, and two tasks that wait for it all."""
    holding = [task(n, f"Task-{n}", wait=Wait(on="socket", seconds=1.5)) for n in HOLDERS]
    waiting = [
        task(n, f"order {n}", 43, wait=Wait(seconds=n / 4, **SLOT), seconds=60.0)  # type: ignore[arg-type] # a dict of several types
        for n in range(11, 48)
    ]
    group = GroupNode(kind="nursery", where="db.py:9 in main", children=(*holding, *waiting))
    main = task(99, "main", 9, stack=(), wait=Wait(on="tasks"), children=(group,))
    return tree(main, longest=(47,))


def test_many_equal_tasks_are_one_line() -> None:
    """What tasks wait for, who holds it, and the tree with equal siblings folded."""
    assert shown(orders()) == [
        "",
        "what tasks wait for",
        (
            "  37 tasks at db.py:43 in query wait for slot of ConcurrencyLimiter 'db', held by 10 "
            "tasks at db.py:44 in query, the longest for 11.8 s"
        ),
        "  10 tasks at db.py:44 in query wait for socket, the longest for 1.5 s",
        "  1 task at db.py:9 in query waits for tasks",
        "",
        "the longest waits",
        (
            "  order 47 at db.py:43 in query: waits for slot of ConcurrencyLimiter 'db' for 11.8 "
            "s, held by 10 tasks"
        ),
        "",
        "tasks",
        "  main at db.py:9 in query: waits for tasks",
        "    nursery at db.py:9 in main",
        "      10 x handle at db.py:44 in query: waits for socket for up to 1.5 s",
        (
            "      37 x order at db.py:43 in query: waits for slot of ConcurrencyLimiter 'db' for "
            "up to 11.8 s, held by 10 tasks"
        ),
    ]


def deadlock() -> TaskTree:
    """Return two tasks that wait for each other, among others that do the same."""
    tasks = [
        task(n, f"transfer {n}", wait=Wait(on="lock", of=f"Lock {name!r}", seconds=s, holders=held))
        for n, name, s, held in ((1, "a", 75, (2,)), (2, "b", 3700, (1,)), (3, "a", 5, (2,)))
    ]
    return tree(*tasks, cycles=((1, 2),))


def test_deadlock_comes_first() -> None:
    """Tasks that wait for each other stand above all else, and are not folded with others."""
    lines = shown(deadlock())
    assert lines[:4] == [
        "",
        "deadlock: 2 tasks wait for each other",
        (
            "  transfer 1 at db.py:44 in query: waits for Lock 'a' for 1 min 15 s, held by "
            "transfer 2"
        ),
        ("  transfer 2 at db.py:44 in query: waits for Lock 'b' for 1 h 1 min, held by transfer 1"),
    ]
    assert [line.style for line in text_lines(document(deadlock()))].count("bad") == 5
    assert lines[-3].startswith("  transfer 1 at")
    assert lines[-1].startswith("  transfer 3 at")


def test_task_that_waits_for_itself() -> None:
    """One that waits for what it holds is told from several."""
    again = task(1, "again", wait=Wait(on="lock", of="Lock 'a'", holders=(1,)))
    assert shown(tree(again, cycles=((1,),)))[1] == "deadlock: a task waits for itself"


def test_many_cycles_are_counted() -> None:
    """Of many cycles the first are shown, of each the first tasks."""
    tasks = [task(n, f"t{n}", wait=Wait(on="event")) for n in range(700)]
    cycles = tuple(tuple(range(n, n + 100)) for n in range(0, 700, 100))
    lines = shown(tree(*tasks, cycles=cycles))
    assert sum(line.startswith("deadlock: 20 tasks") for line in lines) == 5
    assert "  and 2 more" in lines


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": "running"}, "x at db.py:44 in query: running"),
        ({"state": "ready", "where": None}, "x: ready"),
        ({"state": "cancelled"}, "x at db.py:44 in query: cancelled"),
        (
            {"state": "cancelled", "wait": Wait(on="event")},
            "x at db.py:44 in query: cancelled, waits for event",
        ),
        ({"wait": Wait(on="sleep", seconds=0.25)}, "x at db.py:44 in query: sleeps for 0.25 s"),
        (
            {"wait": Wait(on="sleep", of="9 s, 5 s left", seconds=math.inf)},
            "x at db.py:44 in query: sleeps (9 s, 5 s left)",
        ),
        (
            {"wait": Wait(on="lock", holders=(5,))},
            "x at db.py:44 in query: waits for lock, held by 1 task",
        ),
        (
            {"wait": Wait(on="thread", of="query")},
            "x at db.py:44 in query: waits for thread running query",
        ),
        ({"kind": "thread", "name": "worker 1"}, "thread worker 1 at db.py:44 in query"),
        ({"name": "Task-7", "function": None}, "Task-7 at db.py:44 in query: waiting"),
        ({"name": "Task-7"}, "handle (Task-7) at db.py:44 in query: waiting"),
        ({"name": "a\x1b[2J\nb"}, r"a\x1b[2J\nb at db.py:44 in query: waiting"),
        ({"name": "n" * 500}, f"{'n' * 200}... at db.py:44 in query: waiting"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_task_does(fields: dict[str, Any], words: str) -> None:
    """Each state and each wait in words, and nothing that a terminal would act upon."""
    fields = {"name": "x", **fields}
    assert shown(tree(task(1, **fields)))[-1] == f"  {words}"


def test_several_places() -> None:
    """Holders and waiters that are at several places are told by where most are."""
    holders = [task(n, f"h{n}", 40 + n // 2) for n in range(3)]
    waiters = [task(n, f"w{n}", 9, wait=Wait(on="slot", holders=(0, 1, 2))) for n in (8, 9)]
    sleepers = [task(n, f"s{n}", 8, wait=Wait(on="sleep", of=f"{n} s")) for n in (18, 19)]
    readers = [
        task(n, f"r{n}", 7 + n // 22, wait=Wait(on="room", of="Queue")) for n in (20, 21, 22)
    ]
    library = task(23, "pump", wait=Wait(on="item", of="Queue"), where=None)
    assert shown(tree(library, *holders, *waiters, *readers, *sleepers))[2:6] == [
        (
            "  2 tasks at db.py:9 in query wait for slot, held by 3 tasks at db.py:40 in query "
            "and 1 other place"
        ),
        "  3 tasks, 2 of them at db.py:7 in query, wait for room in Queue",
        "  2 tasks at db.py:8 in query sleep",
        "  1 task waits for item from Queue",
    ]


def test_holder_of_the_same_name() -> None:
    """A holder that is called as the waiter is told by where it is."""
    tasks = [task(n, "handle", n, wait=Wait(on="lock", holders=(3 - n,))) for n in (1, 2)]
    assert shown(tree(*tasks, cycles=((1, 2),)))[2:4] == [
        "  handle at db.py:1 in query: waits for lock, held by handle at db.py:2 in query",
        "  handle at db.py:2 in query: waits for lock, held by handle at db.py:1 in query",
    ]


def test_wait_of_which_the_beginning_is_unknown() -> None:
    """What a task has waited since it was looked at first is a part of how long it has."""
    waits = [Wait(on="lock", seconds=n * 60, at_least=True, key=7, holders=(9,)) for n in (1, 2)]
    lines = shown(
        tree(
            *[task(n, f"e{n}", wait=wait) for n, wait in enumerate(waits)],
            task(3, "other", 5, wait=Wait(on="item", seconds=9, at_least=True)),
            task(9, "holder", 6),
            longest=(0, 1),
        )
    )
    most = "the longest for at least 2 min 0 s"
    assert lines[2:4] == [
        "  2 tasks at db.py:44 in query wait for lock, held by holder at db.py:6 in query, " + most,
        "  1 task at db.py:5 in query waits for item, for at least 9 s",
    ]
    assert f"  2 x e at db.py:44 in query: waits for lock, {most}, held by holder" in lines


def test_what_is_alike_is_told_once() -> None:
    """Equal tasks that have waited longest are one line; so is what nobody holds."""
    events = [task(n, f"e{n}", wait=Wait(on="event", key=n, seconds=20 - n)) for n in (1, 2)]
    other = task(3, "other", 5, wait=Wait(on="item", of="Intake", seconds=9))
    parent = task(4, "main", 6, wait=Wait(on="tasks", holders=(1, 2)), children=tuple(events))
    lines = shown(tree(parent, other, longest=(1, 2, 3, 77)))
    assert lines[:9] == [
        "",
        "what tasks wait for",
        "  1 task at db.py:5 in query waits for item from Intake, for 9 s",
        "  2 tasks at db.py:44 in query wait for event, the longest for 19 s",
        "  1 task at db.py:6 in query waits for tasks",
        "",
        "the longest waits",
        "  2 x e at db.py:44 in query: waits for event for up to 19 s",
        "  other at db.py:5 in query: waits for item from Intake for 9 s",
    ]


class Stall(NamedTuple):
    """What blocks the loop."""

    seconds: float = 3.25
    place: str = "db.py:5 in render"


@pytest.mark.parametrize("has_gil", [True, False])
def test_blocked_loop_is_named(monkeypatch: pytest.MonkeyPatch, *, has_gil: bool) -> None:
    """What blocks the loop, and what a tree that was read from outside lacks, stand at the top."""
    monkeypatch.setattr("mtaio._internal.task_text.has_gil", lambda: has_gil)
    found = tree(task(1, "x"), complete=False)
    lacks = "it may mix moments" if has_gil else "without the GIL, names of asyncio's tasks"
    assert shown(found, stall=Stall())[:2] == [
        "the event loop has not answered for 3.25 s: db.py:5 in render",
        f"read from outside of the event loop: {lacks}",
    ]


def test_filter_keeps_what_is_above_and_below() -> None:
    """A filter shows lines with a text, in any case, and those above and below them."""
    leaf = task(1, "leaf", 1)
    found = tree(
        task(2, "top", 2, children=(task(3, "Middle", 3, children=(leaf,)), task(4, "other", 4))),
        task(5, "else", 5, wait=Wait(on="event")),
    )
    lines = shown(found, containing="middle")
    assert lines == [
        "",
        "tasks",
        "  top at db.py:2 in query: waiting",
        "    Middle at db.py:3 in query: waiting",
        "      leaf at db.py:1 in query: waiting",
    ]
    assert "  1 task at db.py:5 in query waits for event" in shown(found, containing="EVENT")


def test_stacks_are_below_their_tasks() -> None:
    """On request each task has its stack below it, the outermost line first."""
    assert shown(tree(task(1, "x")), stacks=True)[-3:] == [
        "  x at db.py:44 in query: waiting",
        "      db.py:31 in handle",
        "      db.py:44 in query",
    ]


def nested(depth: int) -> TaskTree:
    """Return tasks each of which has started the next."""
    node = task(0, "leaf")
    for number in range(1, depth):
        node = task(number, f"t{chr(97 + number % 26)}", children=(node,))
    return tree(node)


def wide(width: int) -> TaskTree:
    """Return a task with children that are all different."""
    children = tuple(task(n, f"x{n}", n, wait=Wait(on="event", of=f"o{n}")) for n in range(width))
    return tree(task(-1, "top", children=children), longest=tuple(range(10)))


@pytest.mark.parametrize("found", [nested(3000), wide(3000)], ids=["deep", "wide"])
def test_text_and_json_are_bounded(found: TaskTree) -> None:
    """However many tasks there are, and however deep, the rest is counted and not shown."""
    result = document(found, name="shop")
    text = b"".join(text_pieces(result)).decode()
    pieces = list(json_pieces(result))
    read = json.loads(b"".join(pieces))
    lines = read["lines"]
    kinds = [line["kind"] for line in lines]
    assert len(lines) == (1000 if kinds[-1] == "task" else 102)
    assert read["omitted"] == found.count - kinds.count("task") > 0
    assert text.endswith(f"\n{read['omitted']} more tasks are not shown\n")
    assert len(pieces) > 2
    assert read == json.loads(json.dumps(result | {"lines": lines}))
    if kinds[-1] == "more":
        assert "\n    and 2900 others\n" in text
        assert "\n  and 2980 other things\n" in text


def test_equal_subtrees_are_folded() -> None:
    """Tasks with equal children are one line, and their children are counted together."""

    def request(number: int, *kinds: str) -> TaskNode:
        children = tuple(task(10 * number + n, kind) for n, kind in enumerate(kinds))
        return task(number, f"request-{number}", children=children)

    found = tree(request(1, "a", "b"), request(2, "a", "b"), request(3, "a"))
    assert shown(found)[-5:] == [
        "  2 x request at db.py:44 in query: waiting",
        "    2 x a at db.py:44 in query: waiting",
        "    2 x b at db.py:44 in query: waiting",
        "  request-3 at db.py:44 in query: waiting",
        "    a at db.py:44 in query: waiting",
    ]


def members(found: dict[str, Any]) -> dict[str, Any]:
    """Return the names in a document, with those of the first of each list."""
    names: dict[str, Any] = {}
    for name, value in found.items():
        first: Any = value
        while isinstance(first, list) and first:
            first = first[0]
        names[name] = members(first) if isinstance(first, dict) and name != "states" else ...
    return names


def test_schema() -> None:
    """The members of the JSON document are those that the guide describes."""
    held = {"count": ..., "names": ..., "places": ...}
    wait = {**dict.fromkeys(("on", "of", "seconds", "at_least"), ...), "held_by": held}
    known = ("name", "function", "state", "where", "seconds", "stack")
    one = {**dict.fromkeys(("id", "count", *known), ...), "wait": wait}
    found = deadlock()
    result = json.loads(b"".join(json_pieces(document(found, stall=Stall()))))
    result["longest"] = result["cycles"][0]
    assert result["format"] == 1
    assert members(result) == {
        **dict.fromkeys(("format", "name", "pid", "backend", "taken_at", "complete", "count"), ...),
        "stall": {"seconds": ..., "place": ...},
        **dict.fromkeys(("states", "more_cycles", "more_waits", "omitted"), ...),
        "cycles": one,
        "waits": {"count": ..., "places": ..., **wait},
        "longest": one,
        "lines": {
            **dict.fromkeys(("depth", "kind", "count", "ids", "in_cycle", *known), ...),
            "wait": wait,
        },
    }


def keys(lines: Sequence[dict[str, Any]]) -> list[tuple[int, ...]]:
    """Return the ids in each line."""
    return [tuple(line["ids"]) for line in lines]


def test_ids() -> None:
    """A line has the ids of its tasks, at most a hundred of them."""
    found = tree(*(task(n, f"t{n}") for n in range(150)), task(999, "other"))
    lines = json.loads(b"".join(json_pieces(document(found))))["lines"]
    assert keys(lines) == [tuple(range(100)), (999,)]
    assert lines[0]["count"] == 150


def test_text_and_json_for_everyone() -> None:
    """What `mtaio.monitoring` makes of a tree is what the probes answer."""
    found = deadlock()
    assert tasks_to_text(found).encode() == b"".join(text_pieces(document(found)))
    assert "      db.py:31 in handle\n" in tasks_to_text(found, stacks=True)
    assert tasks_to_json(found).encode() == b"".join(json_pieces(document(found)))
