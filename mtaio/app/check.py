"""The checklist of the deployment guide, as ``mtaio check`` goes through it."""

from mtaio.app._checklist import CheckItem, run_checks

__all__ = ["CheckItem", "run_checks"]
