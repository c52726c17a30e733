"""The hunts need every library of the group found, in the very version that it pins."""

from tests.found.findings import HUNTED

collect_ignore = [] if HUNTED else ["test_hunts.py"]
