"""
Read orders from several files, add prices, and write rows in batches.

    python etl.py north.jsonl south.jsonl priced.jsonl

When told to stop, it reads no more and finishes what it has read. Then the exit
code is 75, and otherwise 0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from mtaio import Application, Retry, TaskExecutor
from mtaio.core import merge

if TYPE_CHECKING:
    from collections.abc import Iterator

# --8<-- [start:etl]
Order = dict[str, Any]

app = Application(name="etl")
executor = TaskExecutor(max_workers=20)


def lines_of(name: str) -> Iterator[str]:
    with Path(name).open(encoding="utf-8") as file:
        yield from file


def parse(line: str) -> Order:  # a sync function: it runs in worker threads
    order: Order = json.loads(line)
    return order


async def add_price(order: Order) -> Order:
    await anyio.sleep(0.02)  # stands for a request to a service
    return {**order, "price": order["amount"] * len(order["item"])}


def write(rows: list[Order]) -> None:
    with Path(sys.argv[-1]).open("a", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)
    print(len(rows), "rows")


@app.job
async def etl() -> None:
    lines = merge(*map(lines_of, sys.argv[1:-1]))
    orders = executor.stream(parse, lines, limit=4, until=app.wait_draining)
    priced = executor.stream(
        add_price, orders, limit=10, rate=200, timeout=5, retry=Retry(3)
    )
    await executor.for_each(write, priced, batch=50, within=2.0, limit=1)


# --8<-- [end:etl]
if __name__ == "__main__":
    app.run()
