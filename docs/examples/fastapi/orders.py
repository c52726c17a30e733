"""Orders: what happens after the response, and what happens every minute."""

import anyio
from fastapi import FastAPI

from mtaio import Application, Retry
from mtaio.app import ErrorHandler

errors = ErrorHandler()
service = Application(name="orders", error_handler=errors)
app = FastAPI(lifespan=service.lifespan)
orders: list[str] = []


@Retry(3, on=ConnectionError)
async def send(text: str) -> None:
    await anyio.sleep(1)  # stands for a mail server
    print("sent:", text)


async def send_receipt(item: str) -> None:
    with errors.catch({"item": item}, swallow=True):  # logged, as nobody waits
        await send(f"receipt for {item}")


@app.post("/orders/{item}", status_code=202)
async def order(item: str) -> None:
    orders.append(item)
    await service.executor.submit(send_receipt, item)


@service.every(60)
async def report() -> None:
    print("orders:", len(orders))
