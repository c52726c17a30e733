"""Whole services, in real time, each on the event loops that it is promised to run on."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.service.harness import Service
from tests.service.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Signals, forks and inherited sockets as they are there are a matter of POSIX alone.
collect_ignore_glob = ["test_*.py"] if sys.platform == "win32" else []

LOOPS = ("asyncio", "uvloop", "trio")


class Start(Protocol):
    """Start a scenario on the event loop of the test; it is killed when the test is over."""

    def __call__(self, scenario: str, **options: str) -> Service:
        """Start a scenario with variables of the environment."""


@pytest.fixture(scope="module", params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """Return the name of each event loop in turn."""
    return str(request.param)


@pytest.fixture
def start(loop: str, tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a service."""
    with ExitStack() as stack:
        yield lambda scenario, **options: stack.enter_context(
            Service(scenario, loop, tmp_path, options)
        )


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """Return a service that ours can ask."""
    with Upstream() as upstream:
        yield upstream
