"""A program whose limits, cache and log are set by its environment."""

import anyio

from mtaio import ConcurrencyLimiter, Settings, TaskExecutor, TTLCache
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
        print(TaskExecutor(settings.max_workers))
        print(TTLCache[str](settings.cache_ttl, max_size=settings.cache_size))
        print(ConcurrencyLimiter(settings.concurrency_limit))


if __name__ == "__main__":
    anyio.run(main)
