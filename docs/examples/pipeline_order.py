"""A pipeline, printed, and an order of its parts that cannot be meant."""

from __future__ import annotations

import anyio

from mtaio import Breaker, Pipeline, Retry, Timeout
from mtaio.resilience import AdaptiveLimiter, Budget, Fallback, Hedge


def last_price(error: Exception, item: str) -> str:
    """Answer for a call that has failed."""
    return f"{item}: 12, as of yesterday ({error})"


api = Pipeline(
    Fallback(last_price),
    Timeout(5, total=True),
    Retry(3, budget=Budget(0.1)),
    Breaker(0.5, last=20),
    Hedge(after="p95", max_hedges=1),
    AdaptiveLimiter(),
    Timeout(1),
    name="prices",
)


@api
async def price(item: str) -> str:
    """Ask a service."""
    await anyio.sleep(0.01)
    return f"{item}: 13"


async def main() -> None:
    """Show what the pipeline is made of, and call something."""
    print(api)
    print(await price("lamp"))
    try:
        Pipeline(Timeout(1), Retry(3))
    except ValueError as error:
        print(error)


if __name__ == "__main__":
    anyio.run(main)
