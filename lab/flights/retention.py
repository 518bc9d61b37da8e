"""How long the logs of a flight are kept. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from lab.flights.status import Blessing

_REAL = frozenset({Blessing.REAL, Blessing.REAL_BISECT, Blessing.REAL_RETEST})


@dataclass(frozen=True, kw_only=True)
class Retention:
    """`[retention]` of the lab's file: days after its end for which a flight's logs are kept.

    `real` is for flights that count (intended *real*, and what bisects or retests them), `other` for the rest.
    """

    real_days: int = 365
    other_days: int = 90


def outlived(intended: Blessing, finished: datetime | None, now: datetime, rule: Retention) -> bool:
    """Whether the logs of a flight may go; those of one that has not ended never may."""
    days = rule.real_days if intended in _REAL else rule.other_days
    return finished is not None and now - finished > timedelta(days=days)
