"""The overloads for type checkers say what the methods really take."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_overloads

import pytest

from mtaio.core import TaskExecutor
from mtaio.core._types import (
    AllOptions,
    CallOptions,
    EachOptions,
    MapOptions,
    Options,
    StreamOptions,
)

if TYPE_CHECKING:
    from collections.abc import Callable


BATCH = AllOptions.__optional_keys__ - EachOptions.__optional_keys__
"""The options with which a function takes lists: overloads of their own have them."""


def options(method: Callable[..., object]) -> set[str]:
    """Return the names of a method's keyword-only arguments."""
    parameters = inspect.signature(method).parameters.values()
    return {each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("method", "typed"),
    [
        (TaskExecutor.map, MapOptions),
        (TaskExecutor.for_each, EachOptions),
        (TaskExecutor.stream, StreamOptions),
        (TaskExecutor.gather, CallOptions),
        (TaskExecutor.race, CallOptions),
    ],
    ids=["map", "for_each", "stream", "gather", "race"],
)
def test_options_are_those_of_the_method(method: Callable[..., object], typed: Any) -> None:
    """Each overload offers every option that the method has, and no other."""
    overloads = get_overloads(method)
    assert overloads
    for overload in overloads:
        assert options(overload) | typed.__optional_keys__ | BATCH == options(method) | BATCH


def test_each_option_is_declared_with_its_default() -> None:
    """What a pool is made from has the options that type checkers know, of the same types."""
    declared = {each.name: each.type for each in fields(Options) if each.name != "errors"}
    hints = {name: kind.__forward_arg__ for name, kind in AllOptions.__annotations__.items()}
    assert declared == hints


def test_options_are_documented_with_map() -> None:
    """The docstring of `map` explains each option, and says of which type it is."""
    text = inspect.getdoc(TaskExecutor.map)
    assert text is not None
    documented = re.findall(r"^ {4}(\w+) \(.+?\): ", text, re.MULTILINE)
    assert set(documented) == AllOptions.__optional_keys__


@pytest.mark.parametrize("name", ["map", "for_each", "stream"])
async def test_unknown_option_is_refused(name: str) -> None:
    """A misspelt option is named, with the method and the options that there are."""
    message = rf"^TaskExecutor\.{name}\(\) got an unexpected keyword argument 'limt'\. Pass .*limit"
    with pytest.raises(TypeError, match=message):
        await getattr(TaskExecutor(), name)(len, [], limt=1)


@pytest.mark.parametrize(
    ("name", "option", "others"),
    [
        ("map", "flatten", r"stream\(\)"),
        ("for_each", "ordered", r"map\(\) and stream\(\)"),
    ],
)
async def test_option_of_another_method_is_refused(name: str, option: str, others: str) -> None:
    """The error says which methods have it."""
    message = rf"argument '{option}'\. Pass .*\. {option}= is an option of {others}\.$"
    with pytest.raises(TypeError, match=message):
        await getattr(TaskExecutor(), name)(len, [], **{option: True})


def test_overloads_are_few() -> None:
    """As few as check what can be checked: an editor names them all, and so do some errors."""
    few = {"map": 8, "for_each": 4, "stream": 18, "gather": 12, "race": 4, "start": 5}
    few |= {"run": 7, "run_in_thread": 5, "run_in_process": 5}
    for method, number in few.items():
        assert len(get_overloads(getattr(TaskExecutor, method))) == number


def test_race_and_as_completed_take_the_options_of_gather() -> None:
    """Several calls at once are limited in one way."""
    for method in (TaskExecutor.race, TaskExecutor.as_completed):
        assert options(method) == CallOptions.__optional_keys__


PUBLIC = [
    *("run", "run_in_thread", "run_in_process", "map", "for_each", "stream", "gather", "race"),
    *("as_completed", "submit", "submit_nowait", "start", "every", "drain", "cancel"),
    *("record_durations", "statistics"),
]


@pytest.mark.parametrize("name", PUBLIC)
def test_each_method_is_the_executor_s_own(name: str) -> None:
    """It is found in the class, documented, and goes by the class's name in every message."""
    method = vars(TaskExecutor)[name]
    assert method.__qualname__ == f"TaskExecutor.{name}"
    assert method.__doc__


def test_no_other_method_is_public() -> None:
    """The list above is complete."""
    found = {name for name, each in vars(TaskExecutor).items() if inspect.isfunction(each)}
    assert {name for name in found if not name.startswith("_")} == set(PUBLIC)
    assert TaskExecutor.__bases__ == (object,)


def test_forgotten_await_names_the_method() -> None:
    """Python's warning says what was called."""
    with pytest.warns(RuntimeWarning, match=r"^coroutine 'TaskExecutor\.map' was never awaited"):
        TaskExecutor().map(len, [])  # type: ignore[unused-coroutine] # the mistake
