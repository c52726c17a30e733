"""Cancellation that no scope asked for, as broken libraries raise it."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import anyio


def stray() -> NoReturn:
    """Raise the backend's cancellation out of the blue."""
    kind = anyio.get_cancelled_exc_class()
    if kind is asyncio.CancelledError:
        raise kind
    raise kind._create()  # type: ignore[attr-defined] # only trio can make one
