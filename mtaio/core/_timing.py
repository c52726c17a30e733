"""Where `Timing` was, for what still imports it from here."""

from mtaio.core._timeouts import Timing

__all__ = ["Timing"]
