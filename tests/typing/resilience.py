"""What type checkers make of pipelines: checked by mypy and pyright, and not run."""

from __future__ import annotations

from typing import Any, assert_type

from mtaio.core import Budget, Retry
from mtaio.resilience import Call, Fallback, Pipeline, Timeout
from mtaio.resources import ConcurrencyLimiter, RateLimiter, TimeoutManager
from mtaio.types import Next


class Own:
    """A part of one's own."""

    def wrap(self, then: Next) -> Next:
        """Wrap."""

        async def run(call: Call) -> Any:
            return await then(call)

        return run


api = Pipeline(
    Fallback(print),
    TimeoutManager(5),
    Retry(3, budget=Budget(0.1)),
    RateLimiter(5),
    ConcurrencyLimiter(1),
    Own(),
    Timeout(1),
    name="api",
)
Pipeline(3)  # type: ignore[arg-type] # no part
Pipeline(Timeout)  # type: ignore[arg-type] # a class
Retry(3, OSError)  # type: ignore[call-arg] # what to retry on has a name
Timeout(1, total=1)  # type: ignore[arg-type] # a flag


@api
async def fetch(url: str, *, page: int = 0) -> bytes:
    """The signature stays."""
    return f"{url} {page}".encode()


def host(url: str) -> str:
    """Return the key of a call."""
    return url


@api(key=host)
async def by_key(url: str) -> bytes:
    """The signature stays."""
    return url.encode()


class Client:
    """Has methods."""

    @api
    async def get(self, url: str) -> bytes:
        """The signature stays."""
        return url.encode()

    @api
    @staticmethod
    async def post(url: str) -> int:
        """The signature stays."""
        return len(url)


def plain(url: str) -> str:
    """Be plain."""
    return url


async def calls() -> None:
    """Results keep their types, and arguments are checked."""
    assert_type(await api.run(by_key, "a"), bytes)
    assert_type(await api.run(by_key, "a", key=1), bytes)
    assert_type(await fetch("a", page=2), bytes)
    assert_type(await by_key("a"), bytes)
    assert_type(await Client().get("a"), bytes)
    assert_type(await Client.post("a"), int)
    assert_type(await Retry(3).run(by_key, "a"), bytes)
    assert_type(await Timeout(1).run(by_key, "a"), bytes)
    assert_type(await Timeout(1)(by_key)("a"), bytes)
    await Timeout(1).run(by_key, 1)  # type: ignore[arg-type] # not a str
    await Timeout(1).run(by_key, url="a")  # type: ignore[call-arg, arg-type] # for partial
    await api.run(by_key, 1)  # type: ignore[arg-type] # not a str
    await api.run(plain, "a")  # type: ignore[arg-type] # not async
    await fetch(1)  # type: ignore[arg-type] # not a str
    api(plain)  # type: ignore[arg-type] # not async
