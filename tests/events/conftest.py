"""What the tests of the emitter share."""

from __future__ import annotations

import pytest

from mtaio.events import EventEmitter


@pytest.fixture
def emitter() -> EventEmitter:
    """Return an emitter as most programs make it."""
    return EventEmitter()
