"""
The pytest plugin for virtual time: the fixture ``sim``, and failures for tests that are stuck.

Promise: async tests and fixtures on a `virtual_backend` that deadlock are cancelled, clean up and
fail with `Deadlock`; all others run as if this plugin were not there. An application that a test
has stopped by a signal does not end the tests. Loading it imports only pytest: a test is the first
to import the library under test.

pytest finds it by the entry point ``mtaio``; ``-p no:mtaio`` turns it off.
"""

from __future__ import annotations

from contextlib import aclosing
from functools import wraps
from importlib.util import find_spec
from inspect import isasyncgenfunction, iscoroutinefunction, ismethod, unwrap
from types import MethodType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from anyio import CancelScope

    from mtaio.testing import Network, Simulation


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options for tests that are made with `mtaio.testing.explore`."""
    group = parser.getgroup("mtaio", "mtaio: explored tests")
    group.addoption(
        "--mtaio-seeds",
        type=int,
        metavar="N",
        help="try N random schedules on each backend, overriding the tests",
    )
    group.addoption(
        "--mtaio-delays",
        type=int,
        metavar="N",
        help="try all schedules of up to N delays on each backend, overriding the tests",
    )
    group.addoption(
        "--mtaio-max-runs",
        type=int,
        metavar="N",
        help="stop trying schedules of few delays after N runs, overriding the tests; 0: never",
    )
    group.addoption(
        "--mtaio-replay",
        metavar="PLAN",
        help="run the selected explored tests once, as a failure says: asyncio/tape=4:1/step@5",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Say which marker there is, and refuse options that no explored test could follow."""
    config.addinivalue_line("markers", "network(**options): the arguments of the fixture 'net'")
    for option in ("seeds", "delays", "max_runs"):
        value: int | None = getattr(config.option, f"mtaio_{option}")
        if value is not None and value < 0:
            name = option.replace("_", "-")
            msg = f"--mtaio-{name}={value} is less than 0. Pass a whole number >= 0."
            raise pytest.UsageError(msg)
    replay: str | None = config.option.mtaio_replay
    if replay is None:
        return
    from mtaio.testing._search import Plan  # noqa: PLC0415 - not before coverage runs

    try:
        backend = Plan.parse(replay).backend
    except ValueError as error:
        msg = f"--mtaio-replay: {error}"
        raise pytest.UsageError(msg) from None
    if find_spec(backend) is None:
        msg = (
            f"--mtaio-replay={replay} needs {backend}. Install it with: "
            f"pip install 'mtaio[{backend}]'"
        )
        raise pytest.UsageError(msg)


@pytest.fixture
def sim(anyio_backend: object) -> Simulation:
    """
    Return the `Simulation` of the test, whose ``anyio_backend`` must be a `virtual_backend`.

    Its clock stands at 0 until the test starts.
    """
    from mtaio.testing._simulation import simulation_of  # noqa: PLC0415 - not before coverage runs

    simulation = simulation_of(anyio_backend)
    if simulation is None:
        name = "trio" if "trio" in str(anyio_backend) else "asyncio"
        pytest.fail(
            f"the fixture 'sim' needs virtual time, but anyio_backend is {anyio_backend!r}. Define "
            f"a fixture anyio_backend that returns mtaio.testing.virtual_backend({name!r}).",
            pytrace=False,
        )
    return simulation


@pytest.fixture
def net(sim: Simulation, request: pytest.FixtureRequest) -> Network:  # noqa: ARG001 - its clock
    """
    Return the `Network` that is open while the test runs, in whose virtual time it is.

    The marker ``network`` has its arguments: ``@pytest.mark.network(latency=0.02, seed=7)``.
    """
    from mtaio.testing import Network  # noqa: PLC0415 - not before coverage runs

    node: pytest.Item = request.node
    marker = node.get_closest_marker("network")
    if marker is None:
        return Network()
    if marker.args:
        msg = "the mark 'network' takes only keyword arguments, such as latency=0.02."
        raise TypeError(msg)
    return Network(**marker.kwargs)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Guard an async test against deadlocks while anyio's plugin runs it, and lead a search."""
    __tracebackhide__ = True
    test = pyfuncitem.obj
    given = getattr(test, "hypothesis", None)
    search = getattr(test if given is None else given.inner_test, "__mtaio_search__", None)
    if (search is not None or given is not None) and _is_network(pyfuncitem.funcargs.get("net")):
        msg = (
            "the fixture 'net' is one network, and this test is many runs, each of which needs its "
            "own. Write 'async with Network() as net:' in the test instead."
        )
        raise RuntimeError(msg)
    if search is not None:
        options = pyfuncitem.config.option
        with search.told(
            seeds=options.mtaio_seeds,
            delays=options.mtaio_delays,
            max_runs=options.mtaio_max_runs,
            replay=options.mtaio_replay,
            where=pyfuncitem.nodeid,
        ):
            return (yield)
    if "anyio_backend" not in pyfuncitem.funcargs:
        return (yield)
    if given is not None:
        # anyio's plugin replaces the inner test for the first backend, and unwraps it for the next.
        if iscoroutinefunction(given.inner_test):
            given.inner_test = _guarded(given.inner_test)
        return (yield)
    if not iscoroutinefunction(test):
        _warn_of_real_time(pyfuncitem)
        return (yield)
    pyfuncitem.obj = _guarded(_on_network(test, pyfuncitem.funcargs.get("net")))
    try:
        return (yield)
    finally:
        pyfuncitem.obj = test


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Let the tests go on where one has stopped an application by a signal."""
    from mtaio._internal import ending  # noqa: PLC0415 - not before coverage runs

    ending.call_off()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """Guard both parts of an async fixture against deadlocks while anyio's plugin runs it."""
    __tracebackhide__ = True
    fixture = fixturedef.func
    definition: Any = fixturedef  # whose func anyio's plugin replaces likewise
    if "anyio_backend" not in request.fixturenames:
        return (yield)
    if isasyncgenfunction(fixture):
        definition.func = _like(fixture, _guarded_generator)
    elif iscoroutinefunction(fixture):
        definition.func = _like(fixture, _guarded)
    try:
        return (yield)
    finally:
        definition.func = fixture


def _like(function: Any, wrap: Callable[[Any], Any]) -> Any:
    """Wrap a function; a method stays one, for anyio's plugin to bind to the test's own object."""
    if ismethod(function):
        return MethodType(wrap(function.__func__), function.__self__)
    return wrap(function)


def _warn_of_real_time(item: pytest.Function) -> None:
    """Warn if a test that asks for virtual time is run by another plugin, which has none."""
    rival = next((each for each in ("trio", "asyncio") if item.get_closest_marker(each)), None)
    is_ours = item.get_closest_marker("anyio") and iscoroutinefunction(unwrap(item.obj))
    if rival is None or not is_ours:
        return
    from mtaio.testing._simulation import simulation_of  # noqa: PLC0415 - not before coverage runs

    if simulation_of(item.funcargs["anyio_backend"]) is not None:
        item.warn(
            pytest.PytestWarning(
                f"this test asks for virtual time, but it is marked {rival!r} as well as 'anyio', "
                f"and pytest-{rival} runs it, in real time. Leave out that mark, or the mode "
                f"which gives it to all async tests."
            )
        )


def _is_network(net: object) -> bool:
    """Return whether a fixture called ``net`` is ours."""
    return type(net).__module__ == "mtaio.testing._network._network"


def _on_network(test: Callable[..., Awaitable[Any]], net: object) -> Callable[..., Awaitable[Any]]:
    """Open the network of the fixture ``net`` around a test that has it."""
    if not _is_network(net):
        return test
    network: Any = net

    @wraps(test)
    async def on_network(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        async with network:
            return await test(*args, **kwargs)

    return on_network


def _guarded(
    function: Callable[..., Awaitable[Any]], scope: CancelScope | None = None
) -> Callable[..., Awaitable[Any]]:
    @wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        from mtaio.testing._world import world_here  # noqa: PLC0415 - not before coverage runs

        world = world_here()
        if world is None:
            return await function(*args, **kwargs)
        return await world.guard(scope, function, *args, **kwargs)

    return guarded


def _guarded_generator(
    function: Callable[..., AsyncGenerator[Any]],
) -> Callable[..., AsyncGenerator[Any]]:
    @wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
        from mtaio.testing._world import scope_here  # noqa: PLC0415 - as above

        async with aclosing(function(*args, **kwargs)) as generator:
            # One scope for both parts: what is open in between, such as task groups, is inside it.
            try:
                with scope_here() as scope:
                    advance = _guarded(generator.__anext__, scope)
                    yield await advance()
                    too_many = await advance()
            except StopAsyncIteration:
                return
            yield too_many  # which anyio's plugin refuses

    return guarded
