"""Errors expected in operation, and unexpected ones."""

import logging
import sys

import anyio

from mtaio import ConcurrencyLimiter
from mtaio.app import ErrorHandler

errors = ErrorHandler()  # in a service: app.error_handler
tills = ConcurrencyLimiter(limit=1, name="tills")


class Short(logging.Formatter):
    """A formatter that leaves out tracebacks, for this page."""

    def formatException(self, ei: object) -> str:  # noqa: ARG002, D102, N802 - logging's own
        return "  (the traceback)"


async def buy(article: str) -> None:
    with errors.catch({"article": article}, swallow=True):
        tills.acquire_nowait()  # and never released
        print("bought", article)


async def charge() -> None:
    raise ExceptionGroup(
        "order 8", [KeyError("price"), OSError("no route to host")]
    )


async def main() -> None:
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(Short("%(levelname)s %(message)s"))
    logging.getLogger("mtaio.errors").addHandler(console)

    await buy("tea")
    await buy("cake")
    try:
        await charge()
    except ExceptionGroup as error:
        errors.report(error, {"order": 8, "password": "hunter2"})
    print(dict(errors.statistics().reported))

    logging.getLogger("mtaio.errors").removeHandler(console)


if __name__ == "__main__":
    anyio.run(main)
