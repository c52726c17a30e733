"""Health checks: exact times, one run for all callers, and nothing that hangs a report."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, fields
from json import dumps, loads
from threading import Thread, get_ident
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.monitoring import CheckResult, HealthRegistry, HealthReport
from mtaio.statistics import HealthStatistics
from mtaio.testing import assert_quiescent, run
from tests.backends import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.types import CheckKind


KINDS: Final[tuple[CheckKind, ...]] = ("live", "ready", "startup")


class BrokenError(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        msg = "broken itself"
        raise ValueError(msg)


class Broken:
    """An answer that cannot be shown."""

    def __repr__(self) -> str:
        msg = "broken itself"
        raise ValueError(msg)


class Probe:
    """A check that answers as it is told: takes ``seconds``, then raises or returns ``answer``."""

    def __init__(self, answer: object = None, seconds: float = 0.0) -> None:
        self.answer = answer
        self.seconds = seconds
        self.started = 0
        self.running = 0

    async def __call__(self) -> object:
        """Check."""
        self.started += 1
        self.running += 1
        assert self.running == 1
        try:
            await anyio.sleep(self.seconds)
        finally:
            self.running -= 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def only(report: HealthReport | None) -> CheckResult:
    """Return the result of the only check."""
    assert report is not None
    (result,) = report.checks
    return result


def registry(check: Callable[[], Any], **options: Any) -> HealthRegistry:
    """Return a registry of one check."""
    health = HealthRegistry()
    health.add("it", check, **options)
    return health


# ---- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [None, True])
async def test_passes(answer: object) -> None:
    """A check that returns None or True passes."""
    health = registry(Probe(answer, seconds=0.25))
    report = await health.report()
    assert (report.healthy, report.live, report.ready, report.started) == (True,) * 4
    assert not report.draining
    assert not report.degraded
    assert time.time() - 60 < report.timestamp <= time.time()
    result = only(report)
    assert (result.name, result.kind, result.critical) == ("it", "ready", True)
    assert (result.status, result.error, result.failures) == ("passing", None, 0)
    assert (result.seconds, result.hung_seconds) == (0.25, 0.0)
    assert result.timestamp is not None
    assert time.time() - 60 < result.timestamp <= time.time()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (False, "returned False: return None or True to pass"),
        ("97 % full", "97 % full"),
        ("", "returned '': return None or True to pass"),
        ((1,), "returned (1,): return None or True to pass"),
        (ConnectionError("refused"), "ConnectionError: refused"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (ValueError("x" * 300), "ValueError: " + "x" * 187 + "…"),
        (TimeoutError("its own"), "TimeoutError: its own"),
        (BrokenError(), "BrokenError: <BrokenError whose str() raises ValueError>"),
        (
            Broken(),
            "returned <Broken whose repr() raises ValueError>: return None or True to pass",
        ),
    ],
    ids=[
        "False",
        "text",
        "empty",
        "value",
        "error",
        "bare",
        "long",
        "timeout",
        "broken error",
        "broken answer",
    ],
)
async def test_fails(answer: object, error: str) -> None:
    """A check that raises, or returns anything else, fails, and the result says why."""
    health = registry(Probe(answer))
    report = await health.report()
    assert (report.live, report.ready, report.healthy) == (True, False, False)
    assert not report.degraded
    result = only(report)
    assert (result.status, result.error, result.failures) == ("failing", error, 1)
    assert health.statistics().timed_out == 0


async def test_plain_functions_run_in_threads() -> None:
    """A plain function may block, and may return what is to be awaited."""
    health = HealthRegistry()
    threads: list[int] = []

    @health.check()
    def block() -> None:
        threads.append(get_ident())
        time.sleep(0.01)

    @health.check("fails")
    def fail() -> None:
        raise OSError("gone")

    slow = Probe(seconds=0.25)
    health.add("awaited", lambda: slow())  # noqa: PLW0108 - a plain function
    report = await health.report()
    assert [each.name for each in report.checks] == ["block", "fails", "awaited"]
    assert [each.error for each in report.checks] == [None, "OSError: gone", None]
    assert report.checks[2].seconds == 0.25
    assert threads != [get_ident()]
    assert_quiescent(health)


async def test_not_critical() -> None:
    """A check that is not critical makes the service degraded, and no more."""
    health = HealthRegistry()
    for kind in KINDS:
        health.add(kind, Probe(answer=False), kind=kind, critical=False, failure_threshold=1)
    report = await health.report()
    assert report.healthy
    assert report.degraded
    assert {each.status for each in report.checks} == {"degraded"}
    assert health.statistics().degraded == 3


async def test_without_checks() -> None:
    """A service without checks is well."""
    health = HealthRegistry()
    assert health.latest is None
    report = await health.report()
    assert report.healthy
    assert report.checks == ()


async def test_json() -> None:
    """A report is what JSON can carry."""
    health = registry(Probe(answer=False))
    await health.report()
    report = health.latest
    assert report is not None
    assert loads(dumps(asdict(report), allow_nan=False))["checks"][0]["failures"] == 1


# ---- failures in a row, kinds --------------------------------------------------------------------


async def test_failures_in_a_row() -> None:
    """What has passed is failing after so many failures in a row; one success mends it."""
    probe = Probe()
    health = registry(probe, failure_threshold=3, ttl=0)
    assert (await health.report()).ready
    seen: list[tuple[str, int]] = []
    for answer in (False, False, None, False, False, False, False, None):
        probe.answer = answer
        result = only(await health.report())
        seen.append((result.status, result.failures))
    assert seen == [
        ("passing", 1),
        ("passing", 2),
        ("passing", 0),
        ("passing", 1),
        ("passing", 2),
        ("failing", 3),
        ("failing", 4),
        ("passing", 0),
    ]


@pytest.mark.parametrize("kind", ["ready", "startup"])
async def test_first_failure(kind: CheckKind) -> None:
    """What has never passed is not ready, whatever failures are allowed."""
    health = registry(Probe(answer=False), kind=kind, failure_threshold=9)
    report = await health.report()
    assert not report.ready
    assert only(report).status == "failing"


async def test_alive_at_first() -> None:
    """What has just started is alive until it has failed so often."""
    health = registry(Probe(answer=False), kind="live", failure_threshold=2, ttl=0)
    assert (await health.report()).live
    report = await health.report()
    assert (report.live, report.ready, report.healthy) == (False, True, False)


async def test_startup_gates_readiness() -> None:
    """Readiness waits for each startup check to pass once, which then is not run again."""
    health = HealthRegistry()
    first, second, ready = Probe(answer=False), Probe(), Probe()
    health.add("first", first, kind="startup", ttl=0)
    health.add("second", second, kind="startup", ttl=0)
    health.add("ready", ready, ttl=0)
    report = await health.report("ready")
    assert (report.started, report.ready) == (False, False)
    assert not (await health.report()).ready
    assert ready.started == 0  # what it asks may not be there yet
    first.answer = None
    report = await health.report("ready")
    assert (report.started, report.ready) == (True, True)
    first.answer = second.answer = False
    assert (await health.report()).ready
    assert (first.started, second.started, ready.started) == (3, 1, 2)


async def test_kinds_apart() -> None:
    """A report of one kind runs the checks of that kind, and tells what is known of others."""
    health = HealthRegistry()
    probes = [Probe() for _ in KINDS]
    for kind, probe in zip(KINDS, probes, strict=True):
        health.add(kind, probe, kind=kind, ttl=0)

    def started() -> tuple[int, ...]:
        return tuple(probe.started for probe in probes)

    report = await health.report("live")
    assert started() == (1, 0, 0)
    assert (report.live, report.ready, report.started) == (True, False, False)
    assert [each.status for each in report.checks] == ["passing", "unknown", "unknown"]
    assert report.checks[1].timestamp is None
    report = await health.report("startup")
    assert started() == (1, 0, 1)
    assert (report.started, report.ready) == (True, False)
    report = await health.report("ready")
    assert started() == (1, 1, 1)
    assert report.healthy


async def test_liveness_knows_no_dependency() -> None:
    """A dependency that is down makes the service not ready, and never not alive."""
    health = registry(Probe(answer=False), failure_threshold=1, ttl=0)
    for _ in range(9):
        assert (await health.report()).live


async def test_draining() -> None:
    """A draining service is not ready and is alive, whatever its checks say."""
    health = registry(Probe())
    assert not health.draining
    await health.report()
    thread = Thread(target=health.set_ready, args=(False,))
    thread.start()
    thread.join()
    assert health.draining
    latest = health.latest
    assert latest is not None
    assert latest.draining
    report = await health.report()
    assert (report.live, report.started, report.ready, report.healthy) == (True, True, False, False)
    assert health.statistics().draining


async def test_changes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A check that begins to fail is logged, once, and so is one that passes again."""
    caplog.set_level("INFO", logger="mtaio.monitoring")
    probe = Probe()
    health = registry(probe, ttl=0, failure_threshold=2)
    for answer in (None, False, OSError("gone"), OSError("gone"), None, None):
        probe.answer = answer
        await health.report()
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("WARNING", "health check 'it' is failing: OSError: gone"),
        ("INFO", "health check 'it' is passing again"),
    ]


async def test_start_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A start that takes a while is no failure, and is not said to be one."""
    caplog.set_level("INFO", logger="mtaio.monitoring")
    probe = Probe()
    health = registry(probe, ttl=0, kind="startup")
    for answer in ("loading", "loading", None, None):
        probe.answer = answer
        await health.report()
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("INFO", "health check 'it' has not passed yet: loading"),
        ("INFO", "health check 'it' has passed"),
    ]


# ---- time ----------------------------------------------------------------------------------------


async def test_ttl() -> None:
    """An answer is good for its ttl, counted from when it came."""
    probe = Probe(seconds=0.25)
    health = registry(probe, ttl=1.0)
    await health.report()
    await anyio.sleep(0.75)
    await health.report()
    assert (probe.started, anyio.current_time()) == (1, 1.0)
    await anyio.sleep(0.25)
    await health.report()
    assert (probe.started, anyio.current_time()) == (2, 1.5)


async def test_ttl_of_failures() -> None:
    """So is a failure: it is not counted again before it is seen again."""
    health = registry(Probe(answer=False), ttl=1.0, failure_threshold=2)
    for _ in range(3):
        assert only(await health.report()).failures == 1
    await anyio.sleep(1)
    assert only(await health.report()).failures == 2


async def test_checks_run_concurrently() -> None:
    """A report takes as long as its slowest check."""
    health = HealthRegistry()
    for number in range(4):
        health.add(str(number), Probe(seconds=number / 8))
    await health.report()
    assert anyio.current_time() == 0.375


async def test_timeout() -> None:
    """A check that is not done in time is cancelled, and fails."""
    probe = Probe(seconds=math.inf)
    health = registry(probe, timeout=0.25)
    result = only(await health.report())
    assert anyio.current_time() == 0.25
    assert (result.status, result.error) == ("failing", "timed out after 0.25 s")
    assert (result.seconds, result.hung_seconds) == (0.25, 0.0)
    assert probe.running == 0
    assert_quiescent(health)
    assert health.statistics().timed_out == 1


async def test_timeout_of_its_own_answer() -> None:
    """A check that makes something else of its timeout has timed out."""

    async def check() -> None:
        try:
            await anyio.sleep(math.inf)
        finally:
            raise ConnectionError("closed")

    result = only(await registry(check, timeout=0.25).report())
    assert result.error == "timed out after 0.25 s"


async def test_answer_in_spite_of_the_timeout() -> None:
    """An answer that came before any checkpoint after the deadline is an answer."""

    async def check() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.3)

    result = only(await registry(check, timeout=0.25).report())
    assert (result.status, result.seconds) == ("passing", 0.3)


async def test_time_to_clean_up() -> None:
    """A report waits a tenth of a second for what cleans up after its timeout."""
    cleaned: list[float] = []

    async def check() -> None:
        try:
            await anyio.sleep(math.inf)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.0625)
            cleaned.append(anyio.current_time())

    await registry(check, timeout=0.25).report()
    assert cleaned == [anyio.current_time()] == [0.3125]


async def test_remaining_time_is_the_checks_own() -> None:
    """A check sees its own timeout, and not the limit of whoever asked first."""
    from mtaio.resources import TimeoutManager  # noqa: PLC0415 - it shows what a check can see

    timeouts = TimeoutManager()
    seen: list[float] = []

    async def check() -> None:
        seen.append(timeouts.remaining())
        await checkpoint()

    with timeouts(0.125):
        await registry(check, timeout=0.25).report()
    assert seen == [0.25]


# ---- hanging -------------------------------------------------------------------------------------


async def test_check_that_shields_itself() -> None:
    """A report leaves it behind, says since when it runs, and does not start it again."""
    release = anyio.Event()
    started: list[float] = []

    async def check() -> None:
        started.append(anyio.current_time())
        with anyio.CancelScope(shield=True):
            await release.wait()

    health = registry(check, timeout=0.25, ttl=1.0, failure_threshold=3)
    result = only(await health.report())
    assert anyio.current_time() == 0.35
    assert (result.status, result.failures, result.hung_seconds) == ("failing", 1, 0.35)
    assert result.error == "still running after 0.3 s, with a timeout of 0.25 s"
    statistics = health.statistics()
    assert (statistics.in_flight, statistics.hung, statistics.waiting) == (1, 1, 0)
    await anyio.sleep(0.5)
    result = only(await health.report())  # within its ttl
    assert anyio.current_time() == 0.85
    assert (result.failures, result.hung_seconds) == (1, 0.85)
    await anyio.sleep(0.5)
    result = only(await health.report())
    assert anyio.current_time() == 1.35
    assert (result.failures, result.hung_seconds, result.seconds) == (2, 1.35, 1.35)
    assert started == [0.0]
    assert (health.statistics().timed_out, health.statistics().runs) == (2, 2)
    release.set()
    await checkpoint()
    await checkpoint()
    assert_quiescent(health)
    result = only(await health.report())  # its late answer is dropped
    assert (result.failures, result.hung_seconds) == (2, 0.0)
    await anyio.sleep(1)
    assert only(await health.report()).status == "passing"
    assert len(started) == 2
    assert health.statistics().hung == 0


async def test_hanging_check_hangs_no_other() -> None:
    """Checks beside one that hangs have their answers."""
    release = anyio.Event()
    health = HealthRegistry()

    @health.check(timeout=0.25, critical=False)
    async def hangs() -> None:
        with anyio.CancelScope(shield=True):
            await release.wait()

    health.add("good", Probe(seconds=0.125), ttl=0)
    for _ in range(3):
        report = await health.report()
        assert report.ready
        assert report.degraded
    assert anyio.current_time() == 0.6  # of which the first 0.35 for the one that hangs
    release.set()


async def test_hang_seen_by_several_callers() -> None:
    """One run that hangs is one failure, however many callers see it."""
    release = anyio.Event()

    async def check() -> None:
        with anyio.CancelScope(shield=True):
            await release.wait()

    health = registry(check, timeout=0.25)
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(health.report)
    assert anyio.current_time() == 0.35
    assert health.statistics().failed == 1
    release.set()


async def test_check_that_asks_for_a_report() -> None:
    """A check that waits for itself times out like any other."""
    health = HealthRegistry()
    health.add("it", health.report, timeout=0.25)
    result = only(await health.report())
    assert (result.error, anyio.current_time()) == ("timed out after 0.25 s", 0.25)
    assert_quiescent(health)


# ---- one run for all -----------------------------------------------------------------------------


async def test_callers_share_a_run() -> None:
    """Callers at the same time share one run, also those that come late."""
    probe = Probe(seconds=0.375)
    health = registry(probe, ttl=0)

    async def ask(delay: float) -> None:
        await anyio.sleep(delay)
        assert (await health.report()).ready
        assert anyio.current_time() == 0.375

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(ask, number / 8)
        await anyio.sleep(0.25)
        assert health.statistics().waiting == 2
        assert health.statistics().in_flight == 1
    assert probe.started == 1


async def test_cancelled_caller_leaves_the_run_to_the_others() -> None:
    """The first caller gives up; the others have the answer, of the same run."""
    probe = Probe(seconds=0.375)
    health = registry(probe)

    async def impatient() -> None:
        with anyio.move_on_after(0.125):
            await health.report()
        assert anyio.current_time() == 0.125

    async with anyio.create_task_group() as group:
        group.start_soon(impatient)
        await anyio.sleep(0.0625)
        assert (await health.report()).ready
    assert (probe.started, anyio.current_time()) == (1, 0.375)
    assert health.statistics().cancelled == 0


async def test_last_caller_cancels_the_run() -> None:
    """A run for which nobody waits is cancelled, over when the report is, and no failure."""
    probe = Probe(seconds=0.375)
    health = registry(probe)
    with anyio.move_on_after(0.125):
        await health.report()
    assert (anyio.current_time(), probe.running) == (0.125, 0)
    assert_quiescent(health)
    assert health.latest is None
    statistics = health.statistics()
    assert (statistics.cancelled, statistics.failed, statistics.runs) == (1, 0, 1)
    assert only(await health.report()).failures == 0
    assert probe.started == 2


async def test_cancelled_run_that_fails() -> None:
    """What a check raises because its callers were cancelled is no failure."""

    async def check() -> None:
        try:
            await anyio.sleep(0.375)
        except anyio.get_cancelled_exc_class():
            raise ConnectionError("closed") from None

    health = registry(check)
    with anyio.move_on_after(0.125):
        await health.report()
    assert (health.statistics().cancelled, health.statistics().failed) == (1, 0)
    assert (await health.report()).ready


async def test_check_without_a_limit() -> None:
    """With an endless timeout a report waits for as long as the check takes."""
    health = registry(Probe(seconds=1000), timeout=math.inf)
    assert (await health.report()).ready
    assert anyio.current_time() == 1000


async def test_cancelled_run_that_answers() -> None:
    """What a check answers all the same is kept."""

    async def check() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.1875)

    health = registry(check)
    with anyio.move_on_after(0.125):
        await health.report()
    assert anyio.current_time() == 0.1875
    assert (health.statistics().cancelled, health.statistics().passing) == (0, 1)


async def test_caller_after_a_cancelled_run() -> None:
    """A run begins when the cancelled one before has cleaned up, and not beside it."""
    probe = Probe()

    async def check() -> None:
        try:
            await probe()
            await anyio.sleep(0.25 * (probe.started == 1))
        finally:
            if probe.started == 1:
                probe.running += 1
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.1875)
                probe.running -= 1

    health = registry(check)
    with anyio.move_on_after(0.125):
        await health.report()
    assert anyio.current_time() == 0.225  # it waited for a tenth of a second
    assert health.statistics().in_flight == 1
    result = only(await health.report())
    assert anyio.current_time() == 0.3125
    assert result.status == "passing"
    assert result.seconds == pytest.approx(0.0875)
    assert (probe.started, health.statistics().failed) == (2, 0)


async def test_caller_after_a_cancelled_run_that_never_ends() -> None:
    """If it does not clean up in time, that is a failure, which says since when it runs."""
    release = anyio.Event()
    started: list[float] = []

    async def check() -> None:
        started.append(anyio.current_time())
        with anyio.CancelScope(shield=True):
            await release.wait()

    health = registry(check, timeout=0.25, ttl=0)
    with anyio.move_on_after(0.125):
        await health.report()
    assert health.statistics().failed == 0
    result = only(await health.report())
    assert anyio.current_time() == 0.475
    assert (result.status, result.hung_seconds) == ("failing", 0.475)
    assert result.error == "still running after 0.5 s, with a timeout of 0.25 s"
    result = only(await health.report())
    assert (result.failures, result.hung_seconds, anyio.current_time()) == (2, 0.475, 0.475)
    assert started == [0.0]
    release.set()
    await anyio.sleep(0.001)
    assert (await health.report()).ready
    assert len(started) == 2


async def test_callers_after_a_cancelled_run() -> None:
    """A caller that is cancelled while it waits for that end changes nothing for the next one."""
    started: list[float] = []

    async def check() -> None:
        started.append(anyio.current_time())
        if len(started) > 1:
            return
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.5)
        await checkpoint()

    health = registry(check)
    for seconds in (0.125, 0.0625, 0.0625):
        with anyio.move_on_after(seconds):
            await health.report()
    assert anyio.current_time() == pytest.approx(0.35)
    assert health.statistics().in_flight == 1
    assert (await health.report()).ready
    assert started == [0.0, 0.5]
    statistics = health.statistics()
    assert (statistics.failed, statistics.cancelled, statistics.runs) == (0, 3, 4)


async def test_cancelled_report_of_several_checks() -> None:
    """A cancelled report waits for a tenth of a second, and not for one after another."""
    health = HealthRegistry()
    release = anyio.Event()

    async def check() -> None:
        with anyio.CancelScope(shield=True):
            await release.wait()

    for number in range(3):
        health.add(str(number), check)
    with anyio.move_on_after(0.125):
        await health.report()
    assert anyio.current_time() == 0.225
    release.set()


async def test_cancelled_when_time_is_up() -> None:
    """A report that is cancelled after a timeout ends no later than one that is not."""
    release = anyio.Event()

    async def check() -> None:
        with anyio.CancelScope(shield=True):
            await release.wait()

    with anyio.move_on_after(0.3125):
        await registry(check, timeout=0.25).report()
    assert anyio.current_time() == 0.35
    release.set()


async def test_report_in_a_cancelled_scope() -> None:
    """It starts no run at all."""
    probe = Probe()
    health = registry(probe)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await health.report()
    assert scope.cancelled_caught
    assert (probe.started, health.statistics().runs) == (0, 0)


class Unusual(BaseException):
    """An error that is not meant to be caught."""


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, Unusual])
@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in a group"])
async def test_what_ends_the_program(
    kind: type[BaseException],
    grouped: bool,  # noqa: FBT001 - a parameter
) -> None:
    """What is not an Exception is raised by the report, by one of them."""
    error = kind("now")
    if grouped:
        error = BaseExceptionGroup("two", [ValueError("other"), BaseExceptionGroup("one", [error])])
    health = registry(Probe(error), ttl=1.0)
    with pytest.raises(type(error), match=r"^(now|two)") as raised:
        await health.report()
    assert raised.value is error
    result = only(await health.report())
    assert (result.error or "").startswith(type(error).__name__)


def test_stray_cancellation(backend: str) -> None:
    """The backend's cancellation where nothing was cancelled is a failure."""
    kept: list[BaseException] = []

    async def check() -> None:
        await checkpoint()
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            except anyio.get_cancelled_exc_class() as error:
                kept.append(error)
                raise
        raise kept[0]

    async def main() -> None:
        result = only(await registry(check).report())
        assert result.error is not None
        assert result.error.startswith("StrayCancellationError: the check <function ")

    run(main, backend=backend)


# ---- loops, threads ------------------------------------------------------------------------------


def test_one_loop_after_another() -> None:
    """Another loop begins from the start: nothing has passed, failed, or drains."""
    probe = Probe(seconds=0.25)
    health = registry(probe, kind="startup", ttl=math.inf)

    async def main() -> None:
        before = probe.started
        assert health.latest is None
        assert (await health.report()).ready
        assert probe.started == before + 1
        health.set_ready(False)
        assert not (await health.report()).ready
        assert probe.started == before + 1

    for backend in (*BACKENDS, *BACKENDS):
        run(main, backend=backend)
    assert health.statistics().runs == 2 * len(BACKENDS)


def test_loop_that_ends_while_a_check_hangs(backend: str) -> None:
    """A check that hung in one loop is run afresh in the next."""
    probe = Probe(seconds=math.inf)
    health = registry(probe, timeout=1.0, failure_threshold=1)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(health.report)
            await anyio.sleep(0.5)
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ExceptionGroup):
            run(main, backend=backend)
        assert_quiescent(health)
        assert health.statistics().failed == 0


def test_drained_between_loops(backend: str) -> None:
    """To drain counts for the loop that comes, not for the one that is over."""
    health = registry(Probe())

    async def main() -> None:
        assert not (await health.report()).ready

    for _ in range(2):
        health.set_ready(False)
        run(main, backend=backend)
        assert not health.draining
        assert health.latest is None


async def test_two_loops_at_once() -> None:
    """A report is refused while checks run in another loop."""
    health = registry(Probe(seconds=0.25))
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            anyio.run(health.report)
        except RuntimeError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(health.report)
        await anyio.sleep(0.125)
        await anyio.to_thread.run_sync(elsewhere)
    assert str(errors[0]).startswith(
        "<HealthRegistry: 1 checks> is in use by tasks of another running"
    )


async def test_read_from_another_thread() -> None:
    """The latest report and the statistics may be read from any thread."""
    health = registry(Probe(answer=False))
    await health.report()

    def read() -> tuple[HealthReport | None, HealthStatistics]:
        return health.latest, health.statistics()

    latest, statistics = await anyio.to_thread.run_sync(read)
    assert only(latest).failures == 1
    assert statistics.failing == statistics.failed == statistics.runs == statistics.checks == 1


# ---- adding, removing, refusals ------------------------------------------------------------------


async def test_adding_during_a_report() -> None:
    """A check that is added or removed meanwhile counts from the next report on."""
    health = HealthRegistry()
    late, gone = Probe(answer=False), Probe(seconds=0.125)

    async def change() -> None:
        health.add("late", late)
        health.remove("gone")
        await checkpoint()

    health.add("gone", gone)
    health.add("change", change)
    report = await health.report()
    assert [(each.name, each.status) for each in report.checks] == [
        ("change", "passing"),
        ("late", "unknown"),
    ]
    assert late.started == 0
    health.remove("change")
    report = await health.report()
    assert [each.name for each in report.checks] == ["late"]
    assert gone.started == late.started == 1


def test_decorator_returns_the_function() -> None:
    """A decorated function is the function, and gives the check its name."""
    health = HealthRegistry(name="shop")
    probe = Probe()

    @health.check(kind="live", timeout=1, ttl=0, critical=False, failure_threshold=1)
    async def database() -> None:
        await probe()

    assert database.__name__ == "database"
    assert health.name == "shop"
    assert repr(health) == "<HealthRegistry 'shop': 1 checks>"
    with pytest.raises(TypeError, match=r"^name=None is not a str\. Write @health\.check\(\) or"):
        health.check()(Probe())


REFUSALS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "twin": ({"name": "db"}, ValueError, r"<HealthRegistry: 1 checks> has a check 'db' already"),
    "name": ({"name": 3}, TypeError, "name=3 is not a str"),
    "check": ({"check": 3}, TypeError, "check=3 is an int, which is not callable"),
    "arguments": (
        {"check": lambda request: request},
        TypeError,
        r"check=<function .* a required argument: 'request'\. Pass a function of no arguments\.$",
    ),
    "kind": (
        {"kind": "alive"},
        ValueError,
        r"kind='alive' is unknown\. Pass one of 'live', 'ready",
    ),
    "no timeout": ({"timeout": 0}, ValueError, "timeout=0 is not above 0"),
    "None": ({"timeout": None}, TypeError, "timeout=None is a NoneType, not a number"),
    "NaN": ({"timeout": math.nan}, ValueError, "timeout=nan is not a number"),
    "ttl": ({"ttl": -1}, ValueError, "ttl=-1 is less than 0"),
    "ttl NaN": ({"ttl": math.nan}, ValueError, "ttl=nan is not a number"),
    "failure_threshold": (
        {"failure_threshold": 0},
        ValueError,
        "failure_threshold=0 is less than 1",
    ),
    "fraction": (
        {"failure_threshold": 1.5},
        TypeError,
        "failure_threshold=1.5 is a float, not an int",
    ),
}


@pytest.mark.parametrize("refused", REFUSALS)
def test_refusals(refused: str) -> None:
    """Each bad argument is refused by name, with the way out, and nothing is added."""
    options, error, message = REFUSALS[refused]
    health = HealthRegistry()
    health.add("db", Probe())
    with pytest.raises(error, match=rf"^{message}"):
        health.add(**(dict[str, Any](name="cache", check=Probe()) | options))
    assert health.statistics().checks == 1


async def test_other_refusals() -> None:
    """So are an unknown kind of report, an unknown check, and a decorator without parentheses."""
    health = registry(Probe())
    with pytest.raises(ValueError, match=r"^kind='alive' is unknown\."):
        await health.report("alive")  # type: ignore[arg-type] # the refusal is the subject
    with pytest.raises(
        ValueError, match=r"^<HealthRegistry: 1 checks> has no check 'db'\. It has: it"
    ):
        health.remove("db")
    with pytest.raises(ValueError, match=r"^<HealthRegistry: 0 checks> has .* It has: none\.$"):
        HealthRegistry().remove("db")
    with pytest.raises(TypeError, match=r"with parentheses: @health\.check\(\), or @app"):
        health.check(Probe())  # type: ignore[arg-type] # the refusal is the subject
    with pytest.raises(TypeError, match=r"^ready='no' is a str, not a bool\."):
        health.set_ready("no")  # type: ignore[arg-type] # the refusal is the subject
    assert not health.draining


def test_statistics_declare_themselves() -> None:
    """Each number says whether it is a counter or a gauge."""
    assert {each.metadata["kind"] for each in fields(HealthStatistics)} == {"counter", "gauge"}
