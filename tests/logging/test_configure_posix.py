"""Where the console goes when its reader takes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

from tests.logging.tools import environment

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
