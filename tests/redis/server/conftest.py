"""The tests that need a server run in real time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.redis.scripts import Connection
from tests.redis.servers import KINDS, Server, serving

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(scope="session", params=KINDS)
def shared_server(request: pytest.FixtureRequest) -> Generator[Server]:
    """Return a server of each kind for the whole run; do not stop it."""
    with serving(request.param) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Generator[Server]:
    """Return one Redis for the whole run; do not stop it."""
    with serving() as server:
        yield server


@pytest.fixture
def connection(shared_server: Server) -> Generator[Connection]:
    """Return a connection to the server."""
    made = Connection(shared_server)
    yield made
    made.close()


@pytest.fixture
def redis_connection(redis_server: Server) -> Generator[Connection]:
    """Return a connection to Redis."""
    made = Connection(redis_server)
    yield made
    made.close()


@pytest.fixture(scope="module")
def anyio_backend(backend: str) -> str:
    """Return a backend that keeps the machine's time."""
    return backend
