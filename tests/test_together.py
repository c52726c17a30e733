"""What one part of mtaio makes works in another."""

from __future__ import annotations

import gc

import pytest

from mtaio.cache import cached
from mtaio.events import Event, EventEmitter


class Shop:
    """Something with a cached method."""

    def __init__(self) -> None:
        self.restocked: list[str] = []

    @cached
    async def restock(self, event: Event[str]) -> str:
        """Note what is to be restocked."""
        self.restocked.append(event.data)
        return event.data


@pytest.mark.parametrize("weak", [False, True])
async def test_a_cached_method_is_a_handler_like_any_other(weak: bool) -> None:  # noqa: FBT001 - a parameter
    """It is registered, called, found again to be removed, and held weakly as a method is."""
    emitter, shop = EventEmitter(), Shop()
    emitter.on("sold out", shop.restock, weak=weak)
    gc.collect()
    await emitter.emit("sold out", "tea")
    assert shop.restocked == ["tea"]
    assert emitter.off("sold out", shop.restock)
    assert emitter.listener_count() == 0


async def test_a_weak_cached_method_goes_with_its_object() -> None:
    """Held weakly, a cached method does not keep its object alive."""
    emitter, shop = EventEmitter(), Shop()
    emitter.on("sold out", shop.restock, weak=True)
    del shop
    gc.collect()
    await emitter.emit("sold out", "tea")
    assert emitter.listener_count() == 0
