"""Endpoints that block, in worker threads."""

import time

from anyio import from_thread
from fastapi import FastAPI, HTTPException

from mtaio import Application, ConcurrencyLimiter, RateLimiter, cached

printers = ConcurrencyLimiter(1, name="printers")
mails = RateLimiter(10, name="mails")
service = Application(name="reports")
app = FastAPI(lifespan=service.lifespan)


@cached(ttl=60)  # threads that ask for the same month share one query
def total(month: str) -> float:
    time.sleep(0.1)  # stands for a query by a library that blocks
    return len(month) * 9.5


async def send(month: str) -> None:
    print("sent", month)


@app.get("/totals/{month}")
def get_total(month: str) -> float:  # FastAPI calls it in a worker thread
    return total(month)


@app.post("/prints/{month}")
def print_report(month: str) -> None:
    if not printers.try_acquire():
        raise HTTPException(503, "all printers are busy", {"Retry-After": "1"})
    try:
        time.sleep(0.1)
        print("printed", month)
    finally:
        printers.release()


@app.post("/mails/{month}")
def mail_report(month: str) -> None:
    from_thread.run(mails.acquire)  # runs in the event loop
    from_thread.run(service.executor.submit, send, month)
