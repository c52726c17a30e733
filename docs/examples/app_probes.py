"""The probes' answers while a service runs and while it stops."""

import anyio

from mtaio import Application, Settings

# In the cluster: Application(), and the variables of the manifest.
settings = Settings(drain_delay=0.2, health_bind="127.0.0.1:0")
app = Application(settings, logging=False, signals=False)


@app.health_check("database", timeout=0.5, failure_threshold=3)
async def ask_database() -> None:
    await anyio.sleep(0.01)  # SELECT 1


@app.health_check("first prices", kind="startup")
async def have_prices() -> bool:
    return True


async def main() -> None:
    async with app:
        print("ready:", (await app.health.report()).ready)
        app.stop_nowait("deployment")  # as SIGTERM does
        await anyio.sleep(0.1)
        print(
            "ready:",
            (await app.health.report()).ready,
            "but serving:",
            not app.draining,
        )
        await app.wait_draining()
        print("accepts nothing new")


if __name__ == "__main__":
    anyio.run(main)
