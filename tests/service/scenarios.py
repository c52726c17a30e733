"""
The services that the tests start: ``python scenarios.py NAME BACKEND``.

Each is an Application as a user would write it, and misbehaves in one way.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import socket
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from mtaio.app import Application
from mtaio.core import Retry
from mtaio.resources import ConcurrencyLimiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping

    from mtaio.types import Backend

    Message = MutableMapping[str, Any]

SHOP: Final = Path(__file__).parents[2] / "docs" / "examples" / "service" / "shop.py"
log = logging.getLogger("scenario")


def say(*words: object) -> None:
    """Print a line, which the test waits for."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def web(app: Application, bind: str | None = None) -> Application:
    """Let an application answer requests, each path in its own way."""
    waiting = 0

    async def handle(path: str) -> None:
        nonlocal waiting
        waiting += 1
        say("in flight", waiting)
        if path == "/until-draining":
            await app.wait_draining()
        elif path == "/forever":
            await anyio.sleep_forever()
        elif path == "/stubborn":
            with anyio.CancelScope(shield=True):
                await anyio.sleep_forever()
        elif path == "/block":
            time.sleep(600)  # noqa: ASYNC251 - the loop is to stand still
        elif path == "/fail":
            raise RuntimeError("a request that fails")

    async def asgi(
        scope: Message,
        _: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        assert scope["type"] == "http", "no lifespan here"
        await handle(scope["path"])
        body = str(os.getpid()).encode()
        length = (b"content-length", str(len(body)).encode())
        log.info("answered %s", scope["query_string"].decode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})

    app.serve(asgi, bind=bind or os.environ["BIND"])
    return app


def shop(backend: Backend) -> None:
    """Run the example of the deployment guide."""
    load_shop().run(backend)


def deadlock(backend: Backend) -> None:
    """Have two tasks wait for each other in the example, and then stand still."""
    app = load_shop()
    stock, invoices = ConcurrencyLimiter(1, name="stock"), ConcurrencyLimiter(1, name="invoices")

    async def transfer(first: ConcurrencyLimiter, second: ConcurrencyLimiter) -> None:
        async with first:
            await anyio.sleep(0.1)
            async with second:
                raise AssertionError

    @app.service(drains=True)
    async def transfers() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(transfer, stock, invoices, name="transfer 1")
            group.start_soon(transfer, invoices, stock, name="transfer 2")
            await anyio.sleep(0.2)
            say("deadlock")
            await anyio.Path(os.environ["GO"]).read_bytes()  # a FIFO: until the test writes
            say("blocked")
            time.sleep(600)  # noqa: ASYNC251 - the loop is to stand still

    app.run(backend)


def load_shop() -> Application:
    """Load the example of the deployment guide."""
    # Where click is installed, as for development, httpx loads its command line: 7 MiB.
    sys.modules["click"] = None  # type: ignore[assignment] # which makes its import fail
    spec = spec_from_file_location("shop", SHOP)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["shop"] = module
    spec.loader.exec_module(module)
    app: Application = module.app
    return app


def requests(backend: Backend) -> None:
    """Answer requests, with a resource that says when it is closed."""
    app = Application()

    @app.resource
    async def database() -> AsyncIterator[None]:
        say("opened")
        yield
        say("closed")

    web(app).run(backend)


def slow_start(backend: Backend) -> None:
    """Take for ever to start."""
    app = Application()

    @app.resource
    async def database() -> AsyncIterator[None]:
        say("opened")
        yield
        say("closed")

    @app.resource
    async def far_away() -> AsyncIterator[None]:
        say("starting")
        await anyio.sleep_forever()
        yield

    web(app).run(backend)


def failing_start(backend: Backend) -> None:
    """Fail to start, with something opened before."""
    app = Application()

    @app.resource
    async def database() -> AsyncIterator[None]:
        say("opened")
        yield
        say("closed")

    @app.resource
    async def queue() -> AsyncIterator[None]:
        raise OSError("no queue at 10.0.0.7")
        yield

    web(app).run(backend)


def restarts(backend: Backend) -> None:
    """Have a service that fails three times, later each time, and then works."""
    app = Application()
    runs: list[float] = []

    @app.service(restart=Retry(attempts=4, wait_initial=0.1, wait_exp_base=2, jitter=0))
    async def consumer() -> None:
        runs.append(time.monotonic())
        if len(runs) < 4:
            msg = f"run {len(runs)} has failed"
            raise ConnectionError(msg)
        waits = [after - before for before, after in itertools.pairwise(runs)]
        say("waits", *(f"{wait:.3f}" for wait in waits))
        await anyio.sleep_forever()

    web(app).run(backend)


def dies(backend: Backend) -> None:
    """Have a service that the application cannot do without, and that fails."""
    app = Application()

    @app.resource
    async def database() -> AsyncIterator[None]:
        yield
        say("closed")

    @app.service
    async def consumer() -> None:
        await anyio.Path(os.environ["GO"]).read_bytes()  # a FIFO: until the test writes
        raise RuntimeError("the consumer is broken")

    web(app).run(backend)


def not_critical(backend: Backend) -> None:
    """Have a service that fails, and that the application can do without."""
    app = Application()

    @app.service(critical=False)
    async def consumer() -> None:
        raise RuntimeError("the consumer is broken")

    web(app).run(backend)


def chatty(backend: Backend) -> None:
    """Log without pause, and say at the end how many lines that were."""
    app = Application()

    @app.service
    async def talk() -> None:
        number = 0
        try:
            while True:
                for _ in range(50):
                    log.info("line %d", number)
                    number += 1
                if number == 1000:
                    say("talking")
                await anyio.sleep(0.001)
        finally:
            say("lines", number)

    web(app).run(backend)


def guide(backend: Backend) -> None:
    """Set logging up as the guide does, by hand, and run the application as it does."""
    from mtaio.logging import AsyncFileHandler  # noqa: PLC0415 - as no other scenario does

    handler = AsyncFileHandler(
        filename=os.environ["GUIDE_LOG"], max_bytes=10_000_000, backup_count=5
    )
    handler.setFormatter(logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s"))
    logger = logging.getLogger("mtaio")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    app = Application(logging=False, probes=False)

    @app.service
    async def talk() -> None:
        for number in range(2000):
            logger.info("line %d", number)
        say("logged")
        await anyio.sleep_forever()

    async def main() -> None:
        await app.start()
        logger.info("started")
        if os.environ["GUIDE_WAIT"] == "closed":
            await app.wait_closed()
        else:
            await anyio.Event().wait()  # as the original does

    options = {"use_uvloop": True} if backend == "uvloop" else {}
    name = "trio" if backend == "trio" else "asyncio"
    anyio.run(main, backend=name, backend_options=options)


def prefork(backend: Backend) -> None:
    """Listen, fork two workers that share the socket, pass signals on, and wait for them."""
    host, _, port = os.environ["BIND"].rpartition(":")
    listener = socket.create_server((host, int(port)), backlog=128)
    app = web(Application(), bind=f"fd://{listener.fileno()}")

    @app.service
    async def announce() -> None:
        say("worker", os.getpid())
        await anyio.sleep_forever()

    if sys.platform == "win32":
        return
    workers: list[int] = []

    def pass_on(number: int, _: object) -> None:
        for worker in workers:
            os.kill(worker, number)

    signal.signal(signal.SIGTERM, pass_on)
    for _ in range(2):
        worker = os.fork()
        if worker == 0:
            app.run(backend)
            return
        workers.append(worker)
    listener.close()
    codes = [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers]
    say("codes", *codes)


SCENARIOS: Final = (
    *(shop, requests, slow_start, failing_start, restarts, dies, not_critical, deadlock),
    *(chatty, guide, prefork),
)

if __name__ == "__main__":
    {each.__name__: each for each in SCENARIOS}[sys.argv[1]](cast("Backend", sys.argv[2]))
