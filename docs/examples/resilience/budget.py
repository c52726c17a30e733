"""The load on a service that is down, without and with a retry budget."""

from contextlib import suppress
from functools import partial

import anyio
import httpx
from unreliable import unreliable

from mtaio import Pipeline, Retry, Timeout
from mtaio.resilience import Budget

CALLS = 100


async def fetch(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    response.raise_for_status()


async def main() -> None:
    # --8<-- [start:pipelines]
    retry = partial(Retry, 3, wait_initial=0.001)
    without = Pipeline(retry(), Timeout(1), name="without")
    budget = Pipeline(
        retry(budget=Budget(0.1)), Timeout(1), name="with a budget"
    )
    # --8<-- [end:pipelines]
    async with (
        unreliable() as server,
        httpx.AsyncClient(base_url=server.url, timeout=None) as client,
    ):
        server.is_down = True
        for api in without, budget:
            server.requests = 0
            for _ in range(CALLS):
                with suppress(httpx.HTTPStatusError):
                    await api.run(fetch, client, "/ok")
            print(f"{api.name}: {CALLS} calls, {server.requests} requests")


if __name__ == "__main__":
    anyio.run(main)
