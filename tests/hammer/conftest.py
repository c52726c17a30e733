"""Threads change as often as the interpreter can have them change."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(autouse=True)
def eager_switches() -> Generator[None]:
    """Have the interpreter change threads as often as it can, where it has a lock to hand on."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)
