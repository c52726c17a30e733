"""
What each suspended task waits for, since when, and which tasks hold it.

Promise: it is found in what is there anyway: the frames of a task's chain of awaits, by the rules
in `wait_rules`, lead to the object, and the object to those who hold it, if it knows them. Where it
does not, as a limiter whose slots belong to nobody, its holders are searched for among all tasks:
those with a block of it that was entered and not left. What cannot be found is left out; nothing
raises, no code of the program is run, and nothing is kept.
Cost: nothing for a task that waits, and some microseconds for one that is looked at.

How holders are searched for. While a block is entered, the frame of its code holds the method that
will leave it: a bound ``__aexit__``, which leads to the object. ``async with`` has put it there
*before* it entered the block, so the last one does not count while the frame awaits an
``__aenter__``. Blocks of `contextlib` are followed to what is held in them: the frame of a
generator, or the stack of exits. A slot that was taken by ``acquire()`` and will be given back by
``release()`` leaves no trace. So holders are *sure* only if as many were found as slots are in use.

A task whose holders are not all known may be woken by somebody else, so it is in no cycle of which
we are sure (see `knots`).
"""

from __future__ import annotations

import gc
import math
import reprlib
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from opcode import opmap
from types import (
    BuiltinFunctionType,
    CellType,
    FrameType,
    FunctionType,
    MappingProxyType,
    MethodType,
)
from typing import Any, Final, NamedTuple, cast, final

from mtaio._internal import clock
from mtaio._internal.frames import Chain, forms_of, has, module, variables
from mtaio._internal.knots import Need, cycle_in, knots
from mtaio._internal.wait_rules import HOLDING, IN_PARTS, KINDS, LIBRARIES, READY, RULES, Rule

__all__ = ["Found", "Wait", "cycles", "longest", "waits_of"]

_NOTHING: Final[Mapping[int, float]] = MappingProxyType({})

MOST: Final = 10
"""How many of the longest waits are named."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What a task waits for."""

    on: str
    """One word, such as ``"slot"``, ``"token"``, ``"lock"``, ``"sleep"``, ``"tasks"`` or
    ``"thread"``."""
    of: str | None = None
    """The kind and the name of the object, as in ``"ConcurrencyLimiter 'db'"``; None if unknown."""
    key: int | None = None
    """A number that identifies the object; None if unknown."""
    seconds: float | None = None
    """Seconds for which it has waited; None if unknown."""
    at_least: bool = False
    """Whether it may have waited longer than ``seconds``, which counts from the first time it was
    seen there. Many locks, events, queues and sockets do not record when a wait began."""
    holders: tuple[int, ...] = ()
    """The ids of the tasks that hold what it waits for."""

    @property
    def what(self) -> str:
        """The word and the object, as in ``"slot of ConcurrencyLimiter 'db'"``."""
        if self.of is None:
            return self.on
        kind = self.of.partition(" ")[0]
        return self.of if kind.casefold() == self.on else f"{self.on} of {self.of}"


class Found(NamedTuple):
    """The wait of a task, and what follows from it."""

    wait: Wait
    every: bool
    """Whether it waits until all holders are done, not just until any gives something back."""
    sure: bool
    """Whether nobody but the holders can end it."""


def waits_of(
    tasks: Mapping[int, Chain],
    now: float | None,
    ready: Container[int] = (),
    *,
    forms: Mapping[int, int] | None = None,
    since: Mapping[int, float] = _NOTHING,
    keys: bool = False,
) -> dict[int, Found]:
    """
    Return what tasks wait for.

    Args:
        tasks: The chain of awaits of each task of a loop, by its id.
        now: The time of the loop, by which its tasks sleep; None if unknown.
        ready: The ids of those that do not wait, but may hold what others wait for.
        forms: The numbers of the chains, as of `forms_of`, by the task.
        since: Since when a task is known to stand there, by `clock.now`: used if nothing tells
            since when it really waits.
        keys: Whether to show keys, which may be secret.
    """
    look = _Look(tasks, now, forms_of(tasks) if forms is None else forms, keys=keys)
    for task, chain in tasks.items():
        if task not in ready:
            look.at(task, chain)
    look.search()
    return look.found(since)


def cycles(
    found: Mapping[int, Found],
    *,
    sure: bool = True,
    still: Callable[[int], bool] = lambda _: True,
) -> tuple[tuple[int, ...], ...]:
    """
    Return the cycles of tasks that wait for each other, and can be woken by nobody else.

    Each task waits for the next, and the last one for the first. A timeout may end it.

    Args:
        found: What the tasks wait for.
        sure: Whether to leave out those that another task could end, for all that is known.
        still: Returns whether a task waits as it did when its chain was read, where it may have
            gone on since. Holders are read after all chains: so if none of the tasks has gone on,
            there was a moment at which each of them waited, and held what it was seen to hold.
    """
    needs = {
        task: Need(each.wait.holders, every=each.every)
        for task, each in found.items()
        if each.sure or not sure
    }
    return tuple(cycle_in(knot, needs) for knot in knots(needs) if all(map(still, knot)))


def longest(found: Mapping[int, Found]) -> tuple[int, ...]:
    """
    Return the tasks that have waited longest.

    Not those that sleep, nor those whose wait is only known since the first look if nobody holds
    what they wait for: most of these idle, as servers do that wait for a connection.
    """
    seconds = {
        task: each.wait.seconds
        for task, each in found.items()
        if each.wait.seconds is not None and _counts(each.wait)
    }
    return tuple(sorted(seconds, key=lambda task: -seconds[task])[:MOST])


def _counts(wait: Wait) -> bool:
    is_held = wait.holders and wait.on != "tasks"
    return wait.on != "sleep" and bool(is_held or not wait.at_least)


class _Point:
    """What is known of one task's wait."""

    __slots__ = ("every", "holders", "obj", "of", "on", "rule", "seconds", "sure")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.on = rule.on
        self.obj: object = None
        self.of: str | None = None
        self.seconds: float | None = None
        self.holders: tuple[int, ...] = ()
        self.every = False
        self.sure = False


_FUTURE: Final = Rule("future")
_UNKNOWN: Final = Rule("wake-up")


class _Look:
    """One look at all tasks."""

    def __init__(
        self,
        tasks: Mapping[int, Chain],
        now: float | None,
        forms: Mapping[int, int],
        *,
        keys: bool,
    ) -> None:
        self._tasks = tasks
        self._forms = forms
        self._keys = keys
        self._order = dict(zip(tasks, count(), strict=False))
        self._now = now
        self._clock = clock.now()
        self._points: dict[int, _Point] = {}
        self._rules: dict[int, list[tuple[int, Rule]]] = {}
        """The rules that apply to chains of each form, the innermost first, and to which frame."""
        # With the objects, whose ids another object may have once they are gone.
        self._texts: dict[tuple[int, int], tuple[str | None, object, object]] = {}
        self._held: dict[tuple[int, str], tuple[tuple[int, ...], bool]] = {}
        self._wanted: defaultdict[str, dict[int, list[_Point]]] = defaultdict(dict)

    # ---- one task ----

    def at(self, task: int, chain: Chain) -> None:
        """Look at one task."""
        point: _Point | None = None
        try:
            form = self._forms[task]
            rules = self._rules.get(form)
            if rules is None:
                rules = self._rules[form] = _rules_for(chain)
            for index, rule in rules:
                frame: Any = chain.frames[index]
                point = self._apply(rule, frame, point)
            if point is None:
                point = self._end_of(chain)
        except Exception:  # noqa: BLE001 - the task went on, or a library is another than we know
            return
        if point is None or point.on == READY:
            return
        self._points[task] = point
        if point.rule.search:
            self._wanted[point.rule.search].setdefault(id(point.obj), []).append(point)

    def _apply(self, rule: Rule, frame: FrameType, inner: _Point | None) -> _Point | None:
        """Return what is known when a frame was looked at, around those inside."""
        found = variables(frame, rule.variables)
        if rule.search == "futures" and has(found.get("fut"), "cr_frame"):
            return inner  # `wait_for` runs a coroutine in the same task
        if rule.on or inner is None:
            return self._new_point(rule, found, inner)
        detail = _follow(found, rule.detail) if rule.detail else None
        inner.of = self._text(_follow(found, rule.name), detail)
        return inner

    def _new_point(self, rule: Rule, found: Mapping[str, Any], inner: _Point | None) -> _Point:
        """Return what a rule says, where a frame has these variables."""
        point = _Point(rule)
        if rule.sleeps:
            self._tell_sleep(point, found, inner)
            return point
        point.obj = obj = found.get("self") if rule.obj == "self" else _follow(found, rule.obj)
        detail = _follow(found, rule.detail) if rule.detail else None
        point.of = self._text(_follow(found, rule.name) if rule.name else obj, detail)
        if rule.since:
            since = _follow(found, rule.since)
            point.seconds = None if since is None else max(0.0, self._clock - since)
        if rule.search == "futures":
            self._hold_by_futures(point, found)
        elif rule.held_by:
            point.holders, point.sure = self._holders(obj, rule.held_by)
            point.every = rule.every
        return point

    def _tell_sleep(self, point: _Point, found: Mapping[str, Any], inner: _Point | None) -> None:
        """Say how long a task sleeps, and how much of it is left."""
        handle = found.get("h")
        until = found.get("deadline") if handle is None else handle.when()
        total = found.get("delay", found.get("seconds"))
        if until is None and inner is not None and isinstance(inner.obj, float):
            until = inner.obj
        point.obj = until  # for what waits around it
        left = None if until is None or self._now is None else until - self._now
        if left is not None and total is not None:
            point.seconds = max(0.0, total - left)
        if math.inf in (left, total):  # uvloop's timers have an end
            point.of, point.seconds = "no end", None
        elif left is not None:
            whole = "" if total is None else f"{total:.4g} s, "
            point.of = f"{whole}{max(0.0, left):.3g} s left"

    def _end_of(self, chain: Chain) -> _Point | None:
        """Return what a task waits for that has no rule: by what it awaits in the end."""
        for future in (chain.end, *gc.get_referents(chain.end)):  # or its iterator
            if has(future, "get_loop"):
                point = _Point(_FUTURE)
                point.obj = future
                self._hold_by_futures(point, {"fut": future})
                return point
        if chain.frames and _name_at(chain, -1) in _TO_TRIO:
            return _Point(_UNKNOWN)
        return None

    def _hold_by_futures(self, point: _Point, found: Mapping[str, Any]) -> None:
        """Say for which tasks a future or some futures are waited for."""
        future = found.get("fut")
        many = found.get("fs") if future is None else getattr(future, "_children", None)
        if many is not None:
            point.on, point.of = "tasks", None
            point.every = found.get("return_when", "ALL_COMPLETED") == "ALL_COMPLETED"
            point.holders, point.sure = self._ids(
                [_behind(each) for each in many if not each.done()]
            )
            return
        task = _behind(future)
        if has(task, "get_coro"):
            point.on, point.of = "task", self._text(task, None)
            point.holders, point.sure = self._ids([task])
        elif any("_chain_future" in name for name in _callbacks(future)):
            point.on = "thread"

    # ---- names ----

    def _text(self, shown: object, detail: object) -> str | None:
        """Return the kind and name of an object."""
        if shown is None:
            return None
        key = (id(shown), 0 if detail is None else id(detail))
        known = self._texts.get(key)
        if known is None:
            text = _described(shown, detail if self._keys else None)
            known = self._texts[key] = text, shown, detail
        return known[0]

    # ---- holders ----

    def _holders(self, obj: object, path: str) -> tuple[tuple[int, ...], bool]:
        """Return the tasks that an attribute of an object names, and whether these are all."""
        known = self._held.get((id(obj), path))
        if known is not None:
            return known
        value = getattr(obj, path, None)
        tasks: list[Any] = [] if value is None else [value]
        if isinstance(value, (set, dict)):
            many = list(cast("Iterable[Any]", value))  # at once: the loop may change it
            tasks = [getattr(each, "task", each) if _is_ours(each) else each for each in many]
        found = self._held[id(obj), path] = self._ids(tasks)
        return found

    def _ids(self, tasks: Sequence[Any]) -> tuple[tuple[int, ...], bool]:
        """Return the ids of tasks, in the order of all tasks, and whether all of them are tasks."""
        found: list[int] = []
        for each in tasks:
            if isinstance(each, tuple):  # of ours: the ids of the task and of its parent
                found.append(cast("tuple[int, object]", each)[0])
            elif has(each, "get_coro") or has(each, "parent_nursery"):
                found.append(id(each))
        return self._sorted(found), 0 < len(found) == len(tasks)

    def _sorted(self, found: list[int]) -> tuple[int, ...]:
        last = len(self._order)
        return tuple(sorted(found, key=lambda task: self._order.get(task, last)))

    def search(self) -> None:
        """Search for the holders of objects that do not know them."""
        blocks, items, loads = (self._wanted[kind] for kind in ("blocks", "items", "load"))
        if not (blocks or items or loads):
            return
        self._calls = {
            id(call): id(load)
            for points in loads.values()
            for load in [cast("Any", points[0].obj)]
            for each in (load.siblings[:1] or [load])
            for call in (each.call, getattr(each, "coroutine", None))
            if call is not None
        }
        self._holding: defaultdict[int, list[int]] = defaultdict(list)
        self._seen: set[int] = set()
        self._codes: dict[int, _Code | None] = {}
        self._looked_at: dict[int, list[tuple[int, _Code]]] = {}
        for task, chain in self._tasks.items():
            with suppress(Exception):  # as in `at`
                self._search_in(task, chain)
        for points in (*blocks.values(), *items.values(), *loads.values()):
            obj, number = points[0].obj, points[0].rule.slots
            found = self._holding.get(id(obj), [])
            holders = self._sorted([*dict.fromkeys(found)])
            if isinstance(number, str):
                number = getattr(obj, number, None) or len(found) + 1
            for point in points:
                point.holders, point.sure = holders, len(found) >= max(number, 1)

    def _search_in(self, task: int, chain: Chain) -> None:
        """Search for what one task holds."""
        calls = self._calls
        if calls:
            for link in chain.links:
                if id(link) in calls:
                    self._holding[calls[id(link)]].append(task)
        form = self._forms[task]
        places = self._looked_at.get(form)
        if places is None:
            places = self._looked_at[form] = self._places_in(chain)
        for at, what in places:
            if what.opens:
                self._search_blocks(task, chain, at, what)
            frame: Any = chain.frames[at]
            if what.holding is not None and _name_at(chain, at + 1) not in _ACQUIRING:
                found = variables(frame, (what.holding,)).get(what.holding)
                self._hold(task, getattr(found, "__self__", found))  # of a bound method
            if what.is_core:
                self._search_slots(task, variables(frame, _LEADS_TO_SLOTS))

    def _places_in(self, chain: Chain) -> list[tuple[int, _Code]]:
        """Return the indexes of the frames of a chain that may hold something."""
        codes = self._codes
        found: list[tuple[int, _Code]] = []
        for at in range(len(chain.links)):
            code, frame = chain.codes[at], chain.frames[at]
            if id(code) not in codes:
                codes[id(code)] = None if isinstance(frame, str) else self._code(frame)
            what = codes[id(code)]
            if what is not None:
                found.append((at, what))
        return found

    def _code(self, frame: FrameType) -> _Code | None:
        """Return what to look at in frames of this code; None for nothing."""
        module: str = frame.f_globals.get("__name__") or ""
        code = frame.f_code
        blocks = bool(self._wanted["blocks"]) and module.partition(".")[0] not in _KNOWING
        opens = blocks and not _OPENING.isdisjoint(code.co_code[::2])
        holding = HOLDING.get(module, {}).get(code.co_qualname) if blocks else None
        is_core = bool(self._wanted["items"]) and module.startswith("mtaio.core.")
        if not opens and holding is None and not is_core:
            return None
        return _Code(opens=opens, holding=holding, is_core=is_core, outside=set())

    def _search_blocks(self, task: int, chain: Chain, at: int, what: _Code) -> None:
        # At one instruction a frame is always in as many blocks.
        if chain.offsets[at] in what.outside:
            return
        entered = list(_entered(chain.links[at]))
        if entered and _name_at(chain, at + 1) == "__aenter__":
            entered.pop()  # it is only being entered
        if not entered:
            what.outside.add(chain.offsets[at])
        for obj in entered:
            if type(obj).__name__ == "Condition" and any(
                _name_at(chain, below) == "wait" for below in range(at + 1, len(chain.codes))
            ):
                continue  # which has let go of its lock
            self._hold(task, obj)

    def _hold(self, task: int, obj: object) -> None:
        """Note that a task holds an object, or one that this leads to, if it is wanted."""
        for _ in range(_HOPS):
            if id(obj) in self._wanted["blocks"]:
                self._holding[id(obj)].append(task)
                break
            obj = _part_of(obj)

    def _search_slots(self, task: int, found: Mapping[str, Any]) -> None:
        """Note which slots of executors the variables of a frame lead to."""
        holders = [found.get(name) for name in _LEADS_TO_SLOTS]
        slots = [getattr(each, name, None) for each in holders for name in _LENT]
        for slot in (found.get("slot"), *slots):
            key = id(getattr(slot, "slots", None))
            if key in self._wanted["items"] and id(slot) not in self._seen:
                self._seen.add(id(slot))
                if getattr(slot, "lender", None) is None:
                    self._holding[key].append(task)

    def found(self, since: Mapping[int, float]) -> dict[int, Found]:
        """Return what was found."""
        found: dict[int, Found] = {}
        for task, point in self._points.items():
            obj, seconds = point.obj, point.seconds
            at_least = seconds is None and task in since
            wait = Wait(
                on=point.on,
                of=point.of,
                key=None if obj is None or point.rule.sleeps else id(obj),
                seconds=max(0.0, self._clock - since[task]) if at_least else seconds,
                at_least=at_least,
                holders=point.holders,
            )
            found[task] = Found(wait, every=point.every, sure=point.sure)
        return found


def _rules_for(chain: Chain) -> list[tuple[int, Rule]]:
    """Return the rules that apply to a chain, the innermost first, and the index of the frame."""
    found: list[tuple[int, Rule]] = []
    plain = True
    for index in reversed(range(len(chain.frames))):
        frame = chain.frames[index]
        if isinstance(frame, str):
            continue
        module: str = frame.f_globals.get("__name__") or ""
        known = RULES.get(module)
        if known is None:
            if module.partition(".")[0] in LIBRARIES:
                continue
            break  # the program's own code
        rule = known.get(frame.f_code.co_qualname)
        if rule is None:
            continue
        if not rule.on:
            if found:
                found.append((index, rule))
        elif plain or rule.replace:
            # These may need what they find inside of them.
            if not (rule.sleeps or rule.search == "futures"):
                found.clear()
            found.append((index, rule))
            plain = rule.plain
    return found


class _Code(NamedTuple):
    """What a search has to look at where code of this kind is suspended."""

    opens: bool
    """Whether it has blocks."""
    holding: str | None
    """The variable that leads to what it holds without a block."""
    is_core: bool
    """Whether it may hold a slot of an executor."""
    outside: set[int]
    """The instructions at which it is in no block."""


_HOPS: Final = 4
"""How many attributes lead at most from what is entered to what is held."""

_OPENING: Final = frozenset(
    opmap[name] for name in ("BEFORE_ASYNC_WITH", "BEFORE_WITH", "LOAD_SPECIAL") if name in opmap
)
"""The instructions that begin a block."""

_KNOWING: Final = frozenset({"anyio", "asyncio", "trio"})
"""The packages whose own code holds only what knows its holders."""

_LENT: Final = ("slot", "_slot", "_place")
"""The attributes by which what runs an item leads to its slots."""

_LEADS_TO_SLOTS: Final = ("self", "slot", "thread", "worker")
"""The variables that lead to slots of executors."""

_EXITS: Final = {"__aexit__", "__exit__"}


def _entered(link: object, depth: int = 0) -> Iterator[object]:
    """Yield the objects whose blocks the frame of a link is in, the outermost first."""
    function = False
    for each in gc.get_referents(link):
        if function:  # since Python 3.14 the method is kept as a function and its object
            yield from _through(each, depth)
            function = False
        elif type(each) is MethodType:
            if type(each.__func__) is FunctionType and each.__func__.__name__ in _EXITS:
                yield from _through(each.__self__, depth)  # pragma: no cover - up to Python 3.13
        elif type(each) is FunctionType:
            function = each.__name__ in _EXITS


def _through(entered: object, depth: int) -> Iterator[object]:
    """Yield what is entered, or what it has entered, if it is one of `contextlib`'s."""
    if module(type(entered)) != "contextlib" or depth > _HOPS:
        yield entered
        return
    yield from _entered(getattr(entered, "gen", None), depth + 1)
    for _, callback in getattr(entered, "_exit_callbacks", ()):
        is_plain = type(callback) is FunctionType
        method = getattr(callback, "__wrapped__", None) if is_plain else callback
        if type(method) is MethodType:
            yield from _through(method.__self__, depth + 1)


def _part_of(obj: object) -> object:
    """Return what is held where an object's block is entered; None if that is not known."""
    if module(type(obj)).partition(".")[0] not in LIBRARIES:
        return None  # a property of the program's might do anything
    parts = (getattr(obj, name, None) for name in IN_PARTS)
    return next((part for part in parts if part is not None), None)


def _name_at(chain: Chain, at: int) -> str:
    """Return the name of the function in a place of a chain; "" if there is none."""
    if at >= len(chain.codes):
        return ""
    code = chain.codes[at]
    return "" if isinstance(code, str) else code.co_name


_ACQUIRING: Final = {"acquire", "_wait"}
"""Functions in which a task does not hold yet what is given back after them."""

_TO_TRIO: Final = {"_async_yield", "_real_async_yield"}
"""The innermost function of a task of trio's that waits."""


def _follow(found: Mapping[str, Any], path: str) -> Any:
    """Return a variable, or what attributes of it lead to; None if there is nothing."""
    if "." not in path:
        return found.get(path)
    name, *attributes = path.split(".")
    value = found.get(name)
    for each in attributes:
        value = getattr(value, each, None)
    return value


def _described(shown: object, detail: object) -> str | None:
    """Return the kind, the name and the key of an object."""
    while type(shown) is partial:
        shown = cast("object", shown.func)
    kind: type[object] = type(shown)
    text: str | None
    if kind in _FUNCTIONS:
        text = cast("FunctionType", shown).__qualname__
    elif module(kind) == "builtins":
        return None  # a value
    else:
        text = KINDS.get(kind.__name__, kind.__name__)
        if text is None:
            return None
        name = cast("Any", shown).get_name() if has(shown, "get_coro") else None
        if _is_ours(shown):
            name = getattr(shown, "name", None)
        if isinstance(name, str):
            text = f"{text} {_short.repr(name)}"
    return text if detail is None else f"{text} key={_short.repr(detail)}"


_FUNCTIONS: Final = (FunctionType, MethodType, BuiltinFunctionType, type)


def _is_ours(obj: object) -> bool:
    return module(type(obj)).startswith("mtaio.")


class _Short(reprlib.Repr):
    """Describes what Python's own types are made of, and runs no code of the program."""

    def repr_instance(self, x: object, level: int) -> str:
        """Return the kind of what is of another type."""
        if module(type(x)) != "builtins":
            return f"<{type(x).__name__}>"
        return super().repr_instance(x, level)


_short: Final = _Short()
_short.maxstring = 60


def _callbacks(future: Any) -> list[str]:
    """Return the names of what a future calls at its end."""
    return [getattr(fn, "__qualname__", "") for fn, _ in getattr(future, "_callbacks", None) or ()]


def _behind(future: Any) -> Any:
    """Return the task that a future of `asyncio.shield` stands for, or the future."""
    for fn, _ in getattr(future, "_callbacks", None) or ():
        if getattr(fn, "__qualname__", "") == "shield.<locals>._outer_done_callback":
            names = fn.__code__.co_freevars
            cells: dict[str, CellType] = dict(zip(names, fn.__closure__, strict=True))
            return cells["inner"].cell_contents
    return future
