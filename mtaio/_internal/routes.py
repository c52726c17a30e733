"""
Which route of an ASGI application a request was for: ``/items/{id}``, not ``/items/17``.

Promise: a template is what the program has written, never what a client has sent; whatever is not
known is None. No framework is imported.
Cost: some look-ups in dicts; below a mount whose path has parameters, a walk through the mounts.

What the frameworks leave in the scope, which they fill in as they answer:

- Litestar: ``path_template``.
- Starlette: ``endpoint``, and ``route`` since 1.0. FastAPI has always left its own routes there.
  Without ``route`` it is that of the application's routes which has this endpoint; of several, that
  which fits the path.
- FastAPI leaves the route of an included router as it was written, without the prefix. Where it
  does not copy the routes that it includes, a context beside the route has all of the path.
- Mounts: ``root_path`` has grown by the path of the mount as the client has sent it. So the mounts
  are looked for through which such a path leads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable

    from mtaio._internal.asgi import Message

__all__ = ["Routes"]

_MOST_KNOWN: Final = 1000
"""Endpoints of which the routes are kept. No program has more, unless it makes new ones."""


class Routes:
    """The routes of an application, as far as requests have shown them."""

    # Invariant: a place is kept if its path is what the program has written for it, so there are
    # not more of them than mounts.
    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: Final[dict[str, _Place]] = {}

    def template(self, scope: Message) -> str | None:
        """
        Return the template of the route that a request was for; None if it is not known.

        Args:
            scope: That of the request, which the application has seen.
        """
        endpoint = scope.get("endpoint")
        if endpoint is None:
            return scope.get("path_template") or None
        root: str = scope.get("root_path", "")
        mounted = root.removeprefix(scope.get("app_root_path", root))
        template = _template(scope, endpoint)
        if template is not None and not mounted:
            return template
        place = self._place(scope, mounted)
        if place is None:
            return None
        if template is None:
            template = place.template(endpoint, scope["path"].removeprefix(root))
        return None if template is None else place.prefix + template

    def _place(self, scope: Message, mounted: str) -> _Place | None:
        """Return where in the application requests go that have come through this path."""
        place = self._places.get(mounted)
        if place is None:
            place = _Place.find(getattr(scope.get("router"), "routes", ()), mounted)
            if place is not None and place.prefix == mounted:
                self._places[mounted] = place
        return place


class _Place:
    """
    A router, and the way to it.

    Args:
        prefix: The templates of the mounts on the way.
        mount: The last of them, if there is one.
        routes: Those of the router.
    """

    __slots__ = ("_known", "_mount", "_routes", "prefix")

    def __init__(self, prefix: str, mount: Any, routes: Iterable[Any]) -> None:
        self.prefix: Final = prefix
        self._mount: Final = mount
        self._routes: Final = routes
        # The endpoints are kept as well: the id of one that is gone may become another's.
        self._known: Final[dict[int, tuple[object, list[Any]]]] = {}

    @classmethod
    def find(
        cls, routes: Iterable[Any], path: str, prefix: str = "", mount: Any = None
    ) -> _Place | None:
        """Return the place to which a path leads through mounts; None if there is none."""
        if not path:
            return cls(prefix, mount, routes)
        for route in routes:
            inner: Iterable[Any] | None = getattr(route, "routes", None)
            regex: re.Pattern[str] | None = getattr(route, "path_regex", None)
            place: _Place | None = None
            if inner is None:
                continue
            if regex is None:  # a host, which takes nothing of the path
                place = cls.find(inner, path, prefix, mount)
            elif match := regex.match(f"{path}/"):
                own = route.path_format.removesuffix("/{path}")
                rest = f"/{match['path']}".rstrip("/")
                place = cls.find(inner, rest, prefix + own, route)
            if place is not None:
                return place
        return None

    def template(self, endpoint: object, path: str) -> str | None:
        """
        Return the template of the route that has this endpoint.

        Args:
            endpoint: The endpoint.
            path: What is left of the request's path here.
        """
        if getattr(self._mount, "app", None) is endpoint:
            return "/{path}"
        known = self._known.get(id(endpoint))
        if known is None:
            known = endpoint, [each for each in self._routes if _has(each, endpoint)]
            if len(self._known) < _MOST_KNOWN:
                self._known[id(endpoint)] = known
        _, having = known
        fitting = having if len(having) == 1 else [r for r in having if r.path_regex.match(path)]
        return fitting[0].path_format if fitting else None


def _template(scope: Message, endpoint: object) -> str | None:
    """Return the template of the route that the framework names, without those of mounts."""
    if "fastapi" in scope:
        context = scope["fastapi"].get("effective_route_context")
        for route in (getattr(context, "starlette_route", None), context):
            if _has(route, endpoint):
                return _format(route)
    route = scope.get("route")
    return _format(route) if _has(route, endpoint) else None


def _has(route: object, endpoint: object) -> bool:
    return getattr(route, "endpoint", None) is endpoint


def _format(route: Any) -> str | None:
    template: str | None = getattr(route, "path_format", None)
    return template
