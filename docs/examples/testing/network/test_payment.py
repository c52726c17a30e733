"""A payment that is retried when the server dies before it answers."""

# --8<-- [start:bank]
from importlib import import_module
from typing import Annotated

import anyio
import httpx
import pytest
from hypercorn.config import Config
from sniffio import current_async_library

from fastapi import FastAPI, Header
from mtaio import Pipeline, Retry, Timeout
from mtaio.testing import Network, run, settle


class Bank:
    """Keeps payments in a ledger that outlives its process, as a database."""

    def __init__(self) -> None:
        self.ledger: dict[str, int] = {}

    async def serve(self) -> None:
        """Serve the bank's API with hypercorn."""
        app = FastAPI()

        @app.post("/payments")
        async def pay(
            amount: int, idempotency_key: Annotated[str | None, Header()] = None
        ) -> int:
            await anyio.sleep(0.01)  # asks the card's issuer
            key = idempotency_key or f"payment {len(self.ledger) + 1}"
            self.ledger.setdefault(key, amount)
            await anyio.sleep(0.03)  # tells the accounts
            return amount

        hypercorn = import_module(f"hypercorn.{current_async_library()}")
        config = Config.from_mapping(bind="0.0.0.0:80", errorlog=None)
        await hypercorn.serve(app, config, shutdown_trigger=anyio.sleep_forever)


# --8<-- [end:bank]
# --8<-- [start:shop]
failures = (httpx.TransportError, TimeoutError)
retried = Pipeline(Retry(5, on=failures, wait_initial=1), Timeout(2))


@retried
async def pay(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Pay 100, and try again if it is not known whether that was done."""
    url = "http://bank/payments?amount=100"
    answer = await client.post(url, headers=headers)
    answer.raise_for_status()


# --8<-- [end:shop]
# --8<-- [start:test]
async def charged(killed_after: float, headers: dict[str, str]) -> int:
    """Return what a customer pays if the bank dies so long after asking."""
    bank = Bank()
    async with Network(latency=0.02) as net, httpx.AsyncClient() as client:
        machine = net.host("bank")
        machine.start(bank.serve)
        await settle()
        async with anyio.create_task_group() as group:
            group.start_soon(pay, client, headers)
            await anyio.sleep(killed_after)
            machine.kill()
            await anyio.sleep(0.5)
            machine.restart()
    return sum(bank.ledger.values())


# from the first packet to the last
MOMENTS = [0.01 * number + 0.005 for number in range(15)]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_without_a_key(backend: str) -> None:
    found = [run(charged, after, {}, backend=backend) for after in MOMENTS]
    assert found == [100] * 7 + [200] * 3 + [100] * 5


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_with_a_key(backend: str) -> None:
    headers = {"Idempotency-Key": "order 7"}
    found = [run(charged, after, headers, backend=backend) for after in MOMENTS]
    assert found == [100] * 15


# --8<-- [end:test]
