"""libvirt's guests: XML whose values stay values, errors told by whom they blame, waits that end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import Aborted, ConfigError, HostDiedError, InfraError, StepFailure
from lab.hosts.drivers.guest.domainxml import domain_xml
from lab.hosts.drivers.guest.libvirt import LibvirtToolstack
from lab.hosts.drivers.guest.libvirtd import Libvirtd
from lab.hosts.drivers.shell.forward import Forward
from lab.hosts.fakes import Canned, FakeShell
from lab.hosts.protocols import CommandResult, GuestConfig, GuestDisk

GUEST = GuestConfig(name="g", kind="pv", memory_mib=128, kernel="/lab/k", ramdisk="/lab/r", bridge="xenbr0")


@pytest.mark.parametrize(
    ("kind", "machine", "type_name"), [("pv", "xenpv", "linux"), ("pvh", "xenpvh", "xenpvh"), ("hvm", "xenfv", "hvm")]
)
def test_a_guest_in_full(kind: str, machine: str, type_name: str) -> None:
    disks = (GuestDisk(path="/d/a", format="vhd"), GuestDisk(path="/d/b", format="raw", vdev="xvdb", read_only=True))
    guest = replace(GUEST, kind=kind, vcpus=2, kernel_args=("a=1", "b"), disks=disks, mac="00:16:3e:00:00:01")
    domain = ET.fromstring(domain_xml(guest))
    assert domain.get("type") == "xen"
    told = {name: domain.findtext(name) for name in ("name", "memory", "vcpu", "os/type", "os/kernel", "os/initrd")}
    assert told == {
        "name": "g", "memory": "128", "vcpu": "2", "os/type": type_name, "os/kernel": "/lab/k", "os/initrd": "/lab/r",
    }  # fmt: skip
    assert domain.find("os/type").get("machine") == machine  # type: ignore[union-attr]
    assert domain.findtext("os/cmdline") == "console=hvc0 a=1 b"
    assert [disk.get("type") for disk in domain.findall("devices/disk/driver")] == ["vpc", "raw"]
    assert [disk.get("dev") for disk in domain.findall("devices/disk/target")] == ["xvda", "xvdb"]
    assert [disk.find("readonly") is not None for disk in domain.findall("devices/disk")] == [False, True]
    assert domain.find("devices/interface/script").get("path") == "vif-lab"  # type: ignore[union-attr]
    assert domain.findtext("on_crash") == "preserve"
    assert (domain.find("devices/emulator") is not None) is (kind == "hvm")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "g</name><x/>"},
        {"name": "-h"},
        {"kernel": "/k&amp;"},
        {"kernel_args": ("a\nb",)},
        {"kind": "lxc"},
        {"disks": (GuestDisk(path="/d'/>", format="raw"),)},
        {"disks": (GuestDisk(path="/d", format="vmdk"),)},
        {"bridge": "b r"},
        {"mac": "00:16:3e:00:00"},
        {"memory_mib": 0},
        {"options": {"seclabel": "system_u:system_r:domU_t"}},
    ],
)
def test_what_could_be_more_than_a_value_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        domain_xml(replace(GUEST, **change))


@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\"'\\"), min_size=1)))
def test_arguments_come_out_as_they_went_in(arguments: list[str]) -> None:
    domain = ET.fromstring(domain_xml(replace(GUEST, kernel_args=("console=x", *arguments))))
    assert domain.findtext("os/cmdline") == " ".join(("console=x", *arguments))


@dataclass
class FakeDomain:
    """A domain of `FakeConnection`; `refuses` is what libvirt says to the verb of that name."""

    guests: set[tuple[str, int]]
    refuses: dict[str, str]
    done: list[str] = field(default_factory=list)
    migrated: tuple[Any, ...] = ()

    def name(self) -> str:
        return "g"

    def __getattr__(self, verb: str) -> Callable[..., int]:
        def act(*args: object) -> int:
            if verb in self.refuses:
                raise libvirt.libvirtError(self.refuses[verb])
            self.done.append(verb)
            if verb == "create":
                self.guests.add(("g", 3))
            if verb in {"destroy", "shutdown", "save", "migrateToURI3"}:
                self.guests.discard(("g", 3))
            if verb == "migrateToURI3":
                self.migrated = args
            return 0

        return act


@dataclass
class FakeConnection:
    """A libvirt connection in memory."""

    guests: set[tuple[str, int]] = field(default_factory=lambda: {("Domain-0", 0)})
    refuses: dict[str, str] = field(default_factory=dict)
    alive: bool = True
    closed: bool = False

    def __post_init__(self) -> None:
        self.domain = FakeDomain(self.guests, self.refuses)

    def isAlive(self) -> bool:  # noqa: N802 - libvirt's name
        return self.alive

    def close(self) -> int:
        self.closed = True
        return 0

    def getType(self) -> str:  # noqa: N802
        return "Xen"

    def getLibVersion(self) -> int:  # noqa: N802
        return 9_000_001

    def lookupByName(self, name: str) -> FakeDomain:  # noqa: N802
        return self.domain

    def defineXML(self, xml: str) -> FakeDomain:  # noqa: N802
        self.domain.done.append("define")
        return self.domain

    def restore(self, path: str) -> int:
        self.guests.add(("g", 3))
        return 0

    def listAllDomains(self, flags: int) -> list[Any]:  # noqa: N802
        @dataclass
        class Listed:
            called: str
            number: int

            def name(self) -> str:
                return self.called

            def ID(self) -> int:  # noqa: N802
                return self.number

        return [Listed(*one) for one in sorted(self.guests)]


class XlOf(FakeShell):
    """A shell whose `xl list` sees what `connection` has, or `other`."""

    connection: FakeConnection
    other: set[tuple[str, int]] | None = None

    def run(self, *argv: str, **options: Any) -> CommandResult:
        result = super().run(*argv, **options)
        if argv != ("xl", "list"):
            return result
        seen = self.connection.guests if self.other is None else self.other
        lines = [f"{name}  {number}  128  1  -b----  1.0" for name, number in sorted(seen)]
        return replace(result, stdout="\n".join(["Name ID Mem VCPUs State Time(s)", *lines]))


class Silent:
    """Guests that never print."""

    def log(self, name: str) -> tuple[int, bytes]:
        return 0, b""


@dataclass
class Setting:
    """A daemon, its host's shell, and a toolstack on both."""

    connection: FakeConnection
    shell: XlOf
    daemon: Libvirtd
    toolstack: LibvirtToolstack
    told: list[CommandResult]
    power: list[bool]
    guard: list[BaseException]
    opened: list[str]


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    shell = XlOf(host="h")
    shell.connection = FakeConnection()
    told: list[CommandResult] = []
    power, orders, opened = [True], list[BaseException](), list[str]()

    def guard() -> None:
        if orders:
            raise orders[0]

    def connect(uri: str) -> FakeConnection:
        opened.append(uri)
        shell.connection.alive = True
        return shell.connection

    daemon = Libvirtd(
        "h", shell, f"{tmp_path}/s", lambda _port: pytest.fail("nobody dials"), alive=lambda: power[0], guard=guard,
        trace=told.append, connect=connect,
    )  # fmt: skip
    toolstack = LibvirtToolstack(shell, "h", Silent(), daemon, wait=lambda _: time.sleep(0.01))  # type: ignore[arg-type]
    yield Setting(shell.connection, shell, daemon, toolstack, told, power, orders, opened)
    daemon.close()


def test_a_guest_is_defined_for_as_long_as_it_is_of_use(setting: Setting) -> None:
    setting.toolstack.create(GUEST)
    assert [guest.domid for guest in setting.toolstack.guests()] == [3]
    setting.toolstack.save("g", "/s")
    assert setting.toolstack.find("g") is None
    setting.toolstack.restore("/s")
    setting.toolstack.shutdown("g")
    assert setting.connection.domain.done == ["define", "create", "save", "shutdown", "undefine"]
    setting.toolstack.create(GUEST)
    setting.toolstack.destroy("g")
    assert setting.connection.domain.done[5:] == ["define", "create", "destroy", "undefine"]
    assert len(setting.opened) == 1
    assert [result.command for result in setting.told][:2] == ["libvirt define g", "libvirt start g"]


def test_a_guest_that_does_not_start_is_not_left_defined(setting: Setting) -> None:
    setting.connection.refuses["create"] = "libxenlight failed to create new domain 'g'"
    with pytest.raises(StepFailure, match="start g failed: libxenlight failed to create"):
        setting.toolstack.create(GUEST)
    assert setting.connection.domain.done == ["define", "undefine"]


def test_libvirt_and_xl_have_to_see_the_same_guests(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.hosts.drivers.guest.libvirt._AGREE_S", 0.05)
    setting.shell.other = {("Domain-0", 0), ("stray", 7)}
    with pytest.raises(StepFailure, match=r"by libvirt there is none, by xl stray \(7\)"):
        setting.toolstack.guests()


def test_a_migration_tells_how_much_was_sent(setting: Setting) -> None:
    @dataclass
    class Target:
        toolstack: Any
        name: str = "t"
        address: str = "fd00::2"
        shell: FakeShell = field(default_factory=FakeShell)

        def find(self, name: str) -> str:
            return name

    setting.toolstack.create(GUEST)
    setting.shell.results = {"cat /sys": [Canned(stdout="1000\n"), Canned(stdout="135001000\n")]}
    target = Target(None)
    target.toolstack = target
    assert setting.toolstack.migrate("g", target) == 135_000_000  # type: ignore[arg-type]
    assert setting.connection.domain.migrated[0] == "xen+tcp://[fd00::2]/system"


def test_a_migration_names_the_address_and_has_to_arrive(setting: Setting) -> None:
    @dataclass
    class Target:
        toolstack: Any
        name: str = "t"
        address: str = "192.168.77.2"
        shell: FakeShell = field(default_factory=FakeShell)

    setting.toolstack.create(GUEST)
    with pytest.raises(StepFailure, match="did not arrive"):
        setting.toolstack.migrate("g", Target(setting.toolstack))  # type: ignore[arg-type]
    uri, parameters, flags = setting.connection.domain.migrated
    assert (uri, parameters["migrate_uri"]) == ("xen+tcp://192.168.77.2/system", "tcp://192.168.77.2")
    assert flags & libvirt.VIR_MIGRATE_LIVE
    assert flags & libvirt.VIR_MIGRATE_PEER2PEER
    with pytest.raises(ConfigError, match="not an IP address"):
        setting.toolstack.migrate("g", Target(setting.toolstack, address="a/system?x"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="guest name"):
        setting.toolstack.migrate("g;h", Target(setting.toolstack))  # type: ignore[arg-type]


def test_the_version_of_the_daemon(setting: Setting) -> None:
    assert setting.toolstack.version() == "libvirt 9.0.1"


LOOK = "sh -c '\ncommand -v libvirtd"


@pytest.mark.parametrize(
    ("state", "error", "said"),
    [
        ("dead\n==> log <==\n", StepFailure, "does not run any more"),
        ("none\n", ConfigError, "has no libvirt daemon"),
        ("runs\n", InfraError, "connection to libvirt's daemon broke"),
    ],
)
def test_a_broken_connection_is_told_by_whom_it_blames(
    setting: Setting, state: str, error: type[Exception], said: str
) -> None:
    setting.shell.results = {LOOK: Canned(stdout=state)}

    def break_off(connection: FakeConnection) -> None:
        connection.alive = False
        raise libvirt.libvirtError("End of file while reading data")

    with pytest.raises(error, match=said):
        setting.daemon.call("list", break_off)
    setting.daemon.call("list", lambda connection: connection.getType())
    assert len(setting.opened) == 2


def test_a_host_that_died_is_told_as_such(setting: Setting) -> None:
    setting.shell.dead = True

    def break_off(connection: FakeConnection) -> None:
        connection.alive = False
        raise libvirt.libvirtError("End of file while reading data")

    with pytest.raises(HostDiedError):
        setting.daemon.call("list", break_off)


def test_libvirts_no_comes_with_its_words_and_the_daemons_log(setting: Setting) -> None:
    setting.shell.results = {LOOK: Canned(stdout="runs\n==> libvirtd.log <==\nerror : refused\n")}
    connection = libvirt.open("test:///default")  # libvirt's own test driver: its real errors
    with pytest.raises(StepFailure, match="libvirt look failed: Domain not found") as caught:
        setting.daemon.call("look", lambda _: connection.lookupByName("nobody"))
    connection.close()
    assert caught.value.evidence is not None
    assert "error : refused" in caught.value.evidence.output
    assert setting.told[-1].exit_status == 1


@pytest.mark.parametrize("ends", ["limit", "guard", "power"])
def test_a_call_that_hangs_is_ended(setting: Setting, ends: str) -> None:
    stuck = threading.Event()

    def hang(_: FakeConnection) -> None:
        stuck.wait(10)

    limit_s = 0.1 if ends == "limit" else 5.0
    if ends == "guard":
        setting.guard.append(Aborted("the flight was aborted"))
    if ends == "power":
        setting.power[0] = False
        setting.shell.dead = True
    expected = {"limit": StepFailure, "guard": Aborted, "power": HostDiedError}[ends]
    started = time.monotonic()
    with pytest.raises(expected):
        setting.daemon.call("save g", hang, timeout_s=limit_s)
    stuck.set()
    assert time.monotonic() - started < 3.0
    assert setting.connection.closed


def test_a_forward_joins_both_ends_and_leaves_no_socket(tmp_path: Path) -> None:
    here, there = socket.socketpair()
    path = tmp_path / "s"
    forward = Forward(str(path), lambda: here, name="h")  # type: ignore[arg-type,return-value]
    with socket.socket(socket.AF_UNIX) as near:
        near.settimeout(5)
        near.connect(str(path))
        near.sendall(b"to")
        there.settimeout(5)
        assert there.recv(9) == b"to"
        there.sendall(b"fro")
        assert near.recv(9) == b"fro"
        assert not forward.broken
        forward.close()
        assert near.recv(9) == b""
        assert there.recv(9) == b""
    there.close()
    assert not path.exists()


def test_a_forward_knows_that_its_far_end_has_gone(tmp_path: Path) -> None:
    here, there = socket.socketpair()
    forward = Forward(f"{tmp_path}/s", lambda: here, name="h")  # type: ignore[arg-type,return-value]
    with socket.socket(socket.AF_UNIX) as near:
        near.settimeout(5)
        near.connect(f"{tmp_path}/s")
        there.close()
        assert near.recv(9) == b""
        assert forward.broken
    forward.close()


def test_a_connection_that_ended_meanwhile_is_opened_again(setting: Setting) -> None:
    setting.toolstack.version()
    forward = setting.daemon._forward
    assert forward is not None
    forward.broken = True
    setting.toolstack.version()
    assert len(setting.opened) == 2


def test_a_forward_that_cannot_dial_closes_what_came(tmp_path: Path) -> None:
    def dial() -> Any:
        raise HostDiedError("h: its machine is off")

    forward = Forward(f"{tmp_path}/s", dial, name="h")
    with socket.socket(socket.AF_UNIX) as near:
        near.settimeout(5)
        near.connect(f"{tmp_path}/s")
        assert near.recv(9) == b""
    forward.close()
