"""Async tests here run on both backends, on a virtual clock."""

import pytest

from mtaio.testing import virtual_backend


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Return a backend for AnyIO's pytest plugin."""
    return virtual_backend(request.param)
