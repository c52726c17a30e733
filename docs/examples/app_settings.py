"""The parts of a service, created from the operator's settings."""

import anyio

from mtaio import Application, RateLimiter, Settings

settings = (
    Settings.from_env(  # without an argument: the variables of the process
        {
            "MTAIO_MAX_WORKERS": "8",
            "MTAIO_CACHE_TTL": "60",
            "MTAIO_CONCURRENCY_LIMIT": "20",
        }
    )
)
app = Application(
    settings, name="shop", rate_limiter=RateLimiter(10, name="upstream")
)


async def main() -> None:
    print("workers:", app.executor.statistics().max_workers)
    print("cache:", app.cache.max_size, "entries for", settings.cache_ttl, "s")
    print("at once:", app.concurrency_limiter.statistics().limit)
    print(
        "a second:", app.rate_limiter.rate, "in place of", settings.rate_limit
    )
    print("seconds a call:", app.timeout_manager.default_timeout)


if __name__ == "__main__":
    anyio.run(main)
