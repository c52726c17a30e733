"""A program with limits, timeouts, cache and log set by its environment."""

import logging

import anyio

from mtaio import (
    ConcurrencyLimiter,
    RateLimiter,
    Settings,
    TaskExecutor,
    TimeoutManager,
    TTLCache,
)
from mtaio.logging import configure

# What Settings.from_env() would find in the environment.
ENVIRONMENT = {
    "MTAIO_MAX_WORKERS": "8",
    "MTAIO_CACHE_TTL": "60",
    "MTAIO_LOG_CONSOLE": "no",
}


async def main() -> None:
    settings = Settings.from_env(ENVIRONMENT, log_level="DEBUG")
    async with configure(settings, logger="shop"):
        executor = TaskExecutor(settings.max_workers)
        cache = TTLCache[str](settings.cache_ttl, max_size=settings.cache_size)
        rate = RateLimiter(settings.rate_limit, burst=settings.burst_limit)
        slots = ConcurrencyLimiter(settings.concurrency_limit)
        timeouts = TimeoutManager(settings.default_timeout)
        for each in (executor, cache, rate, slots, timeouts):
            print(each)
        print("level", logging.getLogger("shop").level)


if __name__ == "__main__":
    anyio.run(main)
