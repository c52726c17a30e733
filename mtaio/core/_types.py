"""
How the executor's calls look to a type checker.

Promise: async functions and plain ones share a signature. Arguments are checked: those of `run`,
`run_in_thread` and `run_in_process` all, those of a service up to three, and in `map` and its
relatives those from one source or two; with more, only the result is.
Why there are overloads by the number of arguments, and why `Returned` holds a type that nothing
has: docs/en/design/executor.md.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    Protocol,
    TypeAlias,
    TypedDict,
    TypeVar,
    cast,
    final,
)

from mtaio._internal.rates import Rate
from mtaio._internal.sentinel import UNSET, Unset
from mtaio.core._journal import Journal
from mtaio.core._merge import Merge
from mtaio.core._via import Via
from mtaio.resilience import Retry

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")

AnyIterable = Iterable[A] | AsyncIterable[A] | Merge[A]
"""What items come from: any iterable, sync or async, or several that `mtaio.core.merge` joins."""


@final
class Nothing(Generic[T]):
    """What no function returns: see `NothingElse`."""


if TYPE_CHECKING:
    NothingElse: TypeAlias = "Nothing[NothingElse]"
    """
    Stands in `Returned` for type checkers alone: there is no such object.

    Without it mypy gives up on an async function, since a coroutine is a ``T`` and an
    ``Awaitable[T]``. In a union with a recursive type it tries those parts first that are more than
    a bare ``T``.
    """

    Returned: TypeAlias = T | Awaitable[T] | NothingElse
    """What a function that gives ``T`` returns: the value itself, or what can be awaited for it."""
else:
    NothingElse = Nothing
    Returned = T | Awaitable[T]

CallLike = Awaitable[T] | Callable[[], Returned[T]]
"""An awaitable, or a function without arguments, called when its turn comes."""

Policy = Literal["raise", "collect", "return"]

OnError = Callable[[A, Exception], object]
"""What ``errors=`` takes in place of a policy: called with an item that failed, and its error."""

Progress = Callable[[int, "int | None"], object]
"""What ``on_progress=`` takes: called with how many items have ended, and of how many."""


# ---- services ------------------------------------------------------------------------------------
#
# One protocol for each number of arguments: mypy infers nothing from one with a TypeVarTuple.

A_contra = TypeVar("A_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
C_contra = TypeVar("C_contra", contravariant=True)
T_co = TypeVar("T_co", covariant=True)
S_co = TypeVar("S_co", covariant=True)


class Service0(Protocol[T_co, S_co]):
    """A service without arguments, which is ready with an ``S`` and returns ``T``."""

    def __call__(self, *, task_status: TaskStatus[S_co]) -> Awaitable[T_co]:
        """Run it."""
        ...


class Service1(Protocol[A_contra, T_co, S_co]):
    """A service with one argument."""

    def __call__(self, a: A_contra, /, *, task_status: TaskStatus[S_co]) -> Awaitable[T_co]:
        """Run it."""
        ...


class Service2(Protocol[A_contra, B_contra, T_co, S_co]):
    """A service with two arguments."""

    def __call__(
        self, a: A_contra, b: B_contra, /, *, task_status: TaskStatus[S_co]
    ) -> Awaitable[T_co]:
        """Run it."""
        ...


class Service3(Protocol[A_contra, B_contra, C_contra, T_co, S_co]):
    """A service with three arguments."""

    def __call__(
        self, a: A_contra, b: B_contra, c: C_contra, /, *, task_status: TaskStatus[S_co]
    ) -> Awaitable[T_co]:
        """Run it."""
        ...


# ---- options -------------------------------------------------------------------------------------
#
# An option of `map`, `for_each` and `stream` is declared here, twice because type checkers know
# ``**options`` by a TypedDict alone, which has no defaults; and it is used in `TaskExecutor._pool`.
# Its documentation stands in the docstring of `map`.


class CallOptions(TypedDict, total=False):
    """The options of `gather`, `race` and `as_completed`; `map` and its relatives have them too."""

    limit: int | None
    rate: float | Rate | Sequence[float | Rate] | None


class EachOptions(CallOptions, total=False):
    """The options of `for_each` but ``errors``, which `map` and `stream` have as well."""

    timeout: float | Unset | None
    retry: int | Retry | None
    via: Via | None
    chunksize: int
    read_ahead: int
    journal: Journal[Any] | None
    on_progress: Progress | None
    until: Callable[[], Awaitable[object]] | None


class AllOptions(EachOptions, total=False):
    """The same and those with which the function takes lists: overloads of their own have them."""

    batch: int | None
    within: float | None


@dataclass(slots=True, kw_only=True)
class Options:
    """The same with their defaults, and what to do about errors: what a pool is made from."""

    limit: int | None = None
    timeout: float | Unset | None = UNSET
    rate: float | Rate | Sequence[float | Rate] | None = None
    retry: int | Retry | None = None
    via: Via | None = None
    chunksize: int = 1
    read_ahead: int = 0
    journal: Journal[Any] | None = None
    on_progress: Progress | None = None
    until: Callable[[], Awaitable[object]] | None = None
    batch: int | None = None
    within: float | None = None
    errors: Policy | OnError[Any] = "raise"


class MapOptions(EachOptions, total=False):
    """
    The options of `map` but ``errors``.

    A function that calls `map` passes them on with ``**options: Unpack[MapOptions]``.
    """

    ordered: bool


class StreamOptions(MapOptions, total=False):
    """The options of `stream` but ``errors``, ``outcomes`` and ``flatten``."""

    max_pending: int | Unset | None


F = TypeVar("F", bound=Callable[..., object])


def show_options(method: F) -> F:
    """Let `inspect.signature` and `help` show each option of a method with ``**options``."""
    shown = inspect.signature(method)
    own = [each for each in shown.parameters.values() if each.kind is not each.VAR_KEYWORD]
    options = [
        inspect.Parameter(
            each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type
        )
        for each in fields(Options)
        if each.name not in shown.parameters
    ]
    cast("Any", method).__signature__ = shown.replace(parameters=[*own, *options])
    return method
