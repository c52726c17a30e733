"""Breakers and limits for each host, in one pipeline."""

import anyio

from mtaio import Breaker, Pipeline, RateLimiter, Timeout
from mtaio.exceptions import BreakerOpenError
from mtaio.resilience import Keyed


def rate_of(host: str) -> float:
    return 1 if host == "slow.example" else 10


# --8<-- [start:pipeline]
breakers = Keyed(lambda host: Breaker(consecutive=3, name=host), max_keys=1000)
rates = Keyed(lambda host: RateLimiter(rate_of(host)), max_keys=1000)
api = Pipeline(breakers, rates, Timeout(1), key=lambda host, *_: host)
# --8<-- [end:pipeline]


@api
async def fetch(host: str, path: str) -> str:
    if host == "down.example":
        raise ConnectionError(host)
    return f"{host}{path}"


async def crawl(host: str) -> None:
    began = anyio.current_time()
    for number in range(5):
        try:
            await fetch(host, f"/{number}")
        except (ConnectionError, BreakerOpenError) as error:
            print(f"{host}/{number}: {type(error).__name__}")
    seconds = anyio.current_time() - began
    print(f"{host}: {seconds:.1f} s, {breakers.part(host).state}")


async def main() -> None:
    async with anyio.create_task_group() as group:
        for host in ("fast.example", "slow.example", "down.example"):
            group.start_soon(crawl, host)
    states = breakers.statistics().parts["breaker"]
    print(f"{states.open} of {len(breakers.held_keys())} open")


if __name__ == "__main__":
    anyio.run(main)
