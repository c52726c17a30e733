"""
A deployment that is written by hand, in the shape that mtaio was first described with.

Before there was `Application.run` and `configure`, a service was put together from these six
pieces. Programs like it are still in use, so the names, arguments and methods that they use go on
working. Three of its lines are wrong, whatever the library does: tests/test_guide.py says which.
"""

from __future__ import annotations

from typing import Final

_CONFIGURATION: Final = """
import os

from mtaio.cache import TTLCache
from mtaio.core import TaskExecutor

config = {
    "max_workers": int(os.getenv("MTAIO_MAX_WORKERS", "4")),
    "cache_ttl": float(os.getenv("MTAIO_CACHE_TTL", "300")),
    "cache_size": int(os.getenv("MTAIO_CACHE_SIZE", "1000")),
    "log_level": os.getenv("MTAIO_LOG_LEVEL", "INFO"),
}
executor = TaskExecutor(max_workers=config["max_workers"])
cache = TTLCache[str](default_ttl=config["cache_ttl"], max_size=config["cache_size"])
"""

_LOGGING: Final = """
import logging

from mtaio.logging import AsyncFileHandler


async def setup_logging():
    handler = AsyncFileHandler(filename="app.log", max_bytes=10_000_000, backup_count=5)
    handler.setFormatter(
        logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s")
    )
    logger = logging.getLogger("mtaio")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
"""

_RESOURCES: Final = """
from mtaio.resources import ConcurrencyLimiter, RateLimiter, TimeoutManager


async def configure_resources():
    return (
        RateLimiter(
            rate=float(os.getenv("MTAIO_RATE_LIMIT", "100")),
            burst=int(os.getenv("MTAIO_BURST_LIMIT", "200")),
        ),
        ConcurrencyLimiter(limit=int(os.getenv("MTAIO_CONCURRENCY_LIMIT", "50"))),
        TimeoutManager(default_timeout=float(os.getenv("MTAIO_DEFAULT_TIMEOUT", "30"))),
    )
"""

_HEALTH: Final = """
from mtaio.events import EventEmitter
from mtaio.monitoring import ResourceMonitor


class HealthMonitor:
    def __init__(self):
        self.monitor = ResourceMonitor()
        self.emitter = EventEmitter()

    async def start(self):
        self.monitor.set_threshold("cpu_usage", 80.0)
        self.monitor.set_threshold("memory_usage", 90.0)

        @self.monitor.on_threshold_exceeded
        async def alert(metric, value, threshold):
            data = {"metric": metric, "value": value, "threshold": threshold}
            await self.emitter.emit("health_alert", data)

        await self.monitor.start()

    async def get_health_status(self) -> dict:
        stats = await self.monitor.get_current_stats()
        return {
            "status": "healthy" if stats.cpu.usage_percent < 80 else "degraded",
            "cpu_usage": stats.cpu.usage_percent,
            "memory_usage": stats.memory.percent,
            "uptime": stats.uptime,
        }
"""

_ERRORS: Final = """
from mtaio.exceptions import MTAIOError


class ErrorHandler:
    def __init__(self):
        self.logger = logging.getLogger("mtaio.errors")

    async def handle_error(self, error: Exception, context: dict | None = None) -> None:
        if not isinstance(error, MTAIOError):
            self.logger.critical("not foreseen", exc_info=error, extra={"context": context})
            return
        extra = {
            "error_type": type(error).__name__,
            "message": str(error),
            "context": context,
        }
        self.logger.error("refused by mtaio", extra=extra)
"""

_MAIN: Final = """
import asyncio
from contextlib import AsyncExitStack


async def main():
    async with AsyncExitStack() as stack:
        await setup_logging()
        logger = logging.getLogger("mtaio")
        try:
            rate_limiter, concurrency_limiter, timeout_manager = await configure_resources()
            await stack.enter_async_context(HealthMonitor())
            app = Application(
                rate_limiter=rate_limiter,
                concurrency_limiter=concurrency_limiter,
                timeout_manager=timeout_manager,
                error_handler=ErrorHandler(),
            )
            await app.start()
            logger.info("the application has started")
            await asyncio.Event().wait()
        except Exception as error:
            logger.critical("the application did not start", exc_info=error)
            raise


if __name__ == "__main__":
    asyncio.run(main())
"""

BLOCKS: Final = {
    "configuration": _CONFIGURATION,
    "logging": _LOGGING,
    "resources": _RESOURCES,
    "health": _HEALTH,
    "errors": _ERRORS,
    "main": _MAIN,
}
"""The pieces, in their order; a piece uses what those before it import."""
