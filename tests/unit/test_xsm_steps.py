"""The steps of XSM on a scripted host with a small FLASK of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask_lines import LOADED, MAP_DENIED, SAVE_DENIED

from lab.errors import ConfigError, Evidence, LabBug, StepFailure
from lab.flights.runvars import Runvars
from lab.flights.steps import GuestFiles
from lab.flights.xsm import Expectation, XsmPolicy, parse_test
from lab.hosts.protocols import AgentReply, CommandResult, GuestConfig, GuestState, Heartbeat
from testcases._xsm_deeds import parties
from testcases.fault_inject import fault_inject
from testcases.xsm_audit import xsm_audit
from testcases.xsm_boot import xsm_boot
from testcases.xsm_policy import xsm_policy
from testcases.xsm_prove import xsm_prove

# a policy is a list of lines `SOURCE TARGET:CLASS PERMISSION`, types, and booleans

BASE = "dom0_t domU_t:domain create\ndom0_t a_t:domain create\na_t\ndomU_t\nbool locked 0\n"
OPEN = BASE + "dom0_t domU_t:mmu pageinfo\n"


@dataclass
class SmallFlask:
    policy: str = OPEN
    enforcing: bool = True
    log: str = "(XEN) Xen version 4.17.5 (x)\n"
    booleans: dict[str, bool] = field(default_factory=dict)

    def load(self, text: str) -> None:
        self.policy = text
        self.booleans = {found[1]: found[2] == "1" for found in re.finditer(r"bool (\w+) ([01])", text)}
        self.log += LOADED + "\n"

    def permits(self, rule: str) -> bool:
        allowed = rule in self.policy.splitlines()
        if not allowed:
            source, target, tclass, permission = re.split(r"[ :]", rule)
            self.log += (
                f"(XEN) avc:  denied  {{ {permission} }} for source=d0 scontext=u:r:{source} tcontext=u:r:{target} "
                f"tclass={tclass}\n"
            )
        return allowed or not self.enforcing


@dataclass
class Domain:
    name: str
    domid: int
    label: str
    beats: int = 0
    alive: bool = True


@dataclass
class SmallHost:
    """A host whose toolstack asks `flask`; `wrong` is how it misbehaves."""

    flask: SmallFlask = field(default_factory=SmallFlask)
    domains: list[Domain] = field(default_factory=list)
    wrong: str = ""
    name: str = "emu0"
    address: str = "192.168.77.1"
    recorded: bytes = b"Xen version 4.17.5 (x)\nLAB-HOST-READY\n"

    @property
    def shell(self) -> SmallHost:
        return self

    @property
    def toolstack(self) -> SmallHost:
        return self

    @property
    def console(self) -> Serial:
        return Serial(self)

    def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        self.file = data.decode()

    def run(self, *argv: str, timeout_s: float = 60.0, check: bool = True, stdin: bytes = b"") -> CommandResult:
        out = ""
        match argv:
            case ("xl", "getenforce"):
                out = "Enforcing\n" if self.flask.enforcing else "Permissive\n"
            case ("xl", "setenforce", value):
                self.flask.enforcing = value == "1"
            case ("xl", "dmesg"):
                out = self.flask.log
            case ("xl", "loadpolicy", _):
                self.flask.load(self.file)
            case ("xl", "list", "-Z"):
                all_domains = [Domain("Domain-0", 0, "dom0_t"), *self.domains]
                out = "".join(f"{d.name} {d.domid} 96 1 -b---- 1.0 system_u:system_r:{d.label}\n" for d in all_domains)
            case ("flask-get-bool", "-a"):
                out = "".join(f"{name}: {int(value)}\n" for name, value in self.flask.booleans.items())
            case ("flask-set-bool", name, value):
                if self.wrong != "deaf boolean":
                    self.flask.booleans[name] = value == "1"
        said = " ".join(argv)
        return CommandResult(host=self.name, command=said, exit_status=0, stdout=out, stderr="", seconds=0)

    def create(self, config: GuestConfig, *, timeout_s: float = 90.0) -> None:
        label = str((config.options or {})["seclabel"]).split(":")[2]
        if label not in self.flask.policy.splitlines() and self.wrong != "any label":
            raise self._no(f"Invalid init_seclabel: {label}")
        if self.flask.booleans.get("locked") or not self.flask.permits(f"dom0_t {label}:domain create"):
            if self.wrong == "leftover":
                self.domains.append(Domain(config.name, 9, label))
            if self.flask.booleans.get("locked"):
                self.flask.permits(f"dom0_t {label}:domain locked")
            raise self._no("Permission denied")
        label = "domU_t" if self.wrong == "lost label" else label
        self.domains.append(Domain(config.name, len(self.domains) + 1, label))

    def guests(self) -> list[GuestState]:
        return [GuestState(name=d.name, domid=d.domid, memory_mib=96, vcpus=1, state="b") for d in self.domains]

    def destroy(self, name: str) -> None:
        self.domains = [domain for domain in self.domains if domain.name != name]

    def save(self, name: str, path: str, *, timeout_s: float = 200.0) -> None:
        domain = next(d for d in self.domains if d.name == name)
        allowed = self.flask.permits(f"dom0_t {domain.label}:mmu pageinfo")
        if self.wrong == "harmful":
            domain.alive = False
        if not allowed:
            raise self._no("Save failed: Permission denied")
        if self.wrong == "silent refusal":
            raise self._no("Save failed: out of memory")
        domain.domid += 1

    def restore(self, path: str, *, timeout_s: float = 200.0) -> None:
        if self.wrong == "lost":
            raise self._no("cannot restore")

    def _no(self, text: str) -> StepFailure:
        return StepFailure(f"xl said {text}", evidence=Evidence(host=self.name, output=text))


@dataclass
class Serial:
    host: SmallHost

    def __call__(self, name: str) -> GuestLine:
        return GuestLine(self.host, name)

    def offset(self) -> int:
        return len(self.host.recorded)

    def read(self, start: int, end: int | None = None) -> bytes:
        return self.host.recorded[start:end]

    def wait_for(self, pattern: re.Pattern[bytes], *, since: int, timeout_s: float, guard: Any = None) -> None:
        return None


@dataclass
class GuestLine:
    host: SmallHost
    name: str

    @property
    def domain(self) -> Domain:
        return next(d for d in self.host.domains if d.name == self.name)

    def text(self) -> str:
        return "LAB-GUEST ready"

    def wait_for(self, pattern: str, *, timeout_s: float) -> re.Match[str]:
        found = re.search(pattern, self.text())
        assert found
        return found

    def heartbeats(self) -> list[Heartbeat]:
        self.domain.beats += self.domain.alive
        return [
            Heartbeat(seq=seq, wall_s=seq, mono_s=seq, maxgap_ms=0, memory_ok=True)
            for seq in range(self.domain.beats + 1)
        ]

    def command(self, verb: str, argument: str = "", *, timeout_s: float = 30.0) -> AgentReply:
        if not self.domain.alive:
            raise StepFailure("the guest does not answer")
        lines: tuple[str, ...] = ()
        if "boot_id" in argument:
            lines = ("11111111-2222-3333-4444-555555555555",)
        return AgentReply(ok=True, text="exit=0", lines=lines)


@dataclass
class Context:
    where: SmallHost
    policy: XsmPolicy | None = None
    args: Mapping[str, str] = field(default_factory=dict)
    role: str = "host"
    job: str = "1.t"
    lines: list[str] = field(default_factory=list)
    saved: dict[str, bytes] = field(default_factory=dict)
    runvars: Runvars = field(
        default_factory=lambda: Runvars(
            {"flask": "enforcing", "guest_image": "g", "guest_kind": "pv", "xsm_policy": "p"}
        )
    )
    guard: Callable[[], None] = lambda: None

    def host(self, role: str | None = None) -> Any:
        return self.where

    def guest_files(self, image: str) -> GuestFiles:
        return GuestFiles(kernel="/k", ramdisk="/r")

    def xsm_policy(self, name: str) -> XsmPolicy:
        assert self.policy is not None
        return self.policy

    def log(self, text: str) -> None:
        self.lines.append(text)

    def save(self, name: str, data: bytes) -> None:
        self.saved[name] = data

    def wait(self, seconds: float) -> None: ...


def policy(*expected: str, loosened: str | None = None) -> XsmPolicy:
    text = 'summary = "s"\n' + "".join(f"[[expect]]\n{each}\n" for each in expected)
    return XsmPolicy(
        test=parse_test("p", text, where="p"),
        binary=OPEN.encode(),
        loosened=None if loosened is None else loosened.encode(),
    )


SAVE_ALLOWED = 'does = "save"\nguest = "domU_t"\nverdict = "allowed"'
SAVE_FORBIDDEN = (
    'does = "save"\nguest = "a_t"\nverdict = "denied"\n'
    'avc = [{ source = "dom0_t", target = "a_t", class = "mmu", permission = "pageinfo" }]'
)
CREATE_UNKNOWN = 'does = "create"\nguest = "zz_t"\nverdict = "unknown-label"'
CREATE_LOCKED = (
    'does = "create"\nguest = "a_t"\nverdict = "denied"\nbooleans = { locked = true }\n'
    'avc = [{ source = "dom0_t", target = "a_t", class = "domain", permission = "locked" }]'
)


@pytest.fixture
def host() -> SmallHost:
    host = SmallHost()
    host.flask.load(OPEN)
    return host


def prove(host: SmallHost, *expected: str, loosened: str | None = None) -> Context:
    ctx = Context(host, policy(*expected, loosened=loosened))
    xsm_prove(ctx)  # type: ignore[arg-type]
    return ctx


def test_a_policy_that_does_what_it_says_is_proved(host: SmallHost) -> None:
    ctx = prove(
        host, SAVE_ALLOWED, SAVE_FORBIDDEN + "\ncontrast = true", CREATE_UNKNOWN, CREATE_LOCKED,
        'does = "save"\nguest = "a_t"\nverdict = "allowed"\nloosened = true',
        loosened=OPEN + "dom0_t a_t:mmu pageinfo\n",
    )  # fmt: skip
    assert ctx.runvars.get("xsm_proved") == "5"
    assert host.domains == []
    assert host.flask.enforcing
    assert host.flask.booleans == {"locked": False}
    assert b"denied  { pageinfo }" in ctx.saved["avc.txt"]


@pytest.mark.parametrize(
    ("broken", "expected", "told"),
    [
        (lambda host: setattr(host.flask, "enforcing", False), SAVE_FORBIDDEN, "but it was done"),
        (lambda host: host.flask.load(OPEN + "dom0_t a_t:mmu pageinfo\n"), SAVE_FORBIDDEN, "but it was done"),
        (lambda host: host.flask.load(BASE), SAVE_ALLOWED, "but it was refused"),
        (lambda host: setattr(host, "wrong", "lost label"), SAVE_FORBIDDEN, "should have the label a_t, but has"),
        (lambda host: setattr(host, "wrong", "harmful"), SAVE_FORBIDDEN, "does not answer"),
        (lambda host: setattr(host, "wrong", "lost"), SAVE_ALLOWED, "cannot restore"),
        (lambda host: setattr(host, "wrong", "any label"), CREATE_UNKNOWN, "but it failed for another reason"),
        (lambda host: setattr(host, "wrong", "leftover"), CREATE_LOCKED, "is left"),
        (lambda host: setattr(host, "wrong", "deaf boolean"), CREATE_LOCKED, "the boolean locked was set to 1"),
        (
            lambda host: host.flask.load(OPEN),
            SAVE_FORBIDDEN.replace('permission = "pageinfo"', 'permission = "map_read"'),
            "FLASK logged no dom0_t a_t:mmu map_read",
        ),
        (
            lambda host: setattr(host, "wrong", "silent refusal"),
            SAVE_FORBIDDEN.replace("a_t", "domU_t"),
            "FLASK logged no dom0_t domU_t:mmu pageinfo",
        ),
    ],
)
def test_a_host_that_does_otherwise_fails(
    host: SmallHost, broken: Callable[[SmallHost], None], expected: str, told: str
) -> None:
    broken(host)
    with pytest.raises(StepFailure, match=re.escape(told)):
        prove(host, expected)


@pytest.mark.parametrize("fault", ["xsm-permissive", "xsm-loosened"])
def test_a_fault_in_the_policy_is_noticed(host: SmallHost, fault: str) -> None:
    ctx = Context(host, policy(SAVE_FORBIDDEN, loosened=OPEN + "dom0_t a_t:mmu pageinfo\n"))
    ctx.runvars.set("fault", fault)
    fault_inject(ctx)  # type: ignore[arg-type]
    with pytest.raises(StepFailure, match="but it was done"):
        xsm_prove(ctx)  # type: ignore[arg-type]


def test_a_policy_that_cannot_be_loosened_has_no_such_fault(host: SmallHost) -> None:
    ctx = Context(host, policy(SAVE_FORBIDDEN))
    ctx.runvars.set("fault", "xsm-loosened")
    with pytest.raises(ConfigError, match=r"no loosened\.te"):
        fault_inject(ctx)  # type: ignore[arg-type]


def test_more_denials_than_expected_fail(host: SmallHost) -> None:
    create = host.create

    def noisy(config: GuestConfig, *, timeout_s: float = 90.0) -> None:
        host.flask.log += MAP_DENIED + "\n"
        create(config)

    host.create = noisy  # type: ignore[method-assign]
    with pytest.raises(StepFailure, match="should start, but FLASK denied"):
        prove(host, SAVE_ALLOWED)


def test_a_test_that_expects_of_a_loosened_policy_there_is_not_is_our_mistake(host: SmallHost) -> None:
    with pytest.raises(ConfigError, match=r"loosened\.te"):
        prove(host, SAVE_ALLOWED + "\nloosened = true")
    with pytest.raises(ConfigError, match="no boolean nix"):
        prove(host, SAVE_ALLOWED + "\nbooleans = { nix = true }")


# --- the other steps


def test_a_host_in_the_mode_asked_for_passes(host: SmallHost) -> None:
    ctx = Context(host)
    xsm_boot(ctx)  # type: ignore[arg-type]
    assert ctx.runvars.get("host_xsm_from") == str(len(host.recorded))


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (lambda host: setattr(host.flask, "enforcing", False), "should be Enforcing, but is Permissive"),
        (
            lambda host: setattr(host, "recorded", b"Xen version\n" + SAVE_DENIED.encode() + b"\nLAB-HOST-READY"),
            "while the host booted",
        ),
    ],
)
def test_a_host_that_booted_otherwise_fails(host: SmallHost, broken: Callable[[SmallHost], None], told: str) -> None:
    broken(host)
    with pytest.raises(StepFailure, match=told):
        xsm_boot(Context(host))  # type: ignore[arg-type]


def test_a_policy_is_loaded_and_the_trees_own_comes_back(host: SmallHost) -> None:
    ctx = Context(host, policy(SAVE_ALLOWED), args={"mode": "load"})
    host.flask.policy = ""
    xsm_policy(ctx)  # type: ignore[arg-type]
    assert host.flask.policy == OPEN
    with pytest.raises(LabBug):
        xsm_policy(Context(host, args={"mode": "x"}))  # type: ignore[arg-type]


def test_a_denial_during_the_job_fails_its_audit(host: SmallHost) -> None:
    ctx = Context(host)
    host.flask.log += MAP_DENIED + "\n"  # an earlier job's, which the console has, too
    host.recorded += MAP_DENIED.encode() + b"\n"
    xsm_boot(ctx)  # type: ignore[arg-type]
    xsm_audit(ctx)  # type: ignore[arg-type]
    for where in ("log", "recorded"):
        log, recorded = host.flask.log, host.recorded
        if where == "log":
            host.flask.log += SAVE_DENIED + "\n"
        else:
            host.recorded += SAVE_DENIED.encode() + b"\n"
        with pytest.raises(StepFailure, match="dom0_t lab_nomigrate_t:mmu pageinfo") as failed:
            xsm_audit(ctx)  # type: ignore[arg-type]
        assert failed.value.evidence
        assert SAVE_DENIED[6:] in failed.value.evidence.output
        host.flask.log, host.recorded = log, recorded


def test_two_guests_of_one_type_have_two_names() -> None:
    expected = Expectation(does="grant", guest="a_t", peer="a_t", verdict="allowed")
    assert list(parties(expected)) == ["xsm-a_t", "xsm-a_t-2"]
