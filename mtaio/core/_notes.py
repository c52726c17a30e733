"""Where `note` was, for what still imports it from here."""

from mtaio.core._errors import note

__all__ = ["note"]
