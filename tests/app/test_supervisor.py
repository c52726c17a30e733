"""What the supervisor decides, with processes that are none, in virtual time."""

from __future__ import annotations

import json
import logging
import math
import signal
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.app import _supervisor
from mtaio.app._supervisor import SIGHUP, SIGKILL, SIGUSR1, Supervisor
from mtaio.app._systemd import Notifier

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Mapping, Sequence

T = TypeVar("T")

WATCHED = {"WATCHDOG_USEC": "20000000"}

HELLO: dict[str, Any] = {
    "listen": [],
    "health": None,
    "drain_delay": 0.0,
    "total": 25.0,
    "beats": False,
}


class Line(Generic[T]):
    """What one says and another waits for."""

    def __init__(self) -> None:
        self._said: list[T] = []
        self._more = anyio.Event()

    def put(self, said: T) -> None:
        """Say something."""
        self._said.append(said)
        self._more.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._said:
            self._more = anyio.Event()
            await self._more.wait()
        return self._said.pop(0)


class Fake:
    """A worker's process, which the test has say and do what it wants."""

    def __init__(self, number: int, moment: float) -> None:
        self.number = number
        self.moment = moment
        self.pid = 100 + number
        self.sent: list[tuple[float, str | int]] = []
        self.obeys = True
        self._line: Line[list[str]] = Line()
        self._ended = anyio.Event()
        self._code = 0

    def say(self, *lines: str) -> None:
        """Say something to the supervisor."""
        self._line.put([*lines])

    def start(self, **hello: object) -> None:
        """Say what a worker does that starts as it should."""
        self.say(json.dumps(HELLO | hello), f"PROBES=127.0.0.1:{self.pid}", "READY=1")

    def end(self, code: int) -> None:
        """End with a code."""
        self._code = code
        self._ended.set()

    async def receive(self) -> list[str]:
        """Return what it says next."""
        return await anext(self._line)

    def send(self, line: str, sockets: Sequence[socket.socket] = ()) -> None:
        """Take note of what it is told, and obey."""
        assert not sockets
        self.sent.append((anyio.current_time(), line))
        if line == "stop" and self.obeys:
            self.end(0)

    def kill(self, number: int) -> None:
        """Take note of a signal, and obey."""
        self.sent.append((anyio.current_time(), number))
        if self.obeys or number == SIGKILL:
            self.end(-number)

    async def wait(self) -> int:
        """Wait for its end."""
        await self._ended.wait()
        return self._code


class House:
    """The supervisor's surroundings: what it launches, where it listens, whom it tells."""

    def __init__(
        self, environ: Mapping[str, str] = WATCHED, start_timeout: float = math.inf
    ) -> None:
        self.launched: list[Fake] = []
        self.says: list[bytes] = []
        self.refused_at: list[float] = []
        self.cannot_launch = self.cannot_listen = False
        self.code: int | None = None
        self._signals: Line[int] = Line()
        notifier = Notifier(environ, self.says.append)
        self.supervisor = Supervisor(self.launch, 3, self, notifier, start_timeout)

    async def launch(self, number: int) -> Fake:
        """Start a process."""
        if self.cannot_launch:
            raise OSError("no more processes")
        self.launched.append(Fake(number, anyio.current_time()))
        return self.launched[-1]

    async def open(self, hello: Mapping[str, Any]) -> list[socket.socket]:
        """Return no sockets, or refuse to."""
        assert {"listen", "health"} <= hello.keys()
        if self.cannot_listen:
            raise OSError(98, "cannot listen at 127.0.0.1:80: it is taken")
        return []

    def refuse(self) -> None:
        """Take note of when nobody may connect any more."""
        self.refused_at.append(anyio.current_time())

    async def main(self) -> None:
        """Run the supervisor."""
        self.code = await self.supervisor.run(self._signals)

    def send(self, number: int) -> None:
        """Send a signal."""
        self._signals.put(number)

    async def settle(self) -> None:
        """Let everything happen that is due."""
        for _ in range(30):
            await checkpoint()

    def current(self) -> list[Fake]:
        """Return the latest process of each number."""
        return [*{each.number: each for each in self.launched}.values()]

    def statistics(self) -> tuple[int, int, int]:
        """Return how many are ready, were started, and have died."""
        found = self.supervisor.statistics()
        return found.ready, found.started, found.died


@asynccontextmanager
async def running(
    *, ready: bool = True, start_timeout: float = math.inf, **hello: object
) -> AsyncIterator[House]:
    """Run a supervisor of three workers until the block ends, and then for as long as it takes."""
    house = House(start_timeout=start_timeout)
    async with anyio.create_task_group() as group:
        group.start_soon(house.main)
        await house.settle()
        if ready:
            house.launched[0].start(**hello)
            await house.settle()
            for each in house.launched[1:]:
                each.start(**hello)
            await house.settle()
        yield house
        house.send(signal.SIGTERM)


def times(house: House, number: int) -> list[float]:
    """Return when a worker was launched."""
    return [each.moment for each in house.launched if each.number == number]


async def test_first_worker_starts_alone() -> None:
    """The others start when the first is ready, and systemd is told when all are."""
    async with running(ready=False) as house:
        assert [each.number for each in house.launched] == [1]
        house.launched[0].start()
        await house.settle()
        assert [each.number for each in house.launched] == [1, 2, 3]
        house.launched[2].start()
        await house.settle()
        assert house.supervisor.probes() == {"1": "127.0.0.1:101", "3": "127.0.0.1:103"}
        assert b"READY=1" not in house.says
        house.launched[1].start()
        await house.settle()
        assert house.says[-2:] == [b"STATUS=3 of 3 workers are ready", b"READY=1"]
        assert house.launched[0].sent == [(0, "{}")]
        assert house.statistics() == (3, 3, 0)
        house.launched[0].end(0)
        await anyio.sleep(1)
        house.current()[0].start()
        await house.settle()
        assert house.says.count(b"READY=1") == 1
    assert house.code == 0
    assert house.supervisor.probes() == {}


@pytest.mark.parametrize(("code", "reported"), [(1, 1), (3, 3), (-9, 137), (0, 3)])
async def test_start_that_fails_is_the_end(code: int, reported: int) -> None:
    """Where the first worker cannot start, nothing is tried again, and its exit code counts."""
    async with running(ready=False) as house:
        house.launched[0].end(code)
        await house.settle()
        assert house.code == reported
    assert len(house.launched) == 1


async def test_no_process_for_the_first() -> None:
    """Where not even a process can be started, the exit code is 3."""
    house = House({})
    house.cannot_launch = True
    await house.main()
    assert house.code == 3


async def test_address_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    """A worker hears why nobody can listen where it wants to; it is the one that says so."""
    async with running(ready=False) as house:
        house.cannot_listen = True
        house.launched[0].say(json.dumps(HELLO))
        await house.settle()
        (_, reply), *_ = house.launched[0].sent
        assert json.loads(str(reply))["error"].startswith("cannot listen at 127.0.0.1:80")
        house.launched[0].end(3)
        await house.settle()
    assert house.code == 3
    assert "cannot listen" not in caplog.text


async def test_back_off() -> None:
    """A worker that dies soon is followed later each time, and at once if it has lived on."""
    async with running() as house:
        for _ in range(8):
            house.current()[1].end(1)
            await anyio.sleep(30)
            house.current()[1].start()
            await house.settle()
        assert times(house, 1) == [0]
        found = times(house, 2)
    # Each was ready 30 s after the one before it had died, and then died: that is soon.
    deaths = [30.0 * number for number in range(8)]
    waits = [start - death for start, death in zip(found[1:], deaths, strict=False)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert house.statistics()[2] == 8


async def test_no_process_for_another(caplog: pytest.LogCaptureFixture) -> None:
    """Where the system has no process to give for a while, the worker starts later."""
    async with running() as house:
        house.current()[1].end(1)
        house.cannot_launch = True
        await anyio.sleep(1)
        house.cannot_launch = False
        await anyio.sleep(1)
        assert times(house, 2) == [0, 1.5]
    assert "worker 2 cannot be started: no more processes" in caplog.text


async def test_a_worker_that_has_lived_is_followed_at_once() -> None:
    """The count of failures begins anew after half a minute of life."""
    async with running() as house:
        await anyio.sleep(30)
        house.current()[2].end(9)
        await house.settle()
        assert times(house, 3) == [0, 30]
        house.current()[2].end(9)
        await anyio.sleep(0.6)
        assert times(house, 3) == [0, 30, 30.5]
    assert house.code == 0


async def test_gives_up_when_none_can_start() -> None:
    """While one worker is ready the others are tried for ever; when none is, five times."""
    async with running() as house:
        for _ in range(20):
            for each in house.current()[1:]:
                each.end(2)
            await anyio.sleep(40)
        assert house.code is None
        house.current()[1].start()
        house.current()[2].start()
        await house.settle()
        for each in house.current():
            each.end(1)
        await anyio.sleep(40)
        for number in (0, 1, 2, 0):
            assert b"STOPPING=1" not in house.says
            house.current()[number].end(2)
            await anyio.sleep(40)
        house.current()[2].obeys = False
        house.current()[1].end(2)
        await house.settle()
        assert b"STOPPING=1" in house.says
        house.send(signal.SIGTERM)
        await house.settle()
        house.current()[2].end(0)
        await house.settle()
        assert house.code == 2


async def test_stops_all_at_once() -> None:
    """All workers are told at the same moment, nobody may connect before that; the worst counts."""
    async with running() as house:
        for each in house.launched:
            each.obeys = False
        await anyio.sleep(5)
        house.send(signal.SIGINT)
        await house.settle()
        assert [each.sent[-1] for each in house.launched] == [(5, "stop")] * 3
        assert house.refused_at == [5]
        assert b"EXTEND_TIMEOUT_USEC=27000000" in house.says
        house.send(SIGHUP)
        house.send(signal.SIGTERM)  # within 0.3 s: the same wish
        house.launched[0].end(70)
        house.launched[1].end(0)
        await anyio.sleep(26.9)
        assert house.launched[2].sent[-1] == (5, "stop")
        await anyio.sleep(0.2)
        assert house.launched[2].sent[-1] == (32, SIGKILL)
        assert house.code == 70
    assert len(house.launched) == 3


async def test_queue_is_closed_after_the_delay() -> None:
    """Clients may connect for as long as the workers accept."""
    async with running(drain_delay=5.0) as house:
        for each in house.launched:
            each.obeys = False
        house.send(signal.SIGTERM)
        await anyio.sleep(10)
        assert house.refused_at == [5]
        for each in house.launched:
            each.end(0)


async def test_second_signal_ends_at_once() -> None:
    """The workers get it too; one that does not even end then is killed."""
    async with running() as house:
        house.launched[0].obeys = False
        for each in house.launched[1:]:
            each.obeys = False
        house.send(signal.SIGTERM)
        await anyio.sleep(1)
        house.launched[1].obeys = True
        house.launched[2].obeys = True
        house.send(signal.SIGINT)
        await anyio.sleep(1)
        assert [each.sent[-1] for each in house.launched] == [(1, signal.SIGINT)] * 3
        await anyio.sleep(2)
        assert house.launched[0].sent[-1] == (3, SIGKILL)
        assert house.code == 137


async def test_stop_while_workers_start() -> None:
    """Workers that have nothing to close yet end by the signal, and that is no failure."""
    async with running(ready=False) as house:
        house.launched[0].obeys = False
        house.send(signal.SIGTERM)
        await house.settle()
        assert house.launched[0].sent == [(0, "stop")]
        house.launched[0].end(-signal.SIGTERM)
    assert house.code == 0


async def test_stop_during_a_launch_and_a_wait() -> None:
    """A worker that is being launched is told to stop; one that would follow does not start."""
    launching, go_on = anyio.Event(), anyio.Event()

    async with running() as house:
        launch = house.launch

        async def slowly(number: int) -> Fake:
            launching.set()
            await go_on.wait()
            return await launch(number)

        house.supervisor._launch = slowly  # type: ignore[misc] # which it is before this runs
        await anyio.sleep(30)
        house.launched[0].end(1)
        await launching.wait()
        house.current()[1].end(1)
        await house.settle()
        house.send(signal.SIGTERM)
        await house.settle()
        go_on.set()
        await house.settle()
        assert house.code == 0


async def test_silent_worker_is_stopped() -> None:
    """A worker that has said that it will answer, and does not for 30 s, is followed by another."""
    async with running(beats=True) as house:
        for _ in range(4):
            await anyio.sleep(15)
            for each in house.current()[:2]:
                each.say("WATCHDOG=1")
        house.launched[0].obeys = False
        await anyio.sleep(15)
        house.launched[1].say("WATCHDOG=1")
        await anyio.sleep(20)
        assert house.launched[0].sent[-1] == (90, "stop")
        assert "1" not in house.supervisor.probes()
        house.launched[0].end(70)
        await house.settle()
        assert times(house, 1) == [0, 95]
        assert times(house, 2) == [0]
        assert times(house, 3) == [0, 30]
        assert house.supervisor.statistics().silent == 2
    assert b"WATCHDOG=1" in house.says


def test_all_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that was paused goes on with the workers that it has; in real time."""
    monkeypatch.setattr(_supervisor, "SILENT", 1.0)
    monkeypatch.setattr(_supervisor, "_MARGIN", 0.9)

    async def main() -> None:
        async with running(beats=True) as house:
            time.sleep(1.1)  # noqa: ASYNC251 - nobody runs meanwhile
            await house.settle()
            for each in house.current():
                each.say("WATCHDOG=1")
            await house.settle()
            assert house.statistics() == (3, 3, 0)

    anyio.run(main)


async def test_one_after_another() -> None:
    """At SIGHUP each worker is followed by one that is ready, before the next is stopped."""
    async with running() as house:
        house.send(SIGHUP)
        for number in (1, 2, 3):
            await anyio.sleep(1)
            assert [each.number for each in house.launched[3:]] == [1, 2, 3][:number]
            assert house.statistics()[0] == 2
            house.launched[-1].start()
            await house.settle()
        house.send(SIGHUP)
        await house.settle()
        house.send(SIGHUP)  # meanwhile: once more, afterwards
        for _ in range(6):
            await house.settle()
            house.launched[-1].start()
        await house.settle()
        assert len(house.launched) == 12
        assert house.statistics() == (3, 12, 0)


async def test_renewal_of_workers_that_were_never_there() -> None:
    """Those for which the system had no process yet are passed over: they start in time."""
    async with running(ready=False) as house:
        house.cannot_launch = True
        house.launched[0].start()
        await house.settle()
        house.cannot_launch = False
        house.send(SIGHUP)
        await house.settle()
        house.launched[-1].start()
        await house.settle()
        assert [each.number for each in house.launched] == [1, 1]
        await anyio.sleep(1)
        assert sorted(each.number for each in house.launched) == [1, 1, 2, 3]


async def test_stopped_within_a_renewal(caplog: pytest.LogCaptureFixture) -> None:
    """A worker that is stopped before it was ready is not one that cannot start."""
    async with running() as house:
        house.send(SIGHUP)
        await anyio.sleep(1)
        assert len(house.launched) == 4
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


async def test_renewal_ends_where_a_worker_cannot_start() -> None:
    """The others go on as they are, and the one that failed is tried again."""
    async with running() as house:
        house.send(SIGHUP)
        await house.settle()
        house.launched[-1].end(1)
        await anyio.sleep(0.4)
        assert house.statistics()[0] == 2
        assert times(house, 2) == times(house, 3) == [0]
        house.send(SIGHUP)  # 1 is tried at once with what is there now, and nobody else stopped
        await house.settle()
        assert times(house, 1) == [0, 0, 0.4]
        house.launched[-1].end(1)
        await anyio.sleep(0.9)
        assert house.statistics()[0] == 2
        assert times(house, 2) == times(house, 3) == [0]
        house.send(SIGHUP)
        for number in (1, 2, 3):
            await house.settle()
            assert house.launched[-1].number == number
            house.launched[-1].start()
        await anyio.sleep(1)
        assert sorted(each.number for each in house.launched) == [1, 1, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("obeys", [True, False])
async def test_start_that_hangs_in_a_renewal(
    caplog: pytest.LogCaptureFixture, *, obeys: bool
) -> None:
    """It is ended when its time is over; the others serve, and the next SIGHUP is heard."""
    async with running(start_timeout=120) as house:
        house.send(SIGHUP)
        await house.settle()
        hangs = house.launched[-1]
        hangs.obeys = obeys
        await anyio.sleep(119)
        assert hangs.sent == []
        await anyio.sleep(4)
        assert hangs.sent == [(120, signal.SIGTERM), *([] if obeys else [(122, SIGKILL)])]
        assert house.statistics() == (2, 5, 1)
        assert times(house, 2) == times(house, 3) == [0]
        for _ in range(3):
            house.send(SIGHUP)
            for _ in range(4):
                await house.settle()
                house.launched[-1].start()
        await house.settle()
        assert house.statistics()[0] == 3
        assert len(times(house, 3)) > 1
        await anyio.sleep(130)
        assert house.statistics()[2] == 1
    errors = [each.message for each in caplog.records if each.levelno >= logging.ERROR]
    assert errors == [
        "worker 1 (pid 101) is not ready after 120 s (MTAIO_START_TIMEOUT): ending it",
        *([] if obeys else ["worker 1 does not end: killing it"]),
        "worker 1 cannot start: the others stay as they are",
    ]


async def test_first_start_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """It is the end, as one that fails is."""
    caplog.set_level(logging.INFO)
    house = House(start_timeout=120)
    async with anyio.create_task_group() as group:
        group.start_soon(house.main)
        await anyio.sleep(121)
    assert house.code == 3
    assert len(house.launched) == 1
    assert "stopping: no worker can start" in caplog.text


async def test_worker_that_is_ready_as_its_time_is_over() -> None:
    """It is being ended, so the renewal does not go on to the next worker."""
    async with running(start_timeout=120) as house:
        house.send(SIGHUP)
        await house.settle()
        late = house.launched[-1]
        late.obeys = False
        await anyio.sleep(121)
        late.start()
        await house.settle()
        late.end(0)
        await house.settle()
        assert house.statistics() == (2, 4, 1)
        assert times(house, 2) == times(house, 3) == [0]


async def test_stop_during_a_renewal() -> None:
    """Nothing is started any more when all are to stop."""
    async with running() as house:
        house.launched[0].obeys = False
        house.send(SIGHUP)
        await anyio.sleep(1)
        house.send(signal.SIGTERM)
        await house.settle()
        house.launched[0].end(0)
    assert len(house.launched) == 3


async def test_stop_while_a_renewed_worker_starts(caplog: pytest.LogCaptureFixture) -> None:
    """A worker that is stopped before it is ready has not failed to start."""
    async with running() as house:
        house.send(SIGHUP)
        await anyio.sleep(1)
        house.send(signal.SIGTERM)
        await house.settle()
    assert len(house.launched) == 4
    assert "cannot start" not in caplog.text


async def test_worker_that_stops_by_itself() -> None:
    """It gets no more probes, and is followed when it has ended; one in time is no error."""
    async with running() as house:
        house.launched[1].say("STOPPING=1", "STATUS=stopping")
        await house.settle()
        assert set(house.supervisor.probes()) == {"1", "3"}
        house.launched[1].end(0)
        await anyio.sleep(0.6)
        assert times(house, 2) == [0, 0.5]


async def test_tasks_are_printed_by_those_that_can() -> None:
    """SIGUSR1 would end a process that has no handler for it."""
    async with running() as house:
        house.launched[1].say("SIGUSR1=1")
        await house.settle()
        house.launched[1].obeys = False
        house.send(SIGUSR1)
        await house.settle()
        assert [each.sent[-1][1] for each in house.launched] == ["{}", SIGUSR1, "{}"]
        house.launched[1].obeys = True
        house.send(signal.SIGTERM)
        await house.settle()
    assert house.code == 0


async def test_deaths_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The log says which worker has ended how, and when another starts."""
    caplog.set_level(logging.INFO, "mtaio.app")
    async with running() as house:
        house.launched[1].end(-9)
        await house.settle()
    assert "worker 2 (pid 102) has ended with exit code 137" in caplog.text
    assert "worker 2: starting it again in 0.5 s" in caplog.text
