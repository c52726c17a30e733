"""Health checks of three kinds, critical or not, and a service about to stop."""

import logging

import anyio

from mtaio.monitoring import HealthRegistry, HealthReport

logging.getLogger("mtaio.monitoring").addHandler(
    logging.NullHandler()
)  # the log would repeat it

health = HealthRegistry()
down: set[str] = set()


@health.check("migrations", kind="startup")
async def look_at_schema() -> None:
    await anyio.sleep(0.01)


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
        if check.error:
            print(f"  {check.name} is {check.status}: {check.error}")


async def main() -> None:
    show("up", await health.report())
    down.add("database")
    show("one failure", await health.report("ready"))
    show("two in a row", await health.report("ready"))
    down.clear()
    show("back", await health.report("ready"))
    health.set_ready(False)
    show("draining", await health.report("ready"))


if __name__ == "__main__":
    anyio.run(main)
