"""Times and addresses, as several pages show them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from lab.flights.model import Wait, Window
from web.filters import duration


def seconds_of(started: datetime, finished: datetime | None, now: datetime) -> float:
    """How long something took, or has been taking."""
    return ((finished or now) - started).total_seconds()


def spread(window: Window, now: datetime) -> str:
    """How long until a moment that is not known exactly."""
    early, late = ((moment - now).total_seconds() for moment in (window.p50, window.p90))
    if late < 1:
        return "any moment"
    said = duration(early) if early >= 1 else "any moment"
    return said if duration(early) == duration(late) else f"{said}, at most {duration(late)}"


@dataclass(frozen=True, kw_only=True)
class Eta:
    """When a waiting job is expected to start."""

    start: datetime
    text: str
    late: datetime


def eta_of(wait: Wait | None, now: datetime) -> Eta | None:
    """The expected start of a waiting job; None when nobody can tell."""
    if wait is None or wait.start is None:
        return None
    text = spread(wait.start, now)
    return Eta(start=wait.start.p50, text=text if text.startswith("any") else f"in {text}", late=wait.start.p90)


def job_url(flight: int, job: str, *, attempt: int | None = None, step: int | None = None) -> str:
    """The address of a job, of one of its attempts, of a step."""
    url = f"/flights/{flight}/jobs/{quote(job, safe='')}"
    if attempt is not None:
        url += f"?attempt={attempt}"
    return url if step is None else f"{url}#s-{step}"
