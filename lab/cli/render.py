"""How the command line looks: icons and colours of statuses, tables, JSON."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

import click
from rich.console import Console
from rich.text import Text

F = TypeVar("F", bound=Callable[..., Any])

_LOOK: Final[Mapping[str, tuple[str, str]]] = {
    "queued": ("·", "dim"),
    "preparing": ("◌", "cyan"),
    "running": ("◐", "cyan"),
    "pass": ("✓", "green"),
    "fail": ("✗", "bold red"),
    "broken": ("⚠", "bold yellow"),
    "blocked": ("⊘", "magenta"),
    "starved": ("⊘", "magenta"),
    "aborted": ("■", "yellow"),
    "skipped": ("–", "dim"),
}


@functools.cache
def output() -> Console:
    """Where results go."""
    return Console(highlight=False)


@functools.cache
def errors() -> Console:
    """Where progress and errors go."""
    return Console(stderr=True, highlight=False)


def status_text(status: str) -> Text:
    """A status as icon and word: never colour alone."""
    icon, style = _LOOK.get(status, ("?", ""))
    return Text(f"{icon} {status}", style=style)


def duration(start: datetime | None, end: datetime | None) -> str:
    """Seconds or minutes between two times; empty when one is missing."""
    if start is None or end is None:
        return ""
    seconds = max(0.0, (end - start).total_seconds())
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} m {int(seconds % 60):02d} s"


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago something was, in the largest unit that fits."""
    if moment is None:
        return ""
    seconds = max(0, int((now - moment).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def print_json(data: Any) -> None:
    """Print data as JSON, for programs."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def json_option(function: F) -> F:
    """The `--json` every showing command has."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(function)
