"""The total time for a shutdown, and how it is split."""

import anyio

from mtaio import Settings


async def main() -> None:
    kubernetes = Settings(shutdown_timeout=25, drain_delay=5)
    docker = Settings(shutdown_timeout=9)
    for settings in (kubernetes, docker):
        budget = settings.shutdown
        print(f"{budget.total:g} s:", end=" ")
        print(
            f"delay {budget.drain_delay:g}, drain {budget.drain:.2f},", end=" "
        )
        print(f"cancel {budget.cancel:.2f}, teardown {budget.teardown:.2f}")


if __name__ == "__main__":
    anyio.run(main)
