"""
Which route of an ASGI application a request was for: ``/items/{id}``, not ``/items/17``.

Promise: a template is what the program has written, never what a client has sent; whatever is not
known is None. No framework is imported.
Cost: some look-ups in dicts; below a mount whose path has parameters, a walk through the mounts.

What the frameworks leave in the scope, which they fill in as they answer:

- Litestar: ``path_template``.
- Starlette: ``endpoint``, and ``route`` since 1.0. FastAPI has always left its own routes there.
  Without ``route`` it is that of the application's routes which has this endpoint and fits the
  path.
- FastAPI leaves the route of an included router as it was written, without the prefix. Where it
  does not copy the routes that it includes, a context beside the route has all of the path.
- Mounts: ``root_path`` has grown by the path of the mount as the client has sent it. So the mounts
  are looked for through which such a path leads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator

    from mtaio._internal.asgi import Message

__all__ = ["Routes"]

_MOST_KNOWN: Final = 1000
"""Endpoints of which the routes are kept. No program has more, unless it makes new ones."""


class Routes:
    """The routes of an application, as far as requests have shown them."""

    # Invariant: the places of a path are kept if it is what the program has written for one of
    # them, so there are no more paths than mounts.
    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: Final[dict[str, list[_Place]]] = {}

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
        for place in self._to(mounted, scope):
            own = template or place.template(endpoint, scope["path"].removeprefix(root))
            if own is not None:
                return place.prefix + own
        return None

    def _to(self, mounted: str, scope: Message) -> list[_Place]:
        """Return where in the application requests go that have come through this path."""
        places = self._places.get(mounted)
        if places is None:
            places = list(_leading(getattr(scope.get("router"), "routes", ()), mounted, _Place()))
            if any(place.prefix == mounted for place in places):
                self._places[mounted] = places
        return places


def _leading(routes: Iterable[Any], path: str, at: _Place) -> Iterator[_Place]:
    """Yield each place to which a path leads through mounts, the first that fits before others."""
    if not path:
        yield _Place(at.prefix, at.mount, routes)
        return
    for route in routes:
        inner: Iterable[Any] | None = getattr(route, "routes", None)
        regex: re.Pattern[str] | None = getattr(route, "path_regex", None)
        if inner is None:
            continue
        if regex is None:  # those of a host, whose name takes nothing of the path
            yield from _leading(inner, path, at)
        elif (match := regex.match(f"{path}/")) and "path" in regex.groupindex:
            prefix = at.prefix + route.path_format.removesuffix("/{path}")
            yield from _leading(inner, f"/{match['path']}".rstrip("/"), _Place(prefix, route))


class _Place:
    """
    A router, and the way to it.

    Args:
        prefix: The templates of the mounts on the way.
        mount: The last of them; None if there is none.
        routes: Those of the router.
    """

    __slots__ = ("_known", "_routes", "mount", "prefix")

    def __init__(self, prefix: str = "", mount: Any = None, routes: Iterable[Any] = ()) -> None:
        self.prefix: Final = prefix
        self.mount: Final = mount
        self._routes: Final = routes
        # The endpoints are kept as well: the id of one that is gone may become another's.
        self._known: Final[dict[int, tuple[object, list[Any]]]] = {}

    def template(self, endpoint: object, path: str) -> str | None:
        """
        Return the template of the route that has this endpoint.

        Args:
            endpoint: The endpoint.
            path: What is left of the request's path here.
        """
        if getattr(self.mount, "app", None) is endpoint:
            return "/{path}"
        known = self._known.get(id(endpoint))
        if known is None:
            having = [each for each in self._routes if _has(each, endpoint)]
            known = endpoint, [each for each in having if hasattr(each, "path_regex")]
            if len(self._known) < _MOST_KNOWN:
                self._known[id(endpoint)] = known
        return next((each.path_format for each in known[1] if each.path_regex.match(path)), None)


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
