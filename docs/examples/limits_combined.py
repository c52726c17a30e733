"""All the limits that a service sets its clients, in one object."""

import anyio

from mtaio.resources import ResourceLimiter

api = ResourceLimiter(concurrency=2, rate=10, timeout=1.0, name="api")


@api
async def call(number: int) -> str:
    await anyio.sleep(0.05)
    return f"answer {number}"


async def main() -> None:
    start = anyio.current_time()
    for number in range(3):
        print(await call(number), f"after {anyio.current_time() - start:.2f} s")
    try:
        await api.run(anyio.sleep, 60)
    except TimeoutError as error:
        print(error)


if __name__ == "__main__":
    anyio.run(main)
