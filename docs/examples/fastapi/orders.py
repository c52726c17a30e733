"""Orders: what happens after the response, and what happens every minute."""

import anyio
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from mtaio import Application, Retry, Settings, TaskExecutor
from mtaio.app import ErrorHandler
from mtaio.exceptions import LimitError

settings = Settings.from_env()
errors = ErrorHandler()
mails = TaskExecutor(settings.max_workers, max_pending=1000)  # queued beside
service = Application(settings, executor=mails, error_handler=errors)
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
    mails.submit_nowait(send_receipt, item)
    orders.append(item)


@app.exception_handler(LimitError)  # a thousand receipts are waiting
async def busy(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "10"})


@service.every(60)
async def report() -> None:
    print("orders:", len(orders))
