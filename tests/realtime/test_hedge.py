"""Hedge in real time, on each event loop that mtaio promises to run on."""

from __future__ import annotations

import anyio

from mtaio.resilience import Hedge, Pipeline


async def test_hedges_in_real_time() -> None:
    """The shared timer works on each loop, and one that is no longer needed does no harm."""
    hedge = Hedge(0.02)
    api = Pipeline(hedge)
    begun = 0

    async def fetch() -> int:
        nonlocal begun
        begun += 1
        mine = begun
        await anyio.sleep(30 if mine == 2 else 0)
        return mine

    assert await api.run(fetch) == 1
    with anyio.fail_after(20):
        assert await api.run(fetch) == 3
    await anyio.sleep(0.03)
    assert hedge.statistics().hedges >= 1
