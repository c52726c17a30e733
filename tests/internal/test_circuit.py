"""Circuit against a model that keeps lists and knows nothing of bits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio._internal.circuit import BreakerState, Circuit, Rules, checked_rules

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
SLOW = 2.0


@dataclass
class Model:
    """What a breaker promises, in the words of its docstring. Open, its time is over at once."""

    rules: Rules
    state: BreakerState = CLOSED
    outcomes: list[tuple[bool, bool]] = field(default_factory=list)
    probing: int = 0
    epoch: object = field(default_factory=object)

    def admit(self) -> bool:
        """Let a call through, or not."""
        if self.state is OPEN:
            self.turn(HALF_OPEN)
        if self.state is HALF_OPEN:
            if self.probing + len(self.outcomes) == self.rules.half_open:
                return False
            self.probing += 1
        return True

    def end(self, epoch: object, outcome: tuple[bool, bool] | None) -> None:
        """Count how a call ended: whether it failed, and was slow; None for no outcome."""
        if epoch is not self.epoch:
            return
        if self.state is HALF_OPEN:
            self.probing -= 1
        if outcome is None:
            return
        self.outcomes.append(outcome)
        if self.state is HALF_OPEN:
            self.judge_probes(any(outcome))
        else:
            del self.outcomes[: -self.rules.last]
            if self.opens(*outcome):
                self.turn(OPEN)

    def judge_probes(self, bad: bool) -> None:  # noqa: FBT001 - a model
        """Open or close it, once that is decided."""
        rules = self.rules
        share = sum(any(each) for each in self.outcomes) / rules.half_open
        if bad and share >= rules.half_open_ratio:
            self.turn(OPEN)
        elif len(self.outcomes) == rules.half_open:
            self.turn(CLOSED)

    def opens(self, failed: bool, slow: bool) -> bool:  # noqa: FBT001 - a model
        """Return whether a closed one opens after such a call."""
        rules, seen = self.rules, len(self.outcomes)
        row = self.outcomes[-rules.consecutive :] if rules.consecutive else []
        if failed and row and len(row) == rules.consecutive and all(each[0] for each in row):
            return True
        if seen < rules.min_calls:
            return False
        shares = [sum(each[which] for each in self.outcomes) / seen for which in (0, 1)]
        return (failed and shares[0] >= rules.failure_ratio) or (
            slow and shares[1] >= rules.slow_ratio
        )

    def turn(self, state: BreakerState) -> None:
        """Begin another period."""
        self.state, self.outcomes, self.probing, self.epoch = state, [], 0, object()


RATIOS = st.sampled_from([0.1, 0.25, 0.5, 0.75, 1])


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    """Make rules with small numbers."""
    last = draw(st.integers(1, 6))
    return checked_rules(
        draw(RATIOS),
        last=last,
        min_calls=draw(st.none() | st.integers(1, last)),
        consecutive=draw(st.none() | st.integers(1, last)),
        slow=draw(st.none() | st.just(SLOW)),
        slow_ratio=draw(RATIOS),
        open_for=0,
        half_open=draw(st.integers(1, 4)),
        half_open_ratio=draw(st.none() | st.just(0) | RATIOS),
    )


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "begin", "end", "end", "end", "give back"]),
        st.integers(0, 9),
        st.booleans(),
        st.booleans(),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(rules(), STEPS)
def test_does_what_the_model_does(rules: Rules, steps: list[tuple[str, int, bool, bool]]) -> None:
    """Calls that overlap and end in any order lead to the same states, and as many get through."""
    changes: list[BreakerState] = []

    def changed(circuit: Circuit, before: BreakerState, error: Exception | None) -> None:
        del before, error
        changes.append(circuit.state)

    circuit, model = Circuit(rules, None, changed), Model(rules)
    calls: list[tuple[int, Any]] = []
    for step, which, failed, slow in steps:
        if step == "begin":
            admitted = circuit.state is CLOSED or circuit.admit()
            assert admitted == model.admit()
            if admitted:
                calls.append((circuit.period, model.epoch))
        elif calls:
            period, epoch = calls.pop(which % len(calls))
            late = slow and rules.slow == SLOW
            if step == "give back":
                circuit.give_back(period)
                model.end(epoch, None)
            elif failed:
                circuit.fail(period, ValueError(), SLOW if slow else 0.0)
                model.end(epoch, (True, late))
            else:
                if late or not circuit.clean:  # all that a caller may leave out
                    circuit.succeed(period, SLOW if slow else 0.0)
                model.end(epoch, (False, late))
        assert circuit.state is model.state
        assert (circuit.seen, circuit.failures, circuit.slow) == (
            len(model.outcomes),
            sum(each[0] for each in model.outcomes),
            sum(each[1] for each in model.outcomes),
        )
    assert len(changes) == circuit.period
