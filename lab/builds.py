"""Builds: a revision of Xen compiled in a sandbox, its outputs kept by everything that made them.

A build has two parts with keys of their own: the hypervisor (per configuration) and the toolstack (shared by all
configurations of a revision). `HOME/builds/KEY/` holds one, is never changed, and serves every flight that needs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lab.errors import ConfigError, Evidence, InfraError, NotFoundError, StepFailure
from lab.flights.builds import (
    HYPERVISOR,
    POLICIES,
    TOOLS,
    BuildRequest,
    build_key,
    builder_for,
    compiler_error,
    kconfig,
    not_taken,
    xen_version,
)
from lab.flights.steps import Built
from lab.flights.xsm import XsmPolicy
from lab.image_formats import Entry, cpio_archive, elf_needs, is_elf
from lab.image_tree import Picker, Tree, merged
from lab.images import BuiltImage, ImageStore
from lab.sandbox import Limits, Sandbox
from lab.vcs import Trees
from lab.xsm_policy import PLACE, PolicyFolder, collect, read_policy

SPACE_FOR_A_BUILD: Final = 3 << 30
KEEP_UNUSED_FOR: Final = 30 * 24 * 3600.0
LOG: Final = "build.log"
_TAIL: Final = 4 << 20
_CACHE_SIZE: Final = "2G"
_SOURCE: Final = "/tmp/build"  # noqa: S108 - inside the sandbox; always the same, so that the compiler cache works
_CACHE: Final = "/tmp/ccache"  # noqa: S108
_CROSS: Final = {"amd64": (), "arm64": ("XEN_TARGET_ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-")}
# What would make two builds of one source differ.
_FIXED: Final = (
    "XEN_WHOAMI=lab", "XEN_DOMAIN=lab", "XEN_BUILD_HOST=lab", "XEN_BUILD_DATE=2000-01-01", "XEN_BUILD_TIME=00:00:00",
)  # fmt: skip
# Symbols of programs are large and of no use. What boots (hvmloader, xen-shim) is left as it is: its headers say how
# much memory it needs beyond the file, and strip would make that the length of the file.
_STRIP: Final = "find dist-lab -type f -not -path '*/boot/*' -exec strip --strip-unneeded {} +"
_CONFIGURE: Final = (
    "./configure", "--prefix=/usr", "--libdir=/usr/lib/x86_64-linux-gnu", "--disable-docs", "--disable-stubdom",
    "--disable-ocamltools", "--disable-golang", "--disable-rombios", "--disable-qemu-traditional",
    "--with-system-qemu=/usr/libexec/xen-qemu-system-i386", "--with-system-seabios=/usr/share/seabios/bios-256k.bin",
)  # fmt: skip
# Of what `make install-tools` installs, dom0 needs no headers, documentation, Python modules and static libraries.
_LEFT_OUT: Final = ("/usr/include/", "/usr/share/", "/usr/lib/python", "/usr/lib/debug/", "/usr/src/", "/boot/")
_CHECKED: Final = ("xl", "xenstored", "xenconsoled")
"""Programs by which a running toolstack is recognised."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request with everything looked up: what will be compiled, by what, and the key of the result."""

    request: BuildRequest
    part: str
    commit: str
    version: str
    builder: str
    key: str


class BuildStore:
    """The builds of one lab home (the `Builds` port). Safe to use from several processes."""

    def __init__(self, home: Path, trees: Trees, images: ImageStore, policies: PolicyFolder) -> None:
        self._home, self._trees, self._images, self._policy_folder = home, trees, images, policies
        self._folder = home / "builds"

    def check(self, request: BuildRequest) -> None:
        """Raise `ConfigError` when the tree has no such revision, or it is no Xen."""
        self.builder_of(request)

    def builder_of(self, request: BuildRequest) -> str:
        """The builder image a request needs."""
        return request.builder or builder_for(self.version_of(request))

    def version_of(self, request: BuildRequest) -> str:
        """The series of Xen (`4.17`) that a request would compile."""
        return self._version(request.tree, self._trees.resolve(request.tree, request.revision))

    def find(self, key: str) -> Built:
        """The finished build of that key; `NotFoundError` when there is none."""
        folder = self._folder / key
        try:
            facts = json.loads((folder / "build.json").read_text())
        except FileNotFoundError:
            raise NotFoundError(f"there is no build {key}", hint="run its build job again") from None
        os.utime(folder)
        return _opened(folder, facts, reused=True)

    def policy(self, key: str, name: str) -> XsmPolicy:
        """An XSM policy out of a build; `ConfigError` when it has none of this name."""
        return read_policy(self.find(key).folder, name)

    def make(
        self,
        request: BuildRequest,
        part: str,
        *,
        guard: Callable[[], None] = lambda: None,
        log: Callable[[str], None] = lambda _text: None,
        save: Callable[[str, bytes], None] = lambda _name, _data: None,
    ) -> Built:
        """The part of a build, compiled now if it is not there (see `lab.flights.steps.Builds`)."""
        image = self._images.ensure(self.builder_of(request))
        plan = self._plan(request, part, image)
        log(f"{part} of {request.tree} {plan.commit[:12]} (Xen {plan.version}), {request.arch}, key {plan.key}")
        with self._locked(plan.key, guard):
            with contextlib.suppress(NotFoundError):
                built = self.find(plan.key)
                log(f"it was built before: {built.folder}")
                return built
            return self._compile(plan, image, guard, log, save)

    def _plan(self, request: BuildRequest, part: str, image: BuiltImage) -> Plan:
        commit = self._trees.resolve(request.tree, request.revision)
        facts = {
            "commit": commit,
            "arch": request.arch,
            "builder": f"{image.name} {image.digest} {json.dumps(dict(image.versions), sort_keys=True)}",
            "fragment": kconfig(request.config, request.arch) if part == HYPERVISOR else "",
        }
        if part == TOOLS:
            facts["strip"] = _STRIP
        if part == POLICIES:
            facts["policies"] = self._policy_folder.digest()
        return Plan(
            request=request,
            part=part,
            commit=commit,
            version=self._version(request.tree, commit),
            builder=image.name,
            key=build_key(part, facts),
        )

    def _version(self, tree: str, commit: str) -> str:
        try:
            return xen_version(self._trees.read(tree, commit, "xen/Makefile"))
        except NotFoundError as error:
            raise ConfigError(f"{error.message}: this is no tree of Xen") from error

    def _compile(
        self, plan: Plan, image: BuiltImage, guard: Callable[[], None], log: Callable[[str], None],
        save: Callable[[str, bytes], None],
    ) -> Built:  # fmt: skip
        if image.tree is None:
            raise ConfigError(f"{image.name} is no builder image", hint="name one of kind `builder`")
        free = shutil.disk_usage(self._folder).free
        if free < SPACE_FOR_A_BUILD:
            raise InfraError(
                f"only {free >> 20} MiB are free in {self._folder}, a build needs {SPACE_FOR_A_BUILD >> 20} MiB",
                hint="free some space, or set LAB_HOME to a larger disk",
            )
        started = time.monotonic()
        with self._work() as work:
            source, new, policies = work / "source", work / "new", work / "policies"
            for folder in (source, new, policies):
                folder.mkdir()
            self._trees.export(plan.request.tree, plan.commit, source)
            for place in (".scmversion", "xen/.scmversion"):
                write_inside(source, place, f"git:{plan.commit[:12]}")
            tree = Tree(image.tree, "amd64")
            sandbox = self._sandbox(plan, image, source, policies)
            run = _Run(sandbox=sandbox, log=new / LOG, guard=guard, told=log)
            try:
                make = {
                    HYPERVISOR: lambda: self._hypervisor(plan, run, source, new),
                    POLICIES: lambda: self._policies(run, policies, new),
                    TOOLS: lambda: self._tools(run, source, new, tree),
                }
                facts = make[plan.part]()
            finally:
                if run.log.exists():
                    save(LOG, run.log.read_bytes()[-_TAIL:])
            facts |= {
                "key": plan.key, "part": plan.part, "tree": plan.request.tree, "commit": plan.commit,
                "version": plan.version, "arch": plan.request.arch, "config": plan.request.config,
                "builder": plan.builder, "seconds": round(time.monotonic() - started, 1),
            }  # fmt: skip
            (new / "build.json").write_text(json.dumps(facts, indent=1))
            folder = self._folder / plan.key
            new.rename(folder)
        self._remove_old()
        return _opened(folder, facts, reused=False)

    def _remove_old(self) -> None:
        """Remove what nothing has used for weeks: it can be compiled again."""
        for folder in self._folder.iterdir():
            if not folder.name.startswith(".") and time.time() - folder.stat().st_mtime > KEEP_UNUSED_FOR:
                shutil.rmtree(folder, ignore_errors=True)

    def _sandbox(self, plan: Plan, image: BuiltImage, source: Path, policies: Path) -> Sandbox:
        # A cache for each tree: what one tree's scripts put there must not end up in another tree's builds.
        cache = self._home / "ccache" / plan.request.tree
        cache.mkdir(parents=True, exist_ok=True)
        assert image.tree is not None
        return Sandbox(
            root=image.tree,
            writable={_SOURCE: source, _CACHE: cache, PLACE: policies},
            folder=_SOURCE,
            environment={
                "PATH": "/usr/lib/ccache:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/tmp", "USER": "lab",  # noqa: S108
                "LC_ALL": "C", "CCACHE_DIR": _CACHE, "CCACHE_MAXSIZE": _CACHE_SIZE,
                "SOURCE_DATE_EPOCH": "946684800",
            },
            limits=Limits(),
        )  # fmt: skip

    def _hypervisor(self, plan: Plan, run: _Run, source: Path, new: Path) -> dict[str, Any]:
        fragment = kconfig(plan.request.config, plan.request.arch)
        write_inside(source, "xen/.config", fragment)
        make = ["make", "-C", "xen", *_CROSS[plan.request.arch], *_FIXED]
        run([*make, "olddefconfig"])
        config = file_inside(source, "xen/.config").read_text(errors="replace")
        for line in not_taken(fragment, config):
            run.told(f"this Xen does not take {line}")
        run([*make, _jobs()])
        run([*make, "tests"], must=False)  # the test livepatches; no Xen is worse for not having them
        (new / "config").write_text(config)
        for name in ("xen", "xen-syms"):
            shutil.copyfile(file_inside(source, f"xen/{name}"), new / name)
        for policy in files_inside(source, "xen/xsm/flask/xenpolicy*")[:1]:
            shutil.copyfile(policy, new / "xenpolicy")
        patches = files_inside(source, "xen/test/livepatch/*.livepatch")
        if patches:
            (new / "livepatch").mkdir()
        for patch in patches:
            shutil.copyfile(patch, new / "livepatch" / patch.name)
        return {"build_id": build_id((new / "xen-syms").read_bytes())}

    def _policies(self, run: _Run, place: Path, new: Path) -> dict[str, Any]:
        variants = self._policy_folder.lay_out(place)
        for variant in variants:
            run(variant.command())
        collect(place, variants, self._policy_folder, new)
        return {}

    def _tools(self, run: _Run, source: Path, new: Path, builder: Tree) -> dict[str, Any]:
        run([*_CONFIGURE])
        make = ["make", *_FIXED, "CONFIG_TESTS=n"]  # the tree's own tests take as long as all the rest
        run([*make, _jobs(), "build-tools"])
        run([*make, "install-tools", "DESTDIR=/tmp/build/dist-lab"])
        run(["sh", "-c", f"{_STRIP} 2>/dev/null || true"])
        if (source / "dist-lab").is_symlink():
            raise StepFailure("the toolstack was installed elsewhere: its folder is a link")
        entries = tools_entries(source / "dist-lab", builder)
        archive = cpio_archive(entries.values())
        (new / "overlay.cpio.gz").write_bytes(gzip.compress(archive, 6, mtime=0))
        checked = {path: entry for path, entry in entries.items() if Path(path).name in _CHECKED and entry.data}
        sums = {path: hashlib.sha256(entry.data).hexdigest() for path, entry in checked.items() if is_elf(entry.data)}
        return {"checksums": sums}

    @contextlib.contextmanager
    def _work(self) -> Iterator[Path]:
        work = Path(tempfile.mkdtemp(prefix=".building-", dir=self._folder))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self, key: str, guard: Callable[[], None]) -> Iterator[None]:
        """Holds the key's lock; another process that builds the same is waited for."""
        locks = self._folder / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / key).open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    guard()
                    time.sleep(0.3)
            yield


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Runs the commands of one build in its sandbox; a failed one is a failure of the product."""

    sandbox: Sandbox
    log: Path
    guard: Callable[[], None]
    told: Callable[[str], None]

    def __call__(self, argv: Sequence[str], *, must: bool = True) -> None:
        shown = " ".join(argv)
        start = self.log.stat().st_size if self.log.exists() else 0
        began = time.monotonic()
        with self.log.open("a") as log:
            log.write(f"$ {shown}\n")
        status = self.sandbox.run(argv, self.log, guard=self.guard)
        self.told(f"{shown} -> exit {status} after {time.monotonic() - began:.1f} s")
        if status == 0 or not must:
            return
        with self.log.open("rb") as said:
            said.seek(start)
            output = said.read().decode(errors="replace")
        if "No space left on device" in output:
            raise InfraError("the disk ran full during the build", hint="free some space")
        error, around = compiler_error(output)
        if status is None:
            error = f"not done after {self.sandbox.limits.wall_s:.0f} s: {error}"
        raise StepFailure(error, evidence=Evidence(command=shown, exit_status=status, output=around))


def file_inside(source: Path, path: str) -> Path:
    """A regular file that a build left below `source`; `StepFailure` when there is none.

    What was built is not trusted: a link that leads out would hand us any file of this machine.
    """
    real = (source / path).resolve()
    if not real.is_relative_to(source.resolve()) or not real.is_file():
        raise StepFailure(f"the build left no file {path}")
    return real


def files_inside(source: Path, pattern: str) -> list[Path]:
    """The regular files below `source` that a glob stands for; links that lead out are passed over."""
    found = []
    for path in sorted(source.glob(pattern)):
        with contextlib.suppress(StepFailure):
            found.append(file_inside(source, str(path.relative_to(source))))
    return found


def write_inside(source: Path, path: str, text: str) -> None:
    """Write a file below `source`, in the place of whatever the tree has there; never through a link of the tree."""
    place = source / path
    if place.parent.resolve() != source.resolve() / place.parent.relative_to(source):
        raise StepFailure(f"{path}: its folder is a link, this is no tree of Xen")
    if place.is_symlink() or place.exists():
        place.unlink()
    place.write_text(text)


def tools_entries(installed: Path, builder: Tree) -> dict[str, Entry]:
    """What `make install-tools` left in `installed`, as entries of an overlay that replaces Debian's toolstack.

    Every program is found in /usr/bin, and libraries come along that dom0's image might not have.
    """
    entries: dict[str, Entry] = {}
    for path in sorted(installed.rglob("*")):
        where = f"/{path.relative_to(installed).as_posix()}"
        if where.startswith(_LEFT_OUT) or where.endswith((".a", ".la", ".pc")):
            continue
        there = merged(where)
        if path.is_symlink():
            entries[there] = Entry.link(there, str(path.readlink()))
        elif path.is_file():
            entries[there] = Entry.file(there, path.read_bytes(), 0o755 if os.access(path, os.X_OK) else 0o644)
    for path_in, entry in list(entries.items()):
        folder, _, name = path_in.rpartition("/")
        if folder.endswith("/xen/bin") and is_elf(entry.data):
            entries.setdefault(f"/usr/bin/{name}", Entry.link(f"/usr/bin/{name}", path_in))
    own = {Path(path).name for path in entries}
    picker = Picker(builder, "amd64")
    for entry in list(entries.values()):
        if not is_elf(entry.data) or entry.data[16] not in {2, 3}:
            continue
        for library in elf_needs(entry.data)[1]:
            if library not in own:
                picker.take(builder.library(library))
    return {**picker.entries, **entries}


def build_id(elf: bytes) -> str:
    """The build id of an ELF file (`xl info` tells that of the running hypervisor); empty when it has none."""
    mark = struct.pack("<II", 20, 3) + b"GNU\0"  # a SHA-1, of type NT_GNU_BUILD_ID
    at = elf.find(mark)
    return elf[at + len(mark) : at + len(mark) + 20].hex() if at >= 0 else ""


def _opened(folder: Path, facts: dict[str, Any], *, reused: bool) -> Built:
    hypervisor = facts["part"] == HYPERVISOR
    return Built(
        key=facts["key"],
        part=facts["part"],
        commit=facts["commit"],
        version=facts["version"],
        folder=folder,
        hypervisor=folder / "xen" if hypervisor else None,
        overlay=folder / "overlay.cpio.gz" if facts["part"] == TOOLS else None,
        build_id=facts.get("build_id", ""),
        checksums=facts.get("checksums", {}),
        seconds=facts["seconds"],
        reused=reused,
    )


def _jobs() -> str:
    return f"-j{len(os.sched_getaffinity(0)) + 1}"
