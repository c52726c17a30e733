"""
Packet filters that a listener has (``SO_ATTACH_FILTER``): which requests to connect it sees.

A server that stops uses one to let nobody join its queue any more. Linux asks the filter about each
packet; the simulation about each SYN, since all else of a connection is up to the network.
"""

from __future__ import annotations

import ctypes
import operator
import struct
from collections.abc import Callable
from typing import Final

__all__ = ["ATTACH", "DETACH", "attached", "lets_in"]

ATTACH: Final = 26
"""Linux's SO_ATTACH_FILTER, for which Python has no name."""
DETACH: Final = 27

SYN: Final = 0x02

_PROGRAM: Final = struct.Struct("HP")
_STEP: Final = struct.Struct("HBBI")
_HEADER: Final = struct.Struct("!HHIIBBHHH")
_LOADS: Final = {0x20: 4, 0x28: 2, 0x30: 1}
"""How many bytes at a fixed place each kind of load takes."""
_JUMPS: Final[dict[int, Callable[[int, int], object]]] = {
    0x15: operator.eq,
    0x25: operator.gt,
    0x35: operator.ge,
    0x45: lambda loaded, bits: loaded & bits,
}
_ALWAYS: Final = 0x05
_RETURN: Final = 0x06
_KNOWN: Final = {*_LOADS, *_JUMPS, _ALWAYS, _RETURN}


def attached(value: bytes) -> bytes:
    """
    Return the program that the value of the option points at, which the kernel has found to be one.

    Raises:
        RuntimeError: It has an instruction that is not simulated.
    """
    steps, address = _PROGRAM.unpack(value)
    program = ctypes.string_at(address, steps * _STEP.size)
    for code, *_ in _STEP.iter_unpack(program):
        if code not in _KNOWN:
            msg = (
                f"the instruction {code:#x} of a packet filter is not simulated. Use loads from a "
                f"fixed place, jumps on constants and returns of constants, or no filter in tests."
            )
            raise RuntimeError(msg)
    return program


def lets_in(program: bytes, source: int, target: int) -> bool:
    """Return whether a filter lets a SYN from one port to another through."""
    header = _HEADER.pack(source, target, 0, 0, _HEADER.size // 4 << 4, SYN, 0xFFFF, 0, 0)
    steps = list(_STEP.iter_unpack(program))
    at = loaded = 0
    while True:  # a filter only jumps forward, and ends in a return: the kernel has seen to that
        code, if_so, if_not, k = steps[at]
        at += 1
        if code in _LOADS:
            loaded = int.from_bytes(header[k : k + _LOADS[code]], "big")
        elif code == _RETURN:
            return bool(k)
        elif code == _ALWAYS:
            at += k
        else:
            at += if_so if _JUMPS[code](loaded, k) else if_not
