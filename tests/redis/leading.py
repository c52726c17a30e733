"""What the scripts of `RedisLeader` do, in Python, for the server in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtaio.redis._leader import CLAIM
from tests.redis.exchanging import Slots

if TYPE_CHECKING:
    from mtaio.redis._store import Argument


class Elections(Slots):
    """A server in memory that knows both, and the time of day."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scripts[CLAIM] = _claim
        self.skew = 946_684_805.0


def _claim(
    data: dict[str, Any], now: float, keys: list[str], args: list[Argument]
) -> bytes | int | None:
    name, token, tick, far, _ = args
    known = data.setdefault(keys[0], {"token": 0})
    last = known.get(name)
    if last is not None and float(last) > int(now) + float(far):
        last = None
    answer = None if last is None else str(last).encode()
    if int(token) < known["token"]:
        return answer if tick == "" else 0
    known["token"] = int(token)
    if tick == "":
        return answer
    if last is not None and float(tick) <= float(last):
        return 0
    known[name] = str(tick)
    return 1
