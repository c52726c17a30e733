"""TaskExecutor.start: services that get ready, are kept alive, and end with the block."""

# ruff: noqa: PT012 - it is leaving the block that raises, so the block stands inside

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio
import pytest

from mtaio.core import Retry, TaskExecutor, TaskStatus
from mtaio.exceptions import StrayCancellationError, TaskCancelledError
from mtaio.testing import settle
from tests.core.strays import stray

if TYPE_CHECKING:
    from anyio.abc import TaskStatus as Readiness


class Counted:
    """A service that counts its runs: ready after a second, it fails after the given seconds."""

    def __init__(self, *lifetimes: float) -> None:
        self.lifetimes = lifetimes
        self.starts: list[float] = []
        self.ended: list[float] = []

    async def __call__(self, *, task_status: Readiness[str]) -> None:
        """Run once."""
        self.starts.append(anyio.current_time())
        try:
            await anyio.sleep(1)
            task_status.started("ready")
            if len(self.starts) <= len(self.lifetimes):
                await anyio.sleep(self.lifetimes[len(self.starts) - 1])
                msg = f"run {len(self.starts)}"
                raise OSError(msg)
            await anyio.sleep_forever()
        finally:
            self.ended.append(anyio.current_time())


EVENLY = Retry(attempts=3, wait_initial=1, wait_exp_base=2, jitter=0)


async def test_start_returns_when_the_service_is_ready() -> None:
    """The handle tells what the service reported; leaving the block ends it."""
    service = Counted()
    async with TaskExecutor(1) as executor:
        handle = await executor.start(service)
        assert anyio.current_time() == 1
        assert handle.start_value == "ready"
        assert (handle.status, handle.name) == (TaskStatus.RUNNING, "Counted")
        assert executor.statistics().services == 1
        await anyio.sleep(1)
    assert service.ended == [2]
    assert handle.done
    assert str(handle.status) == "cancelled"
    assert executor.statistics().services == 0


async def test_service_gets_its_arguments() -> None:
    """Positional arguments come before ``task_status``."""

    async def service(a: int, b: int, *, task_status: Readiness[int]) -> None:
        task_status.started(a + b)
        await anyio.sleep_forever()

    async with TaskExecutor(1) as executor:
        assert (await executor.start(service, 1, 2)).start_value == 3


async def test_service_takes_no_slot_and_has_no_timeout() -> None:
    """It lives alongside the limited work, however long that may take."""
    service = Counted()
    async with TaskExecutor(1, timeout=0.5) as executor:
        await executor.start(service)
        await executor.start(service)
        assert await executor.run(divmod, 7, 2) == (3, 1)
        await anyio.sleep(9)
        assert executor.statistics().in_flight == 0
    assert service.ended == [11, 11]


async def test_block_drains_the_work_before_it_ends_the_services() -> None:
    """Submitted work may need the services to the last."""
    service = Counted()
    ended: list[float] = []

    async def work() -> None:
        await anyio.sleep(3)
        assert service.ended == []
        ended.append(anyio.current_time())

    async with TaskExecutor(1) as executor:
        await executor.start(service)
        await executor.submit(work)
    assert ended == [4]
    assert service.ended == [4]


async def test_service_may_submit_while_the_block_drains() -> None:
    """Until the services are ended the executor takes their work, and drains it too."""
    done: list[float] = []

    async def work() -> None:
        await anyio.sleep(1)
        done.append(anyio.current_time())

    async def service(*, task_status: Readiness[None]) -> None:
        task_status.started()
        await anyio.sleep(0.5)
        await executor.submit(work)
        await anyio.sleep_forever()

    async with TaskExecutor(2) as executor:
        await executor.start(service)
        await executor.submit(work)
    assert done == [1, 1.5]


async def test_service_that_returns_has_succeeded() -> None:
    """A service may end by itself when it was ready; it is counted no more."""

    async def service(*, task_status: Readiness[None]) -> str:
        task_status.started()
        await anyio.sleep(1)
        return "over"

    async with TaskExecutor(1) as executor:
        handle = await executor.start(service)
        assert await handle == "over"
        assert handle.status is TaskStatus.SUCCEEDED
        assert executor.statistics().services == 0
        assert handle.start_value is None


# ---- before it is ready --------------------------------------------------------------------------


async def test_failure_before_ready_goes_to_the_starter() -> None:
    """Bare, without a restart, and the block goes on."""
    error = OSError("no port")
    runs: list[int] = []

    async def service(*, task_status: Readiness[None]) -> None:  # noqa: ARG001 - never ready
        runs.append(1)
        await anyio.sleep(1)
        raise error

    async with TaskExecutor(1) as executor:
        with pytest.raises(OSError, match=r"^no port$") as caught:
            await executor.start(service, restart=3)
        assert executor.statistics().services == 0
        await anyio.sleep(1)
    assert caught.value is error
    assert runs == [1]


async def test_service_that_returns_before_it_is_ready_is_refused() -> None:
    """It is not a service; the error says so, and what to do."""

    async def service(*, task_status: Readiness[None]) -> None:  # noqa: ARG001 - never ready
        await anyio.sleep(1)

    async with TaskExecutor(1) as executor:
        with pytest.raises(RuntimeError, match=r"^the service .*service returned before .* ready"):
            await executor.start(service)


async def test_starter_cancelled_in_the_moment_of_readiness_leaves_nothing() -> None:
    """If the starter does not get its handle, the service is ended, ready or not."""
    executor, scope = TaskExecutor(1), anyio.CancelScope()

    async def service(*, task_status: Readiness[None]) -> None:
        task_status.started()
        scope.cancel()
        await anyio.sleep_forever()

    async with executor:
        handle = None
        with scope:
            handle = await executor.start(service)
        await settle()
        assert executor.statistics().services == (0 if handle is None else 1)


async def test_executor_cancelled_before_the_service_is_ready() -> None:
    """The starter is not cancelled; it is told."""
    async with TaskExecutor(1) as executor, anyio.create_task_group() as group:

        async def start() -> None:
            with pytest.raises(TaskCancelledError, match=r"^the service Counted was cancelled bef"):
                await executor.start(Counted())

        group.start_soon(start)
        await settle()
        executor.cancel()


async def test_block_left_before_the_service_is_ready() -> None:
    """A start from outside the block that is still waiting is told, and nothing runs on."""
    service = Counted()
    async with anyio.create_task_group() as group:

        async def start() -> None:
            with pytest.raises(TaskCancelledError):
                await executor.start(service)

        async with TaskExecutor(1) as executor:
            group.start_soon(start)
            await settle()
    assert service.ended == [0]


async def test_stray_cancellation_before_ready() -> None:
    """A service that raises the backend's cancellation unasked fails like any other."""

    async def service(*, task_status: Readiness[None]) -> None:  # noqa: ARG001 - never ready
        stray()

    async with TaskExecutor(1) as executor:
        with pytest.raises(StrayCancellationError):
            await executor.start(service)


# ---- after it was ready --------------------------------------------------------------------------


async def test_failure_ends_the_block() -> None:
    """Without a restart its error cancels everything in the block, and comes out bare."""
    service = Counted(3)
    with pytest.raises(OSError, match=r"^run 1$"):
        async with TaskExecutor(2) as executor:
            handle = await executor.start(service)
            task = await executor.submit(anyio.sleep, 99)
            await anyio.sleep(99)
    assert anyio.current_time() == 4
    assert handle.status is TaskStatus.FAILED
    assert task.status is TaskStatus.CANCELLED
    assert isinstance(handle.exception, OSError)


async def test_failure_while_draining_ends_the_block() -> None:
    """The same when the body has ended and the block drains."""
    with pytest.raises(OSError, match=r"^run 1$"):
        async with TaskExecutor(2) as executor:
            await executor.start(Counted(3))
            await executor.submit(anyio.sleep, 99)
    assert anyio.current_time() == 4


async def test_failure_as_the_services_are_ended_is_raised() -> None:
    """An error in a service's clean-up is not lost."""

    async def service(*, task_status: Readiness[None]) -> None:
        task_status.started()
        try:
            await anyio.sleep_forever()
        finally:
            raise OSError("clean-up")

    with pytest.raises(OSError, match=r"^clean-up$"):
        async with TaskExecutor(1) as executor:
            await executor.start(service)


async def test_restart_with_backoff(caplog: pytest.LogCaptureFixture) -> None:
    """A service that fails is started again after longer and longer waits; each is logged."""
    service = Counted(1, 1)
    async with TaskExecutor(1) as executor:
        handle = await executor.start(service, restart=EVENLY)
        await anyio.sleep(19)
        assert handle.status is TaskStatus.RUNNING
        assert handle.start_value == "ready"
    assert service.starts == [0, 3, 7]  # it lives for 2 s, and waits 1 s, then 2 s
    assert service.ended == [2, 5, 20]
    records = [each for each in caplog.records if each.name == "mtaio.core"]
    assert [record.getMessage() for record in records] == [
        "service Counted failed; attempt 2 of 3 in 1 s",
        "service Counted failed; attempt 3 of 3 in 2 s",
    ]
    assert [record.levelno for record in records] == [logging.WARNING] * 2
    assert records[0].exc_info is not None
    assert str(records[0].exc_info[1]) == "run 1"


async def test_exhausted_restarts_end_the_block() -> None:
    """When the attempts are used up, the last error ends the block and tells how many."""
    service = Counted(1, 1, 1)
    with pytest.raises(OSError, match=r"^run 3\n") as caught:
        async with TaskExecutor(1) as executor:
            await executor.start(service, restart=EVENLY)
            await anyio.sleep(99)
    assert caught.value.__notes__ == ["gave up after 3 attempts"]
    assert service.starts == [0, 3, 7]


async def test_long_run_restarts_the_count() -> None:
    """A service that failed now and then over the days does not keep failing."""
    service = Counted(1, 40, 1, 1)
    with pytest.raises(OSError, match=r"^run 4\n"):
        async with TaskExecutor(1) as executor:
            await executor.start(service, restart=EVENLY)
            await anyio.sleep(999)
    assert service.starts == [0, 3, 3 + 41 + 1, 3 + 41 + 1 + 2 + 2]


async def test_failure_before_it_is_ready_again_counts() -> None:
    """Once it has been ready, a service is restarted even if it fails earlier the next time."""
    runs: list[float] = []

    async def service(*, task_status: Readiness[None]) -> None:
        runs.append(anyio.current_time())
        if len(runs) == 1:
            task_status.started()
        msg = f"run {len(runs)}"
        raise OSError(msg)

    with pytest.raises(OSError, match=r"^run 3\n"):
        async with TaskExecutor(1) as executor:
            await executor.start(service, restart=EVENLY)
            await anyio.sleep(99)
    assert runs == [0, 1, 3]


async def test_only_what_the_policy_accepts_is_restarted() -> None:
    """Another error ends the block at once."""
    policy = Retry(attempts=9, on=ConnectionError)
    service = Counted(1)
    with pytest.raises(OSError, match=r"^run 1$"):
        async with TaskExecutor(1) as executor:
            await executor.start(service, restart=policy)
            await anyio.sleep(99)
    assert service.starts == [0]


async def test_service_cancelled_while_it_waits_for_its_restart() -> None:
    """Leaving the block does not wait for the next attempt."""
    service = Counted(1)
    async with TaskExecutor(1) as executor:
        await executor.start(service, restart=Retry(wait_initial=30, jitter=0))
        await anyio.sleep(3)
    assert anyio.current_time() == 4
    assert service.starts == [0]


async def test_stray_cancellation_of_a_service_is_a_failure() -> None:
    """A stray cancellation does not end the block silently."""

    async def service(*, task_status: Readiness[None]) -> None:
        task_status.started()
        await anyio.sleep(1)
        stray()

    with pytest.raises(StrayCancellationError, match=r"^test_stray_.*service raised Cancelled"):
        async with TaskExecutor(1) as executor:
            await executor.start(service)
            await anyio.sleep(9)
    assert anyio.current_time() == 1


async def test_base_exception_of_a_service_is_not_restarted() -> None:
    """A ``BaseException`` ends the block, whatever the policy."""

    class Stop(BaseException):
        pass

    async def service(*, task_status: Readiness[None]) -> None:
        task_status.started()
        await anyio.sleep(1)
        raise Stop

    with pytest.raises(Stop):
        async with TaskExecutor(1) as executor:
            handle = await executor.start(service, restart=9)
            await anyio.sleep(9)
    assert handle.status is TaskStatus.FAILED
