"""Health checks, critical or not, and a service about to stop."""

import logging

import anyio

from mtaio.monitoring import HealthRegistry, HealthReport

# The log would say the same.
logging.getLogger("mtaio.monitoring").addHandler(logging.NullHandler())
health = HealthRegistry()
down: set[str] = set()


@health.check("database", ttl=0, failure_threshold=2)
async def ask_database() -> None:
    if "database" in down:
        raise ConnectionError("no route to host")


@health.check("recommendations", timeout=0.1, critical=False)
async def ask_recommendations() -> None:
    await anyio.sleep(30)  # hangs


def show(what: str, report: HealthReport) -> None:
    print(f"{what}: ready={report.ready} degraded={report.degraded}")
    for check in report.checks:
        if check.status != "passing":
            print(f"  {check.name} is {check.status}: {check.error}")


async def main() -> None:
    show("up", await health.report())
    down.add("database")
    show("one failure", await health.report())
    show("two in a row", await health.report())
    down.clear()
    health.set_ready(False)
    show("draining", await health.report())


if __name__ == "__main__":
    anyio.run(main)
