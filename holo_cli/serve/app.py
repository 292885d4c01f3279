"""The web application: paths, keys, and errors in OpenAI's form."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from holo_cli.serve.refusal import Refusal
from holo_cli.serve.service import EventStream, Service
from holo_cli.serve.settings import LOOPBACK, ServeSettings
from holo_cli.serve.web.routes import Web

Handler = Callable[[HttpRequest], Awaitable[Response]]


def make_app(service: Service) -> Starlette:
    """The application around a service."""
    settings = service.settings

    def route(path: str, handler: Handler, method: str, *, open_to_all: bool = False) -> Route:
        async def handled(http: HttpRequest) -> Response:
            began = time.perf_counter()
            try:
                check_host(http, settings)
                if not open_to_all:
                    check_key(http, settings.key)
                response = await handler(http)
            except Refusal as refusal:
                response = answered(refusal)
            except ClientDisconnect:
                response = Response(status_code=499)
            status = response.status_code

            def count() -> None:
                service.metrics.count(path, status, time.perf_counter() - began)

            if isinstance(response, EventStream):
                response.at_the_end(count)
            else:
                count()
            return response

        return Route(path, handled, methods=[method])

    routes = [
        route("/health", service.health, "GET", open_to_all=True),
        route("/metrics", service.figures, "GET"),
        route("/v1/models", service.models, "GET"),
        route("/v1/models/{name:path}", service.model, "GET"),
        route("/v1/completions", service.completions, "POST"),
        route("/v1/chat/completions", service.chat, "POST"),
    ]
    for path, handler, method, is_open in Web(service).routes():
        routes.append(route(path, handler, method, open_to_all=is_open))
    handlers = {HTTPException: not_found, 500: failed}
    return Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]


def check_key(http: HttpRequest, key: str) -> None:
    """Raises Refusal for a request without the key, where there is one."""
    if not key:
        return
    scheme, _, given = http.headers.get("authorization", "").partition(" ")
    # headers are bytes, which starlette decodes as Latin-1; a key may have other letters
    fits = hmac.compare_digest(given.strip().encode("latin-1"), key.encode("utf-8"))
    if scheme.lower() != "bearer" or not fits:
        raise Refusal(401, "The API key is missing or wrong.", code="invalid_api_key")


def check_host(http: HttpRequest, settings: ServeSettings) -> None:
    """Raises Refusal where another name than this machine's own leads here.

    A page on the web could otherwise have its name resolved to 127.0.0.1 and read answers in a
    visitor's browser (DNS rebinding). With a key it cannot.
    """
    if settings.key:
        return
    host = http.headers.get("host", "").strip().lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name not in {*LOOPBACK, settings.host} and not name.startswith("127."):
        raise Refusal(403, f"This server does not answer as '{name}'.", code="wrong_host")


def answered(refusal: Refusal) -> Response:
    """The response of a refusal."""
    return JSONResponse(refusal.body(), refusal.status, headers=refusal.headers())


async def not_found(http: HttpRequest, error: HTTPException) -> Response:
    """An unknown path, or the wrong method."""
    if error.status_code == 405:
        return answered(Refusal(405, f"{http.url.path} does not take {http.method}."))
    return answered(Refusal(error.status_code, f"There is nothing at {http.url.path}."))


async def failed(http: HttpRequest, error: Exception) -> Response:
    """A fault of the server itself."""
    return answered(Refusal(500, f"The server failed: {type(error).__name__}."))
