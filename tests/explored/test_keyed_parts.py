"""Keyed under many schedules: parts are forgotten and made while calls come, and are cancelled."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from mtaio.exceptions import LimitError
from mtaio.resilience import Keyed, Pipeline
from mtaio.resources import ConcurrencyLimiter
from tests.explored.searches import explored, together

if TYPE_CHECKING:
    from mtaio.testing import Simulation, Victim


@explored
async def test_no_more_of_a_key_than_its_part_allows(victim: Victim, sim: Simulation) -> None:
    """With room for one key, calls of a second are refused, or find the first one's part gone."""
    keyed = Keyed(lambda _: ConcurrencyLimiter(1), max_keys=1)
    api = Pipeline(keyed, key=lambda key: key)
    inside: list[str] = []
    sim.always(lambda: len(inside) <= 1 and len(keyed.held_keys()) <= 1)

    async def inner(key: str) -> None:
        inside.append(key)
        try:
            await checkpoint()
        finally:
            inside.remove(key)

    async def call(key: str) -> None:
        with suppress(LimitError):
            await api.run(inner, key)

    await together(
        victim=partial(victim, call, "a"),
        b=partial(call, "a"),
        c=partial(call, "b"),
        d=partial(call, "a"),
    )
    now = keyed.statistics()
    assert (now.in_flight, inside) == (0, [])
    assert now.parts["concurrency_limiter"].in_use == 0
    assert now.made == now.forgotten + 1
    with anyio.fail_after(1):
        await api.run(inner, "c")
    assert keyed.held_keys() == ["c"]
