"""A job that is asked for until it is done, and a block that is retried."""

import anyio

from mtaio import Retry
from mtaio.resilience import Retried


# --8<-- [start:policies]
def tell(event: Retried) -> None:
    outcome = event.error or event.result
    print(f"attempt {event.attempt}: {outcome}; again in {event.seconds} s")


until_done = Retry(
    None,
    until=lambda state: state == "done",
    within=60,
    waits=[1, 2, 5],
    on_retry=tell,
)
careful = Retry(3, on=OSError, wait_initial=0.5, jitter=0, on_retry=tell)
# --8<-- [end:policies]

states = iter(["queued", "running", "running", "done"])
failures = iter([ConnectionError("lost"), ConnectionError("lost again")])


# --8<-- [start:calls]
@until_done
async def job_state() -> str:
    return next(states)


async def main() -> None:
    started = anyio.current_time()
    print(await job_state(), f"after {anyio.current_time() - started:.0f} s")

    async for attempt in careful:
        async with attempt:
            for error in failures:
                raise error
            print("saved at attempt", attempt.number)


# --8<-- [end:calls]


if __name__ == "__main__":
    anyio.run(main)
