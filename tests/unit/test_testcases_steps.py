"""Each step on a scripted host: it passes when the host behaves, and fails with a clear word when it does not."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from disk_images import dynamic_vhd, qcow2

from lab.errors import Blocked, ConfigError, HostDiedError, InfraError, LabBug, NotFoundError, StepFailure
from lab.flights.runvars import Runvars
from lab.flights.steps import GuestFiles, SkipStep
from lab.hosts.protocols import (
    AgentReply,
    BootTarget,
    CommandResult,
    GuestConfig,
    GuestState,
    Heartbeat,
    Started,
    no_guard,
    no_trace,
)
from testcases._waiting import until
from testcases.build_check import build_check
from testcases.disk_create import disk_create
from testcases.disk_io import disk_io
from testcases.disk_nbd import disk_nbd
from testcases.disk_remove import disk_remove
from testcases.disk_shared import disk_shared
from testcases.disk_verify import disk_verify
from testcases.fault_inject import FAULTS, fault_inject
from testcases.guest_console import guest_console
from testcases.guest_destroy import guest_destroy
from testcases.guest_localmigrate import guest_localmigrate
from testcases.guest_migrate import guest_migrate
from testcases.guest_migrate_refused import guest_migrate_refused
from testcases.guest_saverestore import guest_saverestore
from testcases.guest_start import guest_start
from testcases.guest_stop import guest_stop
from testcases.host_boot import host_boot
from testcases.host_ping import host_ping
from testcases.leak_check import BASIS, leak_check
from testcases.libvirt_check import libvirt_check
from testcases.logs_capture import logs_capture
from testcases.xen_boot import xen_boot
from testcases.xen_install import xen_install

# --- the scripted host


@dataclass
class FakeGuest:
    """A guest that counts: each look at its console is a second of its life."""

    name: str = "guest"
    domid: int = 1
    kind: str = "pv"
    memory: int = 128
    vcpus: int = 1
    boot_id: str = "11111111-2222-3333-4444-555555555555"
    seq: int = 0
    state: str = "b"
    alive: bool = True
    memory_ok: bool = True
    beats: list[Heartbeat] = field(default_factory=list)
    disk: bytes = b""
    original: str = "c" * 64
    tail: str = "d" * 64
    gap_ms: int = 900

    def live_on(self) -> None:
        if self.alive:
            self.beats.append(
                Heartbeat(seq=self.seq, wall_s=self.seq, mono_s=self.seq, maxgap_ms=60, memory_ok=self.memory_ok)
            )
            self.seq += 1


def image_output(image: bytes) -> str:
    """What a host prints of an image's size, beginning and end."""
    head, tail = (base64.b64encode(part).decode() for part in (image[:65536], image[-512:]))
    return f"{len(image)}\n{head}\n-\n{tail}\n"


@dataclass
class FakeShell:
    """Answers commands from a table: the first entry whose pattern is found in the command."""

    host: str = "emu0"
    answers: dict[str, str | tuple[int, str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    offset: float = 0.0
    dead: bool = False
    stdins: list[bytes] = field(default_factory=list)

    def run(self, *argv: str, timeout_s: float = 60.0, check: bool = True, stdin: bytes = b"") -> CommandResult:
        self.stdins.append(stdin)
        if "date -s" in " ".join(argv):
            self.offset = 0.02
        return self._answer(" ".join(argv), check)

    def script(self, text: str, *args: str, timeout_s: float = 60.0, check: bool = True) -> CommandResult:
        command = " ".join((text, *args))
        marked = re.findall(r"^\( (.*)\n\) 2>&1 </dev/null; printf '\\n(@@\w+ \S+) %s\\n' \$\?$", text, re.MULTILINE)
        if marked:
            pieces = [(self._answer(part, False), marker) for part, marker in marked]
            said = "".join(f"{one.stdout}\n{marker} {one.exit_status}\n" for one, marker in pieces)
            return self._result(command, 0, said)
        return self._answer(command, check)

    def _answer(self, command: str, check: bool) -> CommandResult:
        self.commands.append(command)
        if self.dead:
            raise HostDiedError(f"{self.host}: its machine is off")
        found = next((answer for pattern, answer in self.answers.items() if pattern in command), "")
        status, output = found if isinstance(found, tuple) else (0, found)
        if check and status:
            raise StepFailure(f"{command} failed")
        return self._result(command, status, output)

    def _result(self, command: str, status: int, output: str) -> CommandResult:
        return CommandResult(
            host=self.host, command=command, exit_status=status, stdout=output, stderr="", seconds=0.1
        )

    def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        self.files[path] = data

    def get(self, path: str, *, limit: int = 1 << 20) -> bytes:
        if path not in self.files:
            raise StepFailure(f"there is no {path}")
        return self.files[path]

    def clock_offset(self) -> tuple[float, float]:
        return self.offset, 0.01


@dataclass
class FakeConsole:
    """A guest's console; what was printed stays when the guest has gone."""

    toolstack: FakeToolstack

    def text(self) -> str:
        return self.toolstack.printed

    def wait_for(self, pattern: str, *, timeout_s: float) -> re.Match[str]:
        found = re.search(pattern, self.text())
        if not found:
            raise StepFailure(f"guest did not print {pattern!r}")
        return found

    def heartbeats(self) -> Sequence[Heartbeat]:
        for guest in self.toolstack.running:
            guest.live_on()
        return [*self.toolstack.left_beats, *(beat for guest in self.toolstack.running for beat in guest.beats)]

    def command(self, verb: str, argument: str = "", *, timeout_s: float = 30.0) -> AgentReply:
        guest = next((guest for guest in self.toolstack.running if guest.alive), None)
        if guest is None:
            raise StepFailure(f"guest did not answer {verb!r}")
        self.heartbeats()
        match verb:
            case "sh":
                return self._shell(guest, argument)
            case "mem":
                return AgentReply(ok=guest.memory_ok, text="pages=1" if guest.memory_ok else "page=7")
            case "gap":
                return AgentReply(ok=True, text=f"maxgap_ms={guest.gap_ms} wall_at=1.000")
            case _:
                return AgentReply(ok=True, text="")

    def _shell(self, guest: FakeGuest, argument: str) -> AgentReply:
        if "boot_id" in argument:
            return AgentReply(ok=True, text="exit=0", lines=(guest.boot_id,))
        if product := re.match(r"expr (\d+) '\*' (\d+)", argument):
            number = str(int(product[1]) * int(product[2]))
            return AgentReply(ok=True, text="exit=0", lines=(number, "xen", guest.kind.upper(), "6.1.0"))
        if "urandom" in argument:
            guest.disk = b"a" * 64
        if argument.startswith("sha256sum </dev/xvda"):
            return AgentReply(ok=True, text="exit=0", lines=(guest.original + "  -",))
        if "skip=" in argument:
            return AgentReply(ok=True, text="exit=0", lines=(guest.disk.decode() + "  -", guest.tail + "  -"))
        if "sha256sum" in argument:
            return AgentReply(ok=True, text="exit=0", lines=(guest.disk.decode() + "  -",))
        return AgentReply(ok=True, text="exit=0")


@dataclass
class FakeToolstack:
    """Guests of one host. `lie` lets a verb do something else than it should."""

    running: list[FakeGuest] = field(default_factory=list)
    saved: list[FakeGuest] = field(default_factory=list)
    left_beats: list[Heartbeat] = field(default_factory=list)
    printed: str = "LAB-GUEST ready uptime=4.2\n"
    lie: dict[str, Callable[[FakeGuest], None]] = field(default_factory=dict)
    refused: Callable[[Any], None] | None = None
    next_domid: int = 1
    configs: list[GuestConfig] = field(default_factory=list)

    def _lied(self, verb: str, guest: FakeGuest) -> None:
        if verb in self.lie:
            self.lie[verb](guest)

    def _arrive(self, guest: FakeGuest) -> None:
        guest.domid = self.next_domid
        self.next_domid += 1
        self.running.append(guest)

    def create(self, config: GuestConfig, *, timeout_s: float = 90.0) -> None:
        self.configs.append(config)
        boots = f"{len(self.configs):08d}-2222-3333-4444-555555555555"
        guest = FakeGuest(kind=config.kind, memory=config.memory_mib, vcpus=config.vcpus, boot_id=boots)
        self._arrive(guest)
        self._lied("create", guest)

    def guests(self) -> Sequence[GuestState]:
        return [
            GuestState(name=one.name, domid=one.domid, memory_mib=one.memory, vcpus=one.vcpus, state=one.state)
            for one in self.running
        ]

    def find(self, name: str) -> GuestState | None:
        return next((one for one in self.guests() if one.name == name), None)

    def _end(self, verb: str) -> FakeGuest:
        if not self.running:
            raise StepFailure(f"xl {verb}: no such domain")
        guest = self.running.pop()
        self._lied(verb, guest)
        return guest

    def shutdown(self, name: str, *, timeout_s: float = 200.0) -> None:
        self._end("shutdown")

    def destroy(self, name: str) -> None:
        self._end("destroy")

    def save(self, name: str, path: str, *, timeout_s: float = 200.0) -> None:
        self.saved.append(self._end("save"))

    def restore(self, path: str, *, timeout_s: float = 200.0) -> None:
        guest = self.saved.pop()
        self._arrive(guest)
        self._lied("restore", guest)

    def migrate_local(self, name: str, *, timeout_s: float = 400.0) -> None:
        guest = self._end("migrate")
        self._arrive(guest)
        self._lied("arrive", guest)

    def migrate(self, name: str, target: Any, *, timeout_s: float = 400.0) -> int | None:
        if self.refused:
            self.refused(target)
            raise StepFailure("emu0: xl migrate guest to emu1 failed: error")
        guest = self._end("migrate")
        self.left_beats, guest.beats = guest.beats, []
        target.toolstack._arrive(guest)
        target.toolstack._lied("arrive", guest)
        return 140_509_184

    def console(self, name: str) -> FakeConsole:
        return FakeConsole(self)


@dataclass
class FakePower:
    on: bool = True
    asked: list[bool] = field(default_factory=list)

    def set(self, on: bool) -> None:
        self.asked.append(on)
        self.on = on

    def get(self) -> bool | None:
        return self.on


@dataclass
class FakeSerial:
    data: bytes = b""

    def offset(self) -> int:
        return len(self.data)

    def read(self, start: int, end: int | None = None) -> bytes:
        return self.data[start:end]


@dataclass
class FakeBoot:
    target: BootTarget | None = None
    ready: bool = True

    def set_target(self, target: BootTarget) -> None:
        self.target = target

    def wait_ready(self, *, timeout_s: float, guard: Callable[[], None] = no_guard) -> None:
        if not self.ready:
            raise InfraError("dom0 did not come up")

    def started(self) -> Started:
        return Started(start="checkpoint", note="started from checkpoint 12345678")


@dataclass
class FakeHost:
    name: str = "emu0"
    address: str = "192.168.77.1"
    power: FakePower = field(default_factory=FakePower)
    console: FakeSerial = field(default_factory=FakeSerial)
    boot: FakeBoot = field(default_factory=FakeBoot)
    shell: FakeShell = field(default_factory=FakeShell)
    toolstack: FakeToolstack = field(default_factory=FakeToolstack)
    logs: Mapping[str, Path] = field(default_factory=dict)

    def attend(self, *, guard: Any = no_guard, trace: Any = no_trace) -> None: ...

    def close(self) -> None: ...


@dataclass
class FakeContext:
    hosts: dict[str, Any]
    role: str = "host"
    args: Mapping[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    job: str = "1.test"
    target: BootTarget | None = None
    builds: Any = None
    lines: list[str] = field(default_factory=list)
    saved: dict[str, bytes] = field(default_factory=dict)
    waited: float = 0.0
    failed: bool = False

    def __post_init__(self) -> None:
        self.runvars = Runvars(self.values)

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(self.hosts)

    @property
    def guard(self) -> Callable[[], None]:
        return no_guard

    def host(self, role: str | None = None) -> Any:
        return self.hosts[role or self.role]

    def boot_target(self) -> BootTarget:
        if self.target is None:
            raise NotFoundError("image dom0-x is not built")
        return self.target

    def guest_files(self, image: str) -> GuestFiles:
        if "missing" in image:
            raise ConfigError(f"image {image} is not built")
        return GuestFiles(kernel="/lab/media/g/vmlinux", ramdisk="/lab/media/g/initramfs")

    def log(self, text: str) -> None:
        self.lines.append(text)

    def save(self, name: str, data: bytes) -> None:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", name)
        self.saved[name] = data

    def wait(self, seconds: float) -> None:
        self.waited += seconds


GUEST_RUNVARS = {"guest_image": "guest-tiny-amd64", "guest_kind": "pv"}


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def ctx(host: FakeHost) -> FakeContext:
    return FakeContext({"host": host}, values=dict(GUEST_RUNVARS))


@pytest.fixture
def running(host: FakeHost) -> FakeGuest:
    guest = FakeGuest(domid=1)
    host.toolstack.next_domid = 2
    host.toolstack.running.append(guest)
    guest.live_on()
    return guest


# --- waiting


def test_waiting_ends_with_the_first_answer_or_at_the_limit(ctx: FakeContext) -> None:
    answers = iter([None, None, "done"])
    assert until(ctx, lambda: next(answers), limit_s=10, clock=lambda: 0.0) == "done"
    clock = iter([0.0, 5.0, 11.0])
    assert until(ctx, lambda: None, limit_s=10, clock=lambda: next(clock)) is None


# --- set-up


def _target(folder: Path) -> BootTarget:
    for name in ("xen", "vmlinux", "initramfs"):
        (folder / name).write_bytes(b"x")
    return BootTarget(
        key="dom0-xen-4.20 abc", hypervisor=folder / "xen", kernel=folder / "vmlinux", initramfs=folder / "initramfs"
    )


def test_a_job_whose_images_are_there_may_begin(ctx: FakeContext, tmp_path: Path) -> None:
    ctx.target = _target(tmp_path)
    build_check(ctx)


def test_a_job_without_its_images_is_blocked(ctx: FakeContext, tmp_path: Path) -> None:
    with pytest.raises(Blocked, match="dom0-x"):
        build_check(ctx)
    ctx.target = _target(tmp_path)
    (tmp_path / "vmlinux").unlink()
    with pytest.raises(Blocked, match="vmlinux is missing"):
        build_check(ctx)
    ctx.runvars.set("guest_image", "missing")
    with pytest.raises(Blocked, match="image missing"):
        build_check(ctx)


def test_a_misspelt_fault_stops_the_job_at_once(ctx: FakeContext, tmp_path: Path) -> None:
    ctx.target = _target(tmp_path)
    ctx.runvars.set("fault", "disk-corupt")
    with pytest.raises(ConfigError, match="disk-corrupt"):
        build_check(ctx)


def test_installing_sets_what_the_host_boots_next(ctx: FakeContext, host: FakeHost, tmp_path: Path) -> None:
    ctx.target = _target(tmp_path)
    xen_install(ctx)
    assert host.boot.target is ctx.target


def test_booting_switches_off_and_on_and_says_how_long_it_took(ctx: FakeContext, host: FakeHost) -> None:
    host_boot(ctx)
    assert host.power.asked == [False, True]
    assert float(ctx.runvars.get("host_boot_s")) >= 0
    assert ctx.runvars.get("host_boot_from") == "checkpoint"
    assert any("checkpoint 12345678" in line for line in ctx.lines)


def test_a_host_that_does_not_come_up_is_the_labs_trouble(ctx: FakeContext, host: FakeHost) -> None:
    host.boot.ready = False
    with pytest.raises(InfraError):
        host_boot(ctx)


XL_INFO = (
    "release : 6.12.1\ntotal_memory : 2047\nfree_memory : 900\nxen_major : 4\nxen_minor : 20\nxen_extra : .4\n"
    "virt_caps : pv hvm hap shadow\n"
)
XL_LIST = "Name ID Mem VCPUs State Time(s)\nDomain-0    0  1024     1     r-----      12.3\n"
BANNER = "(XEN) Xen version 4.20.4 (Debian 4.20.4-1) (gcc) debug=n\n"


def _booted(host: FakeHost, **changed: str) -> None:
    said = {"info": XL_INFO, "list": XL_LIST, "dmesg": BANNER} | changed
    host.shell.answers = {f"xl {name}": text for name, text in said.items()}


def test_what_booted_is_recorded(ctx: FakeContext, host: FakeHost) -> None:
    _booted(host)
    ctx.runvars.set("dom0_image", "dom0-xen-4.20-amd64")
    xen_boot(ctx)
    assert ctx.runvars.get("host_xen_version") == "4.20.4"
    assert ctx.runvars.get("host_linux_version") == "6.12.1"


@pytest.mark.parametrize(
    ("changed", "image", "message"),
    [
        ({}, "dom0-xen-4.17-amd64", "promises Xen 4.17, but Xen 4.20.4"),
        ({"info": "cannot open hypervisor"}, "", "should name"),
        ({"dmesg": "(XEN) Xen version 4.20.3 (x) y"}, "", "banner of Xen 4.20.4, but has that of 4.20.3"),
        ({"dmesg": "nothing"}, "", "has that of None"),
        ({"dmesg": BANNER + "(XEN) Panic on CPU 0:\n"}, "", "has a panic"),
        ({"list": ""}, "", "domain 0, but has not"),
        ({"info": XL_INFO.replace("2047", "1100")}, "", "only 1100 MiB"),
    ],
)
def test_a_xen_that_is_not_as_it_should_be_fails(
    ctx: FakeContext, host: FakeHost, changed: dict[str, str], image: str, message: str
) -> None:
    _booted(host, **changed)
    ctx.runvars.set("dom0_image", image)
    with pytest.raises(StepFailure, match=message) as failure:
        xen_boot(ctx)
    assert failure.value.evidence is not None


def test_a_banner_that_left_xens_log_is_found_on_the_recorded_console(ctx: FakeContext, host: FakeHost) -> None:
    _booted(host, dmesg="(XEN) a line about a guest\n")
    host.console.data = b"SeaBIOS\n" + BANNER.encode()
    xen_boot(ctx)


def test_hosts_ping_each_other_and_a_single_one_its_gateway(ctx: FakeContext, host: FakeHost) -> None:
    host.shell.answers = {"ping": "20 packets transmitted, 20 received, 0% packet loss"}
    host_ping(ctx)
    assert "default" in host.shell.commands[0]
    ctx.hosts["other"] = replace(host, name="emu1", address="192.168.77.2")
    host_ping(ctx)
    assert host.shell.commands[1].endswith(" 192.168.77.2")


@pytest.mark.parametrize(
    "said",
    [
        "20 packets transmitted, 19 received, 5% packet loss",
        "7 packets transmitted, 7 received, 0% packet loss",
        (2, "ping: unknown host"),
    ],
)
def test_a_lost_ping_fails(ctx: FakeContext, host: FakeHost, said: str | tuple[int, str]) -> None:
    host.shell.answers = {"ping": said}
    with pytest.raises(StepFailure, match="20 pings"):
        host_ping(ctx)


# --- guests


def test_a_guest_that_starts_is_recorded(ctx: FakeContext, host: FakeHost) -> None:
    guest_start(ctx)
    assert ctx.runvars.get("guest_domid") == "1"
    assert ctx.runvars.get("guest_boot_id").startswith("00000001-")
    assert host.toolstack.configs[0].bridge == "xenbr0"
    host.toolstack.running.clear()
    guest_start(ctx)
    assert ctx.runvars.get("guest_boot_id").startswith("00000002-")


def _crash(guest: FakeGuest) -> None:
    guest.state, guest.alive = "sc", False


def _fall_silent(guest: FakeGuest) -> None:
    guest.alive = False


def _boot_anew(guest: FakeGuest) -> None:
    guest.boot_id, guest.seq, guest.beats = "99999999-2222-3333-4444-555555555555", 0, []


def _lose_a_beat(guest: FakeGuest) -> None:
    guest.seq += 1


def _damage(guest: FakeGuest) -> None:
    guest.memory_ok = False


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (_crash, "state 'sc'"),
        (_fall_silent, "did not answer"),
        (lambda guest: setattr(guest, "memory", 64), "is listed with 64 MiB"),
        (lambda guest: setattr(guest, "name", "other"), "should run, but there is other"),
    ],
)
def test_a_guest_that_starts_badly_fails(
    ctx: FakeContext, host: FakeHost, lie: Callable[[FakeGuest], None], message: str
) -> None:
    host.toolstack.lie["create"] = lie
    with pytest.raises(StepFailure, match=message):
        guest_start(ctx)


def test_waiting_for_a_guest_that_crashed_while_it_boots_ends_early(ctx: FakeContext, host: FakeHost) -> None:
    host.toolstack.printed = "Kernel panic - not syncing"
    ctx.wait = lambda seconds: _crash(host.toolstack.running[0])  # type: ignore[method-assign]
    with pytest.raises(StepFailure, match="state 'sc'") as failure:
        guest_start(ctx)
    assert failure.value.evidence is not None
    assert "Kernel panic" in failure.value.evidence.console_tail


def test_a_guest_that_is_there_already_is_not_taken_for_a_new_one(
    ctx: FakeContext, host: FakeHost, running: FakeGuest
) -> None:
    with pytest.raises(StepFailure, match="no guest should be there"):
        guest_start(ctx)


def test_the_same_boot_twice_is_no_start(ctx: FakeContext, host: FakeHost) -> None:
    ctx.runvars.set("guest_boot_id", "00000001-2222-3333-4444-555555555555")
    with pytest.raises(StepFailure, match="again"):
        guest_start(ctx)


def test_a_guest_of_another_kind_is_found_out(ctx: FakeContext, running: FakeGuest) -> None:
    guest_console(ctx)
    running.kind = "hvm"
    with pytest.raises(StepFailure, match=r"'PV'.*'HVM'"):
        guest_console(ctx)


def test_a_restored_guest_goes_on_as_another_domain(ctx: FakeContext, host: FakeHost, running: FakeGuest) -> None:
    guest_saverestore(ctx)
    assert ctx.runvars.get("guest_domid") == "2"
    assert any(command.startswith("rm -f /lab/scratch/guest.save") for command in host.shell.commands)


@pytest.mark.parametrize(
    ("verb", "lie", "message"),
    [
        ("restore", _boot_anew, "booted anew"),
        ("restore", _lose_a_beat, "heartbeat [0-9]+ is missing"),
        ("restore", _damage, "'mem'.*page=7"),
        ("restore", _crash, "state 'sc'"),
        ("restore", _fall_silent, "did not answer"),
        ("restore", lambda guest: setattr(guest, "domid", 1), "still is 1"),
        ("restore", lambda guest: setattr(guest, "name", "guest--incoming"), "there is guest--incoming"),
    ],
)
def test_a_guest_that_does_not_survive_a_save_fails(
    ctx: FakeContext, host: FakeHost, running: FakeGuest, verb: str, lie: Callable[[FakeGuest], None], message: str
) -> None:
    host.toolstack.lie[verb] = lie
    with pytest.raises(StepFailure, match=message):
        guest_saverestore(ctx)
    assert any("rm -f" in command for command in host.shell.commands)


def test_a_saved_guest_must_be_gone(ctx: FakeContext, host: FakeHost, running: FakeGuest) -> None:
    host.toolstack.lie["save"] = host.toolstack.running.append
    with pytest.raises(StepFailure, match="after save no guest"):
        guest_saverestore(ctx)


def test_a_guest_is_migrated_as_often_as_asked(ctx: FakeContext, host: FakeHost, running: FakeGuest) -> None:
    _booted(host)
    ctx.args = {"times": "3"}
    guest_localmigrate(ctx)
    assert ctx.runvars.get("guest_domid") == "4"
    ctx.args = {"times": "many"}
    with pytest.raises(LabBug):
        guest_localmigrate(ctx)


def test_a_pv_guest_is_not_migrated_by_a_xen_that_cannot(
    ctx: FakeContext, host: FakeHost, running: FakeGuest
) -> None:
    _booted(host, info=XL_INFO.replace(" shadow", ""))
    with pytest.raises(SkipStep, match="shadow"):
        guest_localmigrate(ctx)
    ctx.runvars.set("guest_kind", "pvh")
    guest_localmigrate(ctx)


def test_a_local_migration_that_lost_something_fails(ctx: FakeContext, host: FakeHost, running: FakeGuest) -> None:
    _booted(host)
    host.toolstack.lie["arrive"] = _lose_a_beat
    with pytest.raises(StepFailure, match="is missing"):
        guest_localmigrate(ctx)


@pytest.fixture
def pair(host: FakeHost) -> FakeContext:
    other = FakeHost(name="emu1", address="192.168.77.2", shell=FakeShell(host="emu1"))
    _booted(host)
    _booted(other)
    return FakeContext(
        {"src_host": host, "dst_host": other},
        role="src_host",
        args={"source": "src_host", "target": "dst_host"},
        values=dict(GUEST_RUNVARS),
    )


def test_a_migrated_guest_lives_on_the_target_only_and_its_downtime_is_known(
    pair: FakeContext, host: FakeHost, running: FakeGuest
) -> None:
    host.shell.offset, running.gap_ms = -5.0, 900
    pair.hosts["dst_host"].shell.offset = -4.9
    guest_migrate(pair)
    assert host.toolstack.running == []
    assert pair.runvars.get("downtime_ms") == "800"
    assert pair.runvars.get("downtime_uncertainty_ms") == "70"
    assert pair.runvars.get("migrate_bytes") == "140509184"
    assert not any("date -s" in command for command in host.shell.commands)


def test_the_figures_of_one_migration_are_not_lost_to_the_next(
    pair: FakeContext, host: FakeHost, running: FakeGuest
) -> None:
    guest_migrate(pair)
    running.gap_ms = 700
    host.toolstack.left_beats = []
    pair.args = {"source": "dst_host", "target": "src_host"}
    guest_migrate(pair)
    assert pair.runvars.get("downtime_ms") == "900 700"
    assert pair.runvars.get("migrate_bytes") == "140509184 140509184"


@pytest.mark.parametrize("mode", ["taken", "cut"])
def test_a_refused_migration_leaves_the_guest_where_it_was(
    pair: FakeContext, host: FakeHost, running: FakeGuest, mode: str
) -> None:
    pair.args = {**pair.args, "mode": mode}
    host.toolstack.refused = lambda _target: None
    guest_migrate_refused(pair)
    target = pair.hosts["dst_host"]
    assert target.toolstack.running == []
    assert [config.bridge for config in target.toolstack.configs] == ([None] if mode == "taken" else [])
    assert host.toolstack.running == [running]


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (None, "emu1 should refuse the guest, but took it"),
        (lambda guest, _: _damage(guest), "page=7"),
        (lambda guest, _: _boot_anew(guest), "booted anew"),
        (lambda guest, _: setattr(guest, "domid", 9), "should still be domain 1"),
        (
            lambda _, target: target.toolstack.running.append(FakeGuest(name="guest--incoming")),
            "after the refused migration no guest .* guest--incoming",
        ),
    ],
)
def test_a_refused_migration_that_is_none_or_harms_the_guest_fails(
    pair: FakeContext, host: FakeHost, running: FakeGuest, refused: Any, message: str
) -> None:
    pair.args = {**pair.args, "mode": "cut"}
    host.toolstack.refused = refused and (lambda target: refused(running, target))
    with pytest.raises(StepFailure, match=message):
        guest_migrate_refused(pair)


def test_a_disk_that_all_hosts_have_is_given_to_the_guest_to_read(pair: FakeContext, host: FakeHost) -> None:
    for one in pair.hosts.values():
        one.shell.answers |= {"base64": image_output(bytes(8192)), "sha256sum": "a" * 64 + "  -\n"}
    disk_shared(pair)
    guest_start(pair)
    assert host.toolstack.configs[0].disks[0].read_only
    assert host.toolstack.configs[0].disks[0].path == "/lab/media/g/vmlinux"
    pair.hosts["dst_host"].shell.answers["sha256sum"] = "b" * 64 + "  -\n"
    with pytest.raises(InfraError, match="should be the same on all hosts"):
        disk_shared(pair)


def test_clocks_that_differ_much_are_set_before_a_migration(
    pair: FakeContext, host: FakeHost, running: FakeGuest
) -> None:
    host.shell.offset, running.gap_ms = 1.7, 900
    guest_migrate(pair)
    assert any("date -s" in command for command in host.shell.commands)
    assert pair.runvars.get("downtime_ms") == "900"


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (_boot_anew, "booted anew"),
        (_lose_a_beat, "is missing"),
        (_damage, "page=7"),
        (_fall_silent, "did not answer"),
        (lambda guest: setattr(guest, "name", "guest--incoming"), "there is guest--incoming"),
    ],
)
def test_a_migration_that_lost_something_fails(
    pair: FakeContext, running: FakeGuest, lie: Callable[[FakeGuest], None], message: str
) -> None:
    pair.hosts["dst_host"].toolstack.lie["arrive"] = lie
    with pytest.raises(StepFailure, match=message):
        guest_migrate(pair)


@pytest.mark.parametrize(
    ("left", "fate"), [(True, "lives on where it was"), (False, "did not survive it: emu0: 'guest' should run")]
)
def test_a_refused_migration_tells_what_became_of_the_guest(
    pair: FakeContext, host: FakeHost, running: FakeGuest, *, left: bool, fate: str
) -> None:
    def refuse(name: str, target: Any, **_: Any) -> None:
        if not left:
            host.toolstack.running.clear()
        raise StepFailure("emu0: libvirt migrate failed: Connection refused")

    host.toolstack.migrate = refuse  # type: ignore[method-assign]
    with pytest.raises(StepFailure, match=f"Connection refused; .*{fate}"):
        guest_migrate(pair)


def test_libvirt_is_proved_only_by_guests_that_go_through_it(ctx: FakeContext, host: FakeHost) -> None:
    host.toolstack.version = lambda: "libvirt 9.0.0"  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="toolstack=libvirt"):
        libvirt_check(ctx)
    ctx.runvars.set("toolstack", "libvirt")
    libvirt_check(ctx)
    assert ctx.runvars.get("host_toolstack_version") == "libvirt 9.0.0"


def test_a_guest_that_stayed_behind_fails_the_migration(
    pair: FakeContext, host: FakeHost, running: FakeGuest
) -> None:
    host.toolstack.lie["migrate"] = lambda guest: host.toolstack.running.append(FakeGuest(name="guest--migratedaway"))
    with pytest.raises(StepFailure, match="guest--migratedaway"):
        guest_migrate(pair)


def test_a_migration_between_roles_that_do_not_exist_is_our_mistake(pair: FakeContext) -> None:
    pair.args = {"source": "src_host", "target": "nowhere"}
    with pytest.raises(LabBug):
        guest_migrate(pair)


@pytest.mark.parametrize(("step", "verb"), [(guest_stop, "shutdown"), (guest_destroy, "destroy")])
def test_a_guest_that_is_ended_must_be_gone(
    ctx: FakeContext, host: FakeHost, running: FakeGuest, step: Callable[[Any], None], verb: str
) -> None:
    step(ctx)
    assert host.toolstack.running == []
    host.toolstack.running.append(running)
    host.toolstack.lie[verb] = host.toolstack.running.append
    with pytest.raises(StepFailure, match=f"after {verb} no guest"):
        step(ctx)


@pytest.mark.parametrize("step", [guest_stop, guest_destroy, guest_console, guest_saverestore])
def test_a_step_on_a_guest_that_is_not_there_fails(ctx: FakeContext, step: Callable[[Any], None]) -> None:
    with pytest.raises(StepFailure):
        step(ctx)


# --- disks

INFO = json.dumps({"format": "qcow2", "virtual-size": 16 << 20})


@pytest.fixture
def disk(ctx: FakeContext, host: FakeHost) -> FakeContext:
    ctx.runvars.set("disk_format", "qcow2")
    host.shell.answers = {
        "base64": image_output(qcow2()),
        "qemu-img info": INFO,
        "qemu-img map": '[{"start": 0, "length": 16777216, "offset": 327680}]',
        "qemu-img convert": f"{'a' * 64}  -\n{'d' * 64}  -\n{'c' * 64}  -\n",
        "urandom": f"{'c' * 64}  -\n{'d' * 64}  -\n",
        "sha256sum /lab/scratch/base.raw": "e" * 64 + "  /lab/scratch/base.raw\n",
    }
    return ctx


def test_a_disk_is_created_written_read_verified_and_removed(
    disk: FakeContext, host: FakeHost, running: FakeGuest
) -> None:
    disk_create(disk)
    assert disk.runvars.get("disk_path") == "/lab/scratch/guest.qcow2"
    disk.args = {"mode": "write"}
    disk_io(disk)
    assert disk.runvars.get("disk_written_mib") == "8"
    disk.args = {"mode": "read"}
    disk_io(disk)
    with pytest.raises(StepFailure, match="before it is verified, no guest"):
        disk_verify(disk)
    host.toolstack.running.clear()
    disk_verify(disk)
    disk_remove(disk)
    assert "rm /lab/scratch/guest.qcow2" in host.shell.commands


def test_an_image_of_another_format_is_not_accepted(disk: FakeContext, host: FakeHost) -> None:
    host.shell.answers["qemu-img info"] = INFO.replace("qcow2", "raw")
    with pytest.raises(StepFailure, match="format should be qcow2"):
        disk_create(disk)


def test_what_comes_back_different_fails(disk: FakeContext, running: FakeGuest) -> None:
    disk.args = {"mode": "write"}
    disk_io(disk)
    running.disk = b"b" * 64
    disk.args = {"mode": "read"}
    with pytest.raises(StepFailure, match=f"sha256 {'a' * 64}, but read {'b' * 64}"):
        disk_io(disk)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"qemu-img check": (2, "ERROR cluster 5 refcount=0 reference=1")}, "should find nothing wrong"),
        ({"qemu-img convert": "b" * 64 + "  -\n"}, "should hold what the guest wrote"),
        ({"base64": image_output(qcow2(backing=b"/etc/passwd"))}, "'/etc/passwd' is not a plain name"),
        ({"base64": image_output(dynamic_vhd())}, "must not be opened: it is declared as qcow2"),
        ({"base64": (1, "not a plain file\n")}, "must not be opened: it is not a plain file"),
        ({"qemu-img convert": (1, "qemu-img: error")}, "but has None"),
    ],
)
def test_an_image_that_is_damaged_from_outside_fails(
    disk: FakeContext, host: FakeHost, answer: dict[str, str | tuple[int, str]], message: str
) -> None:
    for name, value in (("disk_path", "/x"), ("disk_sha256", "a" * 64), ("disk_written_mib", "8")):
        disk.runvars.set(name, value)
    host.shell.answers |= answer
    with pytest.raises(StepFailure, match=message):
        disk_verify(disk)


def _prepared(disk: FakeContext, **runvars: str) -> FakeContext:
    for name, value in runvars.items():
        disk.runvars.set(name, value)
    return disk


def test_what_was_on_a_disk_before_the_guest_wrote_is_looked_at_from_both_sides(
    disk: FakeContext, host: FakeHost, running: FakeGuest
) -> None:
    _prepared(disk, disk_snapshot="yes")
    disk_create(disk)
    assert any(command.startswith("qemu-img snapshot -c before") for command in host.shell.commands)
    assert disk.runvars.get("disk_snapshot_at") == str(327680 + 12345)
    disk.args = {"mode": "write"}
    disk_io(disk)
    disk.args = {"mode": "read"}
    disk_io(disk)
    running.tail = "e" * 64
    with pytest.raises(StepFailure, match="end of its disk as it was"):
        disk_io(disk)
    running.original = "e" * 64
    disk.args = {"mode": "write"}
    with pytest.raises(StepFailure, match="what its disk held before"):
        disk_io(disk)
    host.toolstack.running.clear()
    disk_verify(disk)
    host.shell.answers["qemu-img convert"] = f"{'a' * 64}  -\n{'e' * 64}  -\n{'c' * 64}  -\n"
    with pytest.raises(StepFailure, match="end as it did"):
        disk_verify(disk)
    host.shell.answers["qemu-img convert"] = f"{'a' * 64}  -\n{'d' * 64}  -\n{'e' * 64}  -\n"
    with pytest.raises(StepFailure, match="snapshot 'before'"):
        disk_verify(disk)


def test_a_backing_file_is_made_below_the_disk_and_must_not_change(
    disk: FakeContext, host: FakeHost
) -> None:
    _prepared(disk, disk_backing="raw", disk_sha256="a" * 64, disk_written_mib="8")
    top, base = image_output(qcow2(backing=b"base.raw", backing_format=b"raw")), image_output(bytes(16 << 20))
    del host.shell.answers["base64"]
    host.shell.answers |= {"/lab/scratch/base.raw": base, "/lab/scratch/guest.qcow2": top}
    host.shell.answers = {"sha256sum /lab": "e" * 64 + "  /lab/scratch/base.raw\n"} | host.shell.answers
    disk_create(disk)
    assert any("create -q -f qcow2 -b base.raw -F raw /lab" in command for command in host.shell.commands)
    assert disk.runvars.get("disk_backing_sha256") == "e" * 64
    disk_verify(disk)
    disk_remove(disk)
    assert host.shell.commands[-1] == "rm /lab/scratch/guest.qcow2 /lab/scratch/base.raw"
    disk.runvars.set("disk_path", "/lab/scratch/guest.qcow2")
    host.shell.answers["sha256sum /lab"] = "f" * 64 + "  /lab/scratch/base.raw\n"
    with pytest.raises(StepFailure, match=r"backing file /lab/scratch/base.raw should be unchanged"):
        disk_verify(disk)


def test_what_stands_below_a_disk_is_looked_at_before_it_is_opened(disk: FakeContext, host: FakeHost) -> None:
    del host.shell.answers["base64"]
    top, base = (image_output(qcow2(backing=name)) for name in (b"base.qcow2", b"../secret"))
    host.shell.answers = {"/lab/scratch/base.qcow2": base, "/lab/scratch/guest.qcow2": top} | host.shell.answers
    _prepared(disk, disk_path="/lab/scratch/guest.qcow2")
    with pytest.raises(StepFailure, match=r"/base.qcow2 must not be opened: its backing file '../secret'"):
        guest_start(disk)
    assert host.toolstack.configs == []
    host.shell.answers["/lab/scratch/base.qcow2"] = top
    with pytest.raises(StepFailure, match="more than 4 images"):
        guest_start(disk)


def test_a_saved_guest_is_not_restored_onto_an_image_that_lies(
    disk: FakeContext, host: FakeHost, running: FakeGuest
) -> None:
    _prepared(disk, disk_path="/lab/scratch/guest.qcow2")
    host.shell.answers["base64"] = image_output(qcow2(backing=b"/etc/passwd"))
    with pytest.raises(StepFailure, match="'/etc/passwd' is not a plain name"):
        guest_saverestore(disk)
    assert host.toolstack.running == []


@pytest.mark.parametrize(
    "runvars",
    [
        {"disk_format": "raw", "disk_backing": "raw"},
        {"disk_format": "vhd", "disk_snapshot": "yes"},
        {"disk_format": "qcow2", "disk_subformat": "fixed"},
        {"disk_format": "qcow2", "disk_backing": "vmdk"},
        {"disk_format": "qcow2", "disk_snapshot": "perhaps"},
        {"disk_format": "vhd", "disk_subformat": "differencing"},
    ],
)
def test_what_a_format_cannot_have_is_a_mistake_of_the_submitter(
    disk: FakeContext, runvars: dict[str, str]
) -> None:
    _prepared(disk, **runvars)
    with pytest.raises(ConfigError):
        disk_create(disk)


def test_a_vhd_of_another_kind_is_not_accepted(disk: FakeContext, host: FakeHost) -> None:
    _prepared(disk, disk_format="vhd", disk_subformat="fixed")
    host.shell.answers["base64"] = image_output(dynamic_vhd())
    with pytest.raises(StepFailure, match="should be a fixed VHD, but is a dynamic one"):
        disk_create(disk)


# --- leaks, logs, faults

INVENTORY = {
    "xl list": XL_LIST,
    "ps -o": "self 9\n    1     0 init\n",
    "xenstore-ls": '/local = ""\n',
    "find": "/tmp\n",
}


def test_a_host_as_it_was_has_no_leak_and_one_more_file_is_one(ctx: FakeContext, host: FakeHost) -> None:
    host.shell.answers = dict(INVENTORY)
    ctx.args = {"mode": "basis"}
    leak_check(ctx)
    ctx.args = {"mode": "check"}
    leak_check(ctx)
    host.shell.answers["find"] = "/tmp\n/tmp/stray\n"
    with pytest.raises(StepFailure, match="1 leaked object: file /tmp/stray") as failure:
        leak_check(ctx)
    assert failure.value.evidence is not None
    assert failure.value.evidence.output == "file /tmp/stray"
    assert ctx.waited == 3.0


def test_what_goes_away_by_itself_in_a_moment_is_no_leak(ctx: FakeContext, host: FakeHost) -> None:
    host.shell.answers = dict(INVENTORY)
    ctx.args = {"mode": "basis"}
    leak_check(ctx)
    host.shell.answers["find"] = "/tmp\n/tmp/stray\n"
    ctx.wait = lambda seconds: host.shell.answers.update(find="/tmp\n")  # type: ignore[method-assign]
    ctx.args = {"mode": "check"}
    leak_check(ctx)


def test_a_basis_of_another_job_is_not_compared_with(ctx: FakeContext, host: FakeHost) -> None:
    host.shell.answers = dict(INVENTORY)
    host.shell.files[BASIS] = b'{"job": "2.other", "inventory": {}}'
    ctx.args = {"mode": "check"}
    with pytest.raises(InfraError, match="basis"):
        leak_check(ctx)


def test_an_inventory_that_cannot_be_taken_fails(ctx: FakeContext, host: FakeHost) -> None:
    host.shell.answers = INVENTORY | {"xenstore-ls": (1, "xs_transaction_start: Connection refused")}
    ctx.args = {"mode": "basis"}
    with pytest.raises(StepFailure, match="xenstore-ls"):
        leak_check(ctx)


def test_logs_are_kept_even_when_some_are_missing(ctx: FakeContext, host: FakeHost, tmp_path: Path) -> None:
    (tmp_path / "qemu.log").write_bytes(b"started")
    host.logs = {"qemu": tmp_path / "qemu.log", "other": tmp_path / "none"}
    host.shell.answers = {"xl dmesg": (1, "no such command"), "dmesg": "dom0 says"}
    logs_capture(ctx)
    assert ctx.saved["qemu.log"] == b"started"
    assert ctx.saved["xl-dmesg.txt"] == b"no such command\n[exit status 1]\n"
    assert ctx.saved["dmesg.txt"] == b"dom0 says"
    assert "other.log" not in ctx.saved


def test_of_a_dead_host_the_end_of_its_console_is_kept(ctx: FakeContext, host: FakeHost) -> None:
    host.shell.dead, host.power.on, host.console.data = True, False, b"(XEN) Panic on CPU 0:"
    with pytest.raises(SkipStep, match="before it booted"):
        logs_capture(ctx)
    ctx.runvars.set("host_xen_version", "4.20.4")
    with pytest.raises(HostDiedError):
        logs_capture(ctx)
    assert ctx.saved["serial-console.txt"] == b"(XEN) Panic on CPU 0:"


def test_without_a_fault_nothing_is_broken(ctx: FakeContext, host: FakeHost) -> None:
    with pytest.raises(SkipStep):
        fault_inject(ctx)
    assert host.shell.commands == []


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - {"xsm-loosened"}))  # that one: test_xsm_steps.py
def test_every_fault_does_something_and_is_told(
    disk: FakeContext, host: FakeHost, running: FakeGuest, fault: str
) -> None:
    _prepared(disk, disk_path="/lab/scratch/guest.qcow2", disk_backing="raw", disk_snapshot_at="7", fault=fault)
    disk.runvars.set("toolstack", "libvirt")
    disk.runvars.set("disk_access", "ro")
    disk.hosts["dst_host"] = host
    host.shell.answers |= {"xl getenforce": "Permissive\n"}
    host.shell.answers["xl info"] = "xen_commandline : nmi=fatal\n"
    disk.runvars.set("stubdom_image", "stubdom-xen-4.17-amd64")
    host.toolstack.running.append(FakeGuest(domid=2, name="guest-dm"))
    disk.args = {"point": FAULTS[fault].point}
    before = len(host.shell.commands), running.seq
    fault_inject(disk)
    assert (len(host.shell.commands), running.seq) != before
    assert "on purpose" in disk.lines[-1]


def test_a_byte_is_corrupted_where_the_image_keeps_it(disk: FakeContext, host: FakeHost) -> None:
    disk.runvars.set("disk_path", "/x")
    disk.runvars.set("fault", "disk-corrupt")
    fault_inject(disk)
    assert host.shell.commands[-1].endswith(f" /x {327680 + (1 << 20) + 12345}")


@pytest.mark.parametrize("fault", ["migration-refused", "name-taken"])
def test_a_fault_of_libvirts_migration_needs_one(ctx: FakeContext, fault: str) -> None:
    ctx.runvars.set("fault", fault)
    with pytest.raises(ConfigError, match="needs a migration by libvirt"):
        fault_inject(ctx)


def test_a_header_that_lies_names_a_file_outside(disk: FakeContext, host: FakeHost) -> None:
    _prepared(disk, disk_path="/x", fault="disk-header-lies")
    fault_inject(disk)
    name, field = host.shell.commands[-2:]
    assert name.startswith("printf '/etc/passwd' | dd of=")
    assert name.endswith(" /x 2048")
    assert field.startswith(r"printf '\000\000\000\000\000\000\010\000\000\000\000\013' | dd")
    assert field.endswith(" /x 8")


def test_a_disk_fault_without_a_disk_is_a_mistake_of_the_submitter(ctx: FakeContext) -> None:
    ctx.runvars.set("fault", "disk-corrupt")
    with pytest.raises(ConfigError, match="has not a disk"):
        fault_inject(ctx)


def test_an_image_is_served_by_dom0s_kernel_only_after_its_header_was_read(disk: FakeContext, host: FakeHost) -> None:
    disk_create(disk)
    disk.args = {"mode": "attach"}
    host.shell.answers["qemu-nbd --fork"] = "32768\n"
    disk_nbd(disk)
    assert disk.runvars.get("disk_nbd") == "/dev/nbd0"
    attached = next(number for number, command in enumerate(host.shell.commands) if "qemu-nbd --fork" in command)
    assert any("head -c" in command and "base64" in command for command in host.shell.commands[:attached])
    assert host.shell.commands[attached].endswith(f"qcow2 {disk.runvars.get('disk_path')}")
    disk.args = {"mode": "detach"}
    disk_nbd(disk)
    assert disk.runvars.get("disk_nbd") == ""


def test_an_image_that_the_kernel_does_not_get_fails(disk: FakeContext, host: FakeHost) -> None:
    disk_create(disk)
    disk.args = {"mode": "attach"}
    host.shell.answers["qemu-nbd --fork"] = (1, "/dev/nbd0 has no size")
    with pytest.raises(StepFailure):
        disk_nbd(disk)
    assert not disk.runvars.get("disk_nbd")
    disk.args = {"mode": "sideways"}
    with pytest.raises(LabBug):
        disk_nbd(disk)
