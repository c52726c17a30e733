"""Metrics of an object of your own, as text for Prometheus."""

from dataclasses import dataclass, field

import anyio

from mtaio.monitoring import Source, metrics, to_prometheus


@dataclass(frozen=True)
class TillStatistics:
    """The takings of a till."""

    paid: int = field(default=0, metadata={"kind": "counter"})
    open_orders: int = 0
    journal: int = field(default=0, metadata={"kind": "gauge", "unit": "bytes"})


async def main() -> None:
    till = Source(
        kind="till",
        name="north",
        statistics=TillStatistics(paid=7, open_orders=2, journal=4096),
    )
    print(to_prometheus(metrics([till])), end="")


if __name__ == "__main__":
    anyio.run(main)
