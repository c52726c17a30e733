"""
Functions made in a loop that all see the variable of its last turn: ``[lambda: f(i) for i in …]``.

Promise: a warning, where several functions would do the same although each was meant for an item of
its own; none where they were made by a function that is called for each, keep the value in a
default, or do not use the variable of the loop, as ``[lambda: f(url) for _ in range(3)]``.
Cost: for functions that are not made from one piece of code a comparison; for others, the first
time, reading the code in which they were made.

What a function was made in is looked for among the callers, who usually hold the loop, and by the
function's name. Where it is not found, nothing is said. That its variable is the one of the loop is
read from the bytecode: what a ``FOR_ITER`` stores into, in the innermost loop around the place.
"""

from __future__ import annotations

import dis
import sys
from types import CodeType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from mtaio._internal.callables import warn_where_defined

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, FunctionType

__all__ = ["check_binding"]

_READS: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})
_STORES: Final = frozenset({"STORE_DEREF", "STORE_GLOBAL", "STORE_NAME"})
"""What stores where a function that is made there can read."""
_BETWEEN: Final = ("UNPACK_", "STORE_FAST", "EXTENDED_ARG", "CACHE", "NOP")
"""What else stands between a loop and its body."""
_MOST: Final = 256
"""How many pieces of code are remembered."""

_judged: Final[dict[CodeType, tuple[str, ...]]] = {}
"""The variables of a loop that functions of this code see late."""


def check_binding(first: FunctionType, second: FunctionType) -> None:
    """Warn if two functions of one code were made in a loop and see the same variable late."""
    code = first.__code__
    names = _judged.get(code)
    if names is None:
        if len(_judged) >= _MOST:
            _judged.clear()
        names = _judged[code] = tuple(_late_names(first))
    late = [name for name in names if _is_shared(name, first, second)]
    if late:
        msg = (
            f"{first.__qualname__} was created in a loop and is called after it, so it sees only "
            f"the last value of {' and '.join(late)}. Pass functools.partial(function, "
            f"{', '.join(late)}) instead, which keeps the current one."
        )
        warn_where_defined(first, msg)


def _is_shared(name: str, first: FunctionType, second: FunctionType) -> bool:
    """Return whether both functions see one variable of this name."""
    if name not in first.__code__.co_freevars:
        return True  # a global
    cell = first.__code__.co_freevars.index(name)
    assert first.__closure__ is not None  # noqa: S101 - for the type checkers: it has cells
    assert second.__closure__ is not None  # noqa: S101 - likewise
    return first.__closure__[cell] is second.__closure__[cell]


def _late_names(fn: FunctionType) -> Iterator[str]:
    """Find the variables that the innermost loop in which ``fn`` was made stores, and it reads."""
    code = fn.__code__
    read = {*code.co_freevars}
    read.update(each.argval for each in dis.get_instructions(code) if each.opname in _READS)
    for maker in _makers(fn):
        yield from (name for name in _targets(maker, code) if name in read)
        return


def _makers(fn: FunctionType) -> Iterator[CodeType]:
    """Find the code in which ``fn`` was made."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] # there is no other way to the callers
    while frame is not None:
        yield from _containing(frame.f_code, fn.__code__)
        frame = frame.f_back
    outer: Any = SimpleNamespace(**fn.__globals__)
    for name in fn.__qualname__.partition(".<locals>")[0].split("."):
        outer = getattr(outer, name, None)
    code = getattr(getattr(outer, "__wrapped__", outer), "__code__", None)
    if isinstance(code, CodeType):
        yield from _containing(code, fn.__code__)


def _containing(code: CodeType, inner: CodeType) -> Iterator[CodeType]:
    """Find the code, this or one inside it, that makes functions of ``inner``."""
    for each in code.co_consts:
        if each is inner:
            yield code
        elif isinstance(each, CodeType):
            yield from _containing(each, inner)


def _targets(maker: CodeType, inner: CodeType) -> set[str]:
    """Return the names that the innermost loop around the place where ``inner`` is used stores."""
    instructions = list(dis.get_instructions(maker))
    place = next(each.offset for each in instructions if each.argval is inner)
    loops = [
        number
        for number, each in enumerate(instructions)
        if each.opname == "FOR_ITER" and each.offset < place < each.argval
    ]
    names: set[str] = set()
    for each in instructions[loops[-1] + 1 :] if loops else ():
        if each.opname in _STORES:
            names.add(each.argval)
        elif not each.opname.startswith(_BETWEEN):
            break
    return names
