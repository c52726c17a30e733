"""
One test that is many runs: all schedules with few delays, some at random, and cancelled anywhere.

Promise: bad arguments are refused where the test is defined; what the runs are: `_search`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import Any, TypeAlias, cast, overload

from mtaio._internal import checks
from mtaio.testing._inject import MODES, Mode, Victim
from mtaio.testing._search import BACKENDS, Search

AsyncTest: TypeAlias = "Callable[..., Coroutine[Any, Any, object]]"
"""An async test, for `explore`."""


@overload
def explore(test: AsyncTest, /) -> Callable[..., None]: ...
@overload
def explore(
    *,
    seeds: int = 200,
    exhaustive: int | None = 2,
    inject: Sequence[Mode] | None = None,
    backends: Sequence[str] | None = None,
    max_runs: int | None = 10_000,
    max_turns: int | None = 10_000,
) -> Callable[[AsyncTest], Callable[..., None]]: ...
def explore(
    test: Any = None,
    /,
    *,
    seeds: int = 200,
    exhaustive: int | None = 2,
    inject: Sequence[Mode] | None = None,
    backends: Sequence[str] | None = None,
    max_runs: int | None = 10_000,
    max_turns: int | None = 10_000,
) -> Any:
    """
    Turn an async test into one that runs many times, each time in a different order.

    Write ``@explore``, or with options ``@explore(seeds=1000)``.

    On each backend, the test runs under every schedule with at most ``exhaustive`` delays, and then
    under ``seeds`` random schedules, of which half use priorities (see `Schedule`). If it has a
    parameter ``victim``, it also runs with that `Victim` cancelled at each of its moments, in the
    default order and in one random order for every 200 seeds (at least one). The first failure is
    shrunk and raised, with notes that show the steps, the first step that differs from a run that
    passes, and how to reproduce it. The result is a plain function, which pytest collects as one
    test.

    The test must create its objects itself in each run, and must not depend on real time, threads
    or random numbers. It may have the parameters ``victim`` and ``sim`` (the `Simulation`). Other
    parameters are pytest fixtures, which all runs share. Async fixtures cannot be used, because
    each run has its own event loop.

    Args:
        test: The test, if used without parentheses.
        seeds: The number of random schedules on each backend.
        exhaustive: How many times each of the other schedules may pass over the oldest task, as for
            `mtaio.testing.schedules.exhaustive`; None to leave them out.
        inject: The modes of the `Victim`; None for all that the backend supports, if the test has a
            victim.
        backends: Names of backends; None for those of asyncio and trio that are installed.
        max_runs: Maximum number of exhaustive schedules to run on a backend. If there are more, the
            search stops with an `ExplorationWarning`. None for no limit.
        max_turns: As for `run`.

    pytest's options ``--mtaio-seeds``, ``--mtaio-delays`` and ``--mtaio-max-runs`` override
    ``seeds``, ``exhaustive`` and ``max_runs``; ``--mtaio-replay`` runs the one plan that a failure
    printed.

    Raises:
        TypeError: The test is not async, has no ``victim`` for ``inject``, or an argument has the
            wrong type.
        ValueError: An argument is out of range or unknown.

    Example:
        ```python
        import anyio

        from mtaio.testing import Victim, explore


        @explore(seeds=20, exhaustive=1)
        async def test_slot_comes_back(victim: Victim) -> None:
            semaphore = anyio.Semaphore(1)

            async def work() -> None:
                async with semaphore:
                    await anyio.sleep(1)

            async with anyio.create_task_group() as group:
                group.start_soon(work)
                await victim(work)
            assert semaphore.value == 1


        test_slot_comes_back()
        ```
    """
    number = "Pass a whole number >= 0."
    checks.count("seeds", seeds, least=0, way_out=number)
    if exhaustive is not None:
        checks.count("exhaustive", exhaustive, least=0, way_out=f"{number[:-1]}, or None.")
    for name, most in (("max_runs", max_runs), ("max_turns", max_turns)):
        if most is not None:
            checks.count(name, most, way_out="Pass a whole number >= 1, or None for no limit.")
    modes = MODES if inject is None else _several("inject", inject)
    for mode in modes:
        Victim(mode)  # for its checks
    chosen = None if backends is None else _backends(backends, only_native=modes == ("native",))

    def decorate(test: AsyncTest) -> Callable[..., None]:
        if not inspect.iscoroutinefunction(test):
            msg = f"cannot explore {test!r}: it is not async. Decorate an async def function."
            raise TypeError(msg)
        has_victim = "victim" in inspect.signature(test).parameters
        if inject and not has_victim:
            msg = (
                f"inject={inject!r} has no task to cancel: {test!r} has no parameter 'victim'. Add "
                f"it, and let the test await victim(afn, *args)."
            )
            raise TypeError(msg)
        search = Search(
            test,
            seeds=seeds,
            exhaustive=exhaustive,
            inject=modes if has_victim else (),
            backends=chosen,
            max_runs=sys.maxsize if max_runs is None else max_runs,
            max_turns=max_turns,
        )

        @wraps(test)
        def explored(*args: Any, **kwargs: Any) -> None:
            __tracebackhide__ = True
            search(*args, **kwargs)

        function: Any = explored
        function.__signature__ = search.signature()
        function.__mtaio_search__ = search
        return explored

    return decorate if test is None else decorate(test)


def _several(name: str, values: Any) -> tuple[Any, ...]:
    """Return some words as a tuple; one word alone is a slip."""
    if isinstance(values, str) or not isinstance(cast("object", values), Sequence):
        msg = f"{name}={values!r} is {checks.type_of(values)}, not a tuple. Pass ({values!r},)."
        raise TypeError(msg)
    return tuple(values)


def _backends(backends: Sequence[str], *, only_native: bool) -> tuple[str, ...]:
    """Return the backends of a search, which are some."""
    names = _several("backends", backends)
    way_out = f"Pass some of {', '.join(map(repr, BACKENDS))}, or None for all that are installed."
    if not names:
        msg = f"backends={backends!r} leaves nothing to run. {way_out}"
        raise ValueError(msg)
    for name in names:
        if name not in BACKENDS:
            msg = f"backends={backends!r} has {name!r}, which has no virtual time. {way_out}"
            raise ValueError(msg)
    if only_native and "asyncio" not in names:
        msg = f"inject=('native',) works on asyncio alone, and backends={backends!r}. {way_out}"
        raise ValueError(msg)
    return names
