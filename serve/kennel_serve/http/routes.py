"""Which function answers a path: a small table, as an endpoint has a handful of paths."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from kennel_serve.http.messages import HttpResponse

Handler = Callable[..., Awaitable[HttpResponse]]  # of a Request, its Record and what stands in the pattern's braces


@dataclass(frozen=True)
class Route:
    """One method of one path: `/models/{name}` has a segment of any text, which its function is called with."""

    method: str
    pattern: str
    handler: Handler


@dataclass(frozen=True)
class RouteMatch:
    """What a path leads to."""

    pattern: str
    handlers: dict[str, Handler]  # by method
    names: tuple[str, ...] = ()  # what stands in place of the pattern's braces

    @property
    def allowed(self) -> str:
        return ", ".join(sorted(self.handlers))


class Routes:
    """All of one endpoint."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._handlers: dict[str, dict[str, Handler]] = {}
        for route in routes:
            methods = [route.method, "HEAD"] if route.method == "GET" else [route.method]
            self._handlers.setdefault(route.pattern, {}).update(dict.fromkeys(methods, route.handler))

    @property
    def known(self) -> str:
        return ", ".join(sorted(self._handlers))

    def find(self, path: str) -> RouteMatch | None:
        if path in self._handlers and "{" not in path:
            return RouteMatch(path, self._handlers[path])
        parts = path.split("/")
        for pattern, handlers in self._handlers.items():
            names = _match(pattern.split("/"), parts)
            if names is not None:
                return RouteMatch(pattern, handlers, names)
        return None


def _match(pattern: list[str], parts: list[str]) -> tuple[str, ...] | None:
    """What stands in the pattern's braces; a name is decoded only then, so that it may hold a slash."""
    if len(pattern) != len(parts):
        return None
    names = []
    for wanted, part in zip(pattern, parts, strict=True):
        if wanted.startswith("{") and part:
            names.append(unquote(part))
        elif wanted != unquote(part):
            return None
    return tuple(names)
