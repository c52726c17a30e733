"""One shutdown: the delay, a service that ends by itself, and those cancelled."""

import logging
import sys

import anyio

from mtaio import Application, Settings

app = Application(
    Settings(shutdown_timeout=1.0, drain_delay=0.2, health_bind="127.0.0.1:0"),
    logging=False,
    signals=False,
)
stopped_at = 0.0


def say(what: str) -> None:
    print(f"{anyio.current_time() - stopped_at:.3f} s: {what}")


@app.service
async def poll() -> None:
    try:
        await anyio.sleep_forever()
    finally:
        say("poll is cancelled")


@app.service(drains=True)
async def stream() -> None:
    await app.wait_draining()
    await anyio.sleep(0.1)
    say("stream has said goodbye")


@app.service(drains=True)
async def stubborn() -> None:
    try:
        await anyio.sleep_forever()
    finally:
        say("stubborn is cancelled")


async def main() -> None:
    global stopped_at
    log = logging.StreamHandler(sys.stdout)
    log.setLevel(logging.WARNING)
    logging.getLogger("mtaio.app").addHandler(log)
    async with app:
        await anyio.sleep(0.1)
        stopped_at = anyio.current_time()
        app.stop_nowait("deployment")  # as SIGTERM does
        await app.wait_closed()
        say("closed")
    logging.getLogger("mtaio.app").removeHandler(log)
    print(f"{app.statistics().cancelled} cancelled")


if __name__ == "__main__":
    anyio.run(main)
