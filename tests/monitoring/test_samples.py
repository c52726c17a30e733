"""The ring of samples against a list that keeps everything."""

from __future__ import annotations

import math
from array import array
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaio.monitoring import ResourceMonitor
from mtaio.monitoring._monitor import recent
from mtaio.monitoring._samples import MOST_ABSENT, History
from mtaio.testing import run

NAMES = "abcd"
Samples: TypeAlias = list[dict[str, float]]

SAMPLES: st.SearchStrategy[Samples] = st.lists(
    st.dictionaries(st.sampled_from(NAMES), st.floats(allow_nan=False, width=32)), max_size=40
)


def same(left: list[float], right: list[float]) -> bool:
    """Return whether two lists are equal, a gap being equal to a gap."""
    return [str(each) for each in left] == [str(each) for each in right]


@given(SAMPLES, st.integers(1, 6), st.integers(0, 8))
def test_history_is_the_end_of_a_list(samples: Samples, size: int, points: int) -> None:
    """It has the last samples, with gaps, and only the metrics of which there is a figure."""
    history = History(size)
    for moment, values in enumerate(samples):
        history.add(float(moment), values)
        kept = samples[: moment + 1][-size:]
        assert history.times().tolist() == [float(at) for at in range(moment + 1)][-size:]
        assert set(history.names()) == {name for each in kept for name in each}
        for name in NAMES:
            expected = [each.get(name, math.nan) for each in kept]
            assert same(history.values(name).tolist(), expected)
            last = expected[max(0, len(expected) - points) :]
            assert same(history.values(name, points).tolist(), last)
    assert len(history.times(points)) == min(points, len(samples), size)


def test_metrics_that_come_and_go_take_no_room() -> None:
    """However many objects were watched one after another, few metrics are kept."""
    history = History(10)
    for number in range(1000):
        history.add(float(number), {"always": 1.0, f"once.{number}": 2.0})
        assert len(history.names()) <= 11


def test_metrics_that_are_gone_are_few() -> None:
    """However long the history, of metrics that are not there any more it has the last ones."""
    history = History(3600)
    for number in range(3 * MOST_ABSENT):
        history.add(float(number), {"always": 1.0, f"a.{number}": 2.0, f"b.{number}": 3.0})
    last = 3 * MOST_ABSENT - 1
    first = last - MOST_ABSENT // 2
    assert sorted(history.names()) == sorted(
        ["always", *(f"{letter}.{n}" for n in range(first, last + 1) for letter in "ab")]
    )
    assert history.values(f"a.{first}", last - first + 1) == pytest.approx(
        [2.0] + [math.nan] * (last - first), nan_ok=True
    )


def test_history_of_a_monitor(backend: str) -> None:
    """A metric has its times and figures, without gaps, as far back as asked for."""
    monitor = ResourceMonitor(history_size=4)
    figures = iter([1.0, 2.0, float("inf"), 4, 5.5, 6.0])

    async def main() -> None:
        monitor.gauge("depth", figures.__next__)
        for _ in range(6):
            await monitor.tick()

    run(main, backend=backend)
    times, columns = recent(monitor, 3)
    assert columns["depth"].tolist() == [4, 5.5, 6.0]
    assert len(recent(monitor, 100)[0]) == 4
    assert recent(monitor, 0)[0].tolist() == []
    assert monitor.history("depth")[1:] == list(zip(times, columns["depth"], strict=True))
    assert monitor.history("depth", seconds=0)[-1] == (times[-1], 6.0)
    assert monitor.history("depth", seconds=3600) == monitor.history("depth")
    assert len(monitor.history("cpu_usage")) == len(monitor.history("cpu.usage_percent")) == 4


def test_history_has_no_gaps(backend: str) -> None:
    """What was not there for a while is left out."""
    monitor = ResourceMonitor()
    figures = iter([1.0, None, 3.0, 4.0])

    async def main() -> None:
        monitor.gauge("depth", figures.__next__)  # type: ignore[type-var]  # None is refused
        for _ in range(3):
            await monitor.tick()

    run(main, backend=backend)
    assert [value for _, value in monitor.history("depth")] == [1.0, 3.0]
    assert len(recent(monitor, 100)[1]["depth"]) == 3


def test_history_before_the_first_sample() -> None:
    """There is none yet, and an unknown metric is refused all the same."""
    monitor = ResourceMonitor()
    assert monitor.history("cpu_usage") == []
    assert monitor.history("cpu_usage", seconds=10) == []
    assert recent(monitor, 10) == (array("d"), {})
    with pytest.raises(
        ValueError, match=r"^metric='cpu' is not measured here\..* Metrics are: cpu\."
    ):
        monitor.history("cpu")
    with pytest.raises(ValueError, match=r"^seconds=-1 is less than 0\."):
        monitor.history("cpu_usage", seconds=-1)
