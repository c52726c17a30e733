"""A process that is stopped for a while, as by a busy machine or a debugger, is not stuck."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

assert sys.platform != "win32"

PROGRAM = """
import sys, time

from anyio import to_thread

from mtaio.testing import run


def work():
    print("at work", flush=True)
    time.sleep(0.25)
    return "done"


print(run(to_thread.run_sync, work, backend=sys.argv[1], grace=0.5))
"""


def test_stopped_process_is_not_hung(backend: str) -> None:
    """Its threads get most of the grace when it goes on, though all of it went by meanwhile."""
    with subprocess.Popen(  # noqa: S603 - this very Python, with the program above
        [sys.executable, "-c", PROGRAM, backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.7)  # which is what is tested
        process.send_signal(signal.SIGCONT)
        out, told = process.communicate(timeout=60)
    assert (out, told, process.returncode) == ("done\n", "", 0)
