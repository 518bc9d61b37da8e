"""Times and lengths of time as they are typed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

from lab.errors import ConfigError

_LENGTH = re.compile(r"(?:(\d{1,6})d)?\s*(?:(\d{1,6})h)?\s*(?:(\d{1,6})m(?:in)?)?\s*(?:(\d{1,6})s)?")


class Length(click.ParamType[timedelta]):
    """A length of time: 2h, 90m, 1d 12h."""

    name = "length"

    def convert(self, value: object, _param: click.Parameter | None, _ctx: click.Context | None) -> timedelta:
        """Read it; `ConfigError` when it is none."""
        if isinstance(value, timedelta):
            return value
        text = str(value).strip()
        found = _LENGTH.fullmatch(text)
        if not text or found is None:
            raise ConfigError(f"{text[:60]!r} is no length of time", hint="e.g. 2h, 90m or 1d 12h")
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


class Moment(click.ParamType[datetime]):
    """A point in time: 2026-11-26 09:00 (UTC), or with an offset."""

    name = "time"

    def convert(self, value: object, _param: click.Parameter | None, _ctx: click.Context | None) -> datetime:
        """Read it; `ConfigError` when it is none."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        try:
            moment = datetime.fromisoformat(text)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"{text[:60]!r} is no time", hint='e.g. "2026-11-26 09:00" (UTC)') from error
