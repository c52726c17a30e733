"""
A tree of tasks as text: first what one looks for, then the tree.

Promise: what a deadlock is made of stands in the first lines. Nothing in the text is acted upon by
a terminal, whatever tasks are called.
Cost: a few microseconds for each line, of which the document has a bounded number.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from mtaio._internal.gil import has_gil

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtaio._internal.task_document import Document, Held, Line, Task, Waiting, Waits

__all__ = ["Style", "TextLine", "text_lines", "text_pieces"]

Style: TypeAlias = Literal["title", "heading", "bad", "warn", "soft", ""]
"""How a line is to be shown where there are colours."""

_SLEEPS: Final = "sleep"

_PREPOSITIONS: Final = {"item": "from", "room": "in", "thread": "running"}
"""What stands between these and the object; "of" between others and theirs."""

_MINUTE: Final = 60
_HOUR: Final = 3600


_LINES_IN_PIECE: Final = 50

_DEEPEST: Final = 40
"""How far a line is indented at most."""


class TextLine(NamedTuple):
    """A line, and how it is to be shown."""

    style: Style
    text: str


def text_lines(
    shown: Document, *, stacks: bool = False, containing: str | None = None
) -> Iterator[TextLine]:
    """
    Return the lines of a document.

    Args:
        shown: The document.
        stacks: Whether each task's stack is below it.
        containing: What a task's line must contain, in any case of its letters, to be shown with
            what is above and below it; None shows all.
    """
    for style, text in _lines(shown, stacks=stacks, containing=containing):
        yield TextLine(style, _printable(text))


def text_pieces(shown: Document, *, stacks: bool = False) -> Iterator[bytes]:
    """Return a document as text in UTF-8, in pieces."""
    lines = text_lines(shown, stacks=stacks)
    while piece := [line.text for line in islice(lines, _LINES_IN_PIECE)]:
        yield "".join(f"{line}\n" for line in piece).encode()


def _lines(shown: Document, *, stacks: bool, containing: str | None) -> Iterator[TextLine]:
    wanted = None if containing is None else containing.casefold()
    yield from _heading(shown)
    yield from _cycles(shown)
    waits = [line for each in shown["waits"] if _is_wanted(line := _waits_line(each), wanted)]
    yield from _section("what tasks wait for", waits, shown["more_waits"])
    longest = [
        line
        for each in shown["longest"]
        if _is_wanted(line := TextLine("", f"{_what(each)}: {_stand(each)}"), wanted)
    ]
    yield from _section("the longest waits", longest)
    yield TextLine("", "")
    yield TextLine("heading", "tasks")
    yield from _tree(shown, stacks=stacks, wanted=wanted)
    if shown["omitted"]:
        yield TextLine("soft", f"{shown['omitted']} more tasks are not shown")


def _heading(shown: Document) -> Iterator[TextLine]:
    moment = datetime.fromtimestamp(shown["taken_at"], UTC)
    name = "" if shown["name"] is None else f"{shown['name']}: "
    states = ", ".join(f"{count} {state}" for state, count in shown["states"].items())
    yield TextLine(
        "title",
        f"{name}{_count(shown['count'], 'task')} on {shown['backend']}, process {shown['pid']}, "
        f"at {moment:%H:%M:%S} UTC{f': {states}' if states else ''}",
    )
    stall = shown["stall"]
    if stall is not None:
        yield TextLine(
            "bad",
            f"the event loop has not answered for {_duration(stall['seconds'])}: {stall['place']}",
        )
    if not shown["complete"]:
        seen = "it may mix moments" if has_gil() else "without the GIL, names of asyncio's tasks"
        yield TextLine("soft", f"read from outside of the event loop: {seen}")


def _cycles(shown: Document) -> Iterator[TextLine]:
    for cycle in shown["cycles"]:
        yield TextLine("", "")
        who = f"{_count(len(cycle), 'task')} wait for each other"
        yield TextLine("bad", f"deadlock: {who if len(cycle) > 1 else 'a task waits for itself'}")
        for task in cycle:
            yield TextLine("bad", f"  {_what(task)}: {_stand(task)}")
    if shown["more_cycles"]:
        yield TextLine("bad", f"  and {shown['more_cycles']} more")


def _section(heading: str, lines: list[TextLine], more: int = 0) -> Iterator[TextLine]:
    if lines:
        yield TextLine("", "")
        yield TextLine("heading", heading)
        for style, text in lines:
            yield TextLine(style, f"  {text}")
        if more:
            yield TextLine("soft", f"  and {more} other things")


def _waits_line(waits: Waits) -> TextLine:
    many = waits["count"] > 1
    verb = _verb(waits, many=many)
    longest = waits["seconds"]
    since = "" if longest is None else f", {'the longest ' if many else ''}for {_seconds(waits)}"
    style: Style = "" if waits["held_by"] is None else "warn"
    return TextLine(
        style,
        f"{_count(waits['count'], 'task')}{_waiting_at(waits)} {verb}"
        f"{_held(waits)}{_held_at(waits)}{since}",
    )


# ---- the tree ------------------------------------------------------------------------------------


def _tree(shown: Document, *, stacks: bool, wanted: str | None) -> Iterator[TextLine]:
    lines = [_tree_line(line) for line in shown["lines"]]
    chosen = range(len(lines)) if wanted is None else _chosen(shown["lines"], lines, wanted)
    for number in chosen:
        line = shown["lines"][number]
        yield lines[number]
        if stacks:
            for place in line["stack"]:
                yield TextLine("soft", f"{_indent(line)}    {place}")


def _chosen(lines: list[Line], texts: list[TextLine], wanted: str) -> list[int]:
    """Return the lines that contain a text, and those above and below them."""
    chosen: set[int] = set()
    above: list[int] = []
    inside: int | None = None  # the depth of the line below which all are shown
    for number, (line, text) in enumerate(zip(lines, texts, strict=True)):
        depth = line["depth"]
        del above[depth:]
        above.append(number)
        if inside is not None and depth <= inside:
            inside = None
        if inside is None and _is_wanted(text, wanted):
            inside = depth
            chosen.update(above)
        elif inside is not None:
            chosen.add(number)
    return sorted(chosen)


def _tree_line(line: Line) -> TextLine:
    indent = _indent(line)
    times = _times(line)
    if line["kind"] == "more":
        return TextLine("soft", f"{indent}and {line['count']} others")
    if line["name"] is None:
        return TextLine("soft", f"{indent}{times}{line['kind']}{_at(line['where'])}")
    if line["kind"] == "thread":
        return TextLine("soft", f"{indent}{times}thread {line['name']}{_at(line['where'])}")
    own: Style = "soft" if line["where"] is None else ""  # no line of the program's
    style: Style = "bad" if line["in_cycle"] else own
    return TextLine(style, f"{indent}{times}{line['name']}{_at(line['where'])}: {_stand(line)}")


def _indent(line: Line) -> str:
    return "  " * (min(line["depth"], _DEEPEST) + 1)


# ---- in words ------------------------------------------------------------------------------------


def _is_wanted(line: TextLine, wanted: str | None) -> bool:
    return wanted is None or wanted in line.text.casefold()


def _what(task: Task) -> str:
    return f"{_times(task)}{task['name']}{_at(task['where'])}"


def _stand(task: Task | Line) -> str:
    """Return what a task does."""
    wait = task["wait"]
    if wait is None:
        return str(task["state"])
    since = ""
    if wait["seconds"] is not None:
        of_many = ", the longest for" if wait["at_least"] else " for up to"
        since = f"{of_many if task['count'] > 1 else ' for'} {_seconds(wait)}"
    cancelled = "cancelled, " if task["state"] == "cancelled" else ""
    held = wait["held_by"]
    is_namesake = held is not None and held["count"] == 1 and held["names"] == [task["name"]]
    at = _held_at(wait) if is_namesake else ""
    return f"{cancelled}{_verb(wait)}{since}{_held(wait)}{at}"


def _times(task: Task | Line) -> str:
    return "" if task["count"] == 1 else f"{task['count']} x "


def _verb(wait: Waiting, *, many: bool = False) -> str:
    on, of = wait["on"], wait["of"]
    if on == _SLEEPS:
        return "sleep" if many else "sleeps" if of is None else f"sleeps ({of})"
    if of is None:
        what = on
    elif of.casefold().startswith(on):  # "Lock 'stock'"
        what = of
    else:
        what = f"{on} {_PREPOSITIONS.get(on, 'of')} {of}"
    return f"{'wait' if many else 'waits'} for {what}"


def _held(wait: Waiting) -> str:
    held = wait["held_by"]
    return "" if held is None else f", held by {_holders(held)}"


def _holders(held: Held) -> str:
    names = held["names"]
    return names[0] if held["count"] == len(names) == 1 else _count(held["count"], "task")


def _held_at(wait: Waiting) -> str:
    places = [] if wait["held_by"] is None else wait["held_by"]["places"]
    others = f" and {_count(len(places) - 1, 'other place')}" if len(places) > 1 else ""
    return f"{_at(places[0][0])}{others}" if places else ""


def _waiting_at(waits: Waits) -> str:
    if not waits["places"]:
        return ""
    place, count = waits["places"][0]
    return _at(place) if count == waits["count"] else f", {count} of them{_at(place)},"


def _at(where: str | None) -> str:
    return "" if where is None else f" at {where}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _seconds(wait: Waiting) -> str:
    seconds = wait["seconds"]
    return f"{'at least ' if wait['at_least'] else ''}{_duration(seconds or 0)}"


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.3g} s"
    if seconds < _HOUR:
        return f"{int(seconds // _MINUTE)} min {int(seconds % _MINUTE)} s"
    return f"{int(seconds // _HOUR)} h {int(seconds % _HOUR // _MINUTE)} min"


def _printable(text: str) -> str:
    """Return a line with nothing in it that a terminal would act upon, or that UTF-8 lacks."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
