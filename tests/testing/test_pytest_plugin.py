"""The pytest plugin, in test sessions of its own."""

from __future__ import annotations

import sys
import textwrap
from importlib.util import find_spec

import pytest

pytest_plugins = ["pytester"]

BACKENDS = [name for name in ("asyncio", "trio") if find_spec(name)]

CONFTEST = f"""
import pytest
from mtaio.testing import virtual_backend

pytestmark = pytest.mark.anyio

@pytest.fixture(params={BACKENDS!r})
def anyio_backend(request):
    return virtual_backend(request.param)
"""


@pytest.fixture
def session(pytester: pytest.Pytester) -> pytest.Pytester:
    """Return a directory whose tests run under virtual time, with every warning an error."""
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nfilterwarnings = error\nanyio_mode = auto\n")
    return pytester


def check(session: pytest.Pytester, source: str, *args: str, **outcomes: int) -> pytest.RunResult:
    """Run a test module, and compare how many of its tests had which outcome on one backend."""
    session.makepyfile(textwrap.dedent(source))
    result = session.runpytest_inprocess(*args)
    result.assert_outcomes(**{name: n * len(BACKENDS) for name, n in outcomes.items()})
    return result


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill() ends a process on Windows")
def test_application_that_a_test_stops_by_a_signal(session: pytest.Pytester) -> None:
    """It does not end the tests when its time is over: nothing of it is left after its test."""
    session.makepyfile(
        """
        import os, signal, threading
        from mtaio.app import Application
        from mtaio.config import Settings

        def guarded():
            return "mtaio.app guard" in {thread.name for thread in threading.enumerate()}

        def test_first():
            app = Application(Settings(shutdown_timeout=1000), probes=False)

            @app.service
            async def service():
                os.kill(os.getpid(), signal.SIGTERM)

            app.run()
            assert guarded()

        def test_second():
            assert not guarded()
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        """
    )
    session.runpytest_inprocess().assert_outcomes(passed=2)


def test_tests_in_sequence(session: pytest.Pytester) -> None:
    """Test after test starts at 0, whatever the outcome; in between time is real."""
    result = check(
        session,
        """
        import time, anyio, pytest
        from mtaio._internal.clock import now
        log = []

        @pytest.fixture
        async def resource():
            await anyio.sleep(1)
            yield
            await anyio.sleep(1)
            log.append("fixture")

        async def test_first(sim):
            await anyio.sleep(10)
            assert sim.time() == now() == 10

        async def test_that_fails(sim):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 60)
                with sim.hold():
                    raise LookupError

        async def test_stuck(resource):
            try:
                await anyio.Event().wait()
            finally:
                log.append("test")

        async def test_skip():
            await anyio.sleep(1)
            pytest.skip("enough")

        async def test_fail():
            pytest.fail("on purpose")

        @pytest.mark.xfail(strict=True)
        async def test_xfail():
            await anyio.Event().wait()

        class TestMethods:
            async def test_last(self, sim):
                assert log[-2:] == ["test", "fixture"]
                assert sim.time() == now() == 0
                await sim.advance(1)
                assert sim.time() == now() == 1

        def test_in_real_time(sim):
            assert sim.time() == 0
            assert abs(now() - time.monotonic()) < 60
        """,
        passed=3,
        failed=3,
        skipped=1,
        xfailed=1,
    )
    result.stdout.fnmatch_lines(
        ["*Deadlock: the run is blocked at t=1.0 for ever*", "*in test_stuck: await anyio.Event*"]
    )


def test_fixtures_with_open_blocks(session: pytest.Pytester) -> None:
    """Task groups and scopes of a fixture are open in the test, one inside the other."""
    check(
        session,
        """
        import anyio
        import pytest
        from mtaio.app import Application
        from mtaio.config import Settings
        from mtaio.core import TaskExecutor

        @pytest.fixture
        async def executor():
            async with TaskExecutor() as executor:
                yield executor

        @pytest.fixture
        async def app(executor):
            async with Application(Settings(), probes=False, signals=False) as app:
                yield app

        async def test_both(app, executor):
            assert await executor.gather(anyio.sleep(1)) == (None,)
            assert app.state == "running"

        async def test_end(app):
            app.stop_nowait()
            await app.wait_closed()
            await anyio.sleep(1)
            assert app.state == "stopped"

        async def test_body_that_drains(app):
            app.stop_nowait()
            await app.wait_draining()
            await anyio.sleep(1)
            assert app.state == "draining"
        """,
        passed=3,
    )


def test_fixtures_of_all_kinds(session: pytest.Pytester) -> None:
    """Fixtures may be functions, generators or methods, get stuck, and share a lasting loop."""
    session.makeconftest(CONFTEST.replace("(params", "(scope='module', params"))
    check(
        session,
        """
        import anyio, pytest
        from mtaio._internal.clock import now

        @pytest.fixture(scope="module")
        async def lasting(anyio_backend):
            log = []
            await anyio.sleep(5)
            yield log
            await anyio.sleep(5)
            assert log == ["class", "class", "stuck", "stuck in the end"]

        @pytest.fixture
        async def number():
            await anyio.sleep(1)
            return 5

        @pytest.fixture
        async def stuck(lasting):
            lasting.append("stuck")
            await anyio.Event().wait()

        @pytest.fixture
        async def stuck_in_the_end(lasting):
            yield
            lasting.append("stuck in the end")
            await anyio.Event().wait()

        @pytest.fixture
        async def endless():
            try:
                while True:
                    yield
            finally:
                await anyio.sleep(1)

        class TestMethods:
            @pytest.fixture
            async def own(self):
                self.here = "here"
                yield self
                assert self.there == "there"

            @pytest.fixture
            async def plain(self):
                return self

            async def test_own(self, own, plain, number, lasting, sim):
                assert self is own is plain
                assert (self.here, number) == ("here", 5)
                assert sim.time() == now() == 6
                await sim.advance(1)
                self.there = "there"
                lasting.append("class")

            async def test_again(self, own, lasting, sim):
                assert sim.time() == now() == 7
                self.there = "there"
                lasting.append("class")

        async def test_stuck(stuck):
            pass

        async def test_stuck_in_the_end(stuck_in_the_end):
            pass

        async def test_endless(endless):
            pass

        def test_fixture_of_a_test_that_is_not_async(anyio_backend, number):
            assert number == 5
        """,
        passed=5,
        errors=3,
    ).stdout.fnmatch_lines_random(
        [
            "*in stuck: await anyio.Event().wait()",
            "*in stuck_in_the_end: await anyio.Event().wait()",
        ]
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the simulated network needs Linux")
def test_network_of_fixtures(session: pytest.Pytester) -> None:
    """A fixture may start a program before the network is open; the mark takes keywords alone."""
    result = check(
        session,
        """
        import anyio, pytest

        async def serve():
            async with await anyio.create_tcp_listener(local_port=80) as listener:
                await listener.serve(lambda stream: stream.send(b"here"))

        @pytest.fixture
        def stock(net):
            net.host("stock").start(serve)
            return net.host("stock")

        @pytest.mark.network(latency=0.5)
        async def test_stock(stock):
            async with await anyio.connect_tcp(stock.name, 80) as stream:
                assert await stream.receive() == b"here"
            assert anyio.current_time() == 2

        @pytest.mark.network(0.5)
        async def test_latency(net):
            pass
        """,
        passed=1,
        errors=1,
    )
    result.stdout.fnmatch_lines(["*TypeError: the mark 'network' takes keywords alone*"])


def test_hung_thread_that_ends_after_all(session: pytest.Pytester) -> None:
    """A thread that was given up as hung wakes nobody, even if the loop goes on after the test."""
    session.makeconftest(CONFTEST.replace("(request.param)", "(request.param, grace=0.2)"))
    check(
        session,
        """
        import threading, anyio, pytest

        @pytest.fixture
        async def resource():
            yield
            for _ in range(20):
                await anyio.to_thread.run_sync(int)
                await anyio.sleep(1)

        async def test_hung(resource):
            gate = threading.Event()
            try:
                await anyio.to_thread.run_sync(gate.wait)
            finally:
                gate.set()
        """,
        failed=1,
    )


def test_hypothesis_on_async_tests(session: pytest.Pytester) -> None:
    """Each example of a property test has a clock of its own, and may deadlock."""
    session.makeconftest(CONFTEST.replace("(params", "(scope='module', params"))
    result = check(
        session,
        """
        import anyio
        import pytest
        from hypothesis import given, settings, strategies as st

        # Of trio's generator, on Python 3.15.
        pytestmark = pytest.mark.filterwarnings("ignore:It looks like .register_random. was passed")

        @settings(max_examples=10, database=None)
        @given(st.integers(1, 9))
        async def test_time(n):
            assert anyio.current_time() == 0
            await anyio.sleep(n)
            assert anyio.current_time() == n

        @settings(max_examples=10, database=None)
        @given(st.integers(1, 9))
        async def test_stuck(n):
            await anyio.Event().wait()

        @settings(max_examples=10, database=None)
        @given(st.integers(1, 9))
        def test_plain(anyio_backend, n):
            assert n
        """,
        passed=2,
        failed=1,
    )
    result.stdout.fnmatch_lines(["*Deadlock: the run is blocked at t=0.0 for ever*"])


def test_in_real_time(pytester: pytest.Pytester) -> None:
    """On a backend in real time `sim` says what it needs; other tests and fixtures work as ever."""
    pytester.makeini("[pytest]\nfilterwarnings = error\nanyio_mode = auto\n")
    result = check(
        pytester,
        """
        import anyio, pytest, time
        from mtaio._internal.clock import now

        @pytest.fixture
        async def number():
            await anyio.sleep(0.001)
            yield 5
            await anyio.sleep(0.001)

        async def test_sim(sim):
            pass

        async def test_real(number):
            assert number == 5
            assert abs(now() - time.monotonic()) < 60
        """,
        passed=1,
        errors=1,
    )
    result.stdout.fnmatch_lines(
        ["the fixture 'sim' needs virtual time, but anyio_backend is 'asyncio'. Define a fixture*"]
    )


def test_without_this_plugin(session: pytest.Pytester) -> None:
    """With ``-p no:mtaio`` virtual time works, and a stuck test fails all the same."""
    check(
        session,
        """
        import anyio

        async def test_time():
            await anyio.sleep(1e6)
            assert anyio.current_time() == 1e6

        async def test_stuck():
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)

        async def test_after():
            await anyio.sleep(1)
        """,
        "-p",
        "no:mtaio",
        passed=2,
        failed=1,
    )


def test_without_the_plugin_of_anyio(pytester: pytest.Pytester) -> None:
    """With ``-p no:anyio`` plain tests work; loading the plugin imports nothing of the library."""
    pytester.makeconftest("""
        import sys

        def pytest_configure():
            loaded = [name for name in sys.modules if name.startswith("mtaio.testing.")]
            assert loaded == ["mtaio.testing.pytest_plugin"], loaded
    """)
    pytester.makepyfile("""
        import anyio
        from mtaio.testing import run

        def test_run():
            assert run(anyio.sleep, 1000) is None

        def test_sim(sim):
            pass
    """)
    result = pytester.runpytest_subprocess("-p", "no:anyio")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*fixture 'anyio_backend' not found"])


def test_without_trio(session: pytest.Pytester) -> None:
    """Where trio is not installed, everything works on asyncio alone."""
    session.makeconftest(
        "import sys\nsys.modules['trio'] = None\n" + CONFTEST.replace(repr(BACKENDS), "['asyncio']")
    )
    session.makepyfile("""
        import sys, anyio, pytest

        async def test_time(sim):
            await sim.advance(3)
            assert sim.time() == anyio.current_time() == 3
            assert sys.modules["trio"] is None

        async def test_thread():
            await anyio.to_thread.run_sync(int)

        async def test_stuck():
            await anyio.sleep_forever()
    """)
    session.runpytest_subprocess().assert_outcomes(passed=2, failed=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_warning_where_another_plugin_runs_the_test(
    pytester: pytest.Pytester, backend: str
) -> None:
    """A mode that gives every async test to another plugin ends virtual time, not in silence."""
    pytester.makeini(
        f"[pytest]\nfilterwarnings = default\nmarkers = {backend}: of the plugin in conftest.py\n"
    )
    pytester.makeconftest(f"""
        import functools, inspect, anyio, pytest

        def pytest_collection_modifyitems(items):
            for item in items:
                if inspect.iscoroutinefunction(item.obj):
                    item.add_marker({backend!r})

        def pytest_runtest_setup(item):
            test = item.obj
            if item.get_closest_marker({backend!r}):
                @functools.wraps(test)
                def in_a_loop_of_its_own(**fixtures):
                    anyio.run(functools.partial(test, **fixtures), backend={backend!r})

                item.obj = in_a_loop_of_its_own
    """)
    pytester.makepyfile(f"""
        import time, anyio, pytest
        from mtaio.testing import run, virtual_backend

        pytestmark = pytest.mark.anyio

        class TestVirtual:
            @pytest.fixture
            def anyio_backend(self):
                return virtual_backend({backend!r})

            async def test_that_asks_for_virtual_time(self):
                started = time.monotonic()
                await anyio.sleep(0.05)
                assert time.monotonic() - started > 0.04

            def test_plain(self):
                run(anyio.sleep, 1000, backend={backend!r})

        class TestReal:
            @pytest.fixture
            def anyio_backend(self):
                return {backend!r}

            async def test_in_real_time(self):
                pass
    """)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=3, warnings=1)
    result.stdout.fnmatch_lines(
        [f"*PytestWarning: this test asks for virtual time, but it is marked '{backend}' as well*"]
    )
