"""What tenacity writes with its combinators, as policies, and when they make their attempts."""

import random

import anyio

from mtaio import Retry


def spread(least: float, most: float) -> float:
    return random.uniform(least, most)


# --8<-- [start:policies]
POLICIES = {
    "wait_fixed(2)": Retry(4, waits=[2]),
    "wait_chain(wait_fixed(1), wait_fixed(1), wait_fixed(5))": Retry(
        5, waits=[1, 1, 5]
    ),
    "wait_incrementing(1, 2)": Retry(
        4, waits=lambda failed: 1 + 2 * (failed - 1)
    ),
    "wait_exponential(max=10)": Retry(6, wait_initial=1, wait_max=10, jitter=0),
    "wait_random(1, 2)": Retry(4, waits=lambda _: spread(1, 2)),
    "wait_fixed(3) + wait_random(0, 2)": Retry(
        4, waits=lambda _: 3 + spread(0, 2)
    ),
    "wait_exponential_jitter(max=10)": Retry(
        4, waits=lambda failed: min(2 ** (failed - 1) + spread(0, 1), 10)
    ),
    "stop_before_delay(10)": Retry(None, within=10, waits=[2]),
    "stop_after_attempt(3) | stop_before_delay(10)": Retry(
        3, within=10, waits=[7]
    ),
    "retry_if_not_exception_type(OSError)": Retry(
        on=lambda error: not isinstance(error, OSError), waits=[2]
    ),
    "retry_if_result(is_none)": Retry(
        until=lambda value: value is not None, waits=[2]
    ),
}
# --8<-- [end:policies]


async def attempts_under(policy: Retry) -> list[float]:
    moments: list[float] = []
    started = anyio.current_time()

    async def ask() -> str | None:
        moments.append(anyio.current_time() - started)
        if policy.until is None:
            raise ConnectionError
        return None

    try:
        await policy.run(ask)
    except ConnectionError:
        return moments
    return moments


async def main() -> None:
    random.seed(1)
    for text, policy in POLICIES.items():
        moments = await attempts_under(policy)
        print(f"{text}:", *[f"{moment:.0f}" for moment in moments])


if __name__ == "__main__":
    anyio.run(main)
