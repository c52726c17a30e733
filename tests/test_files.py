"""How many files of mtaio an operation runs through."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks._files import MOST, Counter, count, stopping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@pytest.mark.parametrize("operation", MOST, ids=lambda operation: operation.__name__)
def test_an_operation_stays_in_few_files(
    operation: Callable[[Counter], Awaitable[None] | None],
) -> None:
    """What is called often can be read in a few files."""
    if operation is stopping and sys.platform == "win32":
        pytest.skip("a process cannot send itself SIGTERM there")
    _, most = MOST[operation]
    counter = count(operation)
    assert 0 < len(counter.files) <= most, list(counter.files)
