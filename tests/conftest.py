"""Every async test runs under virtual time, on asyncio and, where it is installed, on trio."""

from __future__ import annotations

import gc
import os
import signal
import sys
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING

import pytest

from mtaio.testing import virtual_backend
from tests.backends import BACKENDS
from tests.loggers import loggers

if TYPE_CHECKING:
    from collections.abc import Iterator

# The limit on each test, in seconds, for pytest-timeout. In pyproject.toml it would be an unknown
# option, hence an error, for tests below it that are run without that plugin.
os.environ.setdefault("PYTEST_TIMEOUT", "120")

# A shell has the jobs that it starts with "&" ignore Ctrl-C, and so would all that the tests start.
# A handler, unlike that, is not handed down: each program then begins with its own default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Return the name of each backend in turn, for tests that call `mtaio.testing.run`."""
    return str(request.param)


@pytest.fixture(scope="module")
def anyio_backend(backend: str) -> object:
    """Return a backend whose clock stands at 0 when a test begins."""
    return virtual_backend(backend)


def pytest_collection() -> None:
    """Let no example be too slow for Hypothesis: a busy machine is no bug."""
    from hypothesis import HealthCheck, settings  # noqa: PLC0415 - slow, and no need of --help

    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("patient", patient)
    settings.load_profile("patient")


frozen = 0
"""How many blocks of memory there were when garbage collection last set all of them aside."""


def freeze() -> None:
    """Leave what is there by now, such as a million objects of the tests, out of ``gc.collect``."""
    global frozen  # noqa: PLW0603 - of this process
    gc.collect()
    gc.freeze()
    frozen = sys.getallocatedblocks()


def pytest_collection_finish() -> None:
    """Leave out what the tests themselves consist of."""
    freeze()


@pytest.fixture(scope="module", autouse=True)
def _few_objects() -> None:
    """Leave out what has been imported and reported since, when it has become much."""
    if sys.getallocatedblocks() > frozen + 100_000:
        freeze()


@pytest.fixture(scope="module", autouse=True)
def _same_loggers() -> Iterator[None]:
    """Let no module set a logger for those after it, which look at what is logged."""
    yield
    assert loggers() == {}


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> None:
    """Mark async tests for anyio's plugin, which must see the mark while it collects."""
    if (
        isinstance(collector, pytest.Module | pytest.Class)
        and collector.istestfunction(obj, name)
        and iscoroutinefunction(getattr(getattr(obj, "hypothesis", None), "inner_test", obj))
    ):
        pytest.mark.usefixtures("anyio_backend")(pytest.mark.anyio(obj))
