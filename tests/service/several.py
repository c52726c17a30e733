"""The service that `test_supervisor.py` runs in several processes."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mtaio.app import Application
from tests.service.scenarios import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

app = web(Application())


@app.resource
async def start() -> AsyncIterator[None]:
    """Say how many there are; hang, event loop and all, while there is a file."""
    logging.getLogger("several").warning("one of %d workers", app.settings.workers)
    while "HANG" in os.environ and Path(os.environ["HANG"]).exists():  # noqa: ASYNC240 - it is to block
        time.sleep(0.1)  # noqa: ASYNC251 - likewise
    yield
