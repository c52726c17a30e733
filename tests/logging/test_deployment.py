"""What people copy: the deployment guide's ``setup_logging``, word for word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.backends import BACKENDS
from tests.logging.tools import run

if TYPE_CHECKING:
    from tests.logging.tools import Logbook

SETUP = """
import logging
from mtaio.logging import AsyncFileHandler

async def setup_logging():
    logger = logging.getLogger("mtaio")
    logger.setLevel(logging.INFO)

    # ローテーション付きファイルハンドラ
    handler = AsyncFileHandler(
        filename="app.log",
        max_bytes=10_000_000,  # 10MB
        backup_count=5
    )

    # フォーマットの追加
    formatter = logging.Formatter(
        '%(asctime)s - %(name)s - %(levelname)s - %(message)s'
    )
    handler.setFormatter(formatter)

    logger.addHandler(handler)
"""

MAIN = """
import sys

import anyio

backend = sys.argv[1]
logger = logging.getLogger("mtaio")

async def work():
    logger.info("in a task")
    await anyio.to_thread.run_sync(logger.info, "in its thread")

async def both():
    await setup_logging()
    await work()

def without():
    try:
        setup_logging().send(None)
    except StopIteration:
        return
    raise AssertionError("it waited for something")
"""

WORK = ["in a task", "in its thread"]
WAYS = {
    "before a loop": (
        "anyio.run(setup_logging, backend=backend); anyio.run(work, backend=backend)",
        WORK,
    ),
    "inside a loop": (
        "anyio.run(both, backend=backend); logger.info('after it')",
        [*WORK, "after it"],
    ),
    "without a loop": ("without(); logger.info('plain')", ["plain"]),
    "without, then a loop": (
        "without(); logger.info('plain'); anyio.run(work, backend=backend)",
        ["plain", *WORK],
    ),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", WAYS)
def test_setup_of_the_deployment_guide(book: Logbook, way: str, backend: str) -> None:
    """``setup_logging`` works as it is written, and the end of the program writes everything."""
    program, messages = WAYS[way]
    done = run(SETUP + MAIN + program, book.folder, backend)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(" - ")[1:] for line in book.lines()] == [
        ["mtaio", "INFO", message] for message in messages
    ]
