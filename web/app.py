"""The web face as an application: routes, error pages, and the headers every answer carries."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lab.context import Lab
from lab.errors import ConfigError, LabError, NotFoundError
from lab.flights.recipe import Recipe, all_recipes
from web.pages import Pages
from web.routes import (
    api,
    bisections,
    branches,
    compare,
    flights,
    history,
    hosts,
    jobs,
    leases,
    logs,
    plan,
    regressions,
    reports,
)
from web.streams import Streams

STATIC: Final = Path(__file__).parent / "static"
MAX_STREAMS: Final = 64
"""Live streams at a time; whoever comes then is asked to come back."""

_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",
}
_TITLES: Final[Mapping[int, str]] = {
    400: "That cannot be asked",
    404: "Not found",
    405: "Not allowed here",
    500: "Something went wrong in the lab",
}
_log = logging.getLogger(__name__)


class SecurityHeaders:
    """Adds what keeps foreign text harmless to every answer; a route may be stricter and stays so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on, with the headers."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def create_app(lab: Lab, *, recipes: Mapping[str, Recipe] | None = None) -> FastAPI:
    """The application that shows `lab`; it reads only. `recipes` are all there are unless told."""
    # The interactive pages of FastAPI load scripts from elsewhere; the description itself stays.
    app = FastAPI(title="Flightline", docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json")
    app.state.lab = lab
    app.state.recipes = all_recipes() if recipes is None else recipes
    app.state.pages = Pages(lab.clock)
    app.state.streams = Streams(MAX_STREAMS)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    faces = (
        flights,
        branches,
        compare,
        history,
        bisections,
        regressions,
        reports,
        jobs,
        leases,
        hosts,
        plan,
        logs,
        api,
    )
    for part in faces:
        app.include_router(part.router)
    app.add_exception_handler(LabError, _lab_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _bad_request)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(SecurityHeaders)
    return app


def settle_memory() -> None:
    """Spare the garbage collector what lives as long as the process: looking at it all keeps a page waiting 100 ms."""
    gc.collect()
    gc.freeze()


class Server(uvicorn.Server):
    """A server that ends the live streams when it is asked to stop, instead of waiting for their readers to leave."""

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Start."""
        await super().startup(sockets)  # type: ignore[arg-type]
        settle_memory()

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Stop."""
        app = self.config.loaded_app
        while not isinstance(app, FastAPI) and hasattr(app, "app"):
            app = app.app
        if isinstance(app, FastAPI):
            app.state.streams.close()
        await super().shutdown(sockets)  # type: ignore[arg-type]


def _answer(request: Request, status: int, message: str, hint: str) -> Response:
    if request.url.path.startswith(("/api/", "/healthz")):
        return JSONResponse({"error": message, "hint": hint}, status_code=status)
    pages: Pages = request.app.state.pages
    title = _TITLES.get(status, "This did not work")
    values = {"title": title, "message": message, "hint": hint, "code": status, "event": 0}
    return pages.render("errors/show.html", values, status=status)


async def _lab_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, LabError)
    match error:
        case NotFoundError():
            status = 404
        case ConfigError():
            status = 400
        case _:
            status = 500
            _log.error("%s %s: %s", request.method, request.url.path, error)
    return _answer(request, status, error.message, error.hint)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = "there is nothing at this address" if error.status_code == 404 else str(error.detail)
    answer = _answer(request, error.status_code, message, "")
    answer.headers.update(error.headers or {})
    return answer


async def _bad_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"][1:])
    return _answer(request, 400, f"{name}: {first['msg']}", "look at the address")


async def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("%s %s", request.method, request.url.path, exc_info=error)
    answer = _answer(request, 500, "the program made a mistake", "its log says more")
    for name, value in _HEADERS.items():  # this one answer is made outside of the middleware
        answer.headers.setdefault(name, value)
    return answer
