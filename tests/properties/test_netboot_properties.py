"""Nothing that a job, a lab's file or a machine says gets out of its field of a boot script or of dnsmasq's file."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import ConfigError
from lab.hosts.bootscript import LOCAL_DISK, SCRIPT, ipxe_script, start_script
from lab.hosts.dhcp import BootNetwork, Reservation, dnsmasq_config
from lab.hosts.drivers.boot.store import LAST, SERVED, BootStore
from lab.hosts.protocols import BOOT_ARGUMENT

EVIL = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["a\nchain http://evil/x", "a || shell", "${netX/mac}", "a b", "'", '"', "\x00", "x" * 10_000, "a\r\nb", "a;b",
         "a&&b", "$(x)", "`x`", "#", "\\", "\u2028", "-", "--", "a,b", "192.168.1.1", "tag:x", "é"]
    ),
)  # fmt: skip
BASE = "http://192.168.78.1:8090/boot"


def same_commands(script: str, plain: str) -> None:
    """A script has the same lines with the same commands, whatever its arguments are."""
    assert [line.split(" ")[0] for line in script.split("\n")] == [line.split(" ")[0] for line in plain.split("\n")]


@given(host=EVIL, base=EVIL, xen=st.lists(EVIL, max_size=3), dom0=st.lists(EVIL, max_size=3))
def test_a_boot_script_has_its_own_lines_only(host: str, base: str, xen: list[str], dom0: list[str]) -> None:
    plain = ipxe_script("host", BASE, ["loglvl=all"], ["console=hvc0"])
    for given_host, given_base, args in ((host, BASE, ([], [])), ("host", base, ([], [])), ("host", BASE, (xen, dom0))):
        try:
            script = ipxe_script(given_host, given_base, *args)
        except ConfigError:
            continue
        same_commands(script, plain)
        assert "${" not in script
        for argument in (*args[0], *args[1]):
            assert BOOT_ARGUMENT.fullmatch(argument)


@given(base=EVIL, within_s=st.integers(-5, 1000))
def test_the_first_script_has_its_own_lines_only(base: str, within_s: int) -> None:
    plain = start_script(BASE)
    try:
        script = start_script(base, within_s=within_s)
    except ConfigError:
        return
    same_commands(script, plain)


def test_a_machine_goes_on_with_its_own_disk_when_the_lab_is_down() -> None:
    lines = start_script(BASE).splitlines()
    assert lines[0] == "#!ipxe"
    assert f"{BASE}/machine/${{netX/mac:hexhyp}}/{SCRIPT}" in lines[2] or "chain --timeout 10000" in lines[2]
    assert lines[2].endswith("|| goto local")
    assert ":local" in lines
    assert lines[-1] == LOCAL_DISK.splitlines()[-1]


NET = BootNetwork(
    interface="lab0", server=IPv4Address("192.168.78.1"), network=IPv4Network("192.168.78.0/24"), tftp_root="/srv/tftp"
)
MACHINE = Reservation(name="metal1", mac="52:54:00:f2:00:01", address=IPv4Address("192.168.78.11"))


@given(name=EVIL, mac=EVIL, interface=EVIL, root=EVIL)
def test_dnsmasqs_file_has_its_own_lines_only(name: str, mac: str, interface: str, root: str) -> None:
    plain = dnsmasq_config(NET, [MACHINE])
    for net, machine in (
        (NET, Reservation(name=name, mac=MACHINE.mac, address=MACHINE.address)),
        (NET, Reservation(name=MACHINE.name, mac=mac, address=MACHINE.address)),
        (BootNetwork(interface=interface, server=NET.server, network=NET.network, tftp_root=NET.tftp_root), MACHINE),
        (BootNetwork(interface=NET.interface, server=NET.server, network=NET.network, tftp_root=root), MACHINE),
    ):
        try:
            text = dnsmasq_config(net, [machine])
        except ConfigError:
            continue
        assert [line.split("=")[0] for line in text.split("\n")] == [line.split("=")[0] for line in plain.split("\n")]
        assert text.count(",") == plain.count(",")
        assert "\r" not in text


def test_addresses_belong_to_the_network() -> None:
    for net, machine in (
        (BootNetwork(interface="lab0", server=IPv4Address("10.0.0.1"), network=NET.network, tftp_root="/t"), MACHINE),
        (NET, Reservation(name="metal1", mac=MACHINE.mac, address=IPv4Address("10.0.0.2"))),
    ):
        with pytest.raises(ConfigError, match="not on the network"):
            dnsmasq_config(net, [machine])


# --- the store: one boot a target


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> BootStore:
    return BootStore(tmp_path / "boot", clock=Clock())


def arm(store: BootStore, tmp_path: Path, mac: str = MACHINE.mac) -> str:
    for name in ("hypervisor", "kernel", LAST):
        (tmp_path / name).write_text(name)
    files = {name: tmp_path / name for name in ("hypervisor", "kernel", LAST)}
    return store.arm(mac, host="metal1", script=lambda token: f"#!ipxe {token}\n", files=files, for_s=100)


BARE = MACHINE.mac.replace(":", "")


def test_a_target_is_for_one_boot_of_one_machine(store: BootStore, tmp_path: Path) -> None:
    assert store.armed(BARE) is None
    first = arm(store, tmp_path)
    token = arm(store, tmp_path)
    assert first != token
    assert store.armed(BARE) == token
    assert store.armed("525400f20002") is None
    script = store.file(token, SCRIPT)
    assert script is not None
    assert script.read_text() == f"#!ipxe {token}\n"
    for name in (SCRIPT, "hypervisor", "kernel"):
        store.note(token, name, "192.168.78.11")
        assert store.armed(BARE) == token  # a loader may ask again until it has all
    store.note(token, LAST, "192.168.78.11")
    assert store.armed(BARE) is None  # it has booted: the next time its own disk
    assert [note.what for note in store.notes(token)] == [SCRIPT, "hypervisor", "kernel", LAST]


def test_a_target_that_was_taken_back_or_is_too_old_is_gone(store: BootStore, tmp_path: Path) -> None:
    token = arm(store, tmp_path)
    store.disarm(MACHINE.mac)
    assert store.armed(BARE) is None
    assert store.file(token, "kernel") is None
    token = arm(store, tmp_path)
    assert isinstance(store.clock, Clock)
    store.clock.now += 101
    assert store.armed(BARE) is None
    assert store.file(token, "kernel") is None


@given(token=EVIL, name=EVIL, mac=EVIL)
def test_whatever_is_asked_for_nothing_else_is_handed_out(
    tmp_path_factory: pytest.TempPathFactory, token: str, name: str, mac: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "one-store"
    folder.mkdir(exist_ok=True)
    (folder / "secret").write_text("secret")
    store = BootStore(folder / "boot", clock=Clock())
    real = arm(store, folder) if not (folder / "boot").exists() else ""
    assert store.armed(mac) is None or mac == BARE
    for asked in (token, f"../{token}", real):
        for what in (name, f"../../{name}", "../../../secret", "about.json", "notes"):
            found = store.file(asked, what)
            assert found is None or (asked == real and what in SERVED)
    store.note(token, name, name)
    assert store.notes(token) == []
