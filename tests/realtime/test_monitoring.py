"""Blocked loops at random phases, on every event loop, and how soon they are noticed."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest

from tests.blocked import Outcome, try_all

if TYPE_CHECKING:
    from collections.abc import Generator

RUNS = 2
TRIES = 5
"""How often so many runs are tried: a machine that stands still itself is told as such."""


@pytest.fixture(autouse=True)
def quiet() -> Generator[None]:
    """Log nothing of the stalls."""
    logger = logging.getLogger("mtaio.monitoring")
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("kind", ["sleep", "python", "gil", "stopped"])
async def test_blocked_loop_is_named(kind: str) -> None:
    """It is told once, with its line, its cause and its length, and in time."""
    if kind == "stopped" and sys.platform == "win32":
        pytest.skip("this system cannot stop a process")
    wrong: list[str] = []
    for _ in range(TRIES):
        outcome: Outcome = (await try_all(RUNS, [kind], blocked_after=0.2, seconds=0.4))[kind]
        wrong += outcome.wrong
        in_time = kind not in {"sleep", "python"} or min(outcome.late, default=1.0) <= 0.4
        if outcome.right == RUNS and in_time:
            return
    pytest.fail("\n".join(wrong))
