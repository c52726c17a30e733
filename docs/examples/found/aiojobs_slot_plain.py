"""aiojobs 1.4.0: two jobs end at once, and a job that waits does not start."""

import asyncio

import aiojobs


async def main() -> None:
    scheduler = aiojobs.Scheduler(limit=2, pending_limit=1)
    end = asyncio.Event()
    never = asyncio.Event()
    started: list[str] = []

    async def job(name: str, until: asyncio.Event) -> None:
        started.append(name)
        await until.wait()

    await scheduler.spawn(job("a", end))
    await scheduler.spawn(job("b", end))
    await scheduler.spawn(job("c", never))
    fourth = asyncio.create_task(scheduler.spawn(job("d", never)))
    for _ in range(5):
        await asyncio.sleep(0)  # the queue is full, and spawn() waits
    end.set()
    await asyncio.wait([fourth], timeout=5)
    await asyncio.sleep(0.1)
    print("started:", *started)
    print("active:", scheduler.active_count, "of", scheduler.limit)
    print("pending:", scheduler.pending_count)
    await scheduler.close()


if __name__ == "__main__":
    asyncio.run(main())
