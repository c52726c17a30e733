"""The contract of limiters: good ones pass, and each kind of wrong one breaks its own clause."""

from __future__ import annotations

import pickle
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.resources import ConcurrencyLimiter, ResourceLimiter
from mtaio.testing import ContractError, check_limiter
from tests.backends import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Statistics:
    """How many tasks wait."""

    waiting: int


class Slots:
    """A good limiter, as short as it goes; the wrong ones differ from it in one place."""

    def __init__(self, slots: int) -> None:
        self.free = slots
        self.queue: deque[anyio.Event] = deque()

    async def acquire(self) -> None:
        """Take a slot, or wait for one."""
        if self.free:
            self.free -= 1
            return
        woken = anyio.Event()
        self.queue.append(woken)
        try:
            await woken.wait()
        except BaseException:
            self.gave_up(woken)
            raise

    def gave_up(self, woken: anyio.Event) -> None:
        """Leave the queue, or hand on what was given."""
        if woken.is_set():
            self.release()
        else:
            self.queue.remove(woken)

    def release(self) -> None:
        """Hand the slot to the first in the queue."""
        if self.queue:
            self.queue.popleft().set()
        else:
            self.free += 1

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *exc_info: object) -> bool | None:
        self.release()
        return None

    def statistics(self) -> Statistics:
        """Return how many tasks wait."""
        return Statistics(len(self.queue))


class BlockAlone:
    """A good limiter with neither acquire nor release, nor statistics."""

    def __init__(self, slots: int) -> None:
        self.inner = Slots(slots)

    async def __aenter__(self) -> None:
        await self.inner.acquire()

    async def __aexit__(self, *exc_info: object) -> None:
        self.inner.release()


class OneTooFew(Slots):
    def __init__(self, slots: int) -> None:
        super().__init__(max(1, slots - 1))


class OneTooMany(Slots):
    def __init__(self, slots: int) -> None:
        super().__init__(slots + 1)


class NeverWakes(Slots):
    def release(self) -> None:
        """Free the slot, and tell nobody."""
        self.free += 1


class Swallows(Slots):
    async def __aexit__(self, *exc_info: object) -> bool:
        self.release()
        return True


class Replaces(Slots):
    async def __aexit__(self, *exc_info: object) -> bool | None:
        self.release()
        if isinstance(exc_info[1], Exception):
            raise type(exc_info[1])("another one")
        return None


class KeepsOnError(Slots):
    async def __aexit__(self, *exc_info: object) -> bool | None:
        if not isinstance(exc_info[1], Exception):
            self.release()
        return None


class ChecksThenActs(Slots):
    async def acquire(self) -> None:
        """Let others run between looking and taking."""
        if self.free:
            await checkpoint()
            self.free -= 1
            return
        await super().acquire()


class WakesOnlyFromNone(Slots):
    """A slot is handed over through free; a task that is woken looks again."""

    async def acquire(self) -> None:
        """Wait until a slot is free, in the queue."""
        while self.free < 1:
            woken = anyio.Event()
            self.queue.append(woken)
            try:
                await woken.wait()
            finally:
                if woken in self.queue:
                    self.queue.remove(woken)
        self.free -= 1

    def release(self) -> None:
        """Wake one if no slot was free, and so miss the second that could come in."""
        self.free += 1
        if self.free == 1 and self.queue:
            self.queue.popleft().set()


class LastFirst(Slots):
    def release(self) -> None:
        """Hand the slot to the last in the queue."""
        if self.queue:
            self.queue.pop().set()
        else:
            self.free += 1


class LetsBargeIn(WakesOnlyFromNone):
    def release(self) -> None:
        """Free the slot for the first to come, then wake the first in the queue."""
        self.free += 1
        if self.queue:
            self.queue.popleft().set()


class TwoKinds(Slots):
    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self.blocks = Slots(slots)

    async def __aenter__(self) -> None:
        await self.blocks.acquire()

    async def __aexit__(self, *exc_info: object) -> bool | None:
        self.blocks.release()
        return None


class ForgetsToLeave(Slots):
    def gave_up(self, woken: anyio.Event) -> None:
        """Stay in the queue."""
        if woken.is_set():
            self.release()


class ForgetsToLeaveAndSkips(ForgetsToLeave):
    """Nothing is lost but memory, which only the statistics tell."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self.gone: set[anyio.Event] = set()

    def gave_up(self, woken: anyio.Event) -> None:
        """Stay in the queue, marked."""
        super().gave_up(woken)
        self.gone.add(woken)

    def release(self) -> None:
        """Hand the slot to the first in the queue that is still there."""
        while self.queue:
            woken = self.queue.popleft()
            if woken not in self.gone:
                woken.set()
                return
        self.free += 1

    def statistics(self) -> Statistics:
        """Count those that are gone too, and for ever."""
        return Statistics(len(self.gone))


class GivesBackTwice(Slots):
    def gave_up(self, woken: anyio.Event) -> None:
        """Give back what was never given."""
        if not woken.is_set():
            self.queue.remove(woken)
        self.release()


class LosesWhatWasHanded(Slots):
    def gave_up(self, woken: anyio.Event) -> None:
        """Leave the queue, and forget the slot."""
        if not woken.is_set():
            self.queue.remove(woken)


class WaitsToLeave(Slots):
    async def __aexit__(self, *exc_info: object) -> bool | None:
        await checkpoint()
        self.release()
        return None


class TrustsTheShield(Slots):
    async def acquire(self) -> None:
        """Yield with the slot in hand, safe from cancel scopes alone."""
        await super().acquire()
        with anyio.CancelScope(shield=True):
            await checkpoint()


class OneLoop(Slots):
    """Keeps something of the first event loop."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self.loop: object = None

    async def acquire(self) -> None:
        """Refuse another loop."""
        loop = anyio.lowlevel.current_token().native_token
        self.loop = self.loop or loop
        if loop is not self.loop:
            raise RuntimeError("this is another event loop")
        await super().acquire()


@pytest.mark.parametrize(
    "factory",
    [
        Slots,
        BlockAlone,
        ConcurrencyLimiter,
        lambda slots: ResourceLimiter(concurrency=slots),
        lambda slots: ResourceLimiter(concurrency=slots, rate=1000, burst=1000, timeout=60),
    ],
    ids=["Slots", "BlockAlone", "ConcurrencyLimiter", "ResourceLimiter", "all of it"],
)
def test_good_limiters_are_accepted(factory: Callable[[int], Any]) -> None:
    """Ours, and any other that holds to the contract, with or without acquire and release."""
    check_limiter(factory, seeds=5, exhaustive=1)


@pytest.mark.parametrize("factory", [anyio.Semaphore, anyio.CapacityLimiter])
def test_anyios_own_belong_to_one_backend(factory: Callable[[int], Any]) -> None:
    """Those of anyio serve one event loop after another, on the backend they are first used on."""
    check_limiter(factory, seeds=5, exhaustive=1, without=["reuse"])
    if "trio" not in BACKENDS:
        check_limiter(factory, seeds=0, exhaustive=None)  # one loop of asyncio is like another
        return
    with pytest.raises(ContractError, match=r"breaks the clause 'reuse' ") as info:
        check_limiter(factory, seeds=0, exhaustive=None)
    assert info.value.clause == "reuse"


@pytest.mark.parametrize(
    ("factory", "clause", "seen"),
    [
        (OneTooFew, "entry", r"the second of two tasks did not enter at once, with 2 slots"),
        (OneTooMany, "entry", r"a third task entered at once, with 2 slots"),
        (NeverWakes, "entry", r"the task that waited did not enter when the others left"),
        (Swallows, "error", r"the error of the body did not come out"),
        (Replaces, "error", r"the error of the body did not come out"),
        (KeepsOnError, "error", r"1 of 1 slots were lost"),
        (ChecksThenActs, "bound", r"2 were inside, with 1 slots"),
        (WakesOnlyFromNone, "progress", r"1 of 4 tasks never entered"),
        (LastFirst, "order", r"asked: first, second, .*; entered: "),
        (LetsBargeIn, "order", r"asked: first, second, .*; entered: "),
        (TwoKinds, "hand", r"2 were inside, with 1 slot"),
        (ForgetsToLeave, "checkpoint", r"1 of 1 slots were lost|the last task never entered"),
        (ForgetsToLeaveAndSkips, "checkpoint", r"not quiescent: .* has waiting=1"),
        (GivesBackTwice, "checkpoint", r"there were more than 1 slots afterwards"),
        (WaitsToLeave, "checkpoint", r"the last task never entered|1 of 1 slots were lost"),
        (TrustsTheShield, "native", r"the last task never entered|1 of 1 slots were lost"),
        (OneLoop, "reuse", r"this is another event loop"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_limiter_breaks_its_clause(
    factory: Callable[[int], Any], clause: str, seen: str
) -> None:
    """Each mistake is found, and named for what it is."""
    message = (
        rf"(?s)^{factory.__name__} breaks the clause '{clause}' of the contract of a limiter: .*"
        rf"\. Seen: \w+: .*({seen})"
    )
    with pytest.raises(ContractError, match=message) as info:
        check_limiter(factory, seeds=10, exhaustive=1, backends=["asyncio"])
    assert info.value.clause == clause


def test_between_steps() -> None:
    """A slot that is lost between being handed over and being picked up is found by its clause."""
    with pytest.raises(ContractError, match=r"^LosesWhatWasHanded breaks the clause 'step' "):
        check_limiter(LosesWhatWasHanded, seeds=5, exhaustive=1, without=["checkpoint"])


def test_the_error_tells_who_ran_when() -> None:
    """What was seen is the cause, with the schedule and the steps, and nothing about pytest."""
    with pytest.raises(ContractError) as info:
        check_limiter(ChecksThenActs, seeds=5, exhaustive=1)
    cause = info.value.__cause__
    assert cause is not None
    (note,) = cause.__notes__
    assert note.startswith("under Schedule(tape=")
    assert "ChecksThenActs.acquire" in note


def test_the_error_survives_pickling() -> None:
    """A worker process of a test run can send it home."""
    error = ContractError("this is broken", "bound")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - what was just dumped
    assert (type(again), str(again), again.clause) == (ContractError, "this is broken", "bound")


def test_one_backend_alone() -> None:
    """A limiter that needs a backend can be held to the contract there."""

    def factory(slots: int) -> object:
        import asyncio  # noqa: PLC0415 - the subject of this test

        asyncio.get_running_loop()
        return Slots(slots)

    check_limiter(factory, seeds=0, exhaustive=None, backends=["asyncio"], without="reuse")  # type: ignore[arg-type] # made wrong to be right


@pytest.mark.skipif("trio" not in BACKENDS, reason="trio is not installed")
def test_on_trio_alone() -> None:
    """Without asyncio there is no Task.cancel() to be cancelled by."""
    check_limiter(ConcurrencyLimiter, seeds=0, exhaustive=None, backends=["trio"])


def test_refusals() -> None:
    """What cannot be checked is refused before anything is searched."""
    with pytest.raises(TypeError, match=r"^factory=3 is an int, which is not callable\. Pass what"):
        check_limiter(3)  # type: ignore[arg-type] # is the point
    with pytest.raises(
        TypeError,
        match=r"^\S*<lambda> made <object .*>, which has no __aenter__, __aexit__, so it i",
    ):
        check_limiter(lambda _: object())  # type: ignore[arg-type,return-value] # is the point
    with pytest.raises(ValueError, match=r"^without='speed' is not a clause of the contract\."):
        check_limiter(Slots, without=["order", "speed"])
    with pytest.raises(ValueError, match=r"^backends=\[\] leaves nothing to check on\. "):
        check_limiter(Slots, backends=[])
    with pytest.raises(ValueError, match=r"^backend='tokio' is unknown\. "):
        check_limiter(Slots, backends=["tokio"])
    with pytest.raises(ValueError, match=r"^seeds=-1 is less than 0\. "):
        check_limiter(Slots, seeds=-1)


def test_errors_of_the_factory_go_out_as_they_are() -> None:
    """A factory that cannot make anything has broken no clause."""
    with pytest.raises(ZeroDivisionError):
        check_limiter(lambda slots: Slots(slots // 0))
