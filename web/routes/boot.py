"""What machines ask for as they boot over the network: their boot script, and the files it names.

A machine has no password; what it gets is decided by what was armed for it (`lab.hosts.drivers.boot.store`): for one
boot, under a token of its own, for a limited time. Any other machine is told to boot its own disk.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response

from lab.hosts.bootscript import LOCAL_DISK, SCRIPT
from lab.hosts.drivers.boot.store import BootStore

router = APIRouter(prefix="/boot", include_in_schema=False)


def _store(request: Request) -> BootStore:
    store = request.app.state.boot
    assert isinstance(store, BootStore)
    return store


def _by(request: Request) -> str:
    return request.client.host if request.client else ""


@router.api_route("/machine/{mac}/" + SCRIPT, methods=["GET", "HEAD"])
def first_script(mac: str, request: Request) -> Response:
    """The script of what was armed for the machine (`mac` as iPXE writes it), else the one for its own disk."""
    store = _store(request)
    token = store.armed(mac.lower().replace("-", ""))
    path = store.file(token, SCRIPT) if token else None
    if token is None or path is None:
        return PlainTextResponse(LOCAL_DISK)
    if request.method == "GET":
        store.note(token, SCRIPT, _by(request))
    return PlainTextResponse(path.read_text())


@router.api_route("/{token}/{name}", methods=["GET", "HEAD"])
def target_file(token: str, name: str, request: Request) -> Response:
    """A file of a target, under the target's token."""
    store = _store(request)
    path = store.file(token, name)
    if path is None:
        return PlainTextResponse("there is nothing to boot at this address\n", status_code=404)
    if request.method == "GET":
        store.note(token, name, _by(request))
    return FileResponse(path, media_type="application/octet-stream")
