"""How many files of mtaio an operation runs through, the client of the server included."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from benchmarks._files import MOST_OF_SERVER, count

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.redis.servers import Server


@pytest.mark.parametrize("operation", MOST_OF_SERVER, ids=lambda operation: operation.__name__)
def test_an_operation_stays_in_few_files(
    operation: Callable[..., Awaitable[None]], shared_server: Server
) -> None:
    """What is called often can be read in a few files."""
    _, most = MOST_OF_SERVER[operation]
    counter = count(partial(operation, url=shared_server.url))
    assert 0 < len(counter.files) <= most, list(counter.files)
