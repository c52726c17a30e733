"""A thread that checks for cancellation now and then, and so can be cancelled."""

import itertools
from collections.abc import Iterable
from functools import partial

import anyio
from anyio import from_thread

from mtaio import TaskExecutor

executor = TaskExecutor()


def total(numbers: Iterable[int]) -> int:
    result = 0
    for number in numbers:
        from_thread.check_cancelled()  # raises once the call has been cancelled or timed out
        result += number
    return result


async def main() -> None:
    endless, short = (
        partial(total, itertools.count()),
        partial(total, range(1000)),
    )
    print(await executor.race(endless, short))
    print("threads at the end:", executor.statistics().threads_in_use)


if __name__ == "__main__":
    anyio.run(main)
