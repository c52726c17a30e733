"""The relay of the guide, a program of trio's, tested as such programs are: by a MockClock."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from mtaio._internal import clock
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
    assert lost == (["lines lost: the rest was not sent within 0.5 s"] if hangs else [])


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
