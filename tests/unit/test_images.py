"""The image store: digests, reuse, what a failed build leaves behind, and what it says. No network."""

import errno
import lzma
import os
import stat
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.errors import ConfigError, InfraError
from lab.image_debian import extraction_error
from lab.image_formats import read_cpio
from lab.image_manifest import Manifest
from lab.images import ImageStore, host_overlay, initramfs_with

MANIFEST = """
kind = "guest"
suite = "bookworm"
arch = "amd64"
packages = ["linux-image-amd64"]
include = ["/bin/busybox"]
modules = ["xen-netfront"]
overlay = "tiny"
"""


def elf(payload: bytes = b"") -> bytes:
    """The head of a 64-bit ELF without segments or sections, and what follows it."""
    fields = struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, 64, 0, 64, 56, 0, 64, 0, 0)
    return b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + fields + payload


def bzimage(kernel: bytes) -> bytes:
    payload = lzma.compress(kernel, format=lzma.FORMAT_XZ) + struct.pack("<I", len(kernel))
    head = bytearray(5 * 512)
    head[0x1F1] = 4
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 0, len(payload))
    return bytes(head) + payload


class FakeDebian:
    """Lays out a small tree instead of downloading one."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.failure = failure
        self.calls = 0
        self.more: dict[str, bytes] = {}

    def __call__(self, manifest: Manifest, tree: Path, stage: Callable[[str], None]) -> None:
        self.calls += 1
        stage("download")
        for path, content in {
            "bin/busybox": b"#!busybox",
            "boot/vmlinuz-6.1.0": bzimage(elf()),
            "lib/modules/6.1.0/kernel/net/xen-netfront.ko": elf(),
            "lib/modules/6.1.0/modules.builtin": b"kernel/lib/crc16.ko\n",
            **self.more,
        }.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(content)
        (tree / "bin/busybox").chmod(0o755)
        if self.failure:
            raise self.failure


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "overlays/tiny").mkdir(parents=True)
    (folder / "overlays/tiny/init").write_text("#!/bin/sh\n")
    (folder / "overlays/tiny/init").chmod(0o755)
    (folder / "tiny.toml").write_text(MANIFEST)
    return folder


def store(sources: Path, debian: FakeDebian | None = None) -> ImageStore:
    return ImageStore(sources.parent / "home", sources, extract=debian or FakeDebian())


def test_an_image_is_built_once_and_reused(sources: Path) -> None:
    debian = FakeDebian()
    told: list[tuple[str, str, float | None]] = []
    images = store(sources, debian)
    built = images.ensure("tiny", lambda *what: told.append(what))
    assert (built.kind, built.arch, built.hypervisor) == ("guest", "amd64", None)
    assert built.kernel.read_bytes() == elf()
    entries = {entry.path: entry for entry in read_cpio(built.initramfs.read_bytes())}
    assert entries["usr/bin/busybox"].mode == stat.S_IFREG | 0o755
    assert entries["init"].mode == stat.S_IFREG | 0o755
    assert entries["bin"].data == b"usr/bin"
    assert entries["etc/lab/modules"].data == b"/usr/lib/modules/6.1.0/kernel/net/xen-netfront.ko\n"
    assert told[0] == ("tiny", "download", None)
    assert told[-1] == ("tiny", "ready", 1.0)
    assert images.ensure("tiny") == built
    assert store(sources, debian).ensure("tiny") == built
    assert debian.calls == 1


def test_the_tree_is_gone_after_packing(sources: Path) -> None:
    built = store(sources).ensure("tiny")
    assert sorted(path.name for path in built.folder.iterdir()) == ["image.json", "initramfs", "vmlinux"]
    assert sorted(path.name for path in built.folder.parent.iterdir()) == [".lock", built.digest]


def test_the_same_build_gives_the_same_bytes(sources: Path, tmp_path: Path) -> None:
    first = store(sources).ensure("tiny")
    other = ImageStore(tmp_path / "other", sources, extract=FakeDebian()).ensure("tiny")
    assert first.initramfs.read_bytes() == other.initramfs.read_bytes()


def test_the_digest_follows_overlay_manifest_and_modes(sources: Path) -> None:
    images = store(sources)
    digests = [images.digest(images.manifest("tiny"))]
    init = sources / "overlays/tiny/init"
    init.write_text("#!/bin/sh\necho\n")
    digests.append(images.digest(images.manifest("tiny")))
    init.chmod(0o644)
    digests.append(images.digest(images.manifest("tiny")))
    (sources / "tiny.toml").write_text(MANIFEST.replace("bookworm", "trixie"))
    digests.append(images.digest(images.manifest("tiny")))
    assert len(set(digests)) == 4


def test_an_overlay_on_top_wins_and_an_edit_drops_lines(sources: Path) -> None:
    (sources / "overlays/more").mkdir()
    (sources / "overlays/more/init").write_text("#!/bin/sh\n# mine\n")
    debian = FakeDebian()
    more = 'overlays = ["more"]\n[[edits]]\npath = "/etc/cpu.xml"\ndrop = ["vme", "sep"]\n'
    (sources / "tiny.toml").write_text(MANIFEST.replace("include = [", 'include = ["/etc/cpu.xml", ') + more)
    debian.more = {"etc/cpu.xml": b"<a>\n <vme/>\n <sep/>\n <de/>\n</a>\n"}
    built = store(sources, debian).ensure("tiny")
    entries = {entry.path: entry for entry in read_cpio(built.initramfs.read_bytes())}
    assert entries["init"].data == b"#!/bin/sh\n# mine\n"
    assert entries["etc/cpu.xml"].data == b"<a>\n <de/>\n</a>\n"


@pytest.mark.parametrize(
    ("path", "include", "said"),
    [
        ("/etc/cpu.xml", '"/etc/cpu.xml", ', "has no line with 'sep' to drop"),
        ("/etc/cpu.xml", "", "is not taken"),
    ],
)
def test_an_edit_that_finds_nothing_is_refused(sources: Path, path: str, include: str, said: str) -> None:
    debian = FakeDebian()
    debian.more = {"etc/cpu.xml": b"<vme/>\n"}
    edits = f'[[edits]]\npath = "{path}"\ndrop = ["vme", "sep"]\n'
    (sources / "tiny.toml").write_text(MANIFEST.replace("include = [", f"include = [{include}") + edits)
    with pytest.raises(ConfigError, match=said):
        store(sources, debian).ensure("tiny")


def test_the_digest_follows_every_overlay_but_not_fields_a_manifest_does_not_use(sources: Path) -> None:
    images = store(sources)
    before = images.digest(images.manifest("tiny"))
    (sources / "overlays/more").mkdir()
    (sources / "tiny.toml").write_text(MANIFEST + 'overlays = []\nmodules_on_demand = []\n')
    assert images.digest(images.manifest("tiny")) == before
    (sources / "tiny.toml").write_text(MANIFEST + 'overlays = ["more"]\n')
    with_more = images.digest(images.manifest("tiny"))
    (sources / "overlays/more/a").write_text("x")
    assert len({before, with_more, images.digest(images.manifest("tiny"))}) == 3


def test_the_digest_follows_the_c_sources(sources: Path) -> None:
    (sources / "sources").mkdir()
    program = sources / "sources/a.c"
    program.write_text("int main(void) { return 0; }\n")
    (sources / "tiny.toml").write_text(MANIFEST + '[[sources]]\nfile = "a.c"\ntarget = "/usr/bin/a"\n')
    images = store(sources)
    before = images.digest(images.manifest("tiny"))
    program.write_text("int main(void) { return 1; }\n")
    assert images.digest(images.manifest("tiny")) != before


def test_state_tells_built_from_not_built(sources: Path) -> None:
    images = store(sources)
    (before,) = images.state()
    built = images.ensure("tiny")
    (after,) = images.state()
    assert (before.built, before.size, before.built_at) == (False, None, None)
    assert (after.built, after.digest) == (True, built.digest)
    assert after.size is not None
    assert after.size > 0


@pytest.mark.parametrize("failure", [InfraError("no network"), KeyboardInterrupt()])
def test_a_failed_build_leaves_nothing_behind(sources: Path, failure: BaseException) -> None:
    images = store(sources, FakeDebian(failure))
    with pytest.raises(type(failure)):
        images.ensure("tiny")
    assert [path.name for path in (sources.parent / "home/images/tiny").iterdir()] == [".lock"]
    assert not images.state()[0].built


def test_what_a_killed_build_left_is_removed_by_the_next(sources: Path) -> None:
    left = sources.parent / "home/images/tiny/.building-dead"
    (left / "tree").mkdir(parents=True)
    store(sources).ensure("tiny")
    assert not left.exists()


def test_old_digests_go_after_a_day_and_young_ones_stay(sources: Path) -> None:
    place = sources.parent / "home/images/tiny"
    for name in ("old", "young"):
        (place / name).mkdir(parents=True)
    os.utime(place / "old", (0, 0))
    built = store(sources).ensure("tiny")
    assert sorted(path.name for path in place.iterdir() if path.is_dir()) == sorted([built.digest, "young"])


def test_two_at_once_build_once(sources: Path) -> None:
    debian = FakeDebian()
    threads = [threading.Thread(target=store(sources, debian).ensure, args=("tiny",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert debian.calls == 1


def test_a_full_disk_is_said_in_words(sources: Path) -> None:
    with pytest.raises(InfraError, match="disk is full"):
        store(sources, FakeDebian(OSError(errno.ENOSPC, "No space left on device"))).ensure("tiny")


def test_too_little_space_is_refused_before_the_download(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    debian = FakeDebian()
    monkeypatch.setattr("lab.images.SPACE_FOR_A_BUILD", 1 << 60)
    with pytest.raises(InfraError, match="are free at"):
        store(sources, debian).ensure("tiny")
    assert debian.calls == 0


def test_a_file_that_no_package_has_names_image_and_path(sources: Path) -> None:
    (sources / "tiny.toml").write_text(MANIFEST.replace("/bin/busybox", "/bin/nothing"))
    with pytest.raises(ConfigError, match=r"image tiny: /bin/nothing matches nothing.*tiny\.toml"):
        store(sources).ensure("tiny")


def test_a_module_the_kernel_has_not_is_named(sources: Path) -> None:
    (sources / "tiny.toml").write_text(MANIFEST.replace("xen-netfront", "xen-nothing"))
    with pytest.raises(ConfigError, match="has no module xen_nothing"):
        store(sources).ensure("tiny")


def test_a_builtin_module_needs_nothing(sources: Path) -> None:
    (sources / "tiny.toml").write_text(MANIFEST.replace("xen-netfront", "crc16"))
    archive = store(sources).ensure("tiny").initramfs.read_bytes()
    assert {entry.path: entry.data for entry in read_cpio(archive)}["etc/lab/modules"] == b""


def test_an_unknown_image_lists_the_known(sources: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no image 'huge'.*tiny"):
        store(sources).ensure("huge")


def test_a_missing_tool_says_what_to_install(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InfraError, match=r"mmdebstrap is not installed \(apt install mmdebstrap\)"):
        ImageStore(sources.parent / "home", sources, extract=None)._extract(
            ImageStore(sources.parent, sources).manifest("tiny"), sources.parent / "tree", lambda _: None
        )


@pytest.mark.parametrize(
    ("output", "kind", "text"),
    [
        ("E: Unable to locate package xen-utils-4.99\nE: apt failed", ConfigError,
         "there is no package xen-utils-4.99 in bookworm (amd64)"),
        ("E: Package 'qemu-xen' has no installation candidate", ConfigError, "there is no package qemu-xen in"),
        ("Err:1 http://x bookworm InRelease\n  Could not connect to x:80\nE: Failed to fetch", InfraError,
         "mirror cannot be reached"),
        ("E: The repository 'x nosuite Release' does not have a Release file.", ConfigError, "has no suite bookworm"),
        ("dpkg-deb: error: No space left on device", InfraError, "disk is full"),
        ("E: something new\nE: mmdebstrap failed to run", InfraError, "exit status 25: something new"),
    ],
)  # fmt: skip
def test_what_mmdebstrap_says_in_the_labs_words(sources: Path, output: str, kind: type[Exception], text: str) -> None:
    manifest = ImageStore(sources.parent, sources).manifest("tiny")
    error = extraction_error(manifest, ["mmdebstrap", "tree"], 25, output)
    assert type(error) is kind
    assert text in str(error)
    assert "\n" not in str(error)
    assert error.evidence is not None
    assert error.evidence.output == output


def test_media_holds_the_guests_files(sources: Path) -> None:
    images = store(sources)
    media = images.media(["tiny"])
    assert images.media(["tiny", "tiny"]) == media
    listed = subprocess.run(["debugfs", "-R", "ls -p /tiny", media], capture_output=True, text=True, check=True).stdout
    assert {"vmlinux", "initramfs"} <= set(listed.split("/"))


def test_an_image_for_a_bios_brings_its_kernel_and_a_disk_to_the_media(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.images.make_boot_disk", lambda kernel, initramfs, disk: disk.write_bytes(b"disk"))
    (sources / "tiny.toml").write_text(MANIFEST + "firmware = true\n")
    built = store(sources).ensure("tiny")
    assert built.bzimage is not None
    assert built.bzimage.read_bytes() == bzimage(elf())
    assert built.disk is not None
    media = store(sources).media(["tiny"])
    listed = subprocess.run(["debugfs", "-R", "ls -p /tiny", media], capture_output=True, text=True, check=True).stdout
    assert {"vmlinux", "initramfs", "vmlinuz", "disk.raw"} <= set(listed.split("/"))


def test_the_overlay_has_its_folders_and_closes_roots() -> None:
    archive = host_overlay({"/root/.ssh/authorized_keys": (0o600, b"key"), "etc/lab/host.conf": (0o644, b"A=b\n")})
    entries = {entry.path: entry for entry in read_cpio(archive)}
    assert list(entries) == ["etc", "etc/lab", "etc/lab/host.conf", "root", "root/.ssh", "root/.ssh/authorized_keys"]
    assert entries["root"].mode == stat.S_IFDIR | 0o700
    assert entries["root/.ssh/authorized_keys"].mode == stat.S_IFREG | 0o600
    assert len(archive) % 4 == 0


def test_a_second_archive_begins_on_a_multiple_of_four(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.write_bytes(b"12345")
    out = initramfs_with(base, {"a": (0o644, b"x")}, tmp_path / "out").read_bytes()
    assert out[:8] == b"12345\0\0\0"
    assert [entry.path for entry in read_cpio(out[8:])] == ["a"]
