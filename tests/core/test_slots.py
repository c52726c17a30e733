"""The slots of an executor: handed over in order, lent to what runs inside, written off."""

from __future__ import annotations

import anyio
import pytest

from mtaio.core._slots import NO_ITEM, Awaited, Slot, Slots
from mtaio.testing import settle


def occupied(slots: Slots, around: Slot | None = None) -> Slot:
    """Return a slot in which an item runs, free or lent by another."""
    slot = slots.acquire_nowait(None if around is None else (around, around.item))
    assert slot is not None
    slot.item = 0
    return slot


async def test_free_slots_are_given_at_once() -> None:
    """Up to the limit nobody waits; beyond it there is none."""
    slots = Slots(2, None)
    held = [slots.acquire_nowait(None), await slots.acquire(None)]
    assert None not in held
    assert slots.acquire_nowait(None) is None
    assert (slots.in_use, slots.waits, slots.wait_seconds) == (2, 0, 0)
    for slot in held:
        assert slot is not None
        slots.release(slot)
    assert slots.in_use == 0


async def test_whoever_asks_first_is_served_first() -> None:
    """Waiters get slots in their order, and nobody overtakes them."""
    slots, order = Slots(1, None), list[int]()
    first = occupied(slots)
    async with anyio.create_task_group() as group:

        async def waiter(number: int) -> None:
            slot = await slots.acquire(None)
            order.append(number)
            await anyio.sleep(1)
            slots.release(slot)

        for number in range(4):
            group.start_soon(waiter, number)
            await settle()
        slots.release(first)
        assert slots.acquire_nowait(None) is None  # it is the first waiter's already
    assert order == [0, 1, 2, 3]
    assert slots.wait_seconds == 0 + 1 + 2 + 3
    assert slots.in_use == 0


async def test_cancelled_waiter_leaves_the_queue() -> None:
    """The next in line does not notice."""
    slots = Slots(1, None)
    held = occupied(slots)
    async with anyio.create_task_group() as group:
        with anyio.move_on_after(1):
            await slots.acquire(None)
        assert not slots.queue
        group.start_soon(slots.acquire, None)
        await settle()
        slots.release(held)
    assert slots.in_use == 1


async def test_slot_that_is_granted_to_somebody_who_gave_up_goes_on() -> None:
    """A waiter that cannot use its slot passes it to the next."""
    slots = Slots(1, None)
    held = occupied(slots)
    first, second = slots.enqueue(None), slots.enqueue(None)
    slots.release(held)
    assert first.slot is not None
    assert not second.event.is_set()
    slots.give_up(first)
    assert second.slot is not None
    assert slots.in_use == 1


async def test_lent_slot_comes_back_to_its_item() -> None:
    """A call inside an item takes no slot of the pool; the item has it back afterwards."""
    slots = Slots(1, None)
    outer = occupied(slots)
    inner = occupied(slots, outer)
    assert slots.in_use == 1
    assert (outer.borrower, inner.lender) == (inner, outer)
    assert slots.enclosing((inner, 0)) is inner
    slots.release(inner)
    assert outer.borrower is None
    assert inner.item == NO_ITEM
    assert slots.enclosing((inner, 0)) is outer  # code that outlives the inner item
    slots.release(outer)
    assert slots.in_use == 0
    assert slots.enclosing((inner, 0)) is None


async def test_calls_inside_one_item_take_turns_in_its_slot() -> None:
    """They are its heirs, in their order, and come before those who wait outside."""
    slots = Slots(1, None)
    outer = occupied(slots)
    inner = occupied(slots, outer)
    outside = slots.enqueue(None)
    inside = [slots.enqueue((outer, 0)), slots.enqueue((outer, 0))]
    assert slots.contended(inner)
    slots.release(inner)
    assert inside[0].slot is not None
    assert inside[1].slot is None
    slots.release(inside[0].slot)
    assert inside[1].slot is not None
    assert not slots.contended(inside[1].slot)
    slots.release(inside[1].slot)
    assert outside.slot is None
    assert slots.contended(outer)
    slots.release(outer)
    assert outside.slot is not None


async def test_item_that_ends_leaves_its_slot_to_what_outlives_it() -> None:
    """The tenant takes over, and the limit stands."""
    slots = Slots(1, None)
    outer = occupied(slots)
    inner = occupied(slots, outer)
    assert slots.end_item(outer) is None
    assert inner.lender is None
    assert slots.acquire_nowait(None) is None
    slots.release(inner)
    assert slots.in_use == 0


async def test_awaited_task_runs_inside_whoever_waits() -> None:
    """From the moment it is awaited its calls may use the slot, until nobody waits."""
    slots, task = Slots(1, None), Awaited()
    item = occupied(slots)
    waiter = slots.enqueue((task, 0))
    task.add_wait((item, 0))
    assert waiter.slot is not None
    assert waiter.slot.lender is item
    task.end_wait((item, 0))
    assert waiter.slot.lender is None  # both go on, one beyond the limit
    assert slots.in_use == 2
    other = slots.enqueue(None)
    slots.release(item)
    assert other.slot is None  # what was beyond the limit is paid back first
    slots.release(waiter.slot)
    assert other.slot is not None
    assert slots.in_use == 1


async def test_task_that_ended_has_nobody_around_it() -> None:
    """What outlives a task does not use the slots of those who waited for it."""
    slots, task = Slots(1, None), Awaited()
    item = occupied(slots)
    task.add_wait((item, 0))
    task.end()
    assert slots.enclosing((task, 0)) is None
    task.end_wait((item, 0))
    assert slots.enclosing((task, 0)) is None


async def test_slot_beyond_the_limit_is_paid_back() -> None:
    """``force`` gives one that is not there; the next that comes back is not handed on."""
    slots = Slots(1, None)
    held, forced = occupied(slots), slots.force()
    waiter = slots.enqueue(None)
    slots.release(held)
    assert waiter.slot is None
    slots.release(forced)
    assert waiter.slot is not None


@pytest.mark.parametrize("lasting", [True, False])
async def test_what_a_dead_loop_left_is_written_off(lasting: bool) -> None:  # noqa: FBT001 - a parameter
    """Its waiters are forgotten, and its slots, unless threads may still be at work in them."""
    slots = Slots(1, None, lasting=lasting)
    held = occupied(slots)
    inner = occupied(slots, held)
    waiter, heir = slots.enqueue(None), slots.enqueue((held, 0))
    task = Awaited()
    task.add_wait((held, 0))
    slots.write_off()
    assert slots.in_use == (1 if lasting else 0)
    assert not slots.queue
    if not lasting:
        new = occupied(slots)
        slots.reconsider(heir)  # whatever the garbage of that loop does now changes nothing
        slots.give_up(waiter)
        task.end_wait((held, 0))
        slots.release(inner)
        slots.release(held)
        assert slots.in_use == 1
        held = new
    else:
        slots.release(inner)
    slots.release(held)
    assert slots.in_use == 0
