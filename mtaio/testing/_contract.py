"""
Contracts: what every object of a kind has to hold to, clause by clause, whoever has written it.

Promise: each clause is searched on every backend as `explore` searches; the first that is broken is
named, with what happened. Needs no pytest.

A contract is a `Contract` with its clauses, in the order in which a failure tells most, and one
public function, ``check_<kind>``, whose docstring lists them. Each clause looks at one thing, and
lets everything else pass: a limiter that loses a wake-up has not broken its bound.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from mtaio._internal import checks
from mtaio.testing._assertions import BUSY, assert_quiescent
from mtaio.testing._explore import explore
from mtaio.testing._search import installed
from mtaio.testing._simulation import run

if TYPE_CHECKING:
    from mtaio.testing._inject import Mode

__all__ = ["Contract", "ContractError", "require", "require_nothing_left"]

Factory: TypeAlias = Callable[..., Any]
"""Makes a fresh object; what it is given is the contract's affair."""

Scenario: TypeAlias = Callable[..., Any]
"""
One way of looking at a clause: ``async def``, with a factory, and ``sim`` and ``victim`` as for
`explore`; or a plain function with a factory and the backends, which starts event loops itself.
"""


class ContractError(AssertionError):
    """
    An object does not hold to a clause of the contract of its kind.

    ``__cause__`` is what was seen, with a note that tells the schedule and who ran when.

    Args:
        message: Whose object broke which clause, and how.
        clause: The name of the clause, as it may be left out with ``without``.
    """

    __module__ = "mtaio.testing"  # as users import it

    def __init__(self, message: str, clause: str) -> None:
        super().__init__(message, clause)
        self.clause: str = clause

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Clause:
    """One thing that is promised."""

    name: str
    text: str
    scenarios: tuple[Scenario, ...]
    inject: tuple[Mode, ...]


class Contract:
    """
    The clauses that objects of one kind hold to.

    Args:
        kind: What such an object is called.
        needs: The methods that it must have.
    """

    def __init__(self, kind: str, *, needs: Sequence[str]) -> None:
        self._kind = kind
        self._needs = needs
        self._clauses: list[Clause] = []

    def add(self, name: str, text: str, *scenarios: Scenario, inject: Sequence[Mode] = ()) -> None:
        """
        Add a clause, behind the others.

        Args:
            name: One word.
            text: What is promised, as a sentence without an end.
            scenarios: What is searched. Under all schedules and seeds, or else,
            inject: under few, but with the victim struck in these modes at each moment.
        """
        self._clauses.append(Clause(name, text, scenarios, tuple(inject)))

    def add_struck(self, who: str, outcome: str, *scenarios: Scenario) -> None:
        """
        Add a clause for each way in which a task may be cancelled, whose names are the clauses'.

        Args:
            who: Whom it strikes.
            outcome: What is promised then.
            scenarios: As for `add`, each with a victim.
        """
        how: dict[Mode, str] = {
            "checkpoint": "as it suspends",
            "step": "between any two steps",
            "native": "by Task.cancel()",
        }
        for mode, when in how.items():
            self.add(mode, f"{who} cancelled {when} {outcome}", *scenarios, inject=[mode])

    def check(
        self,
        factory: Factory,
        *sample: object,
        seeds: int,
        exhaustive: int | None,
        without: Iterable[str],
        backends: Sequence[str] | None,
    ) -> None:
        """
        Raise `ContractError` for the first clause that is broken.

        Args:
            factory: Makes the objects.
            sample: What to call it with for a first look.
            seeds: As for `explore`.
            exhaustive: As for `explore`.
            without: Clauses to leave out.
            backends: As for `explore`.

        Raises:
            ContractError: A clause is broken.
            TypeError: What the factory makes is not of the kind.
            ValueError: There is no such clause, or an argument is out of range.
        """
        __tracebackhide__ = True
        checks.callable_("factory", factory, way_out=f"Pass what makes a new {self._kind}.")
        explore(seeds=seeds, exhaustive=exhaustive)  # for its checks
        names = [clause.name for clause in self._clauses]
        left_out = (without,) if isinstance(without, str) else tuple(without)
        for name in left_out:
            if name not in names:
                msg = f"without={name!r} is no clause of a {self._kind}. Pass some of {names!r}."
                raise ValueError(msg)
        where = installed() if backends is None else tuple(backends)
        if not where:
            msg = f"backends={backends!r} leaves nothing to check on. Pass at least one, or None."
            raise ValueError(msg)
        self._look(factory, sample, where)
        how: dict[str, Any] = {"seeds": seeds, "exhaustive": exhaustive}
        for clause in self._clauses:
            if clause.name not in left_out:
                self._search(clause, factory, how, where)

    def _look(self, factory: Factory, sample: tuple[object, ...], backends: Sequence[str]) -> None:
        """Make one object, inside an event loop, and see whether it is of the kind at all."""

        async def make() -> Any:
            return factory(*sample)

        made = run(make, backend=backends[0])
        lacking = [name for name in self._needs if not callable(getattr(made, name, None))]
        if lacking:
            msg = (
                f"{_name(factory)} made {made!r}, which has no {', '.join(lacking)}: it is no "
                f"{self._kind}. Pass what makes one."
            )
            raise TypeError(msg)

    def _search(
        self, clause: Clause, factory: Factory, how: dict[str, Any], backends: Sequence[str]
    ) -> None:
        __tracebackhide__ = True
        if clause.inject:
            how = {"seeds": 0, "exhaustive": None, "inject": clause.inject}
        for scenario in clause.scenarios:
            try:
                if inspect.iscoroutinefunction(scenario):
                    explore(backends=backends, **how)(scenario)(factory)
                else:
                    scenario(factory, backends)
            except Exception as error:  # noqa: BLE001 - told as what it means
                seen = _innermost(error)
                msg = (
                    f"{_name(factory)} breaks the clause {clause.name!r} of the contract of a "
                    f"{self._kind}: {clause.text}. Seen: {type(seen).__name__}: {seen}"
                )
                raise ContractError(msg, clause.name) from _to_be_seen_here(error)


_REPLAY: Final = "to see it again: pytest "


def _to_be_seen_here(error: BaseException) -> BaseException:
    """Take off what helps only those who have the scenario as a test of their own."""
    notes = getattr(error, "__notes__", [])
    notes[:] = [note for note in notes if not note.startswith(_REPLAY)]
    return error


def _innermost(error: BaseException) -> BaseException:
    """Return the first of the errors that are no group."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


def _name(factory: Factory) -> str:
    return str(getattr(factory, "__qualname__", repr(factory)))


def require(fact: object, message: str) -> None:
    """Raise ``AssertionError`` unless something is so, whatever ``python -O`` does to asserts."""
    if not fact:
        raise AssertionError(message)


def require_nothing_left(made: Any) -> None:
    """Hold an object to its own ``statistics()``, if it has such that tell who is there."""
    read = getattr(made, "statistics", None)
    statistics = read() if callable(read) else None
    if is_dataclass(statistics) and any(field.name in BUSY for field in fields(statistics)):
        assert_quiescent(made)
