"""What the kubelet API serves, from the server itself: no list by hand can lack a route."""

import re
from typing import Any, cast

from vknix.kubelet.server import KubeletServer

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def routes() -> list[tuple[str, str]]:
    """Method and path of each route, with words in the place of what it leaves open; and some that nobody serves."""
    none = cast("Any", None)
    app = KubeletServer(none, guard=none, lookup=none, backend=none, views=none).app()
    served = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    named = {(method, _filled(path)) for method, path in served}
    each = {(one, path) for method, path in named for one in (METHODS if method == "*" else (method,))}
    return [*sorted(each), ("GET", "/"), ("GET", "/unknown"), ("PUT", "/pods"), ("GET", "/metrics/unknown")]


def _filled(path: str) -> str:
    """`/logs{rest}` -> `/logs/rest`, `/exec/{pod}` -> `/exec/pod`."""
    return re.sub(r"/?{(\w+)}", r"/\1", path)
