"""Booting over the network: the script, and the service that hands it out."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import ConfigError
from lab.hosts.bootscript import FILES, SCRIPT, ipxe_script
from lab.hosts.drivers.boot.http_service import SERVED, serve
from lab.hosts.drivers.machine.arm64 import Arm64
from lab.hosts.drivers.machine.place import Place
from lab.hosts.drivers.machine.qemu import command_line
from lab.hosts.drivers.machine.x86 import X86
from lab.hosts.protocols import BOOT_ARGUMENT, BootTarget, StartRequest
from lab.labfile import QemuSettings

SETTINGS = QemuSettings(method="qemu", accel="tcg")
BASE = "http://10.0.2.100"


def a_target(start: StartRequest = StartRequest.NETBOOT, **args: tuple[str, ...]) -> BootTarget:
    here = Path(__file__)
    return BootTarget(key="k", hypervisor=here, kernel=here, initramfs=here, media=here, start=start, **args)


@given(st.lists(st.from_regex(BOOT_ARGUMENT, fullmatch=True), max_size=4))
def test_each_argument_arrives_as_itself(arguments: list[str]) -> None:
    lines = ipxe_script("emu0", BASE, arguments, arguments).splitlines()
    for line in (lines[2], lines[3]):
        assert line.split(" ")[2:-3] == arguments
    assert len(lines) == 9


@pytest.mark.parametrize("bad", ["${net0/mac}", "a b", "a\nboot", "a||b", "a&&b", "", "#", "\u00e4"])
@pytest.mark.parametrize("where", ["xen", "dom0"])
def test_nothing_iPXE_would_read_as_its_own_gets_into_a_script(bad: str, where: str) -> None:  # noqa: N802
    with pytest.raises(ConfigError, match="boot argument"):
        ipxe_script("emu0", BASE, [bad] if where == "xen" else [], [bad] if where == "dom0" else [])


@pytest.mark.parametrize(
    ("host", "base"), [("a\nb", BASE), ("${x}", BASE), ("emu0", "http://a/${x}"), ("emu0", "ftp://a")]
)
def test_neither_name_nor_address_can_be_a_command(host: str, base: str) -> None:
    with pytest.raises(ConfigError):
        ipxe_script(host, base, [], [])


def asked(folder: Path, request: bytes) -> tuple[bytes, bytes]:
    answer = io.BytesIO()
    serve(folder, io.BytesIO(request), answer)
    head, _, body = answer.getvalue().partition(b"\r\n\r\n")
    return head, body


def test_the_service_hands_out_what_the_script_names_and_nothing_else(tmp_path: Path) -> None:
    assert set(SERVED) == {SCRIPT, *FILES}
    (tmp_path / "kernel").write_bytes(b"k" * 1_000_000)
    (tmp_path / "target.json").write_text("secret")
    head, body = asked(tmp_path, b"GET /kernel HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 1000000" in head
    assert body == b"k" * 1_000_000
    assert asked(tmp_path, b"HEAD /kernel HTTP/1.1\r\n\r\n")[1] == b""
    for path in (b"/target.json", b"/identity", b"/initramfs"):
        assert asked(tmp_path, b"GET " + path + b" HTTP/1.1\r\n\r\n") == (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close", b"",
        )  # fmt: skip
    for line in (b"GET /../x HTTP/1.1", b"GET /a/b HTTP/1.1", b"POST /kernel HTTP/1.1", b""):
        assert asked(tmp_path, line + b"\r\n\r\n")[0].startswith(b"HTTP/1.1 400 "), line
    assert asked(tmp_path, b"GET /kernel HTTP/1.1\r\n") == (b"", b""), "hung up in the middle"


def test_only_a_machine_that_boots_over_the_network_reaches_the_service() -> None:
    place = Place(Path("/srv/lab"), "emu0")
    line = " ".join(command_line(place, SETTINGS, 1, a_target(), "tcg", 1234, X86()))
    assert "guestfwd=tcp:10.0.2.100:80-cmd:" in line
    assert "restrict=on" in line
    assert "-kernel" not in line
    for start in (StartRequest.AUTO, StartRequest.COLD):
        other = " ".join(command_line(place, SETTINGS, 1, a_target(start), "tcg", 1234, X86()))
        assert "guestfwd" not in other
        assert "-kernel" in other


def test_the_script_has_the_arguments_of_a_direct_boot() -> None:
    target = a_target(xen_args=("sched=credit",), dom0_args=("a=b,c",))
    script = X86().boot_script("emu0", BASE, SETTINGS, target)
    options = X86().boot_options(SETTINGS, target)
    assert f"/hypervisor {options[options.index('-append') + 1]} ||" in script
    assert "a=b,c ||" in script
    with pytest.raises(ConfigError, match="arm64"):
        Arm64().boot_script("emu1", BASE, SETTINGS, target)
