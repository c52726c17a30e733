"""A rate, a timeout, and retries when the service is busy."""

import anyio

from mtaio import Retry, TaskExecutor

executor = TaskExecutor(max_workers=4)
when_busy = Retry(3, on=ConnectionError, wait_initial=0.3)
busy = {2}


async def ask(number: int) -> str:
    if number in busy:
        busy.remove(number)
        raise ConnectionError("busy")
    await anyio.sleep(60 if number == 3 else 0.1)
    return f"answer {number}"


async def main() -> None:
    answers = await executor.map(
        ask, [1, 2, 3, 4], rate=5, timeout=0.5, retry=when_busy, errors="return"
    )
    print(*answers, sep="\n")


if __name__ == "__main__":
    anyio.run(main)
