"""Threads are real, and the clock waits for them."""

import threading
import time

import anyio
import pytest
from anyio import from_thread, to_thread
from anyio.lowlevel import current_token

from mtaio.testing import Simulation

pytestmark = pytest.mark.anyio


async def test_worker_thread_takes_no_time(sim: Simulation) -> None:
    """The timeout of a minute does not pass while AnyIO's worker thread is at work."""
    with anyio.fail_after(60):
        await to_thread.run_sync(time.sleep, 0.01)
    assert sim.time() == 0


async def test_own_thread_needs_a_hold(sim: Simulation) -> None:
    """A thread that AnyIO did not start is waited for while the clock is held."""
    token = current_token()
    called = anyio.Event()

    def work() -> None:
        time.sleep(0.01)
        from_thread.run_sync(called.set, token=token)

    thread = threading.Thread(target=work)
    with anyio.fail_after(60), sim.hold():
        thread.start()
        await called.wait()
    thread.join()
    assert sim.time() == 0
