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
    The disk of a host, for programs that use files as they always do; get it from `Host.disk`.

    What a program has written stays when it is killed. When the power is cut, by
    ``kill(silent=True)``, what was not synced may be lost. A file then is as at its last
    ``os.fsync``, or has a part or all of what was written since: bytes added are cut off anywhere,
    and each overwritten sector is old or new. Names that were made, changed or removed since the
    last ``os.fsync`` of their directory may be as before, the latest first. The seed of the network
    chooses.

    Syncs by C code, by other processes, by ``os.sync`` and by an ``fsync`` that was imported from
    `os` before the network was opened are not seen.
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
        """The files, as paths below ``path``, that the last power cut has changed."""
        return self._storage.lost

    def sync(self) -> None:
        """Make all of it durable, such as files that a test has prepared."""
        self._storage.sync()
