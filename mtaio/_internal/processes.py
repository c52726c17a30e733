"""
psutil, which knows what the standard library does not, or an error that says where to get it.

Promise: only what measures the machine imports this, and when it begins to: all else works where
psutil cannot be installed.
"""

from __future__ import annotations

try:
    import psutil
except ImportError as _error:
    _msg = (
        "ResourceMonitor and 'mtaio check' need psutil to measure the machine. It is installed "
        "with mtaio unless dependencies were left out: pip install psutil. Everything else works "
        "without it."
    )
    raise ImportError(_msg, name=_error.name) from _error

__all__ = ["psutil"]
