"""Cancelling a task of a scenario at any moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pytest

from mtaio.testing import Victim, injections, run
from tests.backends import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Mode: TypeAlias = Literal["checkpoint", "step", "native"]

modes = pytest.mark.parametrize("mode", ["checkpoint", "step", "native"])
"""Cancelled as it suspends, between any two steps, and by asyncio's own ``Task.cancel()``."""


def cancel_everywhere(
    mode: Mode, scenario: Callable[[Victim], Coroutine[Any, Any, None]], least: int = 1
) -> None:
    """Run a scenario with its victim cancelled at the first moment, the second, and so on."""
    for backend in ["asyncio"] if mode == "native" else BACKENDS:
        moments = 0
        for victim in injections(mode):
            run(scenario, victim, backend=backend)
            moments += victim.fired
        assert moments >= least
