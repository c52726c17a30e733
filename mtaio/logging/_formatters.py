"""What `_redact` and `_walk` still import from here; it moved to `_json`."""

from mtaio.logging._json import OWN, as_text

__all__ = ["OWN", "as_text"]
