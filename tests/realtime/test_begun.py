"""What is taken from a source is begun, also when Ctrl-C ends the program."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
import anyio
from mtaio.core import TaskExecutor

begun = []

async def main():
    global receive
    send, receive = anyio.create_memory_object_stream(100)
    for job in range(100):
        send.send_nowait(job)

    async def work(job):
        begun.append(job)
        if job == 9:
            os.kill(os.getpid(), signal.SIGINT)
        await anyio.sleep(job / 1000)

    await TaskExecutor(4).for_each(work, receive)

try:
    anyio.run(main, backend=sys.argv[1])
except KeyboardInterrupt:
    left = receive.statistics().current_buffer_used
    print(begun == list(range(100 - left)), left < 100 - 9)
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_interrupted_program_has_begun_what_it_took(backend: str) -> None:
    """Each job was called, or is still in its queue."""
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, backend]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert done.stdout == "True True\n"
