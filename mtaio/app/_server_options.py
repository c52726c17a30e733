"""
What stands between the network and an application that is served: TLS, proxies, a limit, a log.

Promise: the command line comes before the program, and the program before the settings; a value
that makes no sense is refused where it is given.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final, TypedDict

from mtaio._internal import checks
from mtaio._internal.proxies import Proxies

if TYPE_CHECKING:
    import os

    from hypercorn.config import Config

    from mtaio.app._certificate import Certificate
    from mtaio.config import Settings

__all__ = ["ServerOptionValues", "ServerOptions"]

_MOST: Final = "Pass a whole number, 1 or more, or math.inf for no limit."
_SECONDS: Final = "Pass a number of seconds, more than 0, or math.inf for no limit."


class ServerOptionValues(TypedDict, total=False):
    """The options of a server; None, or not given, for those of the settings."""

    certfile: str | os.PathLike[str] | None
    keyfile: str | os.PathLike[str] | None
    trusted_proxies: str | None
    max_in_flight: float | None
    body_timeout: float | None
    access_log: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """
    What was given in one place; None for what was not.

    Args:
        certfile: The certificate; ``""`` for none, whatever the settings say.
        keyfile: Its private key; None if the certificate's file has it too.
        trusted_proxies: Whose headers are believed; ``""`` for nobody's.
        max_in_flight: How many requests are answered at once.
        body_timeout: Seconds that a client may take for the next piece of a request's body.
        access_log: Whether requests have ids, and lines in the log.

    Raises:
        ValueError, TypeError: It makes no sense.
    """

    certfile: str | os.PathLike[str] | None = None
    keyfile: str | os.PathLike[str] | None = None
    trusted_proxies: str | None = None
    max_in_flight: float | None = None
    body_timeout: float | None = None
    access_log: bool | None = None

    def __post_init__(self) -> None:
        if self.certfile is not None:
            checks.path("certfile", self.certfile)
        if self.keyfile is not None:
            checks.path("keyfile", self.keyfile)
        if self.keyfile and not self.certfile:
            msg = f"keyfile={self.keyfile!r} is given without a certificate. Pass certfile= too."
            raise ValueError(msg)
        Proxies.parse("trusted_proxies", self.trusted_proxies)
        if self.max_in_flight is not None:
            checks.most("max_in_flight", self.max_in_flight, way_out=_MOST)
        if self.body_timeout is not None:
            checks.more_than_0("body_timeout", self.body_timeout, way_out=_SECONDS)
        if self.access_log is not None:
            checks.flag("access_log", self.access_log)

    def __bool__(self) -> bool:
        return self != _NONE

    def over(self, other: ServerOptions) -> ServerOptions:
        """Return these, with the other's for what was not given; a key goes with its file."""
        given = {name: value for name in _NAMES if (value := getattr(self, name)) is not None}
        if self.certfile is not None:
            given["keyfile"] = self.keyfile
        return replace(other, **given)

    def certificate(self, config: Config | None, settings: Settings) -> Certificate | None:
        """Return the certificate that counts: given here, in hypercorn's configuration, or set."""
        certfile, keyfile, password = self.certfile, self.keyfile, None
        if certfile is None and config is not None and config.ssl_enabled:
            certfile, keyfile = config.certfile, config.keyfile
            password = config.keyfile_password
        elif certfile is None:
            certfile, keyfile = settings.certfile, settings.keyfile
        if not certfile:
            return None
        from mtaio.app._certificate import Certificate  # noqa: PLC0415 - it loads ssl

        return Certificate(str(certfile), str(keyfile or certfile), password)

    def proxies(self, settings: Settings) -> Proxies | None:
        """Return the proxies that count."""
        given = settings if self.trusted_proxies is None else self
        return Proxies.parse("trusted_proxies", given.trusted_proxies)

    def most(self, settings: Settings) -> float:
        """Return the limit that counts."""
        return settings.max_in_flight if self.max_in_flight is None else self.max_in_flight

    def seconds(self, settings: Settings) -> float:
        """Return the time for a piece of a body that counts."""
        return settings.body_timeout if self.body_timeout is None else self.body_timeout

    def logs(self, settings: Settings) -> bool:
        """Return whether requests are logged."""
        return settings.access_log if self.access_log is None else self.access_log


_NONE: Final = ServerOptions()
_NAMES: Final = [each.name for each in fields(ServerOptions)]
