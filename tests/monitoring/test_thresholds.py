"""When an alert fires, and when it is over: every rule, at exact times."""

from __future__ import annotations

import itertools
import math
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from mtaio.monitoring import Alert, Threshold
from mtaio.monitoring._thresholds import Thresholds, unknown_metric

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

EPOCH = 1_700_000_000.0
"""What the wall clock says when the other stands at 0."""


def events(
    thresholds: Thresholds, samples: Iterable[tuple[float, float | None]], metric: str = "load"
) -> list[tuple[float, str, float]]:
    """Return what the samples of one metric bring about: when, what, and its seconds."""
    found: list[tuple[float, str, float]] = []
    for now, value in samples:
        values = {} if value is None else {metric: value}
        for alert in thresholds.evaluate(now, EPOCH + now, values):
            assert alert.metric == metric
            assert alert.value == value
            assert alert.timestamp == EPOCH + now
            found.append((now, alert.state, alert.seconds))
    return found


def each_second(*values: float | None) -> list[tuple[float, float | None]]:
    """Return samples at 0, 1, 2 ... seconds."""
    return [(float(second), value) for second, value in enumerate(values)]


def of(value: float, **terms: Any) -> Thresholds:
    """Return thresholds of which there is one."""
    thresholds = Thresholds()
    thresholds.set("load", value, **terms)
    return thresholds


# --- The edges ----------------------------------------------------------------------------------


def test_alert_says_what_happened() -> None:
    """An alert carries the metric, what was measured, the threshold, the moment and the length."""
    thresholds = of(80)
    assert thresholds.evaluate(5.0, 1005.0, {"load": 81.0, "other": 99.0}) == [
        Alert(
            metric="load",
            value=81.0,
            threshold=80.0,
            state="firing",
            timestamp=1005.0,
            seconds=0.0,
        )
    ]
    assert thresholds.evaluate(7.5, 1007.5, {"load": 12.0}) == [
        Alert(
            metric="load",
            value=12.0,
            threshold=80.0,
            state="recovered",
            timestamp=1007.5,
            seconds=2.5,
        )
    ]


def test_fires_once_and_recovers_once() -> None:
    """An alert is an edge: nothing is said between its start and its end."""
    samples = each_second(1, 81, 82, 99, 81, 3, 2, 1, 90)
    assert events(of(80), samples) == [(1, "firing", 0), (5, "recovered", 4), (8, "firing", 0)]


def test_threshold_itself_is_allowed() -> None:
    """Only a value strictly beyond the threshold fires; one that is back at it has recovered."""
    assert events(of(80), each_second(80, 80.001, 80)) == [(1, "firing", 0), (2, "recovered", 1)]


def test_below_is_the_other_way_round() -> None:
    """With ``below`` a metric must not fall under its threshold."""
    thresholds = of(10, below=True, clear=20)
    samples = each_second(50, 10, 9.5, 10, 19.5, 20, 9)
    assert events(thresholds, samples) == [(2, "firing", 0), (5, "recovered", 3), (6, "firing", 0)]


def test_infinite_value_exceeds() -> None:
    """An infinite value is beyond any threshold."""
    assert events(of(80), each_second(math.inf, 0)) == [(0, "firing", 0), (1, "recovered", 1)]


# --- for_seconds --------------------------------------------------------------------------------


def test_fires_after_for_seconds() -> None:
    """The threshold must be exceeded for ``for_seconds``, counted from the first such sample."""
    thresholds = of(80, for_seconds=3)
    assert events(thresholds, each_second(0, 81, 99, 81, 81, 81)) == [(4, "firing", 0)]


def test_one_good_sample_starts_the_time_again() -> None:
    """A sample that is not beyond the threshold starts ``for_seconds`` again."""
    thresholds = of(80, for_seconds=3)
    assert events(thresholds, each_second(81, 81, 81, 80, 81, 81, 81, 81)) == [(7, "firing", 0)]


def test_recovery_needs_no_time() -> None:
    """The first sample at ``clear`` is the recovery, and the next alert is timed from its start."""
    thresholds = of(80, for_seconds=2)
    samples = each_second(81, 81, 81, 0, 81, 81, 81)
    assert events(thresholds, samples) == [(2, "firing", 0), (3, "recovered", 1), (6, "firing", 0)]


# --- clear --------------------------------------------------------------------------------------


def test_clear_keeps_a_wavering_metric_quiet() -> None:
    """Between ``clear`` and the threshold an alert goes on, and does not begin."""
    samples = each_second(75, 81, 79, 81, 79, 71, 70, 75, 79)
    assert events(of(80, clear=70), samples) == [(1, "firing", 0), (6, "recovered", 5)]
    assert len(events(of(80), samples)) == 4


# --- cooldown -----------------------------------------------------------------------------------


def test_cooldown_silences_what_is_short() -> None:
    """What exceeds the threshold only within the cooldown is not reported."""
    samples = each_second(81, 0, 81, 81, 0, 0, 0, 0, 0, 0, 0, 81)
    assert events(of(80, cooldown=10), samples) == [
        (0, "firing", 0),
        (1, "recovered", 1),
        (11, "firing", 0),
    ]


def test_durations_without_end() -> None:
    """An endless cooldown allows one alert, and an endless wait none."""
    samples = each_second(90, 70, 90, 70, 90)
    assert events(of(80, cooldown=math.inf), samples) == [(0, "firing", 0), (1, "recovered", 1)]
    assert events(of(80, for_seconds=math.inf), samples) == []


def test_still_exceeded_when_the_cooldown_ends() -> None:
    """What still exceeds the threshold when the cooldown is over fires at that moment."""
    samples = each_second(81, 0, *[81] * 8)
    assert events(of(80, cooldown=5), samples)[2:] == [(6, "firing", 0)]


def test_for_seconds_runs_through_the_cooldown() -> None:
    """Time beyond the threshold counts during the cooldown too: the later of the two decides."""
    samples = each_second(81, 81, 81, 0, *[81] * 12)
    assert events(of(80, for_seconds=2, cooldown=6), samples)[2:] == [(9, "firing", 0)]
    assert events(of(80, for_seconds=2, cooldown=1), samples)[2:] == [(6, "firing", 0)]


# --- No data ------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [None, math.nan], ids=["missing", "nan"])
def test_without_data_a_firing_alert_goes_on(gap: float | None) -> None:
    """Nothing shows that an alert is over while its metric is missing or NaN."""
    thresholds = of(80)
    assert events(thresholds, each_second(81, gap, gap)) == [(0, "firing", 0)]
    assert [alert.value for alert in thresholds.firing()] == [81]
    assert events(thresholds, [(3, 81), (4, gap), (5, 0)]) == [(5, "recovered", 5)]


@pytest.mark.parametrize("gap", [None, math.nan], ids=["missing", "nan"])
def test_without_data_a_pending_one_starts_again(gap: float | None) -> None:
    """What was measured on both sides of a gap does not add up to ``for_seconds``."""
    thresholds = of(80, for_seconds=3)
    assert events(thresholds, each_second(81, 81, 81, gap, 81, 81, 81, 81)) == [(7, "firing", 0)]


# --- Changes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threshold", "over"), [(90, True), (60, False)])
def test_change_while_firing(threshold: float, *, over: bool) -> None:
    """A firing alert is kept by a change, and ends when the metric reaches the new ``clear``."""
    thresholds = of(80)
    thresholds.evaluate(0, EPOCH, {"load": 85.0})
    thresholds.set("load", threshold)
    assert len(thresholds.firing()) == 1
    alerts = thresholds.evaluate(1, EPOCH + 1, {"load": 84.0})
    assert [(alert.state, alert.threshold, alert.seconds) for alert in alerts] == (
        [("recovered", 90, 1)] if over else []
    )
    assert len(thresholds.firing()) == (not over)


def test_change_while_pending() -> None:
    """Time beyond the old threshold does not count for the new one."""
    thresholds = of(80, for_seconds=3)
    assert events(thresholds, [(0, 95), (2, 95)]) == []
    thresholds.set("load", 90, for_seconds=3)
    assert events(thresholds, [(3, 95), (5, 95), (6, 95)]) == [(6, "firing", 0)]


def test_same_threshold_again_changes_nothing() -> None:
    """Who sets a threshold again with every request does not start its time again."""
    thresholds = of(80, for_seconds=3)
    assert events(thresholds, [(0, 95), (2, 95)]) == []
    thresholds.set("load", 80.0, for_seconds=3.0, clear=80)
    assert events(thresholds, [(3, 95)]) == [(3, "firing", 0)]


def test_cooldown_outlives_a_change() -> None:
    """A changed threshold stays silent for its own cooldown after the last recovery."""
    thresholds = of(80)
    assert len(events(thresholds, each_second(81, 0))) == 2
    thresholds.set("load", 70, cooldown=5)
    assert events(thresholds, [(5, 75), (6, 75)]) == [(6, "firing", 0)]


def test_remove_forgets() -> None:
    """A removed threshold reports no recovery, and set again it knows of no alert or cooldown."""
    thresholds = of(80, cooldown=60)
    assert len(events(thresholds, each_second(81, 0, 0))) == 2
    thresholds.remove("load")
    thresholds.set("load", 80)
    assert events(thresholds, [(3, 81)]) == [(3, "firing", 0)]
    thresholds.remove("load")
    assert thresholds.firing() == []
    assert thresholds.configured() == []
    assert events(thresholds, [(4, 0)]) == []
    thresholds.remove("load")  # once more: nothing to do


def test_configured_and_firing() -> None:
    """Both lists are in the order in which the metrics were first given a threshold."""
    thresholds = Thresholds()
    thresholds.set("disk", 10, below=True, clear=20, cooldown=60)
    thresholds.set("load", 80, for_seconds=5)
    thresholds.set("queue", 3)
    thresholds.set("disk", 15, below=True)
    assert thresholds.configured() == [
        Threshold(metric="disk", value=15, clear=15, for_seconds=0, cooldown=0, below=True),
        Threshold(metric="load", value=80, clear=80, for_seconds=5, cooldown=0, below=False),
        Threshold(metric="queue", value=3, clear=3, for_seconds=0, cooldown=0, below=False),
    ]
    fired = thresholds.evaluate(0, EPOCH, {"queue": 9.0, "load": 99.0, "disk": 1.0})
    assert [alert.metric for alert in fired] == ["disk", "queue"]
    thresholds.evaluate(1, EPOCH + 1, {"queue": 12.0, "load": 99.0, "disk": 2.0})
    assert thresholds.firing() == fired


# --- Refusals -----------------------------------------------------------------------------------

CLEAR_ABOVE = (
    "clear=81 is above value=80.0, so an alert would be over before it fires. Pass a clear that is "
    "value or below, or below=True for a metric that must not fall below value."
)
CLEAR_BELOW = (
    "clear=9 is below value=10.0, so an alert would be over before it fires. Pass a clear that is "
    "value or above, or below=False for a metric that must not exceed value."
)


@pytest.mark.parametrize(
    ("terms", "error", "message"),
    [
        ({"value": math.nan}, ValueError, "value=nan is not a number. Pass the "),
        ({"value": math.inf}, ValueError, "value=inf is infinite. Pass the "),
        ({"value": -math.inf}, ValueError, "value=-inf is infinite. Pass the "),
        ({"value": "80"}, TypeError, "value='80' is a str, not a number. Pass the "),
        ({"value": True}, TypeError, "value=True is a bool, not a number. Pass the "),
        ({"value": 80, "clear": 81}, ValueError, CLEAR_ABOVE),
        ({"value": 10, "clear": 9, "below": True}, ValueError, CLEAR_BELOW),
        ({"value": 80, "clear": math.nan}, ValueError, "clear=nan is not a number. Pass the "),
        ({"value": 80, "clear": -math.inf}, ValueError, "clear=-inf is infinite. Pass the "),
        ({"value": 80, "for_seconds": -1}, ValueError, "for_seconds=-1 is less than 0. Pass "),
        ({"value": 80, "cooldown": -0.5}, ValueError, "cooldown=-0.5 is less than 0. Pass "),
        ({"value": 80, "cooldown": math.nan}, ValueError, "cooldown=nan is not a number. Pass "),
        ({"value": 80, "cooldown": None}, TypeError, "cooldown=None is a NoneType, not a number."),
    ],
    ids=str,
)
def test_refused(terms: Mapping[str, Any], error: type[Exception], message: str) -> None:
    """A threshold that cannot work is refused, and the one that was there stays."""
    thresholds = of(50)
    with pytest.raises(error) as caught:
        thresholds.set("load", **terms)
    assert str(caught.value).startswith(message)
    assert [threshold.value for threshold in thresholds.configured()] == [50]


@pytest.mark.parametrize(
    ("metric", "guess"),
    [
        ("cpu_usge", "cpu_usage"),
        ("CPU_USAGE", "cpu_usage"),
        ("usage_percent", "cpu.usage_percent"),
        ("rate_limiter.api.wait", "rate_limiter.api.waiting"),
    ],
)
def test_unknown_metric_guesses(metric: str, guess: str) -> None:
    """The message names what was asked for, what was probably meant, and what there is."""
    known = ["memory.percent", "cpu_usage", "cpu.usage_percent", "rate_limiter.api.waiting"]
    assert str(unknown_metric(metric, known)) == (
        f"metric={metric!r} is not measured here. Did you mean {guess!r}? For a metric of "
        "your own, call watch() or gauge() first. Metrics are: "
        "cpu.usage_percent, cpu_usage, memory.percent, rate_limiter.api.waiting."
    )


def test_unknown_metric_without_a_guess() -> None:
    """Where nothing is like it, nothing is suggested."""
    error = unknown_metric("xyz", [])
    assert isinstance(error, ValueError)
    way_out = "For a metric of your own, call watch() or gauge() first."
    assert str(error) == f"metric='xyz' is not measured here. {way_out} Metrics are: none."
    assert str(unknown_metric(7, ["a"])) == (
        f"metric=7 is not measured here. {way_out} Metrics are: a."
    )


def test_unknown_metric_is_bounded() -> None:
    """However long the names, and however many, the message stays readable."""
    known = [f"gauge.{number:04}" for number in range(2000)]
    message = str(unknown_metric("x" * 100_000, known))
    assert message.startswith(f"metric='{'x' * 100}'... is not measured here. For a metric of")
    assert ". Metrics are: gauge.0000, gauge.0001, " in message
    assert message.endswith("gauge.0048, gauge.0049 and 1950 more.")
    assert len(str(unknown_metric("y" * 500, ["y" * 300, *["z" * 900] * 9]))) < 1200


# --- An hour, and anything ----------------------------------------------------------------------


def test_an_hour_of_samples() -> None:
    """An hour of samples, one each second, with a wave of ten minutes and noise upon it."""
    thresholds = of(80, clear=70, for_seconds=30, cooldown=240)
    samples = [
        (float(second), 75 - 25 * math.cos(second * math.pi / 300) + (second % 3 - 1) * 0.5)
        for second in range(3600)
    ]
    found = events(thresholds, samples)
    # Beyond 80.5 at 172 s of each wave, so that even the least noise leaves it beyond 80; down at
    # 70 some 338 s later.
    assert [state for _, state, _ in found] == ["firing", "recovered"] * 6
    starts = [moment for moment, state, _ in found if state == "firing"]
    ends = [moment for moment, state, _ in found if state == "recovered"]
    assert [later - earlier for earlier, later in itertools.pairwise(starts)] == [600] * 5
    assert [end - start for start, end in zip(starts, ends, strict=True)] == [
        seconds for _, state, seconds in found if state == "recovered"
    ]


TICKS = st.integers(0, 12).map(lambda eighths: eighths / 8)  # sums of eighths are exact
VALUES = st.integers(0, 6).map(float)
TERMS = st.fixed_dictionaries(
    {},
    optional={
        "clear": VALUES,
        "for_seconds": st.integers(0, 16).map(lambda eighths: eighths / 8),
        "cooldown": st.integers(0, 32).map(lambda eighths: eighths / 8),
    },
)


class Naive:
    """The rules as they are written for users, each found by going back through the samples."""

    def __init__(self, *, below: bool) -> None:
        self.sign = -1 if below else 1
        self.samples: list[tuple[float, float | None, tuple[float, ...]]] = []
        self.alerts: list[tuple[float, str]] = []

    def sample(self, now: float, value: float | None, terms: tuple[float, ...]) -> str | None:
        """
        Return what the sample brings about.

        The terms are value, clear, for_seconds, cooldown, and the number of the change.
        """
        self.samples.append((now, value, terms))
        limit, clear, for_seconds, cooldown, _ = terms
        firing = bool(self.alerts) and self.alerts[-1][1] == "firing"
        if value is None:
            return None
        if firing:
            if value * self.sign > clear * self.sign:
                return None
            self.alerts.append((now, "recovered"))
            return "recovered"
        last = self.alerts[-1][0] if self.alerts else -math.inf
        began = None
        for moment, measured, then in reversed(self.samples):
            if measured is None or then != terms or measured * self.sign <= limit * self.sign:
                break
            began = moment
        if began is None or now - began < for_seconds or now - last < cooldown:
            return None
        self.alerts.append((now, "firing"))
        return "firing"


class ThresholdMachine(RuleBasedStateMachine):
    """Both, side by side, and a twin of the other direction with everything negated."""

    below: bool

    def __init__(self) -> None:
        super().__init__()
        self.now = 1024.0
        self.model = Naive(below=self.below)
        self.thresholds = Thresholds()
        self.twin = Thresholds()
        self.terms = math.nan, math.nan, 0.0, 0.0, 0.0

    @initialize(value=VALUES, terms=TERMS)
    def begin(self, value: float, terms: dict[str, float]) -> None:
        """Set the first threshold."""
        self.change(value, terms)

    @rule(value=VALUES, terms=TERMS)
    def change(self, value: float, terms: dict[str, float]) -> None:
        """Set a threshold, of any kind."""
        terms = dict(terms)
        wanted = terms.pop("clear", value)
        clear = max(value, wanted) if self.below else min(value, wanted)
        self.thresholds.set("metric", value, clear=clear, below=self.below, **terms)
        self.twin.set("metric", -value, clear=-clear, below=not self.below, **terms)
        numbers = value, clear, terms.get("for_seconds", 0.0), terms.get("cooldown", 0.0)
        if numbers != self.terms[:4]:
            self.terms = *numbers, self.terms[4] + 1

    @rule(after=TICKS, value=VALUES | st.sampled_from([None, math.nan]), times=st.integers(1, 6))
    def sample(self, after: float, value: float | None, times: int) -> None:
        """Take a sample, or several of one value."""
        for _ in range(times):
            self.now += after + 0.125
            values = {} if value is None else {"metric": value}
            alerts = self.thresholds.evaluate(self.now, EPOCH + self.now, values)
            known = None if value is None or math.isnan(value) else value
            expected = self.model.sample(self.now, known, self.terms)
            assert [alert.state for alert in alerts] == ([] if expected is None else [expected])
            for alert in alerts:
                began = self.model.alerts[-2][0] if expected == "recovered" else self.now
                assert alert.seconds == self.now - began
                assert (alert.value, alert.threshold) == (value, self.terms[0])
                assert alert.timestamp == EPOCH + self.now
            negated = {metric: -value for metric, value in values.items()}
            twins = self.twin.evaluate(self.now, EPOCH + self.now, negated)
            assert [twin.state for twin in twins] == [alert.state for alert in alerts]

    @invariant()
    def firing(self) -> None:
        """What is firing is what has fired and not recovered."""
        firing = bool(self.model.alerts) and self.model.alerts[-1][1] == "firing"
        assert len(self.thresholds.firing()) == firing


@pytest.mark.parametrize("below", [False, True], ids=["above", "below"])
def test_rules_hold_in_any_history(*, below: bool) -> None:
    """Any changes, samples and gaps bring about what the written rules say."""
    machine = type("Machine", (ThresholdMachine,), {"below": below})
    run_state_machine_as_test(machine, settings=settings(max_examples=80, stateful_step_count=30))


@given(values=st.lists(VALUES, max_size=40), limit=VALUES)
@settings(max_examples=50)
def test_edges_are_those_of_the_plain_comparison(values: list[float], limit: float) -> None:
    """Without further terms, an alert fires or recovers just where the comparison turns."""
    beyond = [False, *(value > limit for value in values)]
    turns = [
        "firing" if after else "recovered"
        for before, after in itertools.pairwise(beyond)
        if before != after
    ]
    found = events(of(limit), each_second(*values))
    assert [state for _, state, _ in found] == turns


def test_set_from_another_thread() -> None:
    """Changes by other threads lose no edge: firing and recovered still take turns."""
    thresholds = Thresholds()
    names = [f"metric.{number}" for number in range(8)]
    over = threading.Event()
    errors: list[BaseException] = []

    def change(names: list[str]) -> None:
        try:
            while not over.is_set():
                for number, name in enumerate(names):
                    thresholds.set(name, 40 + number)
                    thresholds.set(f"other.{name}", 1)
                    thresholds.firing()
                    thresholds.configured()
                    thresholds.remove(f"other.{name}")
        except BaseException as error:  # noqa: BLE001 - shown below, whatever it is
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=change, args=(part,)) for part in (names[:4], names[4:])]
    try:
        for thread in threads:
            thread.start()
        states: dict[str, list[str]] = {}
        for tick in range(30_000):
            values = {name: float((tick * 7) % 100) for name in names}
            for alert in thresholds.evaluate(float(tick), EPOCH + tick, values):
                states.setdefault(alert.metric, []).append(alert.state)
    finally:
        over.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert errors == []
    for seen in states.values():
        assert seen == (["firing", "recovered"] * len(seen))[: len(seen)]
