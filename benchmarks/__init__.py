"""Ours beside rivals, in one run."""
