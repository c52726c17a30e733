"""Seven requests through a limiter of ten per second, two at once after a pause."""

import anyio
from anyio.lowlevel import checkpoint

from mtaio import RateLimiter
from mtaio.exceptions import RateLimitError

limiter = RateLimiter(rate=10, burst=2)


async def request(number: int, start: float) -> None:
    async with limiter:  # waits for one token
        print(f"{anyio.current_time() - start:.1f} s: request {number}")


async def main() -> None:
    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(request, number, start)
            await checkpoint()  # let it queue, so that they queue in this order
    try:
        limiter.acquire_nowait()
    except RateLimitError as error:
        print(f"not now, but in {error.retry_after:.1f} s")
    try:
        await limiter.acquire(
            2, timeout=0.1
        )  # refused at once: it cannot come in time
    except TimeoutError:
        print(
            f"{anyio.current_time() - start:.1f} s: two tokens will not be there in time"
        )


if __name__ == "__main__":
    anyio.run(main)
