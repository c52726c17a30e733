"""
The state of a circuit breaker that processes share: as the server keeps it, and in one of them.

Promise: a change of the state is one step at the server. What a process opened lately opens it, and
of several openings the one that ends last counts; of probes only those of the period it is in do.
Half-open, exactly ``half_open`` places are given to all processes together; a
process that is silent for a lease loses those in which calls are under way. A process reports in
absolute numbers, so that a call which is lost, or whose answer is lost, does no harm.
Cost: a hash, for as long as a day after the last change; nothing for a call while it is closed.
Why processes share the state and not the outcomes: docs/en/design/redis.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from mtaio._internal.circuit import BreakerState, Circuit
from mtaio.redis._store import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from mtaio._internal.circuit import Rules
    from mtaio.redis._store import Store

__all__ = ["CHANGE", "Answer", "Report", "SharedCircuit", "SharedState"]

# KEYS: a hash with the state; the processes with calls under way that probe the service, by when
# their leases end. All times are in microseconds.
# ARGV: who; the period that it knows; of its probes in that period, how many are under way, were
# bad, have ended; how many more it wants; how many all have; the share that has to be bad; for how
# long the circuit then opens; the lease; "open", "force", "close" or ""; for how long, -1 for ever;
# why.
# Returns: the state; its period; microseconds for which it is still open, -1 for ever; the places
# that are granted; those that are left; why it was opened.
#
# Fields of the state: "state"; "period", which only grows; "until", and "why"; and for a process
# "p:", its probes under way, those that were bad, those that have ended.
CHANGE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local me, known = ARGV[1], tonumber(ARGV[2])
local held, bad, ended = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local want, places, ratio = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local open_for, lease = tonumber(ARGV[9]), tonumber(ARGV[10])
local order, seconds, text = ARGV[11], tonumber(ARGV[12]), ARGV[13]
local got = redis.call('HMGET', KEYS[1], 'state', 'period', 'until', 'why')
local state, period = got[1] or 'closed', tonumber(got[2] or '0')
local until_, why = tonumber(got[3] or '0'), got[4] or ''
local DAY = 86400000

local function move(to, after, reason)
  state, why, period = to, reason, math.max(now, period + 1)
  until_ = after < 0 and -1 or now + after
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'state', state, 'period', string.format('%.0f', period),
      'until', string.format('%.0f', until_), 'why', why)
  if after >= 0 then redis.call('PEXPIRE', KEYS[1], DAY + math.ceil(after / 1000)) end
end

if order == 'force' or (order == 'open' and state == 'closed') then
  move('open', seconds, text)
elseif order == 'open' and state == 'open' and until_ >= 0 and now + seconds > until_ then
  until_ = now + seconds -- of several openings, as after an outage, the one that ends last counts
  redis.call('HSET', KEYS[1], 'until', string.format('%.0f', until_))
  redis.call('PEXPIRE', KEYS[1], DAY + math.ceil(seconds / 1000))
elseif order == 'close' then
  move('closed', 0, '')
end
if state == 'open' and open_for >= 0 and until_ - now > open_for then
  until_ = now + open_for -- the server's clock has been set back
  redis.call('HSET', KEYS[1], 'until', string.format('%.0f', until_))
end
if state == 'open' and want > 0 and until_ >= 0 and now >= until_ then move('half-open', 0, why) end
local granted, left = 0, 0
if state == 'half-open' then
  if known ~= period then held, bad, ended = 0, 0, 0 end -- of its probes in an earlier period
  local all_held, all_bad, all_ended = held, bad, ended
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    local who = string.match(fields[i], '^p:(.*)')
    if who and who ~= me then
      local h, b, e = string.match(fields[i + 1], '(%d+) (%d+) (%d+)')
      local ends = tonumber(redis.call('ZSCORE', KEYS[2], who) or '0')
      if ends > now + lease then redis.call('ZADD', KEYS[2], now + lease, who) end -- set back
      if ends > now then all_held = all_held + h end
      all_bad, all_ended = all_bad + b, all_ended + e
    end
  end
  if all_bad > 0 and all_bad / places >= ratio then
    move('open', open_for, string.format('%d of %d calls that were to probe it failed or were slow',
        all_bad, all_ended))
  elseif all_ended >= places then
    move('closed', 0, '')
  else
    left = math.max(0, places - all_held - all_ended)
    granted = math.min(want, left)
    left, held = left - granted, held + granted
    redis.call('HSET', KEYS[1], 'p:' .. me, string.format('%d %d %d', held, bad, ended))
    if held > 0 then
      redis.call('ZADD', KEYS[2], now + lease, me)
      redis.call('PEXPIRE', KEYS[2], DAY)
    else
      redis.call('ZREM', KEYS[2], me)
    end
  end
end
local remaining = 0
if state == 'open' then remaining = until_ < 0 and -1 or math.max(0, until_ - now) end
return {state, period, string.format('%.0f', remaining), granted, left, why}
""")


class Report(NamedTuple):
    """What a process reports, and what it wants."""

    process: str
    period: int
    """The period that it knows."""
    held: int
    """Its probes under way."""
    bad: int
    """Those that failed or were slow."""
    ended: int
    """Those that have ended, with an outcome."""
    wanted: int
    """How many more it wants to make."""
    order: str
    """``"open"`` if it has opened the circuit, ``"force"`` or ``"close"`` by hand, or nothing."""
    seconds: float
    """For how long it is to be open."""
    reason: str
    """Why."""


class Answer(NamedTuple):
    """What the server says of the circuit."""

    state: BreakerState
    period: int
    seconds: float
    """For how long it is still open."""
    granted: int
    """How many more probes this process may make."""
    left: int
    """How many may be made besides."""
    reason: str
    """Why it was opened."""


class SharedState:
    """
    The state of one key.

    Args:
        store: The server.
        key: What the circuit is for.
        rules: When it opens, and closes again.
        lease: Seconds of silence after which the probes of a process no longer count.
    """

    __slots__ = ("_keys", "_lease", "_rules", "_store")

    def __init__(self, store: Store, key: str, rules: Rules, lease: float) -> None:
        base = f"mtaio:breaker:{{{key}}}"
        self._keys = (base, f"{base}:probes")
        self._store = store
        self._rules = rules
        self._lease = lease

    async def exchange(self, report: Report) -> Answer:
        """Report to the server; return what it says."""
        rules = self._rules
        answer = await self._store.script(
            CHANGE,
            self._keys,
            (
                *report[:6],
                rules.half_open,
                rules.half_open_ratio,
                _microseconds(rules.open_for),
                self._lease * 1e6,
                report.order,
                _microseconds(report.seconds),
                report.reason,
            ),
        )
        state, period, remaining, granted, left, reason = answer
        seconds = math.inf if float(remaining) < 0 else float(remaining) / 1e6
        return Answer(BreakerState(state.decode()), period, seconds, granted, left, reason.decode())


def _microseconds(seconds: float) -> float:
    return -1 if seconds == math.inf else seconds * 1e6


class SharedCircuit(Circuit):
    """
    The circuit in one process: it opens by the outcomes here, and all else the server decides.

    Args:
        rules: As for `Circuit`.
        key: As for `Circuit`.
        changed: As for `Circuit`.
        tell: Called when there is something to report.

    Attributes:
        alone: Whether it decides all by itself, because the server is down.
        trip: Why it was opened here, until the server has been told; "" if it was not.
        places: Places to probe that were granted and not used yet.
        held: Probes under way, and places that were granted.
        bad: Probes that failed or were slow.
        ended: Probes that have ended, with an outcome.
    """

    # Invariants: places <= held; places, held, bad and ended are of the period that the server was
    # in last, and 0 in any state but half-open, and while alone.
    __slots__ = ("_tell", "alone", "bad", "ended", "held", "places", "trip")

    def __init__(
        self,
        rules: Rules,
        key: Hashable,
        changed: Callable[[Circuit, BreakerState, Exception | None], object],
        tell: Callable[[], object],
    ) -> None:
        super().__init__(rules, key, changed)
        self._tell = tell
        self.alone: bool = False
        self.trip: str = ""
        self.forget_probes()

    def forget_probes(self) -> None:
        """Have no probes."""
        self.places: int = 0
        self.held: int = 0
        self.bad: int = 0
        self.ended: int = 0

    @property
    def shares(self) -> bool:
        """Whether the server decides what comes next: it is half-open, or its time is over."""
        if self.alone:
            return False
        if self.state is BreakerState.OPEN:
            return self.left() <= 0
        return self.state is BreakerState.HALF_OPEN

    def admit(self) -> bool:
        """Return whether a call may go through, and give it a place, if the server granted one."""
        if self.alone or self.state is BreakerState.DISABLED:
            return super().admit()
        if not self.places:
            return False
        self.places -= 1
        return True

    def give_back(self, period: int) -> None:
        """Give back the place of a call that was let through in ``period``."""
        if self.alone:
            super().give_back(period)
        elif period == self.period and self.state is BreakerState.HALF_OPEN:
            self.give_place_back()

    def give_place_back(self) -> None:
        """Give a place back to the server."""
        self.held -= 1
        self._tell()

    def open(self, seconds: float, reason: str, error: Exception | None = None) -> None:
        """Let no call through for ``seconds``, here and, once the server knows, anywhere."""
        super().open(seconds, reason, error)
        self.trip = reason
        self.forget_probes()
        self._tell()

    def close(self) -> None:
        """Close it, and forget every outcome."""
        super().close()
        self.trip = ""
        self.forget_probes()

    def adopt(self, state: BreakerState, seconds: float, reason: str) -> None:
        """Be in the state in which the server is."""
        self.alone = False
        if self.state is BreakerState.DISABLED:  # by hand, in this process alone
            self.forget_probes()
        elif state is BreakerState.OPEN:
            super().open(seconds, reason)
            self.trip = ""
            self.forget_probes()
        elif state is BreakerState.CLOSED:
            if self.state is not BreakerState.CLOSED:
                self.close()
        else:
            self.reason = reason
            self.trip = ""
            self.forget_probes()
            self._change(BreakerState.HALF_OPEN)

    def go_alone(self) -> None:
        """Decide all by itself from here on, with what the probes here have shown."""
        if self.alone:
            return
        bad, ended = self.bad, self.ended
        self.alone = True
        self.forget_probes()
        if self.state is not BreakerState.HALF_OPEN:
            return
        if ended and not bad:
            self.close()
        else:  # probes under way no longer count: the next call is another
            super().open(self._rules.open_for if bad else 0.0, self.reason)

    def _count(self, error: Exception | None, seconds: float, *, failed: bool) -> None:
        if self.alone or self.state is not BreakerState.HALF_OPEN:
            super()._count(error, seconds, failed=failed)
            return
        self.held -= 1
        self.ended += 1
        self.bad += failed or seconds >= self._rules.slow_from
        self._tell()
