"""The relay of the guide, a program of trio's, tested as such programs are: by a MockClock."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from mtaio import ConcurrencyLimiter, KeyedRateLimiter
from mtaio._internal import clock
from mtaio.testing import Network, Victim, explore, settle
from mtaio.testing import run as simulate
from tests.programs import ROOT, load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import ModuleType

pytest.importorskip("trio")

import trio
from trio.testing import MockClock, memory_stream_pair

PROGRAMS = ROOT / "docs" / "examples" / "programs"


def load_shown() -> ModuleType:
    """Import the tests that the page shows, which import the program by its name."""
    sys.path.insert(0, str(PROGRAMS))
    try:
        return load(PROGRAMS / "test_relay.py", "example_test_relay")
    finally:
        sys.path.remove(str(PROGRAMS))
        sys.modules.pop("relay", None)


shown = load_shown()
relay: Any = shown.relay
SHOWN = sorted(name for name in vars(shown) if name.startswith("test_"))


@pytest.fixture(autouse=True)
def _clock_of_the_process() -> Generator[None]:
    """Give the clock back, which follows such loops from then on."""
    before = clock.read
    yield
    clock.follow(before)


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a test in trio, on a clock that stands at 0."""
    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("name", SHOWN)
def test_what_the_page_shows(name: str) -> None:
    """The tests in the page pass."""
    vars(shown)[name]()


def test_lines_wait_until_the_upstream_is_back() -> None:
    """A batch is sent again, the next lines wait, and none is lost."""
    batches: list[tuple[float, list[str]]] = []
    refusals = 4

    async def sink(batch: list[str]) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise ConnectionRefusedError
        batches.append((trio.current_time(), batch))

    async def main() -> None:
        lines, received = trio.open_memory_channel[str](10)
        async with trio.open_nursery() as nursery, lines:
            nursery.start_soon(relay.ship, received, sink)
            for number in range(120):
                await lines.send(str(number))

    run(main)
    assert [line for _, batch in batches for line in batch] == [str(each) for each in range(120)]
    assert [len(batch) for _, batch in batches] == [100, 20]
    assert batches[0][0] <= 0.5 + 1 + 2 + 4


def test_lines_are_lost_if_the_upstream_stays_away(caplog: pytest.LogCaptureFixture) -> None:
    """What could not be sent after five attempts is counted in the log, and the relay goes on."""
    taken: list[str] = []

    async def sink(batch: list[str]) -> None:
        if batch == ["first"]:
            raise ConnectionRefusedError
        taken.extend(batch)

    async def main() -> None:
        lines, received = trio.open_memory_channel[str](10)
        async with trio.open_nursery() as nursery, lines:
            nursery.start_soon(relay.ship, received, sink)
            await lines.send("first")
            await trio.sleep(60)
            await lines.send("second")

    run(main)
    assert taken == ["second"]
    own = [each.getMessage() for each in caplog.records if each.name != "mtaio.resilience"]
    assert own == ["lines lost: 1"]


@pytest.mark.skipif(sys.platform == "win32", reason="a signal ends the process on Windows")
@pytest.mark.parametrize("hangs", [False, True])
def test_shutdown_is_limited(caplog: pytest.LogCaptureFixture, *, hangs: bool) -> None:
    """After a signal what was taken is sent, unless the upstream takes too long for that."""
    taken: list[str] = []

    async def sink(batch: list[str]) -> None:
        if hangs:
            await trio.sleep_forever()
        taken.extend(batch)

    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.relay, [listener], sink)
            await trio.sleep(0.1)
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"a line\n")
                await trio.sleep(0.2)
                signal.raise_signal(signal.SIGTERM)

    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relay, "GRACE", 0.5)
        trio.run(main)
    assert time.monotonic() - started < 5
    lost = [each.getMessage() for each in caplog.records if each.name == "relay"]
    assert taken == ([] if hangs else ["a line"])
    assert lost == (["lines lost: 1, not sent in time"] if hangs else [])


def test_line_without_end_is_cut() -> None:
    """What comes without a line break is passed on in parts, and does not fill the memory."""

    async def main() -> None:
        lines, received = trio.open_memory_channel[str](100)
        near, far = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.take, "a", far, lines)
            async with near:
                for _ in range(5):
                    await near.send_all(b"x" * 10_000)
                    await trio.sleep(1)
        used = received.statistics().current_buffer_used
        lengths = [len(received.receive_nowait()) for _ in range(used)]
        assert sum(lengths) == 50_000
        assert max(lengths) < relay.MOST_LINE + 10_001

    run(main)


def test_long_line_that_comes_at_once_is_whole() -> None:
    """A line is cut only while its end has not come."""

    async def main() -> None:
        lines, received = trio.open_memory_channel[str](100)
        near, far = memory_stream_pair()
        async with near:
            await near.send_all(b"x" * 20_000 + b"\nend\n")
        await relay.take("a", far, lines)
        assert len(received.receive_nowait()) == 20_000
        assert received.receive_nowait() == "end"

    run(main)


class Read(trio.abc.ReceiveStream):
    """A stream that counts the lines that were read from it."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = [*parts, b""]
        self.taken = b""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Give the next part, after a while."""
        del max_bytes
        await trio.sleep(0.1)
        part = self.parts.pop(0)
        self.taken += part
        return part

    async def aclose(self) -> None:
        """Do nothing."""

    @property
    def lines(self) -> int:
        """How many lines were read, the last maybe in part."""
        return len(self.taken.splitlines())


async def serve_on(net: Network, sink: Callable[[list[str]], Awaitable[None]]) -> None:
    """Run the whole relay on a host of the network."""
    with net.host("relay"):
        await relay.relay(await trio.open_tcp_listeners(5140), sink)


def counted(caplog: pytest.LogCaptureFixture) -> int:
    """How many lines the log says are lost."""
    said = [each.getMessage() for each in caplog.records if each.name == "relay"]
    return sum(int(each.split()[2].rstrip(",")) for each in said if each.startswith("lines lost"))


def strike_everywhere(scenario: Callable[[Victim], Awaitable[None]]) -> None:
    """Cancel the victim of a scenario anywhere, and leave it alone as well."""
    struck: set[bool] = set()

    async def noted(victim: Victim) -> None:
        await scenario(victim)
        struck.add(victim.cancelled)

    explore(seeds=5, exhaustive=1, backends=["trio"])(noted)()
    assert struck == {False, True}


def test_line_read_is_sent_or_counted_wherever_taking_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A connection that is cut off anywhere counts what it has read and not passed on."""

    async def scenario(victim: Victim) -> None:
        caplog.clear()
        stream = Read(b"a line\n" * 15, b"another\n" * 10, b"the rest")
        lines, received = trio.open_memory_channel[str](5)
        taken: list[str] = []

        async def drain() -> None:
            async for line in received:
                taken.append(line)
                await trio.sleep(0.1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            async with lines:
                await victim(relay.take, "a", stream, lines)
        assert len(taken) + counted(caplog) == stream.lines
        assert victim.cancelled or len(taken) == 26

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relay, "pace", KeyedRateLimiter(20, burst=5))
        strike_everywhere(scenario)


def test_line_taken_is_sent_or_counted_wherever_sending_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is left in the batch and in the channel is counted."""

    async def scenario(victim: Victim) -> None:
        caplog.clear()
        sent: list[str] = []

        async def sink(batch: list[str]) -> None:
            await trio.sleep(1)
            sent.extend(batch)

        lines, received = trio.open_memory_channel[str](200)
        for number in range(150):
            lines.send_nowait(str(number))
        lines.close()
        await victim(relay.ship, received, sink)
        # What was sent just before the cancellation is counted as well: no one can know.
        assert len(sent) + counted(caplog) in {150, 200, 250}
        assert victim.cancelled or len(sent) == 150

    strike_everywhere(scenario)


@pytest.mark.skipif(sys.platform == "win32", reason="a signal ends the process on Windows")
def test_signal_while_a_noisy_client_waits(caplog: pytest.LogCaptureFixture) -> None:
    """At SIGTERM each line of the whole relay has been sent, or is counted in the log."""
    sent: list[str] = []

    async def sink(batch: list[str]) -> None:
        sent.extend(batch)

    async def main() -> None:
        async with Network() as net, trio.open_nursery() as nursery:
            nursery.start_soon(serve_on, net, sink)
            await settle()
            with net.host("client"):
                stream = await trio.open_tcp_stream("relay", 5140)
            async with stream:
                await stream.send_all(b"a line\n" * 4000)
                await trio.sleep(1)
                signal.raise_signal(signal.SIGTERM)

    simulate(main, backend="trio")
    assert 1000 <= len(sent) <= 1201
    assert len(sent) + counted(caplog) == 4000


@pytest.mark.skipif(sys.platform == "win32", reason="a signal ends the process on Windows")
def test_connections_are_limited_and_idle_ones_closed(caplog: pytest.LogCaptureFixture) -> None:
    """One too many is closed at once, a silent one after ten minutes."""
    closed: list[float] = []

    async def sink(batch: list[str]) -> None:
        raise AssertionError(batch)

    async def client(number: int) -> None:
        await trio.sleep(number)
        async with await trio.open_tcp_stream("relay", 5140) as stream:
            assert not await stream.receive_some()
            closed.append(round(trio.current_time()))

    async def main() -> None:
        async with Network() as net, trio.open_nursery() as nursery:
            nursery.start_soon(serve_on, net, sink)
            await settle()
            with net.host("client"):
                async with trio.open_nursery() as clients:
                    for number in range(3):
                        clients.start_soon(client, number)
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relay, "connections", ConcurrencyLimiter(2, max_waiting=0))
        simulate(main, backend="trio")
    assert closed == [2, 600, 601]
    said = [each.getMessage() for each in caplog.records if each.name == "relay"]
    assert [each.split("(")[0].removeprefix("a connection has ended: ") for each in said] == [
        "ConcurrencyLimitError",
        "TooSlowError",
        "TooSlowError",
    ]
