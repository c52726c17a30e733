"""Forty calls at once, to a service that allows half of what it says."""

import anyio

from mtaio import Pipeline, RateLimiter, Retry, TaskExecutor


class TooManyRequestsError(Exception):
    """What a client raises for a 429."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"429, Retry-After: {retry_after:g}")
        self.retry_after = retry_after


class Service:
    """Allows five requests a second."""

    def __init__(self) -> None:
        self.answered: list[float] = []
        self.refused = 0

    async def ask(self, _: int) -> None:
        """Answer, or refuse."""
        now = anyio.current_time()
        if sum(moment > now - 1 for moment in self.answered) >= 5:
            self.refused += 1
            raise TooManyRequestsError(1)
        self.answered.append(now)


# --8<-- [start:pipelines]
limiter = RateLimiter(10, burst=1)  # what the service says it allows
plain = Pipeline(Retry(3, jitter=0), limiter)
obedient = Pipeline(
    Retry(3, throttled=TooManyRequestsError, hold=limiter, within=60), limiter
)
# --8<-- [end:pipelines]


async def main() -> None:
    for name, api in ("plain", plain), ("obedient", obedient):
        service, started = Service(), anyio.current_time()
        answers = await TaskExecutor(40).map(
            api(service.ask), range(40), errors="return"
        )
        lost = sum(isinstance(each, Exception) for each in answers)
        seconds = anyio.current_time() - started
        print(f"{name}: {lost} of 40 lost, {service.refused} refused", end=", ")
        print(f"{seconds:.1f} s")


if __name__ == "__main__":
    anyio.run(main)
