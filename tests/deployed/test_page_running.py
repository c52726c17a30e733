"""The status page of a service that runs, through the real endpoints."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.deployed.test_page import READY, browser, card, tab, words

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.deployed.browser import Tab

__all__ = ["browser", "tab"]

ORDERS = Path(__file__).with_name("orders.py")


@contextlib.contextmanager
def running(port: int, *more: str) -> Generator[Path]:
    """Run the service, and return the file that blocks its event loop."""
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, str(ORDERS), str(port), *more], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = process.stdout.readline().strip()
        blocking = Path(tempfile.gettempdir()) / f"mtaio-orders-{pid}"
        try:
            yield blocking
        finally:
            process.kill()
            blocking.unlink(missing_ok=True)


@pytest.fixture
def port() -> int:
    """Return a port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


def test_a_real_service(tab: Tab, port: int) -> None:
    """Every primitive is shown, a stall is told while it lasts, and a restart is survived."""
    with running(port) as blocking:
        tab.goto(f"http://127.0.0.1:{port}/")
        tab.wait(READY)
        tab.wait("page.rows.length > 4")
        assert tab.text("h1") == "orders-api"
        tab.wait(
            "document.getElementById('words').textContent.startsWith('Alert firingqueue_depth')"
        )
        for title, said in (
            ("database", "/ 4 in use"),
            ("geocoder", "RateLimiter"),
            ("per_user", "keys"),
            ("payments", "/ 8 in use"),
            ("requests", "TimeoutManager"),
            ("sessions", "hit rate, last 10 s"),
            ("orders", "emitted"),
            ("images", "/ 3 in use"),
            ("app", "/ 10,000 pending"),
            ("queue_depth", "42"),
            ("Process", "threads"),
        ):
            assert said in card(tab, title), card(tab, title)
        tab.wait("document.body.textContent.includes('run duration, p99')")  # a part of a card
        assert (
            tab.evaluate(
                "[...document.querySelectorAll('.card')]"
                ".find((each) => each.querySelector('h3').textContent === 'images')"
                ".textContent"
            ).count("run duration")
            == 3
        )
        assert "broker" in card(tab, "Health checks")
        tab.wait("document.body.innerText.includes('no <b>relay</b>')")
        blocking.touch()
        tab.wait("document.getElementById('words').textContent.startsWith('Event loop blocked')")
        assert "orders.py" in words(tab)
        assert "in main: its thread waited or computed" in words(tab)
        blocking.unlink()
        tab.wait("document.getElementById('words').textContent.startsWith('Alert firing')")
        assert "orders.py" in card(tab, "Stalls of the event loop")
        assert tab.complaints() == []
    tab.wait("document.body.classList.contains('lost')")
    with running(port):
        tab.wait("!document.body.classList.contains('lost')")
        tab.wait("page.rows.length > 2")
        assert {
            url.rpartition("/")[0] for url in tab.requests() if not url.startswith("data:")
        } == {f"http://127.0.0.1:{port}"}


def test_a_service_with_a_token(tab: Tab, port: int) -> None:
    """The browser that was let in with the token as password reads the figures too."""
    with running(port, "a-long-token"):
        tab.goto(f"http://anyone:a-long-token@127.0.0.1:{port}/")
        tab.wait(READY)
        tab.wait("page.rows.length > 4")
        assert tab.text("h1") == "orders-api"
        assert tab.complaints() == []
