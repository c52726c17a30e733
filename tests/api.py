"""
The public API as text: ``python -m tests.api`` writes it to ``tests/api.txt``.

`tests/test_api.py` holds the two equal, so that a change of the API is a change of that file, for a
reviewer to see: names, signatures, types, defaults.
"""

from __future__ import annotations

import enum
import functools
import importlib
import inspect
import re
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILE = Path(__file__).with_name("api.txt")

PACKAGES = (
    *(".resources", ".resilience", ".core", ".cache", ".events", ".redis", ".clients", ".asgi"),
    *(".logging", ".config", ".monitoring", ".app", ".testing", ".testing.schedules"),
    *(".exceptions", ".statistics", ".types", ""),
)

SPECIAL = {
    *("__aenter__", "__aiter__", "__await__", "__call__", "__contains__", "__enter__"),
    *("__getitem__", "__iter__", "__len__"),
}
"""What a class answers beside its public methods, each of which is part of its API."""


def lines() -> Iterator[str]:
    """Yield the public API, line by line."""
    homes: dict[int, str] = {}
    for package in PACKAGES:
        module = importlib.import_module(f"mtaio{package}")
        yield f"{module.__name__}:"
        for name in sorted(module.__all__):
            value = getattr(module, name)
            if name != "__version__":
                yield from (f"    {line}" for line in of_name(name, value, homes))
        yield ""
        for name in module.__all__:
            homes.setdefault(id(getattr(module, name)), f"{module.__name__}.{name}")


def of_name(name: str, value: Any, homes: dict[int, str]) -> Iterator[str]:
    """Yield what a public name is."""
    if (home := homes.get(id(value))) is not None:
        yield f"{name} = {home}"
    elif inspect.isclass(value):
        yield from of_class(name, value)
    elif inspect.isfunction(value):
        yield from of_function(name, value)
    elif typing.get_origin(value) is typing.Literal:
        yield f"{name} = Literal{list(typing.get_args(value))}"
    else:
        yield name


def of_class(name: str, cls: type) -> Iterator[str]:
    """Yield the constructor of a class, and what its objects have."""
    known = {object, typing.Generic}
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base not in known)
    yield f"class {name}({bases}):" if bases else f"class {name}:"
    if issubclass(cls, enum.Enum):
        yield from (f"    {member.name} = {member.value!r}" for member in cls)
        return
    members: dict[str, Any] = {}
    for each in reversed(cls.__mro__):
        if each.__module__.startswith("mtaio"):
            members.update(vars(each))
    fields = getattr(cls, "__dataclass_fields__", {})  # the constructor shows them
    if inspect.isfunction(members.get("__init__")):
        yield from (f"    {line}" for line in of_function("__init__", members["__init__"]))
    for member, value in sorted(members.items()):
        if member in SPECIAL or not (member.startswith("_") or member in fields):
            yield from (f"    {line}" for line in of_member(member, value))


def of_member(name: str, value: Any) -> Iterator[str]:
    """Yield what an attribute of a class is."""
    if isinstance(value, property | functools.cached_property):
        getter = value.fget if isinstance(value, property) else value.func
        settable = ", settable" if isinstance(value, property) and value.fset else ""
        yield f"{name}: {getter.__annotations__.get('return')}{settable}"
    elif isinstance(value, staticmethod | classmethod):
        yield f"@{type(value).__name__}"
        yield from of_function(name, value.__func__)
    elif inspect.isfunction(value):
        yield from of_function(name, value)
    else:
        yield name


def of_function(name: str, fn: Callable[..., Any]) -> Iterator[str]:
    """Yield the signature of a function, or each of its overloads."""
    for each in typing.get_overloads(fn) or [fn]:
        signature = inspect.signature(each)
        parameters = [
            parameter.replace(annotation=Plain(parameter.annotation))
            if parameter.annotation is not inspect.Parameter.empty
            else parameter
            for parameter in signature.parameters.values()
        ]
        returned = signature.return_annotation
        shown = signature.replace(
            parameters=[
                parameter
                if parameter.default is inspect.Parameter.empty
                else parameter.replace(default=Plain(shown_default(parameter.default)))
                for parameter in parameters
            ],
            return_annotation=returned if returned is inspect.Signature.empty else Plain(returned),
        )
        yield f"{'async ' if inspect.iscoroutinefunction(fn) else ''}def {name}{shown}"


class Plain(str):
    """A text that is its own ``repr``: an annotation without quotation marks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def shown_default(value: Any) -> str:
    """Return a default as it would be written."""
    if value is Ellipsis:
        return "..."
    if inspect.isclass(value) or inspect.isfunction(value):
        return value.__qualname__
    if isinstance(value, enum.Enum):
        return str(value)
    return re.sub(r" at 0x\w+", "", repr(value))


def text() -> str:
    """Return the whole API."""
    return "\n".join(lines())


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
