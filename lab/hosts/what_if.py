"""What-ifs: a scenario changed by a few words, such as `hosts arm64 +2`, `share ann=2` or `weight set_up=0`. Pure."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from lab.errors import ConfigError
from lab.hosts.choice import Policy
from lab.hosts.model import Host, Requirement
from lab.hosts.simulation import Scenario

_HINT = "write `hosts REQUIREMENT +N` (or -N), `share TENANT=N`, `weight NAME=N` or `ageing_h=N`"
_MOST = 100_000
_ARCHES = ("x86_64", "arm64")

WEIGHTS = tuple(sorted(one.name for one in fields(Policy)))
"""What a `weight` may be called."""


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """A scenario that differs from another one in what `text` says."""

    text: str
    scenario: Scenario


def what_if(text: str, base: Scenario) -> WhatIf:
    """Change a scenario as `text` says; `ConfigError` when that means nothing."""
    words = " ".join(text.split())
    if found := re.fullmatch(r"hosts (.+) ([+-])(\d{1,6})", words):
        count = int(found[3]) if found[2] == "+" else -int(found[3])
        return WhatIf(text=words, scenario=replace(base, hosts=_with_hosts(base.hosts, found[1], count, words)))
    if found := re.fullmatch(r"share (\S+) ?= ?(\S+)", words):
        known = {job.request.tenant for job in base.jobs}
        if found[1] not in known:
            some = ", ".join(sorted(known)[:5]) or "none"
            raise ConfigError(f"what if {words!r}: there is no tenant {found[1]!r}", hint=f"tenants: {some}")
        shares = {**base.rules.shares, found[1]: _number(found[2], words, least=1e-6)}
        return WhatIf(text=words, scenario=replace(base, rules=replace(base.rules, shares=shares)))
    if found := re.fullmatch(r"weight (\w+) ?= ?(\S+)", words):
        if found[1] not in WEIGHTS:
            raise ConfigError(f"what if {words!r}: there is no weight {found[1]!r}", hint=f"use {', '.join(WEIGHTS)}")
        policy = replace(base.rules.policy, **{found[1]: _number(found[2], words, least=0)})
        return WhatIf(text=words, scenario=replace(base, rules=replace(base.rules, policy=policy)))
    if found := re.fullmatch(r"ageing_h ?= ?(\S+)", words):
        ageing_s = _number(found[1], words, least=1e-3) * 3600
        return WhatIf(text=words, scenario=replace(base, rules=replace(base.rules, ageing_s=ageing_s)))
    raise ConfigError(f"what if {words[:100]!r}: it is not known what that means", hint=_HINT)


def _number(text: str, words: str, *, least: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= 1e9:
        raise ConfigError(f"what if {words!r}: {text[:40]!r} is no number from {least:g} to 1e9", hint=_HINT)
    return number


def _with_hosts(hosts: Sequence[Host], asked: str, count: int, words: str) -> list[Host]:
    requirement = Requirement(f'arch == "{asked}"' if asked in _ARCHES else asked)
    alike = sorted((host for host in hosts if requirement.matches(host)), key=lambda host: host.name)
    if not alike:
        raise ConfigError(f"what if {words!r}: no host is like that", hint="name an architecture, flags, or both")
    if len(hosts) + count > _MOST:
        raise ConfigError(f"what if {words!r}: that is more than {_MOST} hosts", hint="add fewer")
    if -count > len(alike):
        raise ConfigError(f"what if {words!r}: only {len(alike)} hosts are like that", hint="take away fewer")
    if count < 0:
        gone = {host.name for host in alike[count:]}
        return [host for host in hosts if host.name not in gone]
    there = {host.name for host in hosts}
    names = (name for number in itertools.count(1) if (name := f"more-{number}") not in there)
    more = zip(range(count), itertools.cycle(alike), names, strict=False)
    return [*hosts, *(replace(host, name=name) for _number, host, name in more)]
