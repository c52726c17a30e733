"""
Public names of a package that are imported on first use.

Promise: ``from package import Name`` imports the module that has the name, and no other of the
package. A name that was used once is an ordinary attribute.

In the ``__init__`` of a package, beside the imports for type checkers and ``__all__``::

    if not TYPE_CHECKING:
        __getattr__, __dir__ = lazy.attributes(__name__, {"package._module": ("Name", "Other")})
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["attributes"]


def attributes(
    package: str, names: Mapping[str, tuple[str, ...]], modules: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """
    Return the ``__getattr__`` and ``__dir__`` of a package, which Python calls for missing names.

    Args:
        package: Its name.
        names: The modules of the public names.
        modules: Modules of the package that are attributes of it without an import of their own.
    """
    homes = {name: module for module, its in names.items() for name in its}

    def find(name: str) -> Any:
        if name in modules:
            return import_module(f"{package}.{name}")
        home = homes.get(name)
        if home is None:
            msg = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(msg)
        value = getattr(import_module(home), name)
        setattr(sys.modules[package], name, value)
        return value

    def names_of() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes, *modules})

    return find, names_of
