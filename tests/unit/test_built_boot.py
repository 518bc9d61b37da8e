"""What was compiled is what boots: the target's notes, and how a running host is told from another one."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import FakeBuilds

from lab.errors import Blocked, ConfigError
from lab.flights.runvars import Runvars
from lab.hosts.drivers.machine.place import Place
from lab.hosts.drivers.machine.qemu import QemuPower
from lab.hosts.drivers.shell.identity import identity_of
from lab.hosts.protocols import BootTarget
from lab.labfile import QemuSettings
from testcases.xen_boot import build_problem, checksum_command, toolstack_problem
from testcases.xen_build import xen_build

SUMS = {"/usr/bin/xl": "ab" * 32, "/usr/bin/xenstored": "cd" * 32}
SAID = f"{'ab' * 32}  /usr/bin/xl\n{'cd' * 32}  /usr/bin/xenstored\n"


def test_a_target_is_noted_with_its_overlays_and_what_it_is_recognised_by(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("hypervisor", "kernel", "initramfs")}
    target = BootTarget(key="k", overlays=(tmp_path / "tools",), build_id="ab", checksums=SUMS, **files)
    place = Place(tmp_path, "emu0")
    place.save_target(target)
    assert place.target() == target


def test_overlays_lie_between_the_image_and_the_hosts_own_files(tmp_path: Path) -> None:
    contents = {"xen": b"x", "vmlinux": b"v", "initramfs": b"image", "a": b"first", "b": b"second!!!"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    place = Place(tmp_path, "emu0")
    place.create()
    power = QemuPower(place, QemuSettings(method="qemu"), 1)
    target = BootTarget(
        key="k", hypervisor=tmp_path / "xen", kernel=tmp_path / "vmlinux", initramfs=tmp_path / "initramfs",
        overlays=(tmp_path / "a", tmp_path / "b"),
    )  # fmt: skip
    power._stage(target, identity_of(place.folder / "identity"), "mark")
    staged = (place.folder / "initramfs").read_bytes()
    pad = bytes(3)  # each begins on a multiple of 4
    assert staged.startswith(b"image" + pad + b"first" + pad + b"second!!!" + pad + b"070701")


def test_the_running_xen_is_told_by_its_build_id() -> None:
    assert build_problem("", {"build_id": "any"}) is None
    assert build_problem("abc", {"build_id": "abc"}) is None
    assert build_problem("abc", {"build_id": "def"}) == "the compiled Xen has build id abc, but def is running"
    assert build_problem("abc", {}) == "the compiled Xen has build id abc, but none is running"


def test_the_toolstack_is_told_by_its_checksums() -> None:
    assert checksum_command(SUMS) == "sha256sum /usr/bin/xenstored /usr/bin/xl"
    assert toolstack_problem(SUMS, SAID) is None
    assert toolstack_problem({}, "") is None
    wrong = toolstack_problem(SUMS, SAID.replace("ab", "ee"))
    assert wrong is not None
    assert wrong.startswith("/usr/bin/xl should be the compiled one, but has checksum eeee")
    assert "is not there" in str(toolstack_problem(SUMS, "sha256sum: /usr/bin/xl: No such file"))


class Context:
    """What the build step sees."""

    def __init__(self, part: str, **runvars: str) -> None:
        self.args = {"part": part}
        self.builds = FakeBuilds()
        self.runvars = Runvars({"revision": "debian-bookworm", **runvars})
        self.saved: dict[str, bytes] = {}

    def guard(self) -> None: ...

    def log(self, text: str) -> None: ...

    def save(self, name: str, data: bytes) -> None:
        self.saved[name] = data


def test_a_build_leaves_its_keys_for_the_jobs_that_need_it() -> None:
    ctx = Context("hypervisor")
    xen_build(ctx)  # type: ignore[arg-type]
    assert ctx.runvars.get("build_key") == "hypervisor-debian-bookworm"
    assert ctx.runvars.get("build_id") == "ab" * 20
    assert "build.log" in ctx.saved


def test_a_revision_that_cannot_be_had_blocks_the_job() -> None:
    with pytest.raises(Blocked, match="there is no source tree 'linux'"):
        xen_build(Context("hypervisor", tree="linux"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not one of"):
        xen_build(Context("hypervisor", xen_config="fast"))  # type: ignore[arg-type]
