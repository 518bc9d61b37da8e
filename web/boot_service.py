"""The boot service alone, as an application: for the workers of a site, whose machines are not to see the rest."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response

from lab.hosts.drivers.boot.store import BootStore
from web.routes import boot


def create_boot_service(home: Path) -> FastAPI:
    """Hands out what is armed below the lab's home."""
    app = FastAPI(title="Flightline boot service", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.boot = BootStore(home / "boot")

    def alive() -> Response:
        """Say that it is there, and nothing of the lab: the network of the machines is not trusted with more."""
        return PlainTextResponse("ok\n")

    app.include_router(boot.router)
    app.add_api_route("/healthz", alive)
    return app
