"""The job of the guide, told to stop and killed at moments of chance, and started again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtaio.core import Journal
from tests.programs import ROOT
from tests.service.harness import PATIENCE, wait_until

assert sys.platform != "win32"

PROGRAM = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT / "docs" / "examples")!r})
import workers_job

ask = workers_job.ask

async def counted(question):
    with open(os.environ["CALLS"], "a") as calls:
        calls.write(question + "\\n")
    return await ask(question)

workers_job.ask = counted
workers_job.answers = Path(os.environ["ANSWERS"])
workers_job.app.run(sys.argv[1])
"""
NOT_COMPLETE = 75
EXPECTED = {f"question {number}": f"QUESTION {number}" for number in range(100)}
IN_FLIGHT = 10


class Survey:
    """Run the program, again and again, in a directory."""

    def __init__(self, home: Path, loop: str) -> None:
        self._calls = home / "calls"
        self._calls.touch()
        self._journal = Journal[str](home / "answers.jsonl")
        self._loop = loop
        self._environment = {
            **os.environ,
            "ANSWERS": str(self._journal.path),
            "CALLS": str(self._calls),
        }

    def start(self) -> subprocess.Popen[bytes]:
        """Start it."""
        command = [sys.executable, "-c", PROGRAM, self._loop]
        return subprocess.Popen(command, env=self._environment, stderr=subprocess.DEVNULL)  # noqa: S603 - this Python

    def paid(self) -> list[str]:
        """Return what was asked."""
        return self._calls.read_text("utf-8").splitlines()

    def answers(self) -> list[tuple[object, str]]:
        """Return what is in the journal."""
        return [*self._journal.entries()]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop(tmp_path: Path, loop: str, signum: signal.Signals) -> None:
    """What was begun is finished and kept, the exit code says so, and nothing is paid for twice."""
    survey = Survey(tmp_path, loop)
    process = survey.start()
    wait_until(lambda: len(survey.paid()) > 0)
    process.send_signal(signum)
    assert process.wait(PATIENCE) == NOT_COMPLETE
    assert 0 < len(survey.answers()) == len(survey.paid()) < len(EXPECTED)
    assert survey.start().wait(PATIENCE) == 0
    assert dict(survey.answers()) == EXPECTED
    assert sorted(survey.paid()) == sorted(EXPECTED)


def test_killed_at_any_moment(tmp_path: Path, loop: str) -> None:
    """Nothing is missing or doubled; what is paid for twice was in flight when it was killed."""
    chance = random.Random(loop)  # noqa: S311 - a test's
    survey = Survey(tmp_path, loop)
    kills = 0
    for signum in [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL]:
        before = len(survey.paid())
        process = survey.start()
        wait_until(lambda: len(survey.paid()) > before or process.poll() is not None)  # noqa: B023 - at once
        time.sleep(chance.random() * 0.5)
        process.send_signal(signum)
        code = process.wait(PATIENCE)
        assert code in {-signum, NOT_COMPLETE, 0}
        kills += code == -signal.SIGKILL
    assert survey.start().wait(PATIENCE) == 0
    assert sorted(survey.answers()) == sorted(EXPECTED.items())
    assert kills > 0
    assert set(survey.paid()) == set(EXPECTED)
    assert len(survey.paid()) <= len(EXPECTED) + kills * IN_FLIGHT
