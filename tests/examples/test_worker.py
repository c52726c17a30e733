"""The queue of the guide's worker; tests/service has the worker itself."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import httpx

from tests.programs import ROOT, load

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

worker = load(ROOT / "docs" / "examples" / "programs" / "worker.py", "example_worker_queue")


class Clock:
    """What the module ``time`` is to the worker."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        """Return the time."""
        return self.now


def test_job_comes_back_and_is_set_aside_in_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A job that ends each of its workers comes back after its lease, until it was taken enough."""
    clock = Clock()
    monkeypatch.setattr(worker, "time", clock)
    path = str(tmp_path / "queue.db")
    with closing(worker.Queue(path)) as queue, closing(worker.Queue(path)) as other:
        queue.put("http://a/", "{}")
        for attempt in range(1, worker.RETRY.attempts + 1):
            job = queue.take()
            assert job == worker.Job(1, "http://a/", "{}", attempt)
            assert other.take() is None
            assert other.dead() == []
            clock.now += worker.LEASE
        assert queue.take() is None
        assert other.dead() == [(1, "http://a/", None)]


def test_job_that_failed_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A job that failed waits, one that was given back does not, and no number is used twice."""
    clock = Clock()
    monkeypatch.setattr(worker, "time", clock)
    with closing(worker.Queue(str(tmp_path / "queue.db"))) as queue:
        queue.put("http://a/", "{}")
        job = queue.take()
        queue.give_back(job)
        assert queue.take() == job
        queue.put_off(job, ValueError("no"))
        clock.now += worker.RETRY.wait_initial
        again = queue.take()
        assert (again.id, again.attempts) == (1, 2)
        queue.delete(again)
        queue.put("http://b/", "{}")
        assert queue.take().id == 2


def test_receiver_says_how_long_a_job_waits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A job waits for as long as Retry-After asks, but no longer than an hour."""
    clock = Clock()
    monkeypatch.setattr(worker, "time", clock)
    request = httpx.Request("POST", "http://a/")
    with closing(worker.Queue(str(tmp_path / "queue.db"))) as queue:
        queue.put("http://a/", "{}")
        for asked, wait, more in (("60", 60, 30), ("86400", 3600, 0)):  # more is random
            answer = httpx.Response(429, headers={"Retry-After": asked}, request=request)
            job = queue.take()
            queue.put_off(job, httpx.HTTPStatusError("busy", request=request, response=answer))
            clock.now += wait - 1
            assert queue.take() is None
            clock.now += 1 + more
        assert queue.take() is not None
