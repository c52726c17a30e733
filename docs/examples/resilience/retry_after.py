"""A service that says when to come back."""

import anyio
import httpx
from unreliable import unreliable

from mtaio import Pipeline, Retry, Timeout

# --8<-- [start:pipeline]


def retry_after(error: Exception) -> str | None:
    if isinstance(error, httpx.HTTPStatusError):
        asked: str | None = error.response.headers.get("Retry-After")
        return asked
    return None


api = Pipeline(
    Timeout(10, total=True),
    Retry(3, jitter=0, retry_after=retry_after),
    Timeout(1),
)
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
        started = anyio.current_time()
        print(
            await fetch(client, "/down,ok"),
            f"after {anyio.current_time() - started:.1f} s",
        )
        try:
            with anyio.fail_after(
                1
            ):  # a caller with less time than the service asks for
                await fetch(client, "/down,ok/2")
        except httpx.HTTPStatusError as error:
            print(
                error.response.status_code,
                f"after {anyio.current_time() - started:.1f} s",
            )
            print(error.__notes__[0].partition(":")[0])


if __name__ == "__main__":
    anyio.run(main)
