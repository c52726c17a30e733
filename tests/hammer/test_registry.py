"""What is registered in one thread while others read it: listeners, and what a monitor watches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import anyio

from mtaio.events import EventEmitter
from mtaio.monitoring import ResourceMonitor
from tests.hammer.hammer import at_once, rounds, watched

THREADS = 3
NAMES = 40


@dataclass
class Figures:
    """What is watched."""

    size: int


class Watchable:
    """Something with statistics."""

    def statistics(self) -> Figures:
        """Return them."""
        return Figures(size=7)


def test_emitters_of_several_loops_are_read_meanwhile(backend: str) -> None:
    """Names come and go, and listeners; no counter decreases, and none is missed at the end."""
    emitters = [EventEmitter(max_names=NAMES // 2) for _ in range(THREADS)]
    seen = [0] * THREADS

    async def use(number: int) -> None:
        emitter = emitters[number]
        heard = 0

        def hear(_: object) -> None:
            nonlocal heard
            heard += 1

        for name in range(NAMES):
            emitter.on(f"name.{name}", hear)
            await emitter.emit(f"name.{name}", number)
            emitter.off(f"name.{name}", hear)
        assert heard == NAMES

    def look() -> None:
        for number, emitter in enumerate(emitters):
            now = emitter.statistics()
            assert 0 <= now.listeners <= 1
            assert len(now.names) <= NAMES // 2
            assert seen[number] <= now.emitted
            seen[number] = now.emitted

    def work() -> None:
        for turn in rounds(3):
            at_once(partial(anyio.run, use, each, backend=backend) for each in range(THREADS))
            for emitter in emitters:
                now = emitter.statistics()
                assert now.listeners == 0
                assert now.emitted == now.handled == (turn + 1) * NAMES

    watched(look, work)


def test_what_a_monitor_watches_comes_and_goes() -> None:
    """While threads watch objects of their own and others no more, all who stay have figures."""
    monitor = ResourceMonitor()
    stays = Watchable()
    monitor.watch(stays, name="stays")

    def change(thread: int) -> None:
        for number in range(20):
            mine = Watchable()
            monitor.watch(mine, name=f"{thread}-{number}")
            monitor.gauge(f"gauge-{thread}-{number}", lambda: 1.0)
            monitor.unwatch(mine)
            monitor.unwatch(f"gauge-{thread}-{number}")

    def look() -> None:
        reading = monitor._watched.read()
        assert reading.values["watchable.stays.size"] == 7
        assert not monitor.statistics().failed

    def work() -> None:
        for _ in rounds(2):
            at_once(partial(change, thread) for thread in range(THREADS))
            assert monitor.statistics().watched == 1

    watched(look, work)
