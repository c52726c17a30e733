"""
What happened, in readable form: which task took each step, and what it waited for after it.

Promise: a step costs a walk along its task's awaits and no source is read, until somebody wants to
see it. What `Step` says depends on the program alone, not on addresses, hashes or the Python
version.
"""

from __future__ import annotations

import hashlib
import linecache
import re
from dataclasses import dataclass
from types import CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

from mtaio.testing._deadlock import is_machinery, next_await

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import CodeType

SHOWN: Final = 60
"""How many steps an error shows at most: the last ones."""

BROKEN: Final = "the run is broken off"
"""How the words on a verdict end."""


_COMPREHENSION: Final = re.compile(r"\.<locals>\.<(?:list|set|dict)comp>$")


@dataclass(frozen=True, slots=True)
class Place:
    """A line of somebody's own code at which a task waits."""

    file: str
    """The file."""

    line: int
    """The number of the line."""

    function: str
    """The qualified name of the function."""

    @classmethod
    def of(cls, code: CodeType, line: int) -> Place:
        """Return the place of a line of compiled code."""
        # Since Python 3.12 a comprehension is part of the function around it.
        return cls(code.co_filename, line, _COMPREHENSION.sub("", code.co_qualname))

    def __str__(self) -> str:
        source = linecache.getline(self.file, self.line).strip()
        return f"{source}  ({self.function}, line {self.line})"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a task: from where it was woken to where it waits again."""

    time: float
    """The virtual time in seconds."""

    task: str
    """
    The name of the task's function, and the how-manieth task of the run it is; of what is
    ``struck``, a few words on what happens.
    """

    waits_at: Place | None
    """Where it waits now; None if it has ended."""

    struck: bool = False
    """Whether this is no step, but a blow: a `Victim` is struck, or the run is broken off."""

    def __str__(self) -> str:
        return self.line()

    def line(self, width: int = 0) -> str:
        """Return the step as a line of text, in which a task's name takes ``width`` letters."""
        if self.struck:
            return f"t={self.time:<8g} ------- {self.task} -------"
        what = "ended" if self.waits_at is None else f"waits at  {self.waits_at}"
        return f"t={self.time:<8g} {self.task:<{width}}  {what}"


def place_of(coroutine: Any) -> tuple[CodeType, int] | None:
    """Return the innermost code and line of a suspended coroutine that is no event loop's own."""
    # Called after every step. Asking for a frame makes one, so that is left for the end.
    found: Any = None
    awaited = coroutine
    while awaited is not None:
        kind: type[object] = awaited.__class__
        if kind is CoroutineType:
            if found is None or not is_machinery(awaited.cr_code.co_filename):
                found = awaited
            awaited = awaited.cr_await
        elif kind is GeneratorType:
            if found is None or not is_machinery(awaited.gi_code.co_filename):
                found = awaited
            awaited = awaited.gi_yieldfrom
        elif kind.__module__ == "_asyncio":  # the iterator of a future, which leads nowhere
            break
        else:
            frame, awaited = next_await(awaited)
            if frame is not None and (found is None or not is_machinery(frame.f_code.co_filename)):
                found = frame
    if isinstance(found, CoroutineType):
        found = found.cr_frame
    elif isinstance(found, GeneratorType):
        found = found.gi_frame
    return None if found is None else (found.f_code, found.f_lineno)


def digest(steps: Iterable[Step]) -> str:
    """Return a fingerprint of a trace, the same wherever the program did the same."""
    text: list[str] = []
    for step in steps:
        place = step.waits_at
        where = None if place is None else (place.function, place.line)
        text.append(f"{step.time!r} {step.task} {where} {step.struck}")
    return hashlib.sha256("\n".join(text).encode()).hexdigest()


def interleaving(steps: Sequence[Step]) -> str:
    """Return the last steps of a trace as lines of text, up to where the run was broken off."""
    if not steps:
        return "  no task took a step"
    broken = (at for at, step in enumerate(steps, 1) if step.struck and step.task.endswith(BROKEN))
    end = next(broken, len(steps))
    shown = steps[max(0, end - SHOWN) : end]
    width = max((len(step.task) for step in shown if not step.struck), default=0)
    lines = [f"  {step.line(width)}" for step in shown]
    if end > SHOWN:
        lines.insert(0, f"  … {_steps(end - SHOWN)} before")
    if end < len(steps):
        lines.append(f"  … {_steps(len(steps) - end)} of cleaning up")
    return "\n".join(lines)


def _steps(number: int) -> str:
    return f"{number} step{'' if number == 1 else 's'}"
