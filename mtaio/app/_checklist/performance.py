"""The checklist, performance: the cache, the limits, the timeout."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Final

from mtaio.app._checklist._item import ask, check, fail, ok, warn
from mtaio.app._checklist._look import in_bytes, in_seconds

if TYPE_CHECKING:
    from mtaio.app._checklist._item import Finding
    from mtaio.app._checklist._look import Look

_BURST_SECONDS: Final = 10
"""Seconds' worth of requests in a burst, at most."""

_ENTRY_BYTES: Final = 1024
"""What an entry of a cache is taken to need."""

_CACHE_SHARE: Final = 0.25
"""The share of the memory that a cache may need."""


@check("performance")
def cache_ttl(look: Look) -> Finding:
    ttl = look.value("cache_ttl")
    if not ttl.value:
        return warn(f"{ttl}: the cache keeps nothing", f"Set {ttl.label} to a number of seconds.")
    if ttl.value == math.inf:
        return warn(
            f"{ttl}: changes made elsewhere are never seen",
            f"Set {ttl.label} to how old an answer may be.",
        )
    return ok(f"{in_seconds(ttl.value)}")


@check("performance")
def cache_size(look: Look) -> Finding:
    size, memory = look.value("cache_size"), look.machine.memory
    if size.value == math.inf:
        return warn(f"{size}: the cache grows without end", f"Set {size.label}.")
    needed = int(size.value) * _ENTRY_BYTES
    if needed > memory * _CACHE_SHARE:
        most = int(memory * _CACHE_SHARE) // _ENTRY_BYTES
        return warn(
            f"{size} is {in_bytes(needed)} of {in_bytes(memory)}, if an entry needs 1 KiB",
            f"Set {size.label} to {most} or less, unless entries are smaller.",
        )
    return ok(f"{int(size.value)} entries, {in_bytes(needed)} if one needs 1 KiB")


@check("performance")
def rate(look: Look) -> Finding:
    rate = look.value("rate_limit")
    if not rate.value:
        return fail(f"{rate}: no request is ever let through", f"Set {rate.label}.")
    if rate.value == math.inf:
        return warn(f"{rate}: no limit", f"Set {rate.label} to what the service can take.")
    return ok(f"{rate.value:g} a second")


@check("performance")
def burst(look: Look) -> Finding:
    burst, rate = look.value("burst_limit"), look.value("rate_limit")
    if burst.value > rate.value * _BURST_SECONDS > 0:
        return warn(
            f"{burst} lets {burst.value / rate.value:.0f} seconds' worth of requests start at once",
            f"Set {burst.label} to {rate.value * _BURST_SECONDS:g} or less.",
        )
    return ok(f"{burst.value:g} at once after a quiet period")


@check("performance")
def concurrency(look: Look) -> Finding:
    limit, workers = look.value("concurrency_limit"), look.value("max_workers")
    if limit.value < workers.value:
        return warn(
            f"{limit} is less than {workers}: workers wait for each other",
            f"Set {workers.label} to {limit.value:g}, or raise {limit.label}.",
        )
    return ok(f"{limit.value:g} requests at once")


@check("performance")
def timeout(look: Look) -> Finding:
    timeout, drain = look.value("default_timeout"), look.settings.shutdown.drain
    if timeout.value == math.inf:
        return warn(f"{timeout}: a request may hang for ever", f"Set {timeout.label}, in seconds.")
    if timeout.value > drain:
        # While both are defaults nobody has decided anything: that is a question, and no mistake.
        undecided = look.is_default("default_timeout") and look.is_default("shutdown_timeout")
        return (ask if undecided else warn)(
            f"{timeout} is longer than the {in_seconds(drain)} that a shutdown waits for requests",
            f"Set {timeout.label} to {math.floor(drain) or drain:g} or less, or raise "
            f"{look.label('shutdown_timeout')}.",
        )
    return ok(f"{in_seconds(timeout.value)}, and a shutdown waits for {in_seconds(drain)}")


@check("performance", needs_settings=False)
def debug_mode(look: Look) -> Finding:
    on = [name for name in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE") if look.text(name) is not None]
    if sys.flags.dev_mode and "PYTHONDEVMODE" not in on:
        on.append("-X dev")
    if on:
        return warn(f"{', '.join(on)}: every call is slower", "Leave it out in production.")
    return ok("Python runs without its debug modes")
