"""
A program whose traces have a known digest, in a file of its own: the digest counts lines.

A line that moves here, or an anyio that takes other steps, changes the digests in test_trace.
"""

from __future__ import annotations

import anyio

from mtaio.testing import Schedule, Victim, current_simulation, run
from mtaio.testing.schedules import Step


async def program(victim: Victim) -> tuple[Step, ...]:
    """Do a bit of everything: locks, events, streams, timers, cancellation, comprehensions."""
    lock = anyio.Lock()
    condition = anyio.Condition()
    semaphore = anyio.Semaphore(2)
    send, receive = anyio.create_memory_object_stream[int](1)

    async def work(n: int) -> None:
        async with semaphore:
            await anyio.sleep(n % 3)
            async with lock:
                await anyio.lowlevel.checkpoint()

    async def produce() -> None:
        async with send:
            for n in range(4):
                await send.send(n)

    async def consume() -> int:
        async with receive:
            return sum([n async for n in receive])

    async def wait() -> None:
        async with condition:
            await condition.wait()

    async def endless() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        for n in range(5):
            group.start_soon(work, n, name=f"worker {n}")
        group.start_soon(produce)
        group.start_soon(consume)
        group.start_soon(victim, wait)
        with anyio.move_on_after(2.5):
            async with anyio.create_task_group() as inner:
                for _ in range(6):
                    inner.start_soon(endless)
        async with condition:
            condition.notify_all()
    return current_simulation().trace


def traces(backend: str) -> list[Step]:
    """Return the steps of many runs: at random, fair or not, and with the victim struck."""
    steps: list[Step] = []
    for seed in range(8):
        schedule = Schedule(seed=seed, fair=seed % 2 == 1, eager=seed % 4 >= 2)
        steps += run(program, Victim("step", at=3 * seed), backend=backend, schedule=schedule)
    return steps
