from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from weblab import RECIPES, Demo, empty_lab, served, tell

from web.app import create_app


class Client:
    """Asks the application without a socket (starlette's own client wants a library we do not use)."""

    def __init__(self, demo: Demo) -> None:
        self._app = create_app(demo.lab, recipes=RECIPES)

    def get(self, path: str, **headers: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://lab") as client:
                return await client.get(path, headers=headers)

        return asyncio.run(ask())


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Demo]:
    with empty_lab(tmp_path) as demo:
        yield demo


@pytest.fixture
def demo(empty: Demo) -> Demo:
    tell(empty)
    return empty


@pytest.fixture
def client(demo: Demo) -> Client:
    return Client(demo)


@pytest.fixture
def url(demo: Demo) -> Iterator[str]:
    with served(demo, max_streams=6) as address:
        yield address
