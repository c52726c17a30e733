"""What type checkers make of an adaptive limit: checked by mypy and pyright, and not run."""

from __future__ import annotations

from typing import assert_type

from mtaio.resilience import AdaptiveLimiter, AdaptiveSlot, Part, Pipeline
from mtaio.statistics import AdaptiveStatistics

limiter = AdaptiveLimiter(max_limit=50, on=(TimeoutError, OSError), name="api")
part: Part = limiter
assert_type(limiter.limit, int)
assert_type(limiter.statistics(), AdaptiveStatistics)
AdaptiveLimiter(10)  # type: ignore[call-arg] # the bounds have names
AdaptiveLimiter(on=BaseException)  # type: ignore[arg-type] # a cancellation is no outcome


async def fetch(number: int) -> str:
    """Return something."""
    return str(number)


async def use() -> None:
    """A slot knows its methods, and a pipeline the result."""
    async with limiter as slot:
        assert_type(slot, AdaptiveSlot)
        slot.mark_failed()
    assert_type(await Pipeline(limiter).run(fetch, 1), str)
    assert_type(await limiter.run(fetch, 1), str)
    assert_type(await limiter(fetch)(1), str)
