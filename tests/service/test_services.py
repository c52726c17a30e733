"""Background services that fail."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tests.service.harness import LATE, TOTAL

if TYPE_CHECKING:
    from pathlib import Path

    from tests.service.conftest import Start


def test_restart_with_backoff(start: Start) -> None:
    """A service that fails is started again, later each time, while requests are answered."""
    service = start("restarts").wait_readiness(200)
    waits = [float(each) for each in service.out.wait("waits")[0].split()[1:]]
    assert len(waits) == 3
    assert all(waited > 0.9 * least for waited, least in zip(waits, (0.1, 0.2, 0.4), strict=True))
    service.wait_metric("mtaio_application_restarts_total", 3)
    assert service.get("/pid").status == 200
    assert service.stop() == 0
    assert "run 3 has failed" in service.err.text


def test_critical_service_fails(start: Start, tmp_path: Path) -> None:
    """If a service fails that the application needs, it drains and ends with 1."""
    if sys.platform == "win32":
        return
    os.mkfifo(tmp_path / "go")
    service = start("dies", GO=str(tmp_path / "go")).wait_readiness(200)
    (tmp_path / "go").write_text("go")
    assert service.wait(TOTAL + LATE) == 1
    assert "the consumer is broken" in service.err.text
    assert service.out.lines == ["closed"]


def test_other_service_fails(start: Start) -> None:
    """If one fails that the application can do without, that is said, and the rest goes on."""
    service = start("not_critical").wait_readiness(200)
    service.err.wait("the consumer is broken")
    assert service.get("/pid").status == 200
    assert service.stop() == 0
