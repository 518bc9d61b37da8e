"""Turns a template and values into a page, or into the part of it that changes while one looks at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lab.errors import ConfigError
from web import filters

TEMPLATES: Final = Path(__file__).parent / "templates"


class Pages:
    """Templates with everything in them escaped; times are told relative to `clock`."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._templates = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters.update(filters.FILTERS)

    def render(
        self, page: str, values: Mapping[str, object], *, part: str = "", fragment: str | None = None, status: int = 200
    ) -> HTMLResponse:
        """The page `page`; only its `part` (the template `_part.html` beside it) when `fragment` asks for that."""
        if fragment is not None:
            if fragment != part:
                raise ConfigError(f"this page has no fragment {fragment!r}", hint=f"it has {part!r}")
            page = f"{page.rpartition('/')[0]}/_{part}.html"
        body = self._templates.get_template(page).render({"now": self._clock(), "part": part, **values})
        return HTMLResponse(body, status_code=status, headers={"Cache-Control": "no-cache"})
