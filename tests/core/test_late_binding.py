"""Functions made in a loop that see its variable too late: see `mtaio.core._late_binding`."""

from __future__ import annotations

import re
import warnings
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import pytest

from mtaio.core import TaskExecutor
from mtaio.core._late_binding import check_binding

Make: TypeAlias = Callable[[], list[Callable[[], Any]]]


async def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


def in_a_list() -> list[Callable[[], Awaitable[int]]]:
    """Make functions in a comprehension."""
    return [lambda: double(number) for number in range(3)]  # noqa: B023 - the subject


def in_a_statement() -> list[Callable[[], Awaitable[int]]]:
    """Make functions in a loop with several variables."""
    made: list[Callable[[], Awaitable[int]]] = []
    for _, number in enumerate(range(3)):

        async def one() -> int:
            return await double(number)  # noqa: B023 - the subject

        made.append(one)
    return made


class Client:
    """Makes functions in a method."""

    def calls(self) -> list[Callable[[], Awaitable[int]]]:
        """Make them."""
        return [lambda: double(number) for number in range(3)]  # noqa: B023 - the subject


def bound(number: int) -> Callable[[], Awaitable[int]]:
    """Make one function with a variable of its own."""
    return lambda: double(number)


def defaulted() -> list[Callable[[], Any]]:
    """Make functions that keep the value."""

    def make() -> list[Any]:
        return [lambda number=number: double(number) for number in range(3)]

    return make()


def the_same_again() -> list[Callable[[], Any]]:
    """Make functions that are to do the same."""
    number = 3
    return [lambda: double(number) for _ in range(3)]


def inside_another_loop() -> list[Callable[[], Any]]:
    """Make functions that are to do the same, in each turn of a loop."""
    made: list[Callable[[], Any]] = []
    for number in range(2):
        made = [lambda: double(number) for _ in range(3)]  # noqa: B023 - for this turn
    return made


LATE: dict[str, Make] = {
    "list": in_a_list,
    "statement": in_a_statement,
    "method": Client().calls,
}

RIGHT: dict[str, Make] = {
    "made by a function": lambda: [bound(number) for number in range(3)],
    "default": defaulted,
    "partial": lambda: [partial(double, number) for number in range(3)],
    "the same again": the_same_again,
    "one function": lambda: [in_a_list()[0]] * 3,
    "two functions": lambda: [lambda: double(1), lambda: double(2)],
    "another loop": inside_another_loop,
    "no loop to be found": lambda: [eval("lambda: [each for each in ()]") for _ in range(2)],  # noqa: S307
}


async def gather(calls: list[Callable[[], Any]]) -> list[warnings.WarningMessage]:
    """Call them, and return what is said of the loop in which they were made."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await TaskExecutor().gather(*calls)
    return [each for each in caught if " was created in a loop" in str(each.message)]


@pytest.mark.parametrize("make", LATE.values(), ids=LATE)
async def test_functions_that_see_the_last_turn_are_warned_of(make: Make) -> None:
    """The warning names the variable and the way out, at the line where they were made."""
    calls = make()
    (late,) = await gather(calls)
    assert re.search(r"the last value of number\. Pass functools\.partial\(", str(late.message))
    assert (late.filename, late.lineno) == (__file__, calls[0].__code__.co_firstlineno)


@pytest.mark.parametrize("make", RIGHT.values(), ids=RIGHT)
async def test_nothing_is_said_of_others(make: Make) -> None:
    """Functions that mean what they do are not warned of, though they share their code."""
    assert await gather(make()) == []


def test_globals_of_a_loop_are_seen() -> None:
    """A loop at the top of a module stores a global, which its functions read late."""
    namespace: dict[str, Any] = {"check": check_binding}
    source = "made = []\nfor n in range(2):\n    made.append(lambda: print(n))\ncheck(*made)"
    with pytest.warns(RuntimeWarning, match=r"the last value of n\."):
        exec(compile(source, "top", "exec"), namespace)  # noqa: S102 - the subject
    made = namespace["made"]
    for number in range(300):  # more than are remembered
        check_binding(*eval(f"[(lambda: {number}) for _ in range(2)]"))  # noqa: S307
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_binding(made[0], made[1])  # its module runs no longer: not to be found
