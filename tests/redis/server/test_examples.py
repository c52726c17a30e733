"""The programs of the guide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from tests.pages import EXAMPLES
from tests.programs import load

if TYPE_CHECKING:
    from pathlib import Path

    from tests.redis.servers import Server

PROGRAMS = sorted((EXAMPLES / "redis").glob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_program_prints_what_the_guide_says(
    program: Path,
    backend: str,
    redis_server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Run with a server of the test's own, on either backend."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    module = load(program, f"docs_example_redis_{program.stem}")
    anyio.run(module.main, backend=backend)
    printed = capsys.readouterr()
    assert printed.out == program.with_suffix(".out").read_text(encoding="utf-8")
    assert printed.err == ""
