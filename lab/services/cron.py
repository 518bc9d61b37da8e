"""When what a cron expression orders is to be done."""

from __future__ import annotations

from datetime import datetime, timedelta

from celery.schedules import crontab


def is_due(schedule: str, last: datetime | None, now: datetime) -> bool:
    """Whether a moment of a cron expression (UTC) has come since `last`; what never ran is due at the next one."""
    cron = crontab.from_string(schedule)
    cron.nowfun = lambda: now
    since = last if last is not None else now - timedelta(minutes=1)
    return bool(cron.remaining_estimate(since) <= timedelta(0))
