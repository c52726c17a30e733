"""Counts how many items are at work at once, as the items themselves see it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


class Gauge:
    """An item is at work inside ``with gauge:``, but for what it does in ``with gauge.idle():``."""

    def __init__(self) -> None:
        self.now = 0
        self.peak = 0

    def __enter__(self) -> None:
        self.now += 1
        self.peak = max(self.peak, self.now)

    def __exit__(self, *_: object) -> None:
        self.now -= 1

    @contextmanager
    def idle(self) -> Generator[None]:
        """Be idle, as an item that waits for others is; afterwards it goes on unasked."""
        self.now -= 1
        try:
            yield
        finally:
            self.__enter__()
