"""
Contracts: what every object of a kind must do, clause by clause, regardless of its author.

Promise: each clause is searched on every backend as `explore` searches; the first that is broken is
named, with what happened. Needs no pytest.

A contract is a list of `Clause`, ordered so that the first failure says most, and one public
function, ``check_<kind>``, whose docstring lists them. Each clause checks one thing and ignores all
else: a limiter that loses a wake-up has not broken its bound.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from mtaio._internal import callables, checks
from mtaio.testing._assertions import BUSY, assert_quiescent
from mtaio.testing._explore import explore
from mtaio.testing._search import installed
from mtaio.testing._simulation import run

if TYPE_CHECKING:
    from mtaio.testing._inject import Mode

__all__ = [
    "PATIENCE",
    "Clause",
    "ContractError",
    "check",
    "require",
    "require_nothing_left",
    "struck",
]

PATIENCE = 100.0
"""Seconds after which those who wait give up, where that they wait for ever is not the question."""

Scenario: TypeAlias = Callable[..., Any]
"""
One way of looking at a clause: ``async def``, with a factory, and ``sim`` and ``victim`` as for
`explore`; or a plain function with a factory and the backends, which starts event loops itself.
"""


class ContractError(AssertionError):
    """
    An object breaks a clause of a contract.

    ``__cause__`` is the failure, with a note of the schedule and the order of the steps.

    Args:
        message: The object, the clause, and what happened.
        clause: The name of the clause, as used for ``without``.
    """

    __module__ = "mtaio.testing"  # as users import it

    def __init__(self, message: str, clause: str) -> None:
        super().__init__(message, clause)
        self.clause: str = clause

    def __str__(self) -> str:
        return str(self.args[0])


class Clause:
    """
    One thing that is promised: what the docstring of a scenario says.

    Args:
        scenario: Looks at it; its name, without the underscore, is the clause's.
        variants: Keyword arguments to call it with, one after another.
    """

    __slots__ = ("inject", "name", "scenarios", "text")

    def __init__(self, scenario: Scenario, *variants: dict[str, Any]) -> None:
        self.name: str = scenario.__name__.lstrip("_")
        text = (scenario.__doc__ or "").strip()
        self.text: str = text[:1].lower() + text[1:]
        self.scenarios: list[Scenario] = [partial(scenario, **each) for each in variants or ({},)]
        self.inject: tuple[Mode, ...] = ()


def struck(who: str, scenario: Scenario, *variants: dict[str, Any]) -> list[Clause]:
    """
    Return a clause for each way in which a task may be cancelled, named after the mode.

    They are searched under few schedules, but with the victim struck at each moment.
    """
    how: dict[Mode, str] = {
        "checkpoint": "when it suspends",
        "step": "between any two steps",
        "native": "by Task.cancel()",
    }
    clauses: list[Clause] = []
    for mode, when in how.items():
        clause = Clause(scenario, *variants)
        clause.name, clause.inject = mode, (mode,)
        clause.text = f"{who} cancelled {when} {clause.text}"
        clauses.append(clause)
    return clauses


def check(
    kind: str,
    clauses: Sequence[Clause],
    needs: Sequence[str],
    factory: Callable[..., Any],
    sample: object,
    *,
    without: Iterable[str],
    backends: Sequence[str] | None,
    **how: Any,
) -> None:
    """
    Raise `ContractError` for the first clause that is broken by what ``factory`` makes.

    Args:
        kind: What such an object is called.
        clauses: What it has to hold to.
        needs: The methods that it must have.
        factory: Makes the objects.
        sample: What to call it with for a first look.
        without: Clauses to leave out.
        backends: As for `explore`.
        how: ``seeds`` and ``exhaustive``, as for `explore`.
    """
    __tracebackhide__ = True
    checks.callable_("factory", factory, way_out=f"Pass what makes a new {kind}.")
    explore(**how)  # for its checks
    names = [clause.name for clause in clauses]
    left_out = (without,) if isinstance(without, str) else tuple(without)
    for name in left_out:
        if name not in names:
            msg = f"without={name!r} is not a clause of the contract. Pass some of {names!r}."
            raise ValueError(msg)
    where = installed() if backends is None else tuple(backends)
    if not where:
        msg = f"backends={backends!r} leaves nothing to check on. Pass at least one, or None."
        raise ValueError(msg)

    async def make() -> Any:
        return factory(sample)

    made = run(make, backend=where[0])
    lacking = [name for name in needs if not callable(getattr(made, name, None))]
    if lacking:
        msg = (
            f"{callables.name_of(factory)} made {made!r}, which has no {', '.join(lacking)}, so it "
            f"is not a {kind}. Pass what makes one."
        )
        raise TypeError(msg)
    if "asyncio" not in where:
        left_out += ("native",)  # trio's tasks have no cancel()
    for clause in clauses:  # pragma: no branch - coverage.py loses its place after runs on trio
        if clause.name not in left_out:
            _search(kind, clause, factory, where, how)


def _search(
    kind: str,
    clause: Clause,
    factory: Callable[..., Any],
    backends: tuple[str, ...],
    how: dict[str, Any],
) -> None:
    __tracebackhide__ = True
    if clause.inject:
        how = {"seeds": 0, "exhaustive": None, "inject": clause.inject}
    try:
        for scenario in clause.scenarios:
            if inspect.iscoroutinefunction(scenario):
                explore(backends=backends, **how)(scenario)(factory)
            else:
                scenario(factory, backends)
    except Exception as error:
        seen = _first(error)
        msg = (
            f"{callables.name_of(factory)} breaks the clause {clause.name!r} of the contract of a "
            f"{kind}: {clause.text} Seen: {type(seen).__name__}: {seen}"
        )
        _drop_replay(error)
        raise ContractError(msg, clause.name) from error


def _drop_replay(error: BaseException) -> None:
    """Remove the note that helps only those who have the scenario as a test of their own."""
    notes: list[str] = getattr(error, "__notes__", [])
    notes[:] = [note for note in notes if not note.startswith("to see it again: pytest ")]


def _first(error: BaseException) -> BaseException:
    """Return the first of the errors that are not a group."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


def require(fact: object, message: str) -> None:
    """Raise ``AssertionError`` unless something is so, whatever ``python -O`` does to asserts."""
    if not fact:
        raise AssertionError(message)


def require_nothing_left(made: Any) -> None:
    """Hold an object to its own ``statistics()``, if it has such that tell who waits."""
    read = getattr(made, "statistics", None)
    statistics = read() if callable(read) else None
    if is_dataclass(statistics) and any(field.name in BUSY for field in fields(statistics)):
        assert_quiescent(made)
