"""Calls that fail in four ways."""

# --8<-- [start:pipeline]
import anyio
import httpx
from unreliable import unreliable

from mtaio import Breaker, Pipeline, Retry, Timeout
from mtaio.resilience import Budget, Fallback, Hedge


def is_failure(error: Exception) -> bool:
    """Return whether the service is at fault, not the request."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in {429, 500, 502, 503, 504}
    return isinstance(error, httpx.TransportError | TimeoutError)


def no_answer(error: Exception, *_: object) -> str:
    return f"({type(error).__name__})"


api = Pipeline(
    Fallback(no_answer),
    Timeout(10, total=True),
    Retry(
        3,
        on=is_failure,
        wait_initial=0.01,
        budget=Budget(0.1, min_per_second=1),
    ),
    Breaker(0.5, last=20, on=is_failure),
    Hedge(0.3, on=is_failure),
    Timeout(1),
    name="api",
)


@api
async def fetch(client: httpx.AsyncClient, path: str) -> str:
    response = await client.get(path)
    response.raise_for_status()
    return response.text


# --8<-- [end:pipeline]
# --8<-- [start:calls]
async def main() -> None:
    print(api)
    async with (
        unreliable() as server,
        httpx.AsyncClient(base_url=server.url, timeout=None) as client,
    ):
        for path in "/ok", "/0.8,ok", "/reset,ok", "/down,ok", "/hang":
            before, started = server.requests, anyio.current_time()
            text = await fetch(client, path)
            requests, seconds = (
                server.requests - before,
                anyio.current_time() - started,
            )
            print(f"{path:10} {text:15} {requests} requests, {seconds:.1f} s")


if __name__ == "__main__":
    anyio.run(main)
# --8<-- [end:calls]
