"""Plans: what a failure prints is what a replay reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaio.testing import Schedule, Victim
from mtaio.testing._inject import MODES
from mtaio.testing._search import BACKENDS, Plan

ORDERS = st.one_of(
    st.builds(
        Schedule,
        seed=st.integers(0, 2**64),
        fair=st.booleans(),
        eager=st.none() | st.booleans(),
        depth=st.none() | st.integers(1, 9),
    ),
    st.builds(
        Schedule,
        seed=st.integers(0, 2**64),
        depth=st.integers(1, 9),
        horizon=st.integers(1, 999),
        fair=st.booleans(),
    ),
    st.builds(
        Schedule,
        tape=st.dictionaries(st.integers(0, 99), st.integers(0, 9), max_size=5),
        fair=st.booleans(),
        eager=st.none() | st.booleans(),
    ),
)
VICTIMS = st.builds(Victim, st.sampled_from(MODES), st.integers(0, 99))


@given(plan=st.builds(Plan, st.sampled_from(BACKENDS), st.none() | ORDERS, st.none() | VICTIMS))
def test_text_of_a_plan_is_that_plan(plan: Plan) -> None:
    """Every plan survives being written and read, and is one word."""
    again = Plan.parse(str(plan))
    assert str(again) == str(plan)
    assert again.backend == plan.backend
    assert repr(again.schedule) == repr(plan.schedule)
    assert repr(again.victim) == repr(plan.victim)
    assert not set(str(plan)) & set(" '\"$\\*?[](){}<>|&;~`")


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (Plan("asyncio", None), "asyncio"),
        (Plan("trio", Schedule()), "trio/tape="),
        (Plan("trio", Schedule(seed=3)), "trio/seed=3"),
        (
            Plan("asyncio", Schedule(tape={4: 1, 9: 2}, fair=True, eager=False), Victim("step", 5)),
            "asyncio/tape=4:1,9:2/fair/lazy/step@5",
        ),
        (
            Plan("trio", Schedule(seed=3, depth=2, horizon=40), Victim("step", 5)),
            "trio/seed=3/depth=2:40/step@5",
        ),
        (
            Plan("asyncio", Schedule(seed=3, eager=True), Victim("native", 1)),
            "asyncio/seed=3/eager/native@1",
        ),
    ],
    ids=str,
)
def test_how_a_plan_reads(plan: Plan, text: str) -> None:
    """A plan reads as the documentation says."""
    assert str(plan) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", r"'' is not a backend with virtual time"),
        ("uvloop/seed=1", r"'uvloop' is not a backend with virtual time"),
        ("seed=1", r"'seed=1' is not a backend with virtual time"),
        ("asyncio/", r"'' is not part of a plan"),
        ("asyncio/tape", r"'tape' is not part of a plan"),
        ("asyncio/tape=4", r"'tape=4' is not part of a plan"),
        ("asyncio/tape=4:1,", r"'tape=4:1,' is not part of a plan"),
        ("asyncio/tape=4:-1", r"'tape=4:-1' is not part of a plan"),
        ("asyncio/seed=x", r"'seed=x' is not part of a plan"),
        ("asyncio/seed=", r"'seed=' is not part of a plan"),
        ("asyncio/seed=1/hopping@5", r"'hopping@5' is not part of a plan"),
        ("asyncio/seed=1/step@", r"'step@' is not part of a plan"),
        ("asyncio/seed=1 ", r"'seed=1 ' is not part of a plan"),
        ("asyncio/seed=1/seed=2", r"'seed=1' and 'seed=2' cannot be combined"),
        ("asyncio/seed=1/tape=4:1", r"'seed=1' and 'tape=4:1' cannot be combined"),
        ("asyncio/seed=1/lazy/eager", r"'lazy' and 'eager' cannot be combined"),
        ("asyncio/step@1/native@2", r"'step@1' and 'native@2' cannot be combined"),
        ("asyncio/tape=4:1,4:2", r"its tape chooses twice at one moment"),
        ("asyncio/fair", r"it has neither a seed nor a tape"),
        ("asyncio/seed=1/depth=2", r"'depth=2' is not part of a plan"),
        ("asyncio/seed=1/depth=0:9", r"'depth=0:9' is not part of a plan"),
        ("asyncio/seed=1/depth=2:9/depth=2:8", r"'depth=2:9' and 'depth=2:8' cannot be combined"),
        ("asyncio/tape=4:1/depth=2:9", r"'depth=2:9' is for a seed, not for a tape"),
        ("asyncio/depth=2:9", r"it has neither a seed nor a tape"),
        ("trio/lazy/step@1", r"it has neither a seed nor a tape"),
    ],
)
def test_text_that_is_no_plan(text: str, reason: str) -> None:
    """What nobody has printed is refused, with the part that is wrong and an example."""
    with pytest.raises(
        ValueError,
        match=rf"^{text!r} cannot be replayed: {reason}\. Pass what a failure has printed, such as "
        r"asyncio/tape=4:1,9:2/step@5\.$",
    ):
        Plan.parse(text)


def test_plan_under_another_schedule() -> None:
    """The same plan under another schedule has the same moment and a victim of its own."""
    plan = Plan("trio", Schedule(seed=3), Victim("step", 5))
    other = plan.under(Schedule(tape={1: 1}))
    assert str(other) == "trio/tape=1:1/step@5"
    assert other.victim is not plan.victim
    assert str(Plan("trio", Schedule(seed=3)).under(Schedule())) == "trio/tape="
