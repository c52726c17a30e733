"""Structured concurrency for real work, under limits, in production, on asyncio or trio."""

from __future__ import annotations

__version__ = "0.1.0"
