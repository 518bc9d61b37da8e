"""When a host is to be distrusted, tried and trusted again: rules over what it did lately. Pure.

A *broken* attempt blames its host only when a step broke on it and the same job works elsewhere: what breaks
everywhere is the lab's fault, and what fails is the product's. Rules act on hosts in use and in burn-in; maintenance
and retirement are people's, and no rule leaves them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

from lab.hosts.hardware import Fault, Severity
from lab.hosts.model import Health

LAB: Final = "lab"
"""The actor of what a rule does."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """`[health]` of the lab's file.

    `in_a_row` broken attempts at jobs that work elsewhere quarantine a host. So does breaking more often than its
    equals, if that happens by chance at most once in `1 / outlier_p` (one-sided, Fisher's exact test), once there are
    `outlier_least` jobs on either side. What the lab has quarantined is tried again after `burn_in_after_s`, twice
    as long after each burn-in that failed; it is good again after `burn_in_checks` checks that pass one after the
    other. A host that stood idle is checked when its last check is `check_every_s` old; 0: never.
    """

    in_a_row: int = 2
    outlier_p: float = 0.001
    outlier_least: int = 10
    burn_in_after_s: float = 3600.0
    burn_in_checks: int = 3
    check_every_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An attempt that ended on the host: whether it broke there, and whether the same job works on another host.

    `check` marks health checks; a check that did not pass counts as broken.
    """

    attempt: int
    job: str
    broken: bool
    elsewhere: str = ""
    """an attempt that worked on another host, as flight.job; empty when there is none"""
    check: bool = False


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many jobs there were, and how many of them broke on their host and work elsewhere."""

    jobs: int = 0
    broken: int = 0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a host's health becomes, why, and the evidence (JSON)."""

    health: Health
    reason: str
    evidence: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True)
class HealthChange:
    """One change of a host's health; `evidence` is JSON: the jobs (as flight.job) and attempts that showed it."""

    at: datetime
    old: Health
    new: Health
    reason: str
    actor: str
    evidence: Mapping[str, object]


def judge(
    health: Health, seen: Sequence[Seen], own: Tally, equals: Tally, rules: Rules, *, by_lab: bool
) -> Verdict | None:
    """What the host's health is to become, None: what it is.

    `seen` is what ended on it since its health last changed for the better, the newest first; `by_lab` whether a rule
    put it where it is; `own` and `equals` are the tallies of the host and of all others of its class.
    """
    match health:
        case Health.BURN_IN:
            return _burnt_in(seen, rules)
        case Health.GOOD | Health.SUSPECT:
            return _worse(health, seen, own, equals, rules) or _better(health, seen, by_lab=by_lab)
        case Health.QUARANTINED | Health.MAINTENANCE | Health.RETIRED:
            return None


def _worse(health: Health, seen: Sequence[Seen], own: Tally, equals: Tally, rules: Rules) -> Verdict | None:
    blamed = []
    for one in seen:
        if not (one.broken and one.elsewhere):
            break
        blamed.append(one)
    if len(blamed) >= rules.in_a_row:
        blamed = blamed[: rules.in_a_row]
        told = ", ".join(dict.fromkeys(one.elsewhere for one in blamed))
        reason = f"{len(blamed)} attempts in a row broke on it, at jobs that work elsewhere ({told})"
        return Verdict(health=Health.QUARANTINED, reason=reason, evidence=_shown(blamed))
    if outlier := _outlier(seen, own, equals, rules):
        return outlier
    if health is Health.GOOD and blamed:
        reason = f"{blamed[0].job} broke on it and works in {blamed[0].elsewhere}"
        return Verdict(health=Health.SUSPECT, reason=reason, evidence=_shown(blamed[:1]))
    return None


def _outlier(seen: Sequence[Seen], own: Tally, equals: Tally, rules: Rules) -> Verdict | None:
    if min(own.jobs, equals.jobs) < rules.outlier_least:
        return None
    chance = by_chance(own, equals)
    if chance > rules.outlier_p:
        return None
    reason = (
        f"{own.broken} of {own.jobs} jobs broke on it that work elsewhere, {equals.broken} of {equals.jobs} on its "
        f"equals (by chance: {chance:.2g})"
    )
    counts = {"own": [own.broken, own.jobs], "equals": [equals.broken, equals.jobs], "p": chance}
    shown = _shown([one for one in seen if one.broken and one.elsewhere])
    return Verdict(health=Health.QUARANTINED, reason=reason, evidence=counts | shown)


def by_chance(own: Tally, equals: Tally) -> float:
    """The probability that at least so many of the broken jobs are the host's if it is like its equals.

    Fisher's exact test, one-sided (R. A. Fisher, Statistical Methods for Research Workers, 1934).

    >>> by_chance(Tally(jobs=10, broken=0), Tally(jobs=50, broken=5))
    1.0
    """
    everything, broken = own.jobs + equals.jobs, own.broken + equals.broken
    ways = math.comb(everything, own.jobs)
    as_bad = range(own.broken, min(broken, own.jobs) + 1)
    return min(1.0, sum(_draws(broken, everything - broken, count, own.jobs - count) for count in as_bad) / ways)


def _draws(broken: int, others: int, some: int, rest: int) -> int:
    return math.comb(broken, some) * math.comb(others, rest)


def _better(health: Health, seen: Sequence[Seen], *, by_lab: bool) -> Verdict | None:
    if health is Health.SUSPECT and by_lab and seen and not seen[0].broken:
        reason = f"{seen[0].job} ran on it as it should"
        return Verdict(health=Health.GOOD, reason=reason, evidence=_shown(seen[:1]))
    return None


def _burnt_in(seen: Sequence[Seen], rules: Rules) -> Verdict | None:
    checks = [one for one in seen if one.check]
    if checks and checks[0].broken:
        reason = f"its burn-in failed: {checks[0].job}"
        return Verdict(health=Health.QUARANTINED, reason=reason, evidence=_shown(checks[:1]))
    passed = checks[: rules.burn_in_checks]
    if len(passed) == rules.burn_in_checks and not any(one.broken for one in passed):
        reason = f"it passed {len(passed)} checks in a row" if len(passed) > 1 else "it passed its check"
        return Verdict(health=Health.GOOD, reason=reason, evidence=_shown(passed))
    return None


def _shown(some: Sequence[Seen]) -> dict[str, object]:
    return {"jobs": [one.job for one in some], "attempts": [one.attempt for one in some]}


def power_failed(health: Health, reason: str, *, during: str = "", by_lab: bool) -> Verdict | None:
    """What a power command that failed makes of a host's health; None: nothing, it is in the hands of people.

    `during` is the job that gave the command, as flight.job.
    """
    match health:
        case Health.GOOD | Health.SUSPECT | Health.BURN_IN:
            pass
        case Health.QUARANTINED if by_lab:
            pass
        case Health.QUARANTINED | Health.MAINTENANCE | Health.RETIRED:
            return None
    evidence: dict[str, object] = {"power": reason}
    return Verdict(health=Health.QUARANTINED, reason=reason, evidence=evidence | ({"jobs": [during]} if during else {}))


def hardware_failed(health: Health, faults: Sequence[Fault], *, during: str = "", by_lab: bool) -> Verdict | None:
    """What faults of its hardware make of a host's health; None: nothing, or it is in the hands of people.

    A critical one quarantines it, a warning makes a good host suspect. `during` is the job meanwhile, as flight.job.
    """
    critical = [fault for fault in faults if fault.severity is Severity.CRITICAL]
    match health:
        case Health.GOOD | Health.SUSPECT | Health.BURN_IN:
            pass
        case Health.QUARANTINED if by_lab and critical:
            pass
        case Health.QUARANTINED | Health.MAINTENANCE | Health.RETIRED:
            return None
    if not critical and not (faults and health is Health.GOOD):
        return None
    worst = (critical or list(faults))[0]
    evidence: dict[str, object] = {"hardware": [f"{fault.source}: {fault.line}" for fault in faults[:20]]}
    return Verdict(
        health=Health.QUARANTINED if critical else Health.SUSPECT,
        reason=f"its hardware tells of a fault ({worst.source}): {worst.line}",
        evidence=evidence | ({"jobs": [during]} if during else {}),
    )


def burn_in_after_s(failed: int, rules: Rules) -> float:
    """How long a host that the lab has quarantined rests before it is tried, after so many failed burn-ins."""
    return rules.burn_in_after_s * 2.0 ** min(failed, 6)
