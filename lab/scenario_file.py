"""A file of hosts × jobs × durations for `lab simulate`: TOML, or JSON of the same shape."""

from __future__ import annotations

import json
import math
import random
import tomllib
from collections import defaultdict
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from lab.errors import ConfigError
from lab.hosts.durations import Estimate
from lab.hosts.model import Host, PropertyValue, Requirement
from lab.hosts.request import Request, RoleRequest
from lab.hosts.simulation import Rules, Scenario, SimulatedJob
from lab.labfile import Flag, Name, PropertyName, SchedulerSettings, Tenant

_LARGEST = 64 << 20
_MOST_JOBS = 1_000_000
_WIDE = 1.2816
"""Standard deviations to where nine in ten are below."""

JobName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,100}$")]
Seconds = Annotated[float, Field(ge=0, le=10 * 365 * 86_400)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class HostGroup(_Settings):
    """One `[[hosts]]`: `count` hosts that are equal; more than one are called NAME-1, NAME-2 and so on."""

    name: Name
    arch: Literal["x86_64", "arm64"] = "x86_64"
    flags: tuple[Flag, ...] = Field(default=(), strict=False)
    properties: dict[PropertyName, PropertyValue] = Field(default_factory=dict)
    site: Name = "default"
    count: int = Field(default=1, ge=1, le=100_000)

    def hosts(self) -> list[Host]:
        """The hosts of the group."""
        names = [self.name] if self.count == 1 else [f"{self.name}-{number}" for number in range(1, self.count + 1)]
        flags, properties = frozenset(self.flags), MappingProxyType(dict(self.properties))
        return [Host(name=one, arch=self.arch, flags=flags, properties=properties, site=self.site) for one in names]


class JobGroup(_Settings):
    """One `[[jobs]]`: `count` jobs that ask for the same and take about as long.

    Each asks for `hosts` hosts that meet `requires`, alike ones (with a common `equiv-` flag) unless `alike` is false.
    Half of them take `duration_s` seconds or less; `spread` is the standard deviation of the logarithm, 0: all take
    exactly that. They come at `submitted_s`, each one `every_s` after the one before, and begin after all jobs of the
    groups named in `after` have ended.
    """

    name: JobName
    count: int = Field(default=1, ge=1, le=_MOST_JOBS)
    tenant: Tenant = "default"
    flight: int = Field(default=1, ge=1, le=1_000_000_000)
    priority: int = Field(default=0, ge=-100, le=100)
    requires: str = Field(default="", max_length=2000)
    hosts: int = Field(default=1, ge=1, le=8)
    alike: bool = True
    duration_s: Seconds
    spread: float = Field(default=0.0, ge=0, le=3)
    submitted_s: Seconds = 0.0
    every_s: Seconds = 0.0
    after: tuple[JobName, ...] = Field(default=(), strict=False)


class ScenarioFile(_Settings):
    """The whole file. Without `[[hosts]]` the jobs run on those of the lab's own file."""

    scheduler: SchedulerSettings = SchedulerSettings()
    hosts: tuple[HostGroup, ...] = Field(default=(), strict=False)
    jobs: tuple[JobGroup, ...] = Field(strict=False, min_length=1)

    @model_validator(mode="after")
    def _makes_sense(self) -> ScenarioFile:
        if sum(group.count for group in self.jobs) > _MOST_JOBS:
            raise ValueError(f"more than {_MOST_JOBS} jobs; ask for fewer")
        names = [host.name for group in self.hosts for host in group.hosts()]
        if len(set(names)) < len(names):
            raise ValueError("two hosts have one name; give each group its own")
        groups = [group.name for group in self.jobs]
        if twice := next((name for name in groups if groups.count(name) > 1), None):
            raise ValueError(f"two groups of jobs are called {twice}; give each its own name")
        _check_order({group.name: group.after for group in self.jobs})
        return self


def _check_order(after: dict[str, tuple[str, ...]]) -> None:
    ended: set[str] = set()
    left = dict(after)
    for name, needs in after.items():
        if unknown := next((one for one in needs if one not in after), None):
            raise ValueError(f"{name} comes after {unknown}, which is not there; name a group of jobs")
    while left:
        ready = [name for name, needs in left.items() if ended.issuperset(needs)]
        if not ready:
            raise ValueError(f"{', '.join(sorted(left)[:5])} come after one another in a circle; break it")
        ended.update(ready)
        for name in ready:
            del left[name]


def load_scenario(path: Path, hosts: tuple[Host, ...], seed: int) -> Scenario:
    """Read a scenario; `hosts` are those of the lab, and `seed` draws the durations. `ConfigError` for any mistake."""
    file = _read(path)
    found = [host for group in file.hosts for host in group.hosts()] or list(hosts)
    if not found:
        raise ConfigError(f"{path}: there are no hosts, neither here nor in the lab's file", hint="add [[hosts]]")
    ids = {group.name: _ids(group) for group in file.jobs}
    chance = random.Random(f"file {seed}")  # noqa: S311 - made up, and to be made up again
    places: dict[int, int] = defaultdict(int)
    jobs = [job for group in file.jobs for job in _jobs(group, ids, places, chance, path)]
    scheduler = file.scheduler
    rules = Rules(
        shares=scheduler.shares,
        ageing_s=scheduler.ageing_s,
        half_life_s=scheduler.usage_half_life_s,
        policy=scheduler.policy,
    )
    return Scenario(hosts=found, jobs=jobs, rules=rules)


def _ids(group: JobGroup) -> list[str]:
    names = [group.name] if group.count == 1 else [f"{group.name}-{number}" for number in range(1, group.count + 1)]
    return [f"{group.flight}.{name}" for name in names]


def _jobs(
    group: JobGroup, ids: dict[str, list[str]], places: dict[int, int], chance: random.Random, path: Path
) -> list[SimulatedJob]:
    try:
        requirement = Requirement(group.requires)
    except ConfigError as error:
        raise ConfigError(f"{path}: jobs {group.name}: {error.message}", hint=error.hint) from error
    names = ["host"] if group.hosts == 1 else [f"host{number}" for number in range(1, group.hosts + 1)]
    alike = "alike" if group.alike and group.hosts > 1 else None
    after = tuple(one for name in group.after for one in ids[name])
    found = []
    for number, job_id in enumerate(ids[group.name]):
        places[group.flight] += 1
        request = Request(
            id=job_id,
            order=group.flight * 1_000_000 + places[group.flight],
            roles=tuple(RoleRequest(role=name, requirement=requirement, equivalent=alike) for name in names),
            flight=group.flight,
            priority=group.priority,
            tenant=group.tenant,
            submitted=group.submitted_s + number * group.every_s,
            estimate=Estimate(p50_s=group.duration_s, p90_s=group.duration_s * math.exp(_WIDE * group.spread)),
        )
        seconds = group.duration_s * math.exp(chance.gauss(0, group.spread)) if group.spread else group.duration_s
        found.append(SimulatedJob(request=request, seconds=seconds, after=after))
    return found


def _read(path: Path) -> ScenarioFile:
    try:
        if path.stat().st_size > _LARGEST:
            raise ConfigError(
                f"{path}: is larger than {_LARGEST >> 20} MiB", hint="use `count` for jobs that are equal"
            )
        text = path.read_bytes().decode()
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file", hint="see `lab simulate --help`") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text") from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}", hint="the file must be TOML, or JSON if its name ends so") from error
    try:
        return ScenarioFile.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        message, _, hint = first["msg"].removeprefix("Value error, ").partition("; ")
        raise ConfigError(f"{path}: {where}: {message}", hint=hint or "correct it; see lab/hosts/README.md") from error
