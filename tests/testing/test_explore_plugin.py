"""Explored tests under pytest: options, replay, fixtures, parameters, several workers, output."""

from __future__ import annotations

import re
import shlex
import textwrap

import pytest

from tests.backends import BACKENDS

pytest_plugins = ["pytester"]

FAILING = """
import anyio
import pytest
from mtaio.testing import explore

async def lost_update(slots):
    total = 0

    async def add():
        nonlocal total
        before = total
        await anyio.lowlevel.cancel_shielded_checkpoint()
        total = before + 1

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(add)
            for _ in range(slots):
                await anyio.lowlevel.cancel_shielded_checkpoint()
    assert total == 2
"""


@pytest.fixture
def session(pytester: pytest.Pytester) -> pytest.Pytester:
    """Return a directory in which every warning is an error."""
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return pytester


def check(session: pytest.Pytester, source: str, *args: str, **outcomes: int) -> pytest.RunResult:
    """Run a test module, and compare how many of its tests had which outcome."""
    session.makepyfile(textwrap.dedent(source))
    result = session.runpytest_inprocess("-p", "no:cacheprovider", *args)
    result.assert_outcomes(**outcomes)
    return result


def replays(result: pytest.RunResult) -> list[list[str]]:
    """Return the arguments of each line for replay that a session has printed."""
    lines = re.findall(r"^E? +to see it again: pytest (.*)$", result.stdout.str(), re.MULTILINE)
    return [shlex.split(line) for line in lines]


def test_explored_test_is_one_test(session: pytest.Pytester) -> None:
    """One item loops inside, next to anyio's; fixtures, parameters and marks work as ever."""
    session.makeini("[pytest]\nfilterwarnings = error\nanyio_mode = auto\n")
    check(
        session,
        f"""
        import anyio, pytest
        from mtaio.testing import Simulation, Victim, explore, virtual_backend

        runs = []

        @pytest.fixture(params={BACKENDS!r})
        def anyio_backend(request):
            return virtual_backend(request.param)

        @pytest.fixture
        def number():
            return 5

        @pytest.fixture
        async def six():
            await anyio.sleep(1)
            return 6

        async def test_async(six, sim):
            await sim.advance(1)
            assert six == 6

        @explore(seeds=3, exhaustive=1)
        async def test_plain():
            runs.append("plain")
            await anyio.sleep(1)

        @pytest.mark.parametrize("n", [1, 2])
        @explore(seeds=3, exhaustive=1)
        async def test_outside(n, number, victim: Victim, sim: Simulation, tmp_path):
            assert (number, sim.time()) == (5, 0)
            await victim(anyio.sleep, n)
            assert tmp_path.is_dir()

        @explore(seeds=3, exhaustive=1)
        @pytest.mark.parametrize("n", [1, 2])
        async def test_inside(n, number):
            await anyio.sleep(n)

        class TestMethods:
            @explore(seeds=3, exhaustive=1)
            async def test_method(self, number, victim):
                assert isinstance(self, TestMethods)
                await victim(anyio.sleep, number)

        @explore(seeds=1)
        async def test_skip():
            pytest.skip("enough")

        @pytest.mark.xfail(strict=True, raises=LookupError)
        @explore(seeds=1)
        async def test_xfail():
            raise LookupError

        def test_runs():
            assert len(runs) > 4
        """,
        passed=7 + len(BACKENDS),
        skipped=1,
        xfailed=1,
    )


def test_line_for_replay_replays(session: pytest.Pytester) -> None:
    """What a failure prints, pasted after ``pytest``, runs that test once and fails alike."""
    source = (
        FAILING
        + f"""
runs = []

@pytest.mark.parametrize("backend", {BACKENDS!r})
@pytest.mark.parametrize("slots", [2, 3])
def test_search(backend, slots):
    explore(backends=[backend], seeds=50)(lost_update)(slots)

@pytest.mark.parametrize("slots", [2, 3], ids=["a b", "it's"])
@explore(seeds=50)
async def test_lost(slots):
    runs.append(slots)
    await lost_update(slots)

def test_runs():
    assert len(runs) == 1
"""
    )
    result = check(session, source, "-k", "test_lost", failed=2, deselected=1 + 2 * len(BACKENDS))
    found = replays(result)
    assert [args[0] for args in found] == ["--mtaio-replay"] * 2
    assert [args[2].partition("::")[2] for args in found] == ["test_lost[a b]", "test_lost[it's]"]
    for _, plan, where in found:
        again = session.runpytest_inprocess(
            "-p",
            "no:cacheprovider",
            "--mtaio-replay",
            plan,
            where,
            f"{where.partition('::')[0]}::test_runs",
        )
        again.assert_outcomes(failed=1, passed=1)
        assert replays(again) == [["--mtaio-replay", plan, where]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_replay_on_each_backend(session: pytest.Pytester, backend: str) -> None:
    """A failure on one backend alone is found there, and replayed there."""
    source = (
        FAILING
        + f"""
@explore(seeds=20)
async def test_one_backend(sim):
    module = type(anyio.lowlevel.current_token().native_token).__module__.split(".")[0]
    if module == {"mtaio" if backend == "asyncio" else "trio"!r}:
        await lost_update(2)
"""
    )
    result = check(session, source, failed=1)
    ((_, plan, where),) = replays(result)
    assert plan.startswith(f"{backend}/tape=")
    again = session.runpytest_inprocess("-p", "no:cacheprovider", "--mtaio-replay", plan, where)
    again.assert_outcomes(failed=1)
    for other in set(BACKENDS) - {backend}:
        plan = plan.replace(backend, other).partition("/tape")[0]
        passes = session.runpytest_inprocess("-p", "no:cacheprovider", "--mtaio-replay", plan)
        passes.assert_outcomes(passed=1)


def test_replay_that_does_not_fit(session: pytest.Pytester) -> None:
    """A plan of another program fails the test in words, and does not pass for a success."""
    result = check(
        session,
        """
        import anyio
        from mtaio.testing import explore

        @explore()
        async def test_one():
            await anyio.sleep(1)
        """,
        "--mtaio-replay=asyncio/tape=77:1",
        failed=1,
    )
    result.stdout.fnmatch_lines(
        ["E *ValueError: Schedule(tape={77: 1}) does not fit this run: there were only 0 choices*"]
    )


@pytest.mark.parametrize(
    ("args", "outcomes", "seen"),
    [
        ([], {"passed": 2}, "*RUNS 6*"),
        (["--mtaio-seeds=3"], {"passed": 2}, "*RUNS 4*"),
        (["--mtaio-seeds", "0"], {"passed": 2}, "*RUNS 1*"),
        (
            ["--mtaio-delays=2"],
            {"passed": 1, "failed": 1},
            "*ExplorationWarning: test_one is*",
        ),
        (["--mtaio-delays=1", "--mtaio-max-runs=0"], {"passed": 2}, "*RUNS [1-9][0-9]*"),
    ],
    ids=str,
)
def test_options_rule(
    session: pytest.Pytester, args: list[str], outcomes: dict[str, int], seen: str
) -> None:
    """The options for the numbers of runs rule over what the tests say."""
    source = """
        import anyio
        from mtaio.testing import explore

        runs = []

        @explore(seeds=5, exhaustive=None, max_runs=5, backends=["asyncio"])
        async def test_one():
            runs.append(1)
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(anyio.sleep, 1)

        def test_runs():
            print("RUNS", len(runs))
        """
    check(session, source, "-s", *args, **outcomes).stdout.fnmatch_lines([seen])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--mtaio-seeds=-1", "ERROR: --mtaio-seeds=-1 is less than 0. Pass a whole number >= 0."),
        ("--mtaio-delays=-2", "ERROR: --mtaio-delays=-2 is less than 0. Pass a whole number >= 0."),
        ("--mtaio-max-runs=-1", "ERROR: --mtaio-max-runs=-1 is less than 0. Pass a whole number*"),
        (
            "--mtaio-replay=asyncio/seed=x",
            "ERROR: --mtaio-replay: 'asyncio/seed=x' cannot be replayed: 'seed=x' is not part of *",
        ),
    ],
)
def test_options_that_are_refused(session: pytest.Pytester, option: str, message: str) -> None:
    """An option that no test could follow is a usage error, before any test runs."""
    session.makepyfile("def test_nothing(): pass")
    result = session.runpytest_inprocess(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def test_replay_on_a_backend_that_is_not_installed(
    session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan for a backend that is not here says how to install it."""
    session.makepyfile("def test_nothing(): pass")
    monkeypatch.setattr("mtaio.testing.pytest_plugin.find_spec", lambda _: None)
    result = session.runpytest_inprocess("--mtaio-replay=trio/seed=1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --mtaio-replay=trio/seed=1 needs trio. Install it with: pip install 'mtaio?trio?'"]
    )


def test_hypothesis_on_top(session: pytest.Pytester) -> None:
    """A property test of an explored test searches for each example, and follows the options."""
    check(
        session,
        """
        import anyio
        from hypothesis import HealthCheck, given, settings, strategies as st
        from mtaio.testing import explore

        runs = []

        # Of examples drawn the same way each time, however slow the machine is.
        CALM = list(HealthCheck)
        @settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=CALM)
        @given(n=st.integers(1, 5))
        @explore(seeds=200, exhaustive=None, backends=["asyncio"])
        async def test_property(n):
            runs.append(n)
            await anyio.sleep(n)

        def test_runs():
            assert len(runs) == 3 * 3
        """,
        "--mtaio-seeds=2",
        passed=2,
    )


def test_in_a_worker_process(session: pytest.Pytester) -> None:
    """With pytest-xdist the options reach the workers, and a failure its line for replay."""
    pytest.importorskip("xdist")
    session.makepyfile(
        FAILING
        + """
@explore(seeds=50)
async def test_lost():
    await lost_update(2)
"""
    )
    plan = ("--mtaio-replay", "asyncio/seed=1")
    result = session.runpytest_subprocess("-p", "no:cacheprovider", "-n1", *plan)
    result.assert_outcomes(failed=1)
    assert replays(result) == [[*plan, "test_in_a_worker_process.py::test_lost"]]


def test_output_of_a_failure(session: pytest.Pytester) -> None:
    """A failure shows the test's own lines and which task ran when, and no machinery."""
    result = check(
        session,
        FAILING
        + """
@explore(seeds=50)
async def test_lost():
    await lost_update(2)

@explore(seeds=50)
async def test_stuck(victim):
    event = anyio.Event()

    async def ring():
        await anyio.sleep(1)
        event.set()

    async with anyio.create_task_group() as group:
        group.start_soon(victim, ring)
        await event.wait()
""",
        failed=2,
    )
    text = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "*assert total == 2",
            "E *assert 1 == 2",
            "E *under Schedule(tape={*}):",
            "E * test_lost#1 *waits at  *(lost_update, line *)",
            "E * add#2 *waits at  await anyio.lowlevel.cancel_shielded_checkpoint()  (lost_upd*",
            "E * test_lost#1  ended",
            "E *it passes under Schedule(tape={*}); step * is the first that differs:",
            "E *  here   t=0 *add#*",
            "E *  there  t=0 *add#*",
            "E *to see it again: pytest --mtaio-replay asyncio/tape=* *::test_lost",
        ]
    )
    result.stdout.fnmatch_lines(
        [
            "E *Deadlock: the run is blocked at t=0.0 for ever: no timer is set *",
            "* task *test_stuck' is at",
            "* in test_stuck: await event.wait()",
            "* under Schedule(tape={}):",
            "* t=0 *------- ring#2 is cancelled (checkpoint@1) -------",
            "* t=0 *ring#2 *waits at  await anyio.sleep(1)  (*",
            "* t=0 *------- Deadlock: the run is aborted -------",
            "* it passes if the victim is not cancelled; step * is the first that differs:",
            "* here   t=0 *ring#2 *ended",
            "* there  t=1 *ring#2 *ended",
            "* to see it again: pytest --mtaio-replay asyncio/tape=/checkpoint@1 *::test_stuck",
        ]
    )
    for machinery in ("_search", "_world", "_simulation", "base_events", "pytest_plugin"):
        assert f"{machinery}.py" not in text
