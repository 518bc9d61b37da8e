"""What a check found."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.Enum):
    """How bad it is. *warning*: it works, but not as it should, or not for long."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at: what was found, and what to do about it."""

    what: str
    level: Level
    found: str
    advice: str = ""


def ok(what: str, found: str) -> Finding:
    """All is well."""
    return Finding(what=what, level=Level.OK, found=found)


def warning(what: str, found: str, advice: str) -> Finding:
    """It works, but should be looked at."""
    return Finding(what=what, level=Level.WARNING, found=found, advice=advice)


def error(what: str, found: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(what=what, level=Level.ERROR, found=found, advice=advice)
