"""A breaker that opens because of slow answers, answers that say so, and failures in a row."""

import anyio

from mtaio.exceptions import BreakerOpenError
from mtaio.resilience import Breaker, Pipeline, Timeout

# --8<-- [start:breaker]
search = Breaker(
    0.5,
    last=20,
    slow=2.0,  # seconds, from which a call is slow
    slow_ratio=0.5,  # half of the calls
    consecutive=5,  # or five failures in a row, however few calls there were
    failed=lambda status: status >= 500,  # failures that raise nothing
    open_for=30,
    half_open=3,
    half_open_ratio=0,  # all three probes must succeed
    name="search",
)
api = Pipeline(search, Timeout(10))
# --8<-- [end:breaker]


async def answer(seconds: float, status: int) -> int:
    await anyio.sleep(seconds)
    return status


async def calls(seconds: float, status: int, times: int) -> None:
    for _ in range(times):
        try:
            await api.run(answer, seconds, status)
        except BreakerOpenError as error:
            print(f"  {error}")
            break
    print(f"{seconds} s, {status}: {search.state}")


async def main() -> None:
    await calls(0.1, 200, 8)
    await calls(3.0, 200, 9)
    await anyio.sleep(30)
    await calls(0.1, 200, 2)
    await calls(2.5, 200, 1)
    await anyio.sleep(30)
    await calls(0.1, 200, 3)
    await calls(0.1, 503, 6)
    search.reset()
    # --8<-- [start:block]
    async with search as block:
        status = await answer(0.1, 503)
        if status >= 500:
            block.mark_failed()
    # --8<-- [end:block]
    print(search.statistics().recent_failed_ratio)


if __name__ == "__main__":
    anyio.run(main)
