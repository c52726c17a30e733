"""A service that is slow for one answer in twenty."""

import anyio
import httpx
from unreliable import unreliable

from mtaio import Pipeline, Timeout
from mtaio.resilience import Budget, Hedge

# --8<-- [start:pipelines]
plain = Pipeline(Timeout(1), name="plain")
hedged = Pipeline(Hedge(0.1, budget=Budget(0.1)), Timeout(1), name="hedged")
# --8<-- [end:pipelines]


async def fetch(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    response.raise_for_status()


async def main() -> None:
    async with (
        unreliable() as server,
        httpx.AsyncClient(base_url=server.url, timeout=None) as client,
    ):
        for api in plain, hedged:
            server.requests = 0
            seconds = []
            for number in range(1, 61):
                kind = "0.4,0.01" if number % 20 == 0 else "0.01"
                started = anyio.current_time()
                await api.run(fetch, client, f"/{kind}/{api.name}{number}")
                seconds.append(anyio.current_time() - started)
            slowest = f"slowest {max(seconds):.2f} s"
            print(f"{api.name}: {slowest}, {server.requests} requests")


if __name__ == "__main__":
    anyio.run(main)
