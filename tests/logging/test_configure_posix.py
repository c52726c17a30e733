"""Where the console goes when its reader takes nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from mtaio.logging import _shutdown, configure
from tests.logging.tools import Logbook, environment, run, until
from tests.logging.tools_posix import BIG, Fifo

if TYPE_CHECKING:
    from pathlib import Path


def test_standard_error_as_a_file_makes_nobody_wait(tmp_path: Path) -> None:
    """With the file ``/dev/stderr`` a reader that stands still holds up no caller."""
    program = """
        import logging
        import sys

        from mtaio.logging import configure

        with configure(file="/dev/stderr", console=False):
            for number in range(3000):
                logging.info("%d %s", number, "#" * 100)
            print("all logged", flush=True)
            sys.stdin.read()
    """
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(program), encoding="utf-8")
    with subprocess.Popen(  # noqa: S603 - this very Python, with a program of the test's
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        # Far more than a pipe holds is logged, and nothing has been read.
        assert child.stdout.readline().split() == [b"all", b"logged"]
        child.stdin.close()
        lines = child.stderr.read().split(os.linesep.encode())
        assert child.wait(60) == 0
    assert [int(line.split()[4]) for line in lines[:-1]] == list(range(3000))


def test_native_cancellation_while_the_file_is_waited_for(
    book: Logbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``Task.cancel()``, which goes through every shield, ends the wait and loses nothing."""
    monkeypatch.setattr(_shutdown, "PATIENCE", 60.0)
    fifo = Fifo(book.path)

    async def body() -> None:
        async with configure(file=book.path, logger=book.logger, console=False):
            book.logger.info(BIG)

    async def main() -> None:
        task = asyncio.create_task(body())
        await asyncio.sleep(0)  # for the handlers to be there
        await asyncio.to_thread(until, lambda: not book.logger.handlers)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert book.threads()
    assert fifo.read_until(lambda: not book.threads()).endswith(f"{BIG}\n".encode())
    fifo.close()


def test_configure_in_a_forked_child(tmp_path: Path) -> None:
    """A child configures its logging, though its parent was just closing handlers at the fork."""
    program = """
        import faulthandler
        import logging
        import os
        import threading
        import time

        from mtaio.logging import configure

        os.mkfifo("stalled")
        reader = os.open("stalled", os.O_RDONLY | os.O_NONBLOCK)
        configure(file="stalled", console=False)
        old, = logging.getLogger().handlers
        for _ in range(20):
            logging.warning("#" * 10_000)
        entered = threading.Event()

        def close():
            entered.set()
            type(old).close(old)

        old.close = close
        again = threading.Thread(target=lambda: configure(file="parent.log", console=False))
        again.start()
        entered.wait()
        started = time.monotonic()
        with configure(file="other.log", console=False, logger="other"):
            logging.getLogger("other").warning("not held up")
        print(time.monotonic() - started, flush=True)
        pid = os.fork()
        if not pid:
            faulthandler.dump_traceback_later(30, exit=True)
            with configure(file="child.log", console=False):
                logging.warning("the child's")
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os.set_blocking(reader, True)
        while os.read(reader, 1 << 20):
            pass
        again.join()
    """
    done = run(program, tmp_path, measured=False)
    assert done.returncode == 0, done.stderr
    waited, ended = done.stdout.split()
    assert float(waited) < 4
    assert int(ended) == 7
    assert (tmp_path / "child.log").read_text().endswith("the child's\n")
    assert (tmp_path / "other.log").read_text().endswith("not held up\n")
