"""
Where code stands: the frames of a suspended coroutine, and which lines are the user's own.

Promise: nothing here runs the code that it looks at, and nothing keeps a frame, or what its
variables hold, alive longer than the caller does.
Cost: a suspended coroutine makes its frame when it is first asked for it, 0.1 µs; it is then kept
by the coroutine. A line number is decoded by walking a table, so callers that look at many frames
compare ``f_lasti`` and ask once for each.
"""

from __future__ import annotations

import dis
import gc
import os
import sys
import sysconfig
import threading
from contextlib import suppress
from functools import partial
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import (
    BuiltinMethodType,
    CoroutineType,
    FrameType,
    GeneratorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
)
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import CodeType

__all__ = [
    "Chain",
    "Window",
    "await_chain",
    "chain_of",
    "forms_of",
    "frames_here",
    "frames_of_others",
    "has",
    "innermost_own",
    "is_own",
    "line_at",
    "local",
    "module",
    "next_await",
    "opened_blocks",
    "place",
    "slot",
    "variables",
]


# ---- the chain of awaits ----


class Window:
    """An awaitable that shows, in ``behind``, what it drives."""

    __slots__ = ("behind",)

    behind: Any


class Chain(NamedTuple):
    """Where code stands, the outermost first; what has no frame is there by its qualified name."""

    frames: list[FrameType | str]
    codes: list[CodeType | str]
    offsets: list[int]
    """Of the instructions, as in ``f_lasti``."""
    links: list[Any]
    """What has these frames, coroutines and generators; empty if that is not known."""
    end: Any
    """What the innermost of them awaits, without a frame: a future of asyncio, or its iterator."""


_ATTRIBUTES: Final = (
    ("cr_frame", "cr_await"),
    ("gi_frame", "gi_yieldfrom"),
    ("ag_frame", "ag_await"),
)

_HIDING: Final = {
    "anext_awaitable",
    "async_generator_asend",
    "async_generator_athrow",
    "coroutine_wrapper",
}
"""Python's types that hide what they drive from Python, but not from the garbage collector."""

_DRIVERS: Final = {"take_items": "driver", "_resumed": "send", "_watched": "steps"}
"""Generators of ours that drive a coroutine by hand, and the variable that leads to it."""

_MAX_LINKS: Final = 10_000
"""A chain that is longer is a circle, which objects of other makes may form."""


def await_chain(awaited: Any) -> Chain:
    """
    Follow a suspended coroutine to the await where it waits.

    All that is wanted of a frame is read while it is at hand: it lies anywhere in memory, and to
    come back to it costs more than all else.
    """
    frames: list[FrameType | str] = []
    codes: list[CodeType | str] = []
    offsets: list[int] = []
    links: list[Any] = []
    end: Any = None
    for _ in range(_MAX_LINKS):
        here: Any = awaited
        kind: Any = cast("Any", type(here))  # an object may answer `__class__` with its own code
        if kind is CoroutineType:
            frame = here.cr_frame
            awaited = here.cr_await
        elif kind is GeneratorType:
            frame = here.gi_frame
            awaited = here.gi_yieldfrom or _driven(here)
        elif here is None:
            break
        elif module(kind) == "_asyncio":  # a future, or its iterator
            end = here
            break
        else:
            frame, awaited = next_await(here)
            if frame is None and has(here, "cr_await"):
                own_name = slot(here, "__qualname__")
                name = own_name if type(own_name) is str else kind.__name__
                frames.append(name)
                codes.append(name)
                offsets.append(-1)
                links.append(here)
            elif awaited is None:
                end = here
        if frame is not None:
            frames.append(frame)
            codes.append(frame.f_code)
            offsets.append(frame.f_lasti)
            links.append(here)
    return Chain(frames, codes, offsets, links, end)


def forms_of(chains: Mapping[int, Chain]) -> dict[int, int]:
    """Return a number for each chain, the same for those that stand at the same instructions."""
    numbers: dict[tuple[int, ...], int] = {}
    return {  # by the identity of code, which the chains hold: to hash code is dear
        task: numbers.setdefault((*chain.offsets, *map(id, chain.codes)), len(numbers))
        for task, chain in chains.items()
    }


def next_await(awaited: Any) -> tuple[FrameType | None, Any]:
    """Return the frame of what is awaited, None if it has none, and what that awaits in turn."""
    kind = cast("type[object]", type(awaited))
    for frame_of, next_of in _ATTRIBUTES:
        if has(awaited, next_of):  # compiled coroutines may have no frame
            frame = slot(awaited, frame_of)
            return frame if type(frame) is FrameType else None, slot(awaited, next_of)
    if issubclass(kind, Window):
        return None, cast("Window", awaited).behind
    if module(kind) == "builtins" and kind.__name__ in _HIDING:
        return None, next(filter(_leads_on, gc.get_referents(awaited)), None)
    return None, None


# An object of the program may answer with code of its own when it is asked for an attribute, and so
# may its class. Only what Python itself keeps for them is looked at.

_mro: Final = type.__dict__["__mro__"].__get__
_namespace: Final = type.__dict__["__dict__"].__get__
_SLOTS: Final = (GetSetDescriptorType, MemberDescriptorType)


def _of_class(obj: object, name: str) -> Any:
    """Return an attribute of an object's class as it is kept there; None if there is none."""
    for each in _mro(type(obj)):
        if name in (found := _namespace(each)):
            return found[name]
    return None


def has(obj: object, name: str) -> bool:
    """Return whether the class of an object has an attribute."""
    return _of_class(obj, name) is not None


def slot(obj: object, name: str) -> Any:
    """Return an attribute that is kept in a slot, or by what is written in C; None for others."""
    kept = _of_class(obj, name)
    if type(kept) in _SLOTS:
        with suppress(AttributeError):  # it is empty
            return kept.__get__(obj)
    return None


def module(kind: type[object]) -> str:
    """Return the module of a class; "" if the class does not say it."""
    found = _module(kind)
    return found if type(found) is str else ""


_module: Final = type.__dict__["__module__"].__get__


def _driven(link: GeneratorType[Any, Any, Any]) -> Any:
    """Return what one of our generators drives by hand; None if it is none of them."""
    name = _DRIVERS.get(link.gi_code.co_name)
    frame = None if name is None else link.gi_frame
    if name is None or frame is None or not _is_ours(frame):
        return None
    driven: Any = local(frame, name)
    kind: Any = cast("Any", type(driven))
    send: Any = driven.args[0] if kind is partial else driven  # partial(run, coroutine.send)
    return send.__self__ if type(send) in _METHODS else driven


_METHODS: Final = (BuiltinMethodType, MethodType)


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("mtaio.")


def _leads_on(referent: object) -> bool:
    kind: type[object] = type(referent)
    return kind.__name__ in _HIDING or any(has(referent, next_of) for _, next_of in _ATTRIBUTES)


def chain_of(frames: list[FrameType]) -> Chain:
    """Return the chain of frames, the outermost first."""
    codes: list[CodeType | str] = [frame.f_code for frame in frames]
    return Chain([*frames], codes, [frame.f_lasti for frame in frames], [], None)


def frames_here() -> list[FrameType]:
    """Return where this thread stands, beginning with the function that calls this."""
    return [*_outwards(sys._getframe(1))]  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - public in all but its name


def frames_of_others() -> dict[int, list[FrameType]]:
    """Return where all other threads stand, by their identities, the innermost frame first."""
    current = sys._current_frames()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - likewise
    del current[threading.get_ident()]  # this very frame, which would refer to itself
    return {ident: [*_outwards(frame)] for ident, frame in current.items()}


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


# ---- what a frame says ----


def place(code: CodeType, line: int | None) -> str:
    """Return ``file:line in function``, of bounded length; the line is 0 where there is none."""
    file, name = code.co_filename[-_LONGEST:], code.co_qualname[:_LONGEST]
    return f"{file}:{line or 0} in {name}"


_LONGEST: Final = 300
"""Characters of a file and of a function, whose names may have any length."""


def line_at(code: CodeType, offset: int) -> int | None:
    """Return the line of an instruction, where ``f_lineno`` may be that of a later one."""
    lines = code.co_lines()
    return next((at[2] for at in lines if at[0] <= offset < at[1]), code.co_firstlineno)


def local(frame: FrameType, name: str) -> Any:
    """Return a local variable of a frame, None if it is not set."""
    return variables(frame, (name,)).get(name)


def variables(frame: FrameType, names: Iterable[str]) -> dict[str, Any]:
    """
    Return local variables of a frame; those that are not set are left out.

    Up to Python 3.12 ``f_locals`` is a copy that the frame keeps, so what its variables held would
    live on in it. It is emptied here, unless it is the namespace itself, as of a module.
    """
    kept = frame.f_locals
    found = {name: kept[name] for name in names if name in kept}
    # What else refers to it is the program itself, which has called `locals()`.
    is_copy = sys.version_info < (3, 13) and frame.f_code.co_flags & CO_OPTIMIZED
    if is_copy and sys.getrefcount(kept) <= _REFERENCES:
        kept.clear()  # pragma: no cover - coverage is measured on a newer Python
    return found


_REFERENCES: Final = 3
"""To a copy of the variables: the frame's, the reader's, and that of who counts them."""


def opened_blocks(code: CodeType, at: int) -> list[tuple[str, int | None]]:
    """
    Return the ``with`` blocks around an instruction that give a name to what they enter.

    Args:
        code: The code.
        at: The offset of the instruction, as in ``f_lasti``.

    Returns:
        The name of the variable and the line of the ``with``, of the innermost block first.
    """
    # An instruction may have a handler, where an error in it continues; around the handler lies
    # that of the next block outwards. What handles a `with` begins in one and the same way, and it
    # has the line of the statement. The first instruction that it protects is the one that stores
    # the variable, if there is one.
    entries = list(_handlers(code.co_exceptiontable))
    found: list[tuple[str, int | None]] = []
    instructions = code.co_code
    for _ in entries:  # at most as many steps outwards
        target = next((to for start, end, to in entries if start <= at < end), None)
        if target is None:
            break
        if instructions[target : target + 3 : 2] == _HANDLES_WITH:
            first = next(start for start, _, to in entries if to == target)
            name = _stored(code, instructions[first], instructions[first + 1])
            if name is not None:
                lines = code.co_lines()
                found.append((name, next(at[2] for at in lines if at[0] <= target < at[1])))
        at = target
    return found


_HANDLES_WITH: Final = bytes((dis.opmap["PUSH_EXC_INFO"], dis.opmap["WITH_EXCEPT_START"]))


def _stored(code: CodeType, instruction: int, operand: int) -> str | None:
    """Return the name of the variable that an instruction stores first; None if it does not."""
    name = dis.opname[instruction]
    if not name.startswith(("STORE_FAST", "STORE_DEREF")):
        return None
    if name.count("_") > 1:  # two instructions in one, of which the first has the upper half
        operand >>= 4
    variables = dict.fromkeys((*code.co_varnames, *code.co_cellvars, *code.co_freevars))
    return [*variables][operand]


def _handlers(table: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the first instruction that each handler is for, the one after the last, and where."""
    # Objects/exception_handling_notes.txt in CPython: each entry has four numbers, in pieces of
    # six bits, with a bit that says whether another piece follows.
    numbers: list[int] = []
    value = 0
    for byte in table:
        value = value << 6 | byte & 0b111111
        if not byte & 0b1000000:
            numbers.append(value)
            value = 0
    for at in range(0, len(numbers), 4):
        start, length, target, _ = numbers[at : at + 4]
        yield 2 * start, 2 * (start + length), 2 * target


# ---- whose code it is ----

_STANDARD: Final = (
    *(f"{Path(sysconfig.get_path(name)).resolve()}" for name in ("stdlib", "platstdlib")),
    "<frozen ",
)
_INSTALLED: Final = ("site-packages", "dist-packages")

_HERE: Final = f"{Path(__file__).parents[1]}{os.sep}"
"""This package, which may be installed elsewhere while it is worked on."""

_OWN: Final = 0
_GENERATED: Final = 1
_LIBRARY: Final = 2
_PYTHON: Final = 3


def _kind(file: str) -> int:
    if any(name in file for name in _INSTALLED) or file.startswith(_HERE):
        return _LIBRARY
    if file.startswith(_STANDARD):
        return _PYTHON
    return _GENERATED if file.startswith("<") else _OWN


def is_own(file: str) -> bool:
    """Return whether code is neither Python's nor an installed package's."""
    return _kind(file) < _LIBRARY


def innermost_own(files: Iterable[str]) -> int:
    """
    Return the index of the innermost code that is the user's own, else of a library.

    What has no file is the program of ``python -c``, or was made by a library such as attrs, so it
    comes after what has one.

    Args:
        files: The files, the innermost first.
    """
    kinds = [_kind(file) for file in files]
    return next((kinds.index(kind) for kind in (_OWN, _GENERATED, _LIBRARY) if kind in kinds), 0)
