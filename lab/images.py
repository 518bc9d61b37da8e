"""Images: what a host or a guest boots, built from a manifest and kept by content.

A manifest (images/*.toml) names a Debian suite, packages and what to take of them. Building downloads and extracts
the packages (nothing of them is run, so neither root nor an emulator is needed), packs the chosen files with an
overlay of ours into an initramfs, and takes the kernel and the hypervisor out. The result stays in
`HOME/images/NAME/DIGEST/` and is reused until its manifest, overlay or sources change.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from lab.errors import ConfigError, Evidence, InfraError
from lab.flights.boot_disk import GRUB_CONFIG
from lab.image_boot_disk import make_boot_disk
from lab.image_debian import Extractor, disk_full, extract_with_mmdebstrap, need_tools
from lab.image_formats import Entry, FormatError, cpio_archive, kernel_image, uncompressed
from lab.image_manifest import Manifest, load_manifest, load_manifests
from lab.image_tree import (
    LAYOUT,
    LIBRARY_FOLDERS,
    NotInTreeError,
    Picker,
    Tree,
    complete_builder,
    edited,
    kernel_modules,
    overlay_entries,
)

__all__ = [
    "BuiltImage", "ImageState", "ImageStore", "Manifest", "Progress",
    "host_overlay", "initramfs_with", "load_manifests",
]  # fmt: skip

# Counted up whenever the same manifest would give another image: part of every digest; and by kind, for one of them.
BUILDER_VERSION = 1
_VERSION_OF_KIND = {"dom0": 2}
SPACE_FOR_A_BUILD = 2 * 1024**3
KEEP_OLD_FOR = 24 * 3600.0
_BUILDS_AT_ONCE = 2
_MEDIA_SPARE = 8 * 1024**2


class Progress(Protocol):
    """Told how a build goes: `fraction` is 0..1, or None where it cannot be known. May be called from any thread."""

    def __call__(self, image: str, stage: str, fraction: float | None) -> None: ...


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """A finished image. The files are never changed; do not write to them.

    `hypervisor` is an uncompressed ELF (multiboot) on amd64, an Image on arm64, and None for a guest; `kernel` is a
    raw ELF vmlinux on amd64, an Image on arm64 and a zImage on armhf; `initramfs` is a plain archive: unpacking a
    compressed one takes an emulated host seconds. A guest that a BIOS can start also has a `bzimage` and a `disk` (see
    `lab.flights.boot_disk`). A builder has none of them, but `tree`: a whole system to compile in.
    """

    name: str
    kind: Literal["dom0", "guest", "stubdom", "builder"]
    arch: str
    digest: str
    folder: Path
    hypervisor: Path | None
    kernel: Path
    initramfs: Path
    versions: Mapping[str, str]
    tree: Path | None = None
    bzimage: Path | None = None
    disk: Path | None = None


@dataclass(frozen=True, slots=True)
class ImageState:
    """One line of `lab image list`. `size` in bytes and `built_at` in Unix seconds are None until it is built."""

    name: str
    kind: Literal["dom0", "guest", "stubdom", "builder"]
    suite: str
    arch: str
    digest: str
    built: bool
    size: int | None
    built_at: float | None


def host_overlay(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """A cpio archive of `files` (path -> (permissions, content)) with the folders above them; a multiple of 4 bytes.

    Meant to be put behind an initramfs (see `initramfs_with`): the kernel unpacks one after the other, so these
    files replace the image's own of the same path.
    """
    entries = [Entry.file(path, content, permissions) for path, (permissions, content) in files.items()]
    if any(entry.path.strip("/").startswith("root/") for entry in entries):
        entries.append(Entry.folder("root", 0o700))  # sshd refuses keys below a folder others may write to
    return cpio_archive(entries)


def initramfs_with(base: Path, files: Mapping[str, tuple[int, bytes]], out: Path) -> Path:
    """Writes `out` = the initramfs `base` followed by `host_overlay(files)`, and returns it.

    The kernel wants each archive to begin on a multiple of 4 bytes, so a compressed base is padded with zeros.
    """
    with base.open("rb") as source, out.open("wb") as target:
        shutil.copyfileobj(source, target, 1024 * 1024)
        target.write(b"\0" * (-target.tell() % 4))
        target.write(host_overlay(files))
    return out


class ImageStore:
    """The images of one lab home. Safe to use from several threads and processes at once."""

    def __init__(self, home: Path, manifests: Path, *, extract: Extractor | None = None) -> None:
        """`home` is the lab's home, `manifests` the images/ folder. `extract` replaces the download (tests)."""
        self._folder = home / "images"
        self._sources = manifests
        self._extract = extract or extract_with_mmdebstrap

    def manifest(self, name: str) -> Manifest:
        """The manifest of that name. Raises ConfigError if there is none."""
        path = self._sources / f"{name}.toml"
        known = sorted(one.stem for one in self._sources.glob("[!_]*.toml"))
        if name not in known:
            raise ConfigError(f"there is no image {name!r}", hint=f"there are: {', '.join(known)}")
        return load_manifest(path)

    def digest(self, manifest: Manifest) -> str:
        """Sixteen hex digits over everything of ours that makes the image what it is."""
        version = _VERSION_OF_KIND.get(manifest.kind, BUILDER_VERSION)
        total = hashlib.sha256(f"{version}\n{manifest.model_dump_json(exclude_defaults=True)}\n".encode())
        if manifest.firmware:
            total.update(GRUB_CONFIG.encode())
        for entry in self._overlaid(manifest):
            total.update(f"{entry.path}\n{entry.mode}\n{len(entry.data)}\n".encode() + entry.data)
        for source in manifest.sources:
            content = (self._sources / "sources" / source.file).read_bytes()
            total.update(f"{source.file}\n{len(content)}\n".encode() + content)
        return total.hexdigest()[:16]

    def state(self) -> list[ImageState]:
        """Every image there is a manifest for, built or not, sorted by name. Builds nothing."""
        states = []
        for name, manifest in load_manifests(self._sources).items():
            digest = self.digest(manifest)
            folder = self._folder / name / digest
            built = (folder / "image.json").exists()
            facts = json.loads((folder / "image.json").read_text()) if built else {}
            size = facts.get("size") or sum(path.stat().st_size for path in folder.iterdir()) if built else None
            built_at = float(facts["built_at"]) if built else None
            states.append(ImageState(name, manifest.kind, manifest.suite, manifest.arch, digest, built, size, built_at))
        return states

    def ensure(self, name: str, progress: Progress | None = None) -> BuiltImage:
        """The image of that name, built now if it is not there. Another process that builds it is waited for.

        Takes seconds when it is there, about a minute when not. Raises ConfigError if the manifest asks for what
        does not exist, and InfraError if network, disk or tools fail; nothing half-built is left behind.
        """
        report = progress or _silent
        manifest = self.manifest(name)
        digest = self.digest(manifest)
        folder = self._folder / name / digest
        if (folder / "image.json").exists():
            return _opened(folder)
        with _translated(name, self._folder), _locked(self._folder / name, lambda: report(name, "wait", None)):
            if not (folder / "image.json").exists():
                self._build(manifest, digest, folder, report)
            return _opened(folder)

    def ensure_all(self, names: Sequence[str], progress: Progress | None = None) -> list[BuiltImage]:
        """`ensure` for each, two at a time, in the given order. The first error is raised after all have ended."""
        with ThreadPoolExecutor(max_workers=_BUILDS_AT_ONCE) as pool:
            return list(pool.map(lambda name: self.ensure(name, progress), names))

    def media(self, guest_names: Sequence[str], progress: Progress | None = None) -> Path:
        """A read-only ext4 file with a folder /NAME for each guest or stub domain image, built if need be.

        In it are `vmlinux`, `initramfs`, and where the image has them `vmlinuz` (the bzImage) and `disk.raw`.
        """
        images = self.ensure_all(sorted(set(guest_names)), progress)
        what = json.dumps([BUILDER_VERSION, [(image.name, image.digest) for image in images]])
        digest = hashlib.sha256(what.encode()).hexdigest()[:16]
        place = self._folder / "media"
        result = place / digest / "media.ext4"
        if result.exists():
            os.utime(result.parent)
            return result
        need_tools("mkfs.ext4")
        with _translated("media", self._folder), _locked(place, lambda: None):
            if not result.exists():
                with _fresh_folder(place) as work:
                    _make_media(images, work)
                    (work / "new").rename(result.parent)
                _remove_old(place, digest)
        return result

    def _build(self, manifest: Manifest, digest: str, folder: Path, report: Progress) -> None:
        name = manifest.name
        need_tools("zstd", *(["gcc"] if manifest.sources else []))
        free = shutil.disk_usage(folder.parent).free
        if free < SPACE_FOR_A_BUILD:
            raise InfraError(
                f"only {free // 1024**2} MiB are free at {folder.parent}, building {name} needs "
                f"{SPACE_FOR_A_BUILD // 1024**2} MiB",
                hint="free some space, or set LAB_HOME to a larger disk",
            )
        with _fresh_folder(folder.parent) as work:
            self._extract(manifest, work / "tree", lambda stage: report(name, stage, None))
            new = work / "new"
            new.mkdir()
            try:
                tree = Tree(work / "tree", manifest.arch)
                pack = self._keep_tree if manifest.kind == "builder" else self._pack
                versions = pack(manifest, tree, new, report)
            except (NotInTreeError, FormatError) as error:
                raise ConfigError(
                    f"image {name}: {error}",
                    hint=f"correct {self._sources / name}.toml, or add the package it is in (suite {manifest.suite})",
                ) from error
            facts = {
                "name": name, "kind": manifest.kind, "arch": manifest.arch, "digest": digest,
                "versions": versions, "built_at": time.time(),
                "size": sum(path.lstat().st_size for path in new.rglob("*") if path.is_file()),
            }  # fmt: skip
            (new / "image.json").write_text(json.dumps(facts, indent=1))
            new.rename(folder)
        _remove_old(folder.parent, digest)
        report(name, "ready", 1.0)

    def _overlaid(self, manifest: Manifest) -> list[Entry]:
        """The entries of all overlays, the one on top last."""
        return [entry for name in manifest.all_overlays for entry in overlay_entries(self._sources / "overlays" / name)]

    def _keep_tree(self, manifest: Manifest, tree: Tree, new: Path, report: Progress) -> dict[str, str]:
        """The tree itself is the image, with the links that maintainer scripts would have made."""
        report(manifest.name, "links", None)
        complete_builder(tree.root)
        tree.root.rename(new / "tree")
        # of everything in it: the compiler itself came with a package that only depends on it
        packages = sorted(path.name for path in (new / "tree/usr/share/doc").iterdir())
        return Tree(new / "tree", manifest.arch).versions(packages)

    def _pack(self, manifest: Manifest, tree: Tree, new: Path, report: Progress) -> dict[str, str]:
        report(manifest.name, "closure", None)
        picker = Picker(tree, manifest.arch)
        for pattern in manifest.include:
            picker.take(pattern)
        for pattern in manifest.commands:
            picker.take_command(pattern)
        entries = {entry.path.strip("/"): entry for entry in LAYOUT}
        entries |= {path.strip("/"): entry for path, entry in picker.entries.items()}
        for edit in manifest.edits:
            entry = edited(picker.entries, edit.path, edit.drop)
            entries[entry.path.strip("/")] = entry
        more = kernel_modules(tree, manifest.modules, manifest.modules_on_demand, _unzstd)
        more += self._overlaid(manifest)
        more += [
            Entry.file(source.target, _compiled(self._sources / "sources" / source.file, manifest), 0o755)
            for source in manifest.sources
        ]
        entries |= {entry.path.strip("/"): entry for entry in more}  # ours win over Debian's
        report(manifest.name, "pack", None)
        archive = cpio_archive(entries.values())
        if manifest.kind == "dom0":
            # Debian packs it with gzip on amd64; multiboot wants it plain.
            packed = f"/boot/xen-{manifest.xen}-{manifest.arch}{'.gz' if manifest.arch == 'amd64' else ''}"
            (new / "hypervisor").write_bytes(uncompressed(tree.read(packed), _unzstd))
        (new / "initramfs").write_bytes(archive)
        kernel = tree.read(f"/boot/vmlinuz-{tree.kernel_release()}")
        (new / "vmlinux").write_bytes(kernel_image(kernel, _unzstd))
        if manifest.firmware:
            (new / "vmlinuz").write_bytes(kernel)
            make_boot_disk(kernel, archive, new / "disk.raw")
        return tree.versions(manifest.packages)


def _opened(folder: Path) -> BuiltImage:
    facts = json.loads((folder / "image.json").read_text())
    os.utime(folder)  # in use: not to be removed as old
    return BuiltImage(
        name=facts["name"],
        kind=facts["kind"],
        arch=facts["arch"],
        digest=facts["digest"],
        folder=folder,
        hypervisor=folder / "hypervisor" if facts["kind"] == "dom0" else None,
        kernel=folder / "vmlinux",
        initramfs=folder / "initramfs",
        versions=facts["versions"],
        tree=folder / "tree" if facts["kind"] == "builder" else None,
        bzimage=folder / "vmlinuz" if (folder / "vmlinuz").exists() else None,
        disk=folder / "disk.raw" if (folder / "disk.raw").exists() else None,
    )


def _silent(image: str, stage: str, fraction: float | None) -> None:
    del image, stage, fraction


@contextlib.contextmanager
def _locked(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds the folder's lock; calls `waiting` once if another process has it. The kernel frees it if we die."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _fresh_folder(place: Path) -> Iterator[Path]:
    """A folder to build in, on the same disk as `place`, removed at the end. To be used under the lock of `place`."""
    for left in place.glob(".building-*"):  # by the lock, nobody works in them: their process was killed
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=".building-", dir=place))
    work.chmod(0o755)  # apt's own user must be able to look in
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _translated(name: str, place: Path) -> Iterator[None]:
    """Turns what the system says about a full disk or a forbidden folder into the lab's words."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise disk_full(name, str(place), None) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise InfraError(f"image {name}: {error}", hint=f"is {place} yours to write to?") from error
        raise


def _remove_old(place: Path, keep: str) -> None:
    """Removes other digests that nobody has used for a day; a running flight may still read a younger one."""
    for path in place.iterdir():
        if not path.is_dir() or path.name == keep or path.name.startswith("."):
            continue
        if time.time() - path.stat().st_mtime > KEEP_OLD_FOR:
            shutil.rmtree(path, ignore_errors=True)


def _run(command: Sequence[str], given: bytes = b"") -> bytes:
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    if done.returncode:
        output = done.stderr.decode(errors="replace")
        evidence = Evidence(command=" ".join(command), exit_status=done.returncode, output=output[-20_000:])
        if "No space left on device" in output:
            raise disk_full(command[0], command[-1], evidence)
        raise InfraError(f"{command[0]} failed with exit status {done.returncode}", evidence=evidence)
    return done.stdout


def _unzstd(data: bytes) -> bytes:
    # Its exit status says nothing here: behind the stream of a bzImage come four bytes that are not zstd.
    return subprocess.run(["zstd", "-q", "-dc"], input=data, capture_output=True, check=False).stdout


def _compiled(source: Path, manifest: Manifest) -> bytes:
    compiler = f"{LIBRARY_FOLDERS[manifest.arch]}-gcc"
    if shutil.which(compiler) is None:
        packages = f"gcc-{LIBRARY_FOLDERS[manifest.arch].replace('_', '-')} libc6-dev-{manifest.arch}-cross"
        raise InfraError(f"{compiler} is not installed", hint=f"apt install {packages}")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "program"
        flags = ["-static", "-Os", "-Wall", "-Wextra", "-Werror", "-s", "-ffunction-sections", "-Wl,--gc-sections"]
        _run([compiler, "-std=gnu11", *flags, "-o", str(out), str(source)])
        return out.read_bytes()


def _make_media(images: Sequence[BuiltImage], work: Path) -> None:
    """work/new/media.ext4 with the images' files."""
    content, new = work / "content", work / "new"
    size = _MEDIA_SPARE
    for image in images:
        folder = content / image.name
        folder.mkdir(parents=True)
        for source in (image.kernel, image.initramfs, image.bzimage, image.disk):
            if source is not None:
                shutil.copyfile(source, folder / source.name)
                size += source.stat().st_size
    new.mkdir()
    size = size * 21 // 20
    _run([
        "mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode", "-E", "root_owner=0:0,nodiscard",
        "-L", "lab-media", "-d", str(content), str(new / "media.ext4"), f"{size // 1024}k",
    ])  # fmt: skip
