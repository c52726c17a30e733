"""The clock waits for a thread of your own while it is held."""

import threading
import time

import anyio
import pytest
from anyio import from_thread
from anyio.lowlevel import current_token

from mtaio.testing import Simulation


@pytest.mark.anyio
async def test_own_thread(sim: Simulation) -> None:
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
