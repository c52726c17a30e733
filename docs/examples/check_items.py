"""Run the checklist in a program, as a service's own test would."""

import math

import anyio

from mtaio import Application, Settings
from mtaio.app.check import run_checks

app = Application(Settings(rate_limit=math.inf, health_bind="127.0.0.1:0"))


async def main() -> None:
    items = {item.name: item for item in run_checks(app)}
    for name in ("rate", "burst", "health_checks"):
        item = items[name]
        print(f"{item.section}: {item.status}: {item.message}")
        if item.remedy:
            print(f"  {item.remedy}")
    assert app.state == "new"


if __name__ == "__main__":
    anyio.run(main)
