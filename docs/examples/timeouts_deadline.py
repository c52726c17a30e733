"""One deadline for an operation, which limiters and retries know."""

import anyio

from mtaio import Pipeline, RateLimiter, Retry, TimeoutManager, time_left

timeouts = TimeoutManager(name="profile")
api = Pipeline(Retry(5), RateLimiter(1))  # one request a second


async def fetch(path: str) -> str:
    headers = {"X-Timeout": f"{time_left(10):.1f}"}  # tells the service
    await anyio.sleep(0.4)  # stands for client.get(path, headers=headers)
    return f"{path} {headers}"


async def main() -> None:
    start = anyio.current_time()
    try:
        with timeouts(1.5):
            for path in ("/user", "/orders", "/history"):
                print(await api.run(fetch, path))
    except TimeoutError as error:
        print(f"after {anyio.current_time() - start:.1f} s: {error}")


if __name__ == "__main__":
    anyio.run(main)
