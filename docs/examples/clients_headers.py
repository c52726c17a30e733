"""What a service says of its limits, whatever it calls the headers."""

import anyio

from mtaio import Quota
from mtaio.clients import RateLimitHeaders

quota = Quota(requests=120, tokens=40_000, per=60)


async def main() -> None:
    said = RateLimitHeaders.parse(
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-tokens": "900",
            "x-ratelimit-reset-tokens": "6m0s",
            "retry-after-ms": "1500",
        }
    )
    tokens = said.limits["tokens"]
    print(said.retry_after, tokens.remaining, tokens.reset)
    said.observe(quota)  # or quota.observe(**said.as_observation())
    limits = quota.statistics().limits
    print(limits["requests"].rate, limits["tokens"].tokens)


if __name__ == "__main__":
    anyio.run(main)
