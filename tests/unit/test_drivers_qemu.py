"""The QEMU driver's pure parts, and its start-up with a program that plays QEMU."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import ConfigError, InfraError
from lab.hosts.drivers import DRIVERS, LabMachines
from lab.hosts.drivers.machine import qemu
from lab.hosts.drivers.machine.place import Place, socket_folder
from lab.hosts.drivers.machine.qemu import ARCHITECTURES, QemuPower, command_line
from lab.hosts.drivers.machine.x86 import X86
from lab.hosts.drivers.shell.identity import identity_of
from lab.hosts.protocols import BootTarget
from lab.image_formats import read_cpio
from lab.labfile import LabFile, QemuSettings

SETTINGS = QemuSettings(method="qemu", accel="tcg")


def target(*, xen: tuple[str, ...] = (), dom0: tuple[str, ...] = ()) -> BootTarget:
    here = Path(__file__)
    return BootTarget(key="k", hypervisor=here, kernel=here, initramfs=here, xen_args=xen, dom0_args=dom0, media=here)


@pytest.mark.parametrize("bad", ["", "a b", "a\nb", 'a"b', "a'b", "a;b", "a$b", "a\\b", "ä", "a\0b"])
@pytest.mark.parametrize("where", ["xen", "dom0"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_an_argument_that_could_be_two_is_refused(bad: str, where: str, arch: str) -> None:
    with pytest.raises(ConfigError, match="boot argument"):
        ARCHITECTURES[arch].boot_options(SETTINGS, target(**{where: (bad,)}))


@given(st.lists(st.from_regex(r"[A-Za-z0-9._:/=@,+-]+", fullmatch=True), max_size=5))
def test_each_allowed_argument_arrives_as_itself(arguments: list[str]) -> None:
    options = X86().boot_options(SETTINGS, target(xen=tuple(arguments), dom0=tuple(arguments)))
    xen = options[options.index("-append") + 1].split(" ")
    modules = options[options.index("-initrd") + 1]
    # As QEMU takes it apart: at single commas, then the first blank ends the file's name.
    kernel, initramfs = [part.replace("\0", ",") for part in modules.replace(",,", "\0").rsplit(",", 1)]
    assert xen[len(xen) - len(arguments) :] == arguments
    words = kernel.split(" ")
    assert words[0] == "kernel"
    assert words[len(words) - len(arguments) :] == arguments
    assert initramfs == "initramfs"


@given(st.lists(st.from_regex(r"[A-Za-z0-9._:/=@,+-]+", fullmatch=True), max_size=5))
def test_each_allowed_argument_arrives_as_itself_on_arm64(arguments: list[str]) -> None:
    options = ARCHITECTURES["arm64"].boot_options(SETTINGS, target(xen=tuple(arguments), dom0=tuple(arguments)))
    xen = options[options.index("-append") + 1].split(" ")
    assert xen[len(xen) - len(arguments) :] == arguments
    # As QEMU takes a device apart: at single commas.
    device = [part.replace("\0", ",") for part in options[options.index("-device") + 1].replace(",,", "\0").split(",")]
    assert device[:3] == ["guest-loader", "addr=0x49000000", "kernel=kernel"]
    name, _, words = device[3].partition("=")
    assert (name, len(device)) == ("bootargs", 4)
    assert words.split(" ")[len(words.split(" ")) - len(arguments) :] == arguments


def test_an_arm64_host_is_a_board_of_its_own(tmp_path: Path) -> None:
    line = command_line(Place(tmp_path, "h"), SETTINGS, 3, target(), "tcg", 1234, ARCHITECTURES["arm64"])
    assert line[0] == "qemu-system-aarch64"
    assert line[line.index("-M") + 1] == "virt,virtualization=on,gic-version=2"
    assert "guest-loader,addr=0x50000000,initrd=initramfs" in line
    assert "com1" not in line[line.index("-append") + 1]


def test_a_machine_with_more_processors_gives_dom0_one(tmp_path: Path) -> None:
    options = X86().boot_options(SETTINGS.model_copy(update={"cpus": 4}), target())
    assert "dom0_max_vcpus=1 dom0_vcpus_pin" in options[options.index("-append") + 1]
    line = command_line(Place(tmp_path, "h"), SETTINGS, 7, None, "kvm", 1234, X86())
    assert "-kernel" not in line
    assert line[line.index("-cpu") + 1] == "host"


def test_sockets_are_short_and_private_wherever_the_home_is(tmp_path: Path) -> None:
    for home in (Path("/srv/lab"), tmp_path / ("long" * 30), Path("/srv/with blank,comma")):
        longest = f"{socket_folder(home)}/{'x' * 32}.console"
        assert len(longest) < 100
        assert " " not in longest
        assert "," not in longest
    place = Place(tmp_path / ("long" * 30), "h")
    place.create()
    assert stat.S_IMODE(place.switch_folder.stat().st_mode) == 0o700
    assert socket_folder(Path("/a")) == Path("/a/run")


def test_hosts_of_two_homes_never_share_a_sign() -> None:
    assert Place(Path("/a"), "h").uuid != Place(Path("/b"), "h").uuid
    assert Place(Path("/a"), "h").uuid != Place(Path("/a"), "g").uuid


def test_a_target_survives_being_noted(tmp_path: Path) -> None:
    place = Place(tmp_path, "h")
    assert place.target() is None
    noted = target(xen=("a=b",), dom0=("c",))
    place.save_target(noted)
    assert place.target() == noted


def test_a_host_knows_its_name_its_mark_and_our_key(tmp_path: Path) -> None:
    identity, place = identity_of(tmp_path / "identity"), Place(tmp_path, "emu0")
    assert identity_of(tmp_path / "identity") == identity
    files = {entry.path: entry for entry in read_cpio(qemu._own_files(place, 3, "abc", identity))}
    conf = files["etc/lab/host.conf"].data.decode()
    assert conf == f"LAB_NAME=emu0\nLAB_IP=192.168.77.3/24\nLAB_MARK=abc\nLAB_UUID={place.uuid}\n"
    assert files["root/.ssh/authorized_keys"].data.startswith(b"ssh-ed25519 ")
    key = files["etc/dropbear/dropbear_ed25519_host_key"]
    assert key.data[:15] == b"\0\0\0\x0bssh-ed25519"
    assert len(key.data) == 15 + 4 + 64
    assert stat.S_IMODE(key.mode) == 0o600
    for secret in ("client_key", "host_key"):
        assert stat.S_IMODE((tmp_path / "identity" / secret).stat().st_mode) == 0o600


def played_by(folder: Path, text: str) -> str:
    program = folder / "qemu-played"
    program.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\n' + text)
    program.chmod(0o755)
    return str(program)


def test_a_port_that_was_taken_meanwhile_is_another_try(tmp_path: Path) -> None:
    program = played_by(
        tmp_path,
        f'echo x >>{tmp_path}/tries; [ "$(wc -l <{tmp_path}/tries)" -ge 3 ] && exit 0\n'
        'echo "qemu: -netdev user: Could not set up host forwarding rule \'tcp:127.0.0.1:1-:22\'" >&2; exit 1\n',
    )
    power = QemuPower(Place(tmp_path / "home", "h"), SETTINGS, 1, arch=X86(program=program))
    power.place.create()
    assert power._launch(None, "tcg") > 0
    assert (tmp_path / "tries").read_text().count("x") == 3


def test_another_failure_is_told_at_once(tmp_path: Path) -> None:
    program = played_by(tmp_path, f"echo x >>{tmp_path}/tries; echo 'qemu: no memory' >&2; exit 1\n")
    power = QemuPower(Place(tmp_path / "home", "h"), SETTINGS, 1, arch=X86(program=program))
    power.place.create()
    with pytest.raises(InfraError, match="no memory") as caught:
        power._launch(None, "tcg")
    assert caught.value.evidence is not None
    assert caught.value.evidence.exit_status == 1
    assert (tmp_path / "tries").read_text().count("x") == 1


def lab(arch: str = "x86_64") -> LabFile:
    text = {"lab": {"name": "t"}, "host": [{"name": "h", "arch": arch, "driver": {"method": "qemu"}}]}
    return LabFile.model_validate_json(json.dumps(text))


def test_every_method_of_a_lab_file_has_a_driver() -> None:
    assert set(DRIVERS) == {"qemu", "metal"}


def test_machines_open_known_hosts_and_refuse_others(tmp_path: Path) -> None:
    machines = LabMachines(lab(), tmp_path)
    host = machines.open("h")
    assert (host.name, host.address, host.power.get()) == ("h", "192.168.77.1", False)
    assert type(host.toolstack).__name__ == "XlToolstack"
    assert type(machines.open("h", toolstack="libvirt").toolstack).__name__ == "LibvirtToolstack"
    with pytest.raises(ConfigError, match="no toolstack 'xe'"):
        machines.open("h", toolstack="xe")
    with pytest.raises(ConfigError, match="hosts: h"):
        machines.open("other")
    assert LabMachines(lab("arm64"), tmp_path).open("h").power.get() is False
    with pytest.raises(ConfigError, match="there is no file"):
        host.boot.set_target(BootTarget(key="k", hypervisor=tmp_path, kernel=tmp_path, initramfs=tmp_path))
