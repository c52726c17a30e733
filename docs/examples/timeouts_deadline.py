"""One deadline for an operation: limiters and retries see it, and a client is told it."""

import anyio

from mtaio import Pipeline, RateLimiter, Retry, TimeoutManager, time_left

timeouts = TimeoutManager(name="profile")
api = Pipeline(Retry(5), RateLimiter(1))  # one request a second


async def get(url: str, timeout: float) -> str:
    await anyio.sleep(0.4)
    return f"{url} within {timeout:.1f} s"


async def fetch(url: str) -> str:
    return await get(
        url, timeout=time_left(10)
    )  # httpx: client.get(url, timeout=time_left(10))


async def main() -> None:
    start = anyio.current_time()
    try:
        with timeouts(1.5):
            for url in ("/user", "/orders", "/history"):
                print(await api.run(fetch, url))
    except TimeoutError as error:
        print(f"after {anyio.current_time() - start:.1f} s: {error}")


if __name__ == "__main__":
    anyio.run(main)
