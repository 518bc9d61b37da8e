"""`lab.toml`: which hosts this lab has and how each is driven."""

from __future__ import annotations

import tomllib
from collections import Counter
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from celery.schedules import ParseException, crontab
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from lab.errors import ConfigError
from lab.flights.model import NAME, TENANT
from lab.flights.report_mail import ADDRESS
from lab.flights.retention import Retention
from lab.flights.starvation import StarvationRule
from lab.flights.trial import DEFAULT_JOBS
from lab.hosts.choice import DEFAULT_POLICY, Policy
from lab.hosts.durations import Estimate
from lab.hosts.health import Rules
from lab.hosts.leases import LeaseRules
from lab.hosts.model import Host, PropertyValue
from lab.hosts.slots import Limit
from lab.machine_settings.boot import BootSettings
from lab.machine_settings.console import ConsoleSettings
from lab.machine_settings.power import PowerSettings
from lab.policy_file import PolicyFile


def _ipv4(text: str) -> str:
    return str(IPv4Address(text))


def _interface(text: str) -> str:
    if "/" not in text:
        raise ValueError("the length of the prefix is missing; write e.g. 192.168.78.11/24")
    return str(IPv4Interface(text))


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")]
Flag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Tenant = Annotated[str, StringConstraints(pattern=TENANT.pattern)]
Share = Annotated[float, Field(gt=0, le=1e6)]
DemandedShare = Annotated[float, Field(ge=0, le=1)]
Address = Annotated[str, StringConstraints(pattern=ADDRESS.pattern)]
IPv4 = Annotated[str, AfterValidator(_ipv4)]
Interface = Annotated[str, AfterValidator(_interface)]
Ref = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}$")]
Glob = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9*?\[\]!._-]{1,100}$")]
BranchName = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
PropertyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]


def full_ref(ref: str) -> str:
    """A branch by its full name: `staging` is refs/heads/staging."""
    return ref if ref.startswith("refs/") else f"refs/heads/{ref}"


def check_cron(name: str, text: str) -> None:
    """Raise `ValueError` when `text` is no cron expression."""
    try:
        crontab.from_string(text)
    except (ValueError, TypeError, ParseException) as error:
        raise ValueError(f"{name} {text!r} is no cron expression; write five fields, e.g. '*/30 * * * *'") from error


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class QemuSettings(_Settings):
    """A host this lab starts itself, as a QEMU process.

    `cpus` are the machine's; dom0 always gets one (emulated, a second one costs an order of magnitude). `accel` auto
    takes KVM where it works. Hosts of one `lan` reach each other. `index` numbers the host on it (192.168.77.INDEX);
    without one it is the host's place in the file. `iommu` gives an x86_64 machine one, which a PVH dom0 needs.
    """

    method: Literal["qemu"]
    memory_mib: int = Field(default=2048, ge=512, le=1 << 20)
    cpus: int = Field(default=1, ge=1, le=64)
    dom0_memory_mib: int = Field(default=1024, ge=256, le=1 << 20)
    accel: Literal["auto", "tcg", "kvm"] = "auto"
    iommu: bool = False
    lan: Name = "default"
    index: int | None = Field(default=None, ge=1, le=200)

    @model_validator(mode="after")
    def _xen_needs_room(self) -> QemuSettings:
        if self.dom0_memory_mib + 128 > self.memory_mib:
            raise ValueError("dom0_memory_mib must leave Xen 128 MiB of memory_mib")
        return self


class MetalSettings(_Settings):
    """A real machine: a host that the lab reaches by its switches, its serial console and the network it boots from.

    `address` is dom0's on the lab's network, with the length of its prefix. `power` are its switches, the preferred
    one first (a BMC, then the outlet it hangs on).
    """

    method: Literal["metal"]
    address: Interface
    gateway: IPv4 | None = None
    power: tuple[PowerSettings, ...] = Field(min_length=1, strict=False)
    console: ConsoleSettings
    boot: BootSettings

    @model_validator(mode="after")
    def _gateway_is_near(self) -> MetalSettings:
        if self.gateway is not None and IPv4Address(self.gateway) not in IPv4Interface(self.address).network:
            raise ValueError("gateway is not on the network of address; correct one of them")
        return self


DriverSettings = Annotated[QemuSettings | MetalSettings, Field(discriminator="method")]


class HostSettings(_Settings):
    """One `[[host]]` of the file."""

    name: Name
    arch: Literal["x86_64", "arm64"]
    site: Name = "default"
    flags: tuple[Flag, ...] = Field(default=(), strict=False)
    properties: dict[PropertyName, PropertyValue] = Field(default_factory=dict)
    driver: DriverSettings

    @model_validator(mode="after")
    def _arm64_is_emulated(self) -> HostSettings:
        if not isinstance(self.driver, QemuSettings):
            if self.arch == "arm64":
                raise ValueError("real arm64 machines cannot be booted yet; use x86_64, or method qemu")
            return self
        if self.arch == "arm64" and self.driver.accel == "kvm":
            raise ValueError("an arm64 host cannot use KVM, which runs no hypervisors; use accel auto")
        if self.arch == "arm64" and self.driver.cpus > 8:
            raise ValueError("an arm64 host has at most 8 processors; lower driver.cpus")
        return self


class BootServiceSettings(_Settings):
    """The `[boot]` table: the URL at which machines that boot over the network reach `lab boot-service`."""

    url: str = Field(default="", pattern=r"^(http://[0-9A-Za-z.-]+(:[0-9]{1,5})?)?$")


class LabSettings(_Settings):
    """The `[lab]` table.

    At most `emulated_at_once` of the hosts that this lab starts itself run at one time; without it, all may.
    `checkpoints_mib` is the disk that saved machines may take, in MiB; 0: every host boots from cold. `build_site` is
    the site whose workers compile; without it, the first host's.
    """

    name: Name
    emulated_at_once: int | None = Field(default=None, ge=1)
    checkpoints_mib: int = Field(default=0, ge=0, le=1 << 30)
    build_site: Name | None = None


Weight = Annotated[float, Field(ge=0, le=1e9)]


class WeightSettings(_Settings):
    """The `[scheduler.weights]` table: what a host costs a job, in seconds (see `lab.hosts.choice.Policy`)."""

    set_up: Weight = DEFAULT_POLICY.set_up
    spoil: Weight = DEFAULT_POLICY.spoil
    wanted: Weight = DEFAULT_POLICY.wanted
    variation: Weight = DEFAULT_POLICY.variation
    previous_failure: Weight = DEFAULT_POLICY.previous_failure
    suspect: Weight = DEFAULT_POLICY.suspect
    avoid: Weight = DEFAULT_POLICY.avoid
    patience: Weight = DEFAULT_POLICY.patience


class SchedulerSettings(_Settings):
    """The `[scheduler]` table: how tenants share the hosts, and what is assumed where history knows nothing.

    A tenant with `shares` 2 gets twice the host time of one with 1 (the default) while both have jobs waiting.
    What a tenant has used counts half after `usage_half_life_h` hours. A job that never ran is expected to take
    `default_duration_s`, and to take no longer than `default_duration_p90_s` nine times out of ten. For each `ageing_h`
    hours that the oldest job of a priority has waited, all of that priority count as one more urgent.
    """

    shares: dict[Tenant, Share] = Field(default_factory=dict)
    usage_half_life_h: float = Field(default=24.0, gt=0, le=24 * 365)
    default_duration_s: float = Field(default=900.0, gt=0, le=30 * 86_400)
    default_duration_p90_s: float = Field(default=3600.0, gt=0, le=30 * 86_400)
    ageing_h: float = Field(default=24.0, gt=0, le=24 * 365)
    weights: WeightSettings = WeightSettings()

    @model_validator(mode="after")
    def _p90_is_not_less(self) -> SchedulerSettings:
        if self.default_duration_p90_s < self.default_duration_s:
            raise ValueError("default_duration_p90_s is less than default_duration_s; raise it")
        return self

    @property
    def default_estimate(self) -> Estimate:
        """How long a job takes of which nothing is known."""
        return Estimate(p50_s=self.default_duration_s, p90_s=self.default_duration_p90_s)

    @property
    def usage_half_life_s(self) -> float:
        """After how many seconds use counts half."""
        return self.usage_half_life_h * 3600

    @property
    def policy(self) -> Policy:
        """What a host costs a job."""
        return Policy(**self.weights.model_dump())

    @property
    def ageing_s(self) -> float:
        """After how many seconds of waiting a job counts as one priority more urgent."""
        return self.ageing_h * 3600


class LeaseSettings(_Settings):
    """The `[leases]` table: how long people may have hosts.

    A lease is for at most `longest_h` hours, and is booked at most `ahead_days` days ahead. The holder of a preemptable
    one is told `notice_min` minutes before its host is taken.
    """

    longest_h: int = Field(default=168, ge=1, le=8760)
    ahead_days: int = Field(default=90, ge=1, le=3650)
    notice_min: int = Field(default=15, ge=0, le=1440)


class HealthSettings(_Settings):
    """The `[health]` table: when a host is distrusted, and how it comes back (see `lab.hosts.health.Rules`).

    `burn_in_after_h` hours after the lab has quarantined a host it is tried again, by `burn_in_checks` checks. A host
    that stood idle is checked every `check_every_h` hours; 0: never.
    """

    in_a_row: int = Field(default=2, ge=1, le=100)
    outlier_p: float = Field(default=0.001, ge=0, le=0.1)
    outlier_least: int = Field(default=10, ge=3, le=1000)
    burn_in_after_h: float = Field(default=1.0, ge=0, le=24 * 365)
    burn_in_checks: int = Field(default=3, ge=1, le=50)
    check_every_h: float = Field(default=0.0, ge=0, le=24 * 365)


class StarvationSettings(_Settings):
    """The `[starvation]` table: when a job is given up (see `lab.flights.starvation`); `factor` 0: never."""

    done_share: float = Field(default=0.9, ge=0.5, le=1)
    factor: float = Field(default=5.0, ge=0, le=1e6)
    least_h: float = Field(default=4.0, ge=0, le=24 * 365)


class BisectionSettings(_Settings):
    """The `[bisection]` table: how sure a bisection has to be, and on which hosts it runs (`lab.flights.bisection`)."""

    confidence: float = Field(default=0.99, ge=0.5, le=0.9999)
    alternations: int = Field(default=2, ge=0, le=20)
    at_once: int = Field(default=2, ge=1, le=64)
    hosts: Literal["same", "equivalent", "any"] = "equivalent"
    revert: bool = True


class BranchSettings(_Settings):
    """A `[branch.NAME]`: a line of development with a push gate.

    The gate fetches `ref` of `url` (the tip) into the source tree `tree`, tests it, and moves `push_ref` of `push_url`
    there when nothing new fails. What `push_ref` points to is the baseline. `jobs` are jobs of the matrix (globs); the
    test hosts boot what was compiled. `schedule` is a cron expression (UTC); without one the gate runs when it is told.
    """

    url: str = Field(min_length=1, max_length=1000)
    ref: Ref
    push_url: str = Field(min_length=1, max_length=1000)
    push_ref: Ref
    tree: Name = "xen"
    rewinds: bool = False
    jobs: tuple[Glob, ...] = Field(default=DEFAULT_JOBS, min_length=1, strict=False)
    config: Literal["default", "debug", "xsm"] = "default"
    xen_tools: Literal["built", "packaged"] = "built"
    runvars: dict[PropertyName, str] = Field(default_factory=dict)
    rules: PolicyFile = PolicyFile()
    schedule: str = ""
    always: bool = False
    retest: int = Field(default=0, ge=0, le=10)
    retest_passes: int = Field(default=1, ge=1, le=10)
    bisect: bool = True
    priority: int = Field(default=0, ge=-100, le=100)
    tenant: Tenant | None = None

    @model_validator(mode="after")
    def _can_be_run(self) -> BranchSettings:
        if self.schedule:
            check_cron("schedule", self.schedule)
        if self.retest and self.retest_passes > self.retest:
            raise ValueError("retest_passes is more than retest; lower it")
        if (self.url, full_ref(self.ref)) == (self.push_url, full_ref(self.push_ref)):
            raise ValueError("what is tested would be what is pushed to; push_ref must be another branch than ref")
        return self


class MailSettings(_Settings):
    """The `[mail]` table: where reports go, and how. Without a `server` nothing is sent.

    `to` gets the report of every run of a gate and of every bisection; others subscribe. `url` is where the lab's pages
    are, for the links. `digest` is a cron expression (UTC): when those who subscribed to it are told how all stands.
    """

    server: str = ""
    port: int = Field(default=25, ge=1, le=65535)
    tls: Literal["no", "starttls", "yes"] = "no"
    user: str = ""
    password_file: str = ""
    sender: Address = "flightline@localhost"
    to: tuple[Address, ...] = Field(default=(), strict=False)
    url: str = Field(default="", pattern=r"^(https?://[^\s<>]{1,300})?$")
    digest: str = ""

    @model_validator(mode="after")
    def _cron(self) -> MailSettings:
        if self.digest:
            check_cron("digest", self.digest)
        return self


class RetentionSettings(_Settings):
    """The `[retention]` table: for how many days after a flight's end `lab prune` keeps its logs."""

    real_days: int = Field(default=365, ge=0, le=36_500)
    other_days: int = Field(default=90, ge=0, le=36_500)


class LabFile(_Settings):
    """A lab as its operator described it. Read it with `load_lab_file`."""

    lab: LabSettings
    scheduler: SchedulerSettings = SchedulerSettings()
    leases: LeaseSettings = LeaseSettings()
    health: HealthSettings = HealthSettings()
    starvation: StarvationSettings = StarvationSettings()
    bisection: BisectionSettings = BisectionSettings()
    boot: BootServiceSettings = BootServiceSettings()
    mail: MailSettings = MailSettings()
    branch: dict[BranchName, BranchSettings] = Field(default_factory=dict)
    coverage: dict[str, dict[str, DemandedShare]] = Field(default_factory=dict)
    retention_: RetentionSettings = Field(default=RetentionSettings(), alias="retention")
    host: tuple[HostSettings, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _each_host_once(self) -> LabFile:
        for what, values in (
            ("host name", [host.name for host in self.host]),
            ("driver.index", [str(index) for index in self._indices().values()]),
        ):
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise ValueError(f"{what} {twice[0]} is used twice; give each host its own")
        networked = [host.name for host in self.host if isinstance(host.driver, MetalSettings)]
        if networked and not self.boot.url:
            raise ValueError(f"host {networked[0]} boots over the network, and [boot] url is missing; add it")
        if any(index > 200 for index in self._indices().values()):
            raise ValueError("more than 200 hosts on the embedded network")
        return self

    def _indices(self) -> dict[str, int]:
        return {
            host.name: host.driver.index or place
            for place, host in enumerate(self.host, start=1)
            if isinstance(host.driver, QemuSettings)
        }

    def settings(self, name: str) -> HostSettings:
        """The settings of a host; `ConfigError` when the lab has none of this name."""
        for host in self.host:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.host) or "none"
        raise ConfigError(f"there is no host {name!r} in this lab", hint=f"hosts: {known}")

    def index_of(self, name: str) -> int:
        """The host's number on the embedded network, from 1."""
        return self._indices()[self.settings(name).name]

    def build_site(self) -> str:
        """The site whose workers run the jobs without hosts."""
        return self.lab.build_site or next((host.site for host in self.host), "default")

    def sites(self) -> tuple[str, ...]:
        """Every site that needs a worker, by name."""
        return tuple(sorted({self.build_site(), *(host.site for host in self.host)}))

    def limit(self) -> Limit | None:
        """How many of the emulated hosts may run at once; None when all may."""
        most = self.lab.emulated_at_once
        return None if most is None else Limit(hosts=frozenset(self._indices()), running=most)

    def retention(self) -> Retention:
        """How long logs are kept."""
        return Retention(real_days=self.retention_.real_days, other_days=self.retention_.other_days)

    def starvation_rule(self) -> StarvationRule:
        """When a job is given up."""
        rule = self.starvation
        return StarvationRule(done_share=rule.done_share, factor=rule.factor, least_s=rule.least_h * 3600)

    def health_rules(self) -> Rules:
        """The rules for the health of hosts."""
        return Rules(
            in_a_row=self.health.in_a_row,
            outlier_p=self.health.outlier_p,
            outlier_least=self.health.outlier_least,
            burn_in_after_s=self.health.burn_in_after_h * 3600,
            burn_in_checks=self.health.burn_in_checks,
            check_every_s=self.health.check_every_h * 3600,
        )

    def lease_rules(self) -> LeaseRules:
        """The rules for leases of people."""
        return LeaseRules(
            longest=timedelta(hours=self.leases.longest_h),
            ahead=timedelta(days=self.leases.ahead_days),
            notice=timedelta(minutes=self.leases.notice_min),
        )

    def hosts(self) -> tuple[Host, ...]:
        """All hosts as the planner sees them: what they offer, free and in good health."""
        return tuple(
            Host(
                name=host.name,
                arch=host.arch,
                site=host.site,
                flags=frozenset(host.flags),
                properties=MappingProxyType(dict(host.properties)),
            )
            for host in self.host
        )


def load_lab_file(path: Path) -> LabFile:
    """Read a lab file; any mistake in it is a `ConfigError` of one line that names the file and the field."""
    try:
        data = tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: there is no such file", hint="run from the lab's folder, or name its lab.toml"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", hint="the file must be TOML, see toml.io") from error
    try:
        return LabFile.model_validate(data)
    except ValidationError as error:
        raise _told(path, data, error) from error


def _told(path: Path, data: dict[str, object], error: ValidationError) -> ConfigError:
    first = error.errors(include_url=False)[0]
    where = _field(data, first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    match first["type"]:
        case "union_tag_invalid" | "union_tag_not_found":
            where += "." + str(first.get("ctx", {}).get("discriminator", "method")).strip("'")
            tag = first.get("ctx", {}).get("tag")
            known = str(first.get("ctx", {}).get("expected_tags", "one that this program knows")).replace(", ", " or ")
            message = "is missing" if tag is None else f"{_short(tag)} is not known"
            hint = "add it" if tag is None else f"use {known}"
        case "extra_forbidden":
            message, hint = "no such setting", "mind the spelling, or remove the line"
        case "missing":
            message, hint = "is missing", "add it"
        case "literal_error":
            expected = str(first.get("ctx", {}).get("expected", ""))
            message, hint = f"{_short(first['input'])} is not known", f"use {expected}"
        case "string_pattern_mismatch" if where.endswith(("name", "lan", "site")):
            message, hint = f"{_short(first['input'])} is no valid name", "use 1 to 32 of a-z, 0-9 and -"
        case "value_error":
            message, _, hint = first["msg"].removeprefix("Value error, ").partition("; ")
        case _:
            message, hint = f"{_short(first['input'])}: {first['msg'].lower()}", "correct the value"
    return ConfigError(f"{path}: {where}: {message}{more}", hint=hint)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_KINDS = frozenset({"qemu", "metal"})


def _field(data: dict[str, object], location: tuple[int | str, ...]) -> str:
    """The place in the reader's words: `host emu0: driver.memory_mib` rather than host.0.driver.memory_mib."""
    if len(location) >= 2 and location[0] == "host" and isinstance(location[1], int):
        hosts = data.get("host")
        host = hosts[location[1]] if isinstance(hosts, list) else None
        name = host.get("name") if isinstance(host, dict) else None
        who = f"host {name}" if isinstance(name, str) else f"host number {location[1] + 1}"
        # of a driver that may be of several kinds, the kind is told with its field: nobody has written it
        rest = ".".join(str(part) for part in location[2:] if part not in _KINDS)
        return f"{who}: {rest}" if rest else who
    return ".".join(str(part) for part in location) or "lab file"
