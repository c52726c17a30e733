"""A service that is down for a while, behind a breaker."""

from collections import Counter

import anyio
import httpx
from unreliable import unreliable

from mtaio import Breaker, Pipeline, Timeout
from mtaio.exceptions import BreakerOpenError
from mtaio.resilience import BreakerChange


# --8<-- [start:pipeline]
def note(change: BreakerChange) -> None:
    print(f"  {change.before} -> {change.state}")


breaker = Breaker(0.5, last=10, open_for=0.5, on_change=note)
api = Pipeline(breaker, Timeout(1))
# --8<-- [end:pipeline]


@api
async def fetch(client: httpx.AsyncClient, path: str) -> str:
    response = await client.get(path)
    response.raise_for_status()
    return response.text


async def main() -> None:
    async with (
        unreliable() as server,
        httpx.AsyncClient(base_url=server.url, timeout=None) as client,
    ):

        async def make_calls(text: str) -> None:
            print(text)
            server.requests = 0
            became = Counter[str]()
            for _ in range(100):
                try:
                    became[await fetch(client, "/ok")] += 1
                except (httpx.HTTPStatusError, BreakerOpenError) as error:
                    became[type(error).__name__] += 1
            print(f"  {server.requests} requests, {dict(became)}")

        await make_calls("The service works")
        server.is_down = True
        await make_calls("The service is down")
        await anyio.sleep(0.5)
        await make_calls("Half a second later")
        server.is_down = False
        await anyio.sleep(0.5)
        await make_calls("The service works again")


if __name__ == "__main__":
    anyio.run(main)
