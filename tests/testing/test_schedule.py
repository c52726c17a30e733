"""Schedules: which task runs next, the same each time, and plain words for a tape that does not."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from mtaio.testing import Schedule, run
from mtaio.testing._schedule import played


async def letters(*names: str, times: int = 1) -> str:
    """Let a task for each name write that name so often, a step each time."""
    written: list[str] = []

    async def write(name: str) -> None:
        for _ in range(times):
            written.append(name)
            await anyio.lowlevel.cancel_shielded_checkpoint()

    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(write, name)
    return "".join(written)


def test_empty_tape_takes_the_oldest(backend: str) -> None:
    """Without any choice, tasks run in the order in which they were woken."""
    schedule = Schedule()
    assert run(letters, "a", "b", "c", backend=backend, schedule=schedule) == "abc"
    assert {choice for choice, _ in schedule.log} == {0}


def test_tape_chooses_by_number(backend: str) -> None:
    """A choice on the tape takes the candidate with that number, the others stay in order."""
    assert run(letters, "a", "b", "c", backend=backend, schedule=Schedule(tape={0: 2})) == "cab"
    assert run(letters, "a", "b", "c", backend=backend, schedule=Schedule(tape={0: 1})) == "bac"


@pytest.mark.parametrize("fair", [False, True], ids=["unfair", "fair"])
@pytest.mark.parametrize("eager", [False, True], ids=["lazy", "eager"])
def test_seed_gives_one_run(backend: str, *, fair: bool, eager: bool) -> None:
    """One seed and one program give one run; other seeds give others."""

    def outcome(seed: int) -> tuple[object, ...]:
        schedule = Schedule(seed=seed, fair=fair, eager=eager)
        result = run(letters, *"abcd", backend=backend, schedule=schedule)
        return result, schedule.log

    assert outcome(7) == outcome(7)
    assert len({outcome(seed)[0] for seed in range(30)}) > 10


@pytest.mark.parametrize("fair", [False, True], ids=["unfair", "fair"])
def test_played_choices_give_the_run_again(backend: str, *, fair: bool) -> None:
    """What a seed has chosen, written on a tape, gives the same run."""
    for seed in range(10):
        schedule = Schedule(seed=seed, fair=fair)
        drawn = run(letters, *"abc", backend=backend, schedule=schedule)
        tape = played(schedule)
        assert (tape.seed, tape.fair, tape.eager) == (None, fair, False)
        assert run(letters, *"abc", backend=backend, schedule=tape) == drawn
        assert tape.log == schedule.log


def test_fair_schedule_lets_everybody_run_once(backend: str) -> None:
    """With ``fair`` no task takes a second step before each that could has taken its first."""

    async def scenario() -> str:
        return await letters("a", "b", "c", times=3)

    rounds = set()
    for seed in range(40):
        written = run(scenario, backend=backend, schedule=Schedule(seed=seed, fair=True))
        assert [set(written[at : at + 3]) for at in (0, 3, 6)] == [set("abc")] * 3
        rounds.add(written)
    assert len(rounds) > 20
    unfair = {run(scenario, backend=backend, schedule=Schedule(seed=n)) for n in range(40)}
    assert any(len(set(written[:3])) < 3 for written in unfair)


def test_schedule_may_be_used_again(backend: str) -> None:
    """Each run starts the schedule afresh, and is counted."""
    schedule = Schedule(seed=3)
    first = run(letters, *"abc", backend=backend, schedule=schedule)
    log = schedule.log
    assert run(letters, *"abc", backend=backend, schedule=schedule) == first
    assert (schedule.log, schedule.runs) == (log, 2)


def test_timers_of_one_moment_may_be_reordered(backend: str) -> None:
    """Tasks that fall due at one moment run in every order."""

    async def sleepers() -> str:
        order: list[str] = []

        async def sleep(name: str) -> None:
            await anyio.sleep(1)
            order.append(name)

        async with anyio.create_task_group() as group:
            for name in "abc":
                group.start_soon(sleep, name)
        return "".join(order)

    seen = {run(sleepers, backend=backend, schedule=Schedule(seed=seed)) for seed in range(100)}
    assert len(seen) == 6
    assert run(sleepers, backend=backend, schedule=Schedule()) == "abc"


def test_plain_callbacks_of_asyncio_keep_their_order() -> None:
    """What was given to ``call_soon`` runs in that order, whatever the schedule."""

    async def scenario() -> list[int]:
        loop = asyncio.get_running_loop()
        order: list[int] = []

        async def call(start: int) -> None:
            for n in range(start, start + 3):
                loop.call_soon(calls.append, n)
                loop.call_soon(order.append, len(calls))
                await asyncio.sleep(0)

        calls: list[int] = []
        async with asyncio.TaskGroup() as group:
            group.create_task(call(0))
            group.create_task(call(10))
        await asyncio.sleep(1)
        assert [n for n in calls if n < 10] == [0, 1, 2]
        assert [n for n in calls if n >= 10] == [10, 11, 12]
        return calls

    seen = set()
    for seed in range(50):
        for eager in (False, True):
            seen.add(tuple(run(scenario, schedule=Schedule(seed=seed, eager=eager))))
    assert len(seen) > 5


def test_eager_callbacks_run_before_the_next_step() -> None:
    """An eager schedule runs plain callbacks at once, a lazy one when it likes."""

    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        order: list[str] = []

        async def call() -> None:
            loop.call_soon(order.append, "callback")

        async def step() -> None:
            order.append("step")

        async with asyncio.TaskGroup() as group:
            group.create_task(call())
            group.create_task(step())
        return order

    eager = {tuple(run(scenario, schedule=Schedule(seed=n, eager=True))) for n in range(40)}
    lazy = {tuple(run(scenario, schedule=Schedule(seed=n))) for n in range(40)}
    assert eager == {("callback", "step"), ("step", "callback")}
    assert lazy == eager
    assert run(scenario, schedule=Schedule(tape={})) == ["callback", "step"]
    assert run(scenario, schedule=Schedule(tape={}, eager=False)) == ["step", "callback"]


def test_cancelled_handles_are_dropped() -> None:
    """A handle that was cancelled while it was ready is left out, as asyncio does."""

    async def scenario() -> list[int]:
        loop = asyncio.get_running_loop()
        ran: list[int] = []
        handles = [loop.call_soon(ran.append, n) for n in range(3)]
        handles[1].cancel()
        await asyncio.sleep(1)
        return ran

    for seed in range(10):
        assert run(scenario, schedule=Schedule(seed=seed)) == [0, 2]


def test_eager_tasks_have_an_age() -> None:
    """Tasks that start at once are told apart by age, though they were never queued."""
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("eager tasks came with Python 3.12")

    async def scenario() -> list[str]:
        asyncio.get_running_loop().set_task_factory(factory)
        gone: list[str] = []

        async def wait(name: str) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                gone.append(name)

        async with anyio.create_task_group() as group:
            for n in range(20):
                group.start_soon(wait, str(n))
            group.cancel_scope.cancel()  # in the order of a set, hence of addresses
        return gone

    assert run(scenario, schedule=Schedule()) == [str(n) for n in range(20)]


def test_tasks_of_a_factory_of_ones_own() -> None:
    """A task factory may return any future; the schedule minds its own tasks alone."""

    class Made(asyncio.Future[None]):
        def set_name(self, name: object) -> None:
            pass

    async def scenario() -> None:
        loop = asyncio.get_running_loop()

        def factory(loop: asyncio.AbstractEventLoop, coro: Any, **_: Any) -> Any:
            coro.close()
            return Made(loop=loop)

        loop.set_task_factory(factory)
        task: object = loop.create_task(anyio.sleep(1))
        loop.set_task_factory(None)
        assert isinstance(task, Made)

    run(scenario, schedule=Schedule())


def test_cancellation_order_is_canonical(backend: str) -> None:
    """Tasks that are cancelled together are candidates by age, not by address."""

    async def scenario() -> str:
        gone: list[str] = []

        async def wait(name: str) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                gone.append(name)

        async with anyio.create_task_group() as group:
            for name in "abcdefgh":
                group.start_soon(wait, name)
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        return "".join(gone)

    assert run(scenario, backend=backend, schedule=Schedule()) == "abcdefgh"
    kept = [object() for _ in range(100)]  # so that addresses differ from run to run
    assert len({run(scenario, backend=backend, schedule=Schedule(seed=5)) for _ in kept[:20]}) == 1


# ---- a tape that does not fit --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tape", "reason"),
    [
        ({0: 9}, r"choice 0 is 9, but there were 3 candidates"),
        ({500: 1}, r"there were only \d+ choices"),
        ({0: 7, 1: 8, 500: 1}, r"choice 0 is 7, but there were 3 candidates"),  # the first
    ],
)
def test_tape_that_does_not_fit(backend: str, tape: dict[int, int], reason: str) -> None:
    """A choice that is not there, or comes when the run is over, is refused; the first is told."""
    with pytest.raises(
        ValueError,
        match=rf"^Schedule\(tape=\{{.*\}}\) does not fit this run: {reason}\. It was recorded with "
        r"another program, backend or version: search again\.$",
    ):
        run(letters, *"abc", backend=backend, schedule=Schedule(tape=tape))


@pytest.mark.parametrize("error", [LookupError("x"), pytest.fail.Exception("x")])
def test_misfit_and_failure(backend: str, error: BaseException) -> None:
    """If the run fails as well, its error is the cause."""

    async def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="does not fit this run: there were only 0 cho") as caught:
        run(fail, backend=backend, schedule=Schedule(tape={3: 1}))
    assert caught.value.__cause__ is error


def test_lenient_tape_always_fits(backend: str) -> None:
    """Without ``strict`` choices count modulo the candidates, and needless ones are ignored."""
    tape = {0: 4, 500: 1}
    schedule = Schedule(tape=tape, strict=False)
    assert run(letters, *"abc", backend=backend, schedule=schedule) == "bac"
    assert played(schedule).tape == {0: 1}


def test_no_misfit_of_a_program_that_is_broken_off(backend: str) -> None:
    """Ctrl-C is not a failure, and gets through untouched, however the tape fits."""

    async def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        run(stop, backend=backend, schedule=Schedule(tape={3: 1}))
    assert not hasattr(caught.value, "__notes__")


# ---- what is told of a failure -------------------------------------------------------------------


def test_failure_tells_schedule_and_interleaving(backend: str) -> None:
    """An error carries the schedule, and which task ran when and waited for what."""

    async def scenario() -> None:
        event = anyio.Event()

        async def waiter() -> None:
            await event.wait()
            raise LookupError

        async with anyio.create_task_group() as group:
            group.start_soon(waiter)
            await anyio.sleep(2)
            event.set()

    with pytest.raises(ExceptionGroup) as caught:
        run(scenario, backend=backend, schedule=Schedule(tape={}, fair=True))
    (told,) = caught.value.__notes__
    lines = told.splitlines()
    assert lines[0] == "under Schedule(tape={}, fair=True):"
    assert [line.split()[:4] for line in lines[1:6]] == [
        ["t=0", "scenario#1", "waits", "at"],
        ["t=0", "waiter#2", "waits", "at"],
        ["t=2", "scenario#1", "waits", "at"],
        ["t=2", "waiter#2", "ended"],
        ["t=2", "scenario#1", "ended"],
    ]
    assert "await anyio.sleep(2)  (" in lines[1]
    assert "await event.wait()  (" in lines[2]
    assert ".waiter, line " in lines[2]
    assert "async with anyio.create_task_group() as group:" in lines[3]


def test_error_that_is_raised_again_has_one_note(backend: str) -> None:
    """An exception object that is raised in run after run keeps the latest note alone."""
    error = LookupError()
    error.add_note("the user's own")

    async def fail() -> None:
        raise error

    for _ in range(3):
        with pytest.raises(LookupError):
            run(fail, backend=backend, schedule=Schedule(seed=1))
    assert [note.splitlines()[0] for note in error.__notes__] == [
        "the user's own",
        "under Schedule(seed=1):",
    ]


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Schedule(), "Schedule(tape={})"),
        (Schedule(seed=4), "Schedule(seed=4)"),
        (Schedule(tape={4: 1, 2: 0, 1: 3}), "Schedule(tape={1: 3, 4: 1})"),
        (Schedule(seed=4, fair=True, eager=True), "Schedule(seed=4, fair=True, eager=True)"),
        (Schedule(seed=4, depth=2, horizon=9), "Schedule(seed=4, depth=2, horizon=9)"),
        (Schedule(seed=4, horizon=9), "Schedule(seed=4)"),
        (Schedule(tape={4: 1}, eager=False), "Schedule(tape={4: 1}, eager=False)"),
        (Schedule(tape={4: 1}, strict=False), "Schedule(tape={4: 1}, strict=False)"),
    ],
    ids=str,
)
def test_repr_is_what_to_write_down(schedule: Schedule, text: str) -> None:
    """The repr of a schedule makes it again."""
    assert repr(schedule) == text
    assert repr(eval(text)) == text  # noqa: S307 - our own


def test_tape_is_a_copy() -> None:
    """Neither the mapping that was passed nor the one that is returned changes a schedule."""
    given = {1: 2}
    schedule = Schedule(tape=given)
    given[5] = 1
    schedule.tape[6] = 1
    assert schedule.tape == {1: 2}
    assert Schedule(seed=1).tape == {}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"seed": 1, "tape": {}},
            TypeError,
            r"^seed=1 and tape=\{\} cannot be combined\. Pass one",
        ),
        ({"seed": -1}, ValueError, r"^seed=-1 is less than 0\. Pass a whole number >= 0\.$"),
        ({"seed": 1.5}, TypeError, r"^seed=1\.5 is a float, not an int\."),
        ({"seed": True}, TypeError, r"^seed=True is a bool, not an int\."),
        (
            {"tape": [1, 2]},
            TypeError,
            r"^tape=\[1, 2\] is a list, not a mapping\. Pass what a fail",
        ),
        (
            {"tape": {"1": 1}},
            TypeError,
            r"^number of a choice on the tape='1' is a str, not an int",
        ),
        ({"tape": {-1: 1}}, ValueError, r"^number of a choice on the tape=-1 is less than 0\."),
        ({"tape": {4: None}}, TypeError, r"^choice 4 on the tape=None is a NoneType, not an int\."),
        ({"tape": {4: -2}}, ValueError, r"^choice 4 on the tape=-2 is less than 0\. Pass what a f"),
        ({"fair": 1}, TypeError, r"^fair=1 is an int, not a bool\. Pass True or False\.$"),
        ({"eager": "yes"}, TypeError, r"^eager='yes' is a str, not a bool\."),
        ({"strict": None}, TypeError, r"^strict=None is a NoneType, not a bool\."),
    ],
)
def test_arguments_that_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Each bad argument of a schedule is named, with the reason and the way out."""
    with pytest.raises(error, match=message):
        Schedule(**options)


@pytest.mark.parametrize("schedule", [4, {4: 1}, "seed=4", Schedule])
def test_run_takes_schedules_alone(backend: str, schedule: Any) -> None:
    """run() refuses what is not a schedule before anything runs."""
    with pytest.raises(TypeError, match=r"^schedule=.* is an? \w+, not a Schedule\. Pass Schedu"):
        run(letters, backend=backend, schedule=schedule)
