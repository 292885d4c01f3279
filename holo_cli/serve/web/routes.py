"""The paths of the web pages, and of the JSON that their scripts ask for.

Pages and scripts are the same for everybody and need no key; all that they show does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from holo_cli.serve.encoding import conversation_ids, prompt_ids
from holo_cli.serve.refusal import Refusal
from holo_cli.serve.requests import InsideRequest, parsed
from holo_cli.serve.scheduler import Served
from holo_cli.serve.service import Service
from holo_cli.serve.web import run_logs, shell, written
from holo_cli.translation import language

Handler = Callable[[HttpRequest], Awaitable[Response]]
LONGEST_NAME = 1000  # characters of a name in a query


class Web:
    """The handlers of the pages around a service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.key = service.settings.key

    def routes(self) -> list[tuple[str, Handler, str, bool]]:
        """(path, handler, method, whether it needs no key)."""
        pages = [
            (page.path, partial(self.page, name), "GET", True) for name, page in shell.PAGES.items()
        ]
        return [
            *pages,
            ("/assets/{name}", self.asset, "GET", True),
            ("/written/{path:path}", self.written, "GET", True),  # has a ticket of its own
            ("/api/pages", self.pages, "GET", False),
            ("/api/runs", self.runs, "GET", False),
            ("/api/runs/log", self.log, "GET", False),
            ("/api/runs/settings", self.settings, "GET", False),
            ("/api/inside", self.inside, "POST", False),
        ]

    async def page(self, name: str, http: HttpRequest) -> Response:
        """One of the pages."""
        text = shell.page_html(name, key=bool(self.key))
        return Response(text, media_type="text/html", headers=shell.HEADERS)

    async def asset(self, http: HttpRequest) -> Response:
        """A script or style sheet."""
        name = http.path_params["name"]
        if not shell.is_asset(name):
            raise Refusal(404, f"There is nothing at {http.url.path}.")
        text, kind = await asyncio.to_thread(shell.asset_of, name)
        return Response(text, media_type=kind, headers=shell.HEADERS)

    async def written(self, http: HttpRequest) -> Response:
        """A page that was written before."""
        path = http.path_params["path"]
        written.check_ticket(path, http.query_params.get("ticket", ""), self.key)
        content = await asyncio.to_thread(written.content, path)
        headers = {**shell.HEADERS, "Content-Security-Policy": written.POLICY}
        return Response(content, media_type="text/html", headers=headers)

    async def pages(self, http: HttpRequest) -> Response:
        """The index of pages."""
        return _json({"pages": await asyncio.to_thread(written.listed, self.key)})

    async def runs(self, http: HttpRequest) -> Response:
        """All runs."""
        return _json({"runs": await asyncio.to_thread(run_logs.summaries)})

    async def log(self, http: HttpRequest) -> Response:
        """What a run has logged since the browser last asked."""
        start = http.query_params.get("from", "0")
        if not (start.isascii() and start.isdigit() and len(start) < 16):
            raise Refusal(400, "from must be a number of bytes.", param="from")
        log = http.query_params.get("log", "")
        name = _name(http.query_params.get("run", ""))
        return _json(await asyncio.to_thread(run_logs.log_after, name, log, int(start)))

    async def settings(self, http: HttpRequest) -> Response:
        """In what runs differ."""
        names = [_name(name) for name in http.query_params.getlist("run")]
        if not 2 <= len(names) <= 8:
            raise Refusal(400, "Give 2 to 8 runs.", param="run")
        return _json(await asyncio.to_thread(run_logs.settings, names))

    async def inside(self, http: HttpRequest) -> Response:
        """What a model does with a text."""
        request = parsed(InsideRequest, await self.service.body(http))
        name, served = await self.service.pool.acquire(request.model)
        try:
            look = partial(self._look, request, served)
            return _json({"model": name} | await asyncio.to_thread(look))
        finally:
            self.service.pool.release(name)

    def _look(self, request: InsideRequest, served: Served) -> dict[str, Any]:
        from holo_cli.serve.web.inside import look_inside

        loaded = served.loaded
        if request.messages:
            ids = conversation_ids(loaded, request.messages, served.prefixes, check=False)
        else:
            ids = prompt_ids(loaded, request.prompt, None, check=False)
        look = partial(look_inside, loaded, ids, request.language or language())
        return self.service.scheduler.between_steps(look)


def _json(content: dict[str, Any]) -> Response:
    return JSONResponse(content, headers={"Cache-Control": "no-store"})


def _name(given: str) -> str:
    if len(given) > LONGEST_NAME:
        raise Refusal(400, "The name of the run is too long.", param="run")
    return given
