"""How long a branch has been like this: since when it fails, and since when the same is tested. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class PastFlight:
    """A flight of a branch that counts, and what it tested: a revision of each tree."""

    flight: int
    started: datetime
    revisions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Since:
    """The first flight of a series, how many whole days ago it started, and how many flights the series has."""

    flight: int
    started: datetime
    days: int
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a flight stands in its branch's history.

    `basis` is the newest flight of the baseline's versions, `failing` begins with the first one after it of any others,
    `testing` with the first one after it of the very same. A flight of the baseline's own versions is in no `failing`.
    """

    basis: Since | None = None
    failing: Since | None = None
    testing: Since | None = None


def standing(flight: PastFlight, past: Iterable[PastFlight], *, baseline: Mapping[str, str], now: datetime) -> Standing:
    """The standing of `flight` at `now`. `past` are the branch's flights in any order; later ones are not looked at.

    What a flight tested is the baseline when all trees of `baseline` are at the revisions named there.
    """
    before = sorted(
        {one.flight: one for one in past if one.flight < flight.flight}.values(), key=lambda one: one.flight
    )
    basis = next((one for one in reversed(before) if is_baseline(one.revisions, baseline)), None)
    since = [one for one in before if basis is None or one.flight > basis.flight] + [flight]
    changed = [one for one in since if not is_baseline(one.revisions, baseline)]
    same = [one for one in since if dict(one.revisions) == dict(flight.revisions)]
    return Standing(
        basis=_since([basis], now) if basis else None,
        failing=_since(changed, now) if changed and not is_baseline(flight.revisions, baseline) else None,
        testing=_since(same, now),
    )


def is_baseline(revisions: Mapping[str, str], baseline: Mapping[str, str]) -> bool:
    """Whether these are the baseline's revisions. Where there is no baseline, nothing is.

    >>> is_baseline({"xen": "a", "linux": "b"}, {"xen": "a"}), is_baseline({"xen": "c"}, {"xen": "a"})
    (True, False)
    """
    return bool(baseline) and all(revisions.get(tree) == revision for tree, revision in baseline.items())


def _since(flights: list[PastFlight], now: datetime) -> Since:
    first = flights[0]
    days = max(0, (now - first.started).days)
    return Since(flight=first.flight, started=first.started, days=days, attempts=len(flights))
