"""Calls to a service that fails now and then."""

import anyio
import httpx
from unreliable import unreliable

from mtaio import Breaker, Pipeline, Retry, Timeout


def is_failure(error: Exception) -> bool:
    """Return whether the service is at fault, not the request."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in {500, 502, 503, 504}
    return isinstance(error, httpx.TransportError | TimeoutError)


api = Pipeline(
    Timeout(10, total=True),  # all attempts together
    Retry(3, on=is_failure),
    Breaker(0.5, last=20, on=is_failure),  # opens if half of the calls fail
    Timeout(1),  # each attempt
    name="api",
)


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
        for path in ("/ok", "/reset,ok", "/down,ok", "/hang"):
            before = server.requests
            try:
                text = await fetch(client, path)
            except TimeoutError as error:
                text = str(error)
            print(f"{path}: {text}, requests: {server.requests - before}")


if __name__ == "__main__":
    anyio.run(main)
