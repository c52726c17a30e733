"""The disk of a host of a simulated network, as a test sees it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from mtaio.testing._network._storage import Storage

__all__ = ["Disk"]


@final
class Disk:
    """
    The disk of a host, for programs that use files as usual; get it from `Host.disk`.

    What a program has written stays when the program is killed. When the power is cut with
    ``kill(silent=True)``, unsynced data may be lost. A file is then as at its last ``os.fsync``, or
    has some or all of what was written since: appended bytes may be cut off anywhere, and each
    overwritten sector is old or new. Names that were created, changed or removed since the last
    ``os.fsync`` of their directory may be as before, the latest changes first. The seed of the
    network decides.

    Syncs by C code, other processes, ``os.sync`` and an ``fsync`` imported from `os` before the
    network was opened are not noticed.
    """

    __slots__ = ("_storage",)

    def __init__(self, storage: Any) -> None:  # which users do not make
        self._storage: Storage = storage

    def __repr__(self) -> str:
        return f"<Disk {str(self.path)!r}>"

    @property
    def path(self) -> Path:
        """A directory, which the `Network` removes at its end."""
        return self._storage.path

    @property
    def lost(self) -> tuple[str, ...]:
        """The files that the last power cut has changed, as paths below ``path``."""
        return self._storage.lost

    def sync(self) -> None:
        """Sync all files, such as those that a test has prepared."""
        self._storage.sync()
