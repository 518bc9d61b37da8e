"""Takes what an image needs out of an extracted Debian tree: chosen files, the libraries they load, kernel modules.

Every path of the result is in the merged layout: all programs in /usr/bin, all libraries under /usr/lib, with
/bin, /sbin, /usr/sbin, /lib and /lib64 as links. So every program is found with any PATH an ssh server sets, and
releases before and after Debian's merge look the same.
"""

import gzip
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from lab.image_formats import Entry, elf_needs, is_elf, module_info, uncompressed

LIBRARY_FOLDERS: Mapping[str, str] = {
    "amd64": "x86_64-linux-gnu",
    "arm64": "aarch64-linux-gnu",
    "armhf": "arm-linux-gnueabihf",
}
LAYOUT = (
    Entry.link("bin", "usr/bin"),
    Entry.link("sbin", "usr/bin"),
    Entry.link("lib", "usr/lib"),
    Entry.link("lib64", "usr/lib64"),
    Entry.link("usr/sbin", "bin"),
    Entry.folder("usr/bin"),
    Entry.folder("usr/lib64"),
    Entry.folder("proc"),
    Entry.folder("sys"),
    Entry.folder("dev"),
    Entry.folder("run"),
    Entry.folder("tmp", 0o1777),
    Entry.folder("root", 0o700),
    Entry.link("var/run", "/run"),
    Entry.link("var/lock", "/run/lock"),
)
_MOVED = (
    ("/usr/sbin/", "/usr/bin/"),
    ("/bin/", "/usr/bin/"),
    ("/sbin/", "/usr/bin/"),
    ("/lib/", "/usr/lib/"),
    ("/lib64/", "/usr/lib64/"),
)


class NotInTreeError(LookupError):
    """A path, library or module that was asked for is not in the tree. The text names it."""


def merged(path: str) -> str:
    """Where a path of a Debian tree is in the merged layout."""
    for old, new in _MOVED:
        if path.startswith(old):
            return new + path.removeprefix(old)
    return path


class Tree:
    """An extracted Debian tree, read with its own symbolic links (never the machine's)."""

    def __init__(self, root: Path, arch: str) -> None:
        self.root = root
        self._libraries = self._find_libraries(LIBRARY_FOLDERS[arch])

    def real(self, path: str) -> str | None:
        """The path without symbolic links, or None if nothing is there. A link that leads out stays inside."""
        todo = [part for part in reversed(path.split("/")) if part]
        done: list[str] = []
        for _ in range(400):  # more steps than any sane path: a link that leads to itself ends here
            if not todo:
                return "/" + "/".join(done)
            part = todo.pop()
            if part == ".":
                continue
            if part == "..":
                done = done[:-1]
                continue
            here = self.root.joinpath(*done, part)
            if here.is_symlink():
                target = str(here.readlink())
                if target.startswith("/"):
                    done = []
                todo += [piece for piece in reversed(target.split("/")) if piece]
            elif here.exists():
                done.append(part)
            else:
                return None
        return None

    def matches(self, pattern: str) -> list[str]:
        """The paths a glob stands for, sorted; also found where Debian moved them between / and /usr."""
        variants = [pattern, "/usr" + pattern]
        if pattern.startswith("/usr/"):
            variants.append(pattern.removeprefix("/usr"))
        for variant in variants:
            folder, _, name = variant.rpartition("/")
            at = self.real(folder) if not re.search(r"[*?\[]", folder) else folder
            if at is None:
                continue
            inside = f"{at.strip('/')}/{name}".lstrip("/")
            found = sorted(self.root.glob(inside))
            if found:
                return ["/" + str(path.relative_to(self.root)) for path in found]
        raise NotInTreeError(f"{pattern} matches nothing")

    def read(self, path: str) -> bytes:
        """The content of the file at `path`. Raises NotInTreeError if there is none."""
        real = self.real(path)
        if real is None:
            raise NotInTreeError(f"{path} does not exist")
        return self.root.joinpath(real.lstrip("/")).read_bytes()

    def library(self, name: str) -> str:
        """The path of a shared library by its name."""
        if name not in self._libraries:
            raise NotInTreeError(f"the library {name} is in no package of the image")
        return self._libraries[name]

    def kernel_release(self) -> str:
        """The version string of the tree's newest kernel, as `uname -r` says it."""
        kernels = sorted(path.name.removeprefix("vmlinuz-") for path in self.root.glob("boot/vmlinuz-*"))
        if not kernels:
            raise NotInTreeError("there is no kernel in /boot: a linux-image package is missing")
        return kernels[-1]

    def versions(self, packages: Iterable[str]) -> dict[str, str]:
        """Package name -> version as its changelog says (an extracted tree has no package database)."""
        found = {"kernel": self.kernel_release()} if any(self.root.glob("boot/vmlinuz-*")) else {}
        for package in packages:
            folder = self.real(f"/usr/share/doc/{package}")
            for name in ("changelog.Debian.*.gz", "changelog.Debian.gz", "changelog.gz"):
                logs = sorted(self.root.glob(f"{folder.lstrip('/')}/{name}")) if folder else []
                if not logs:
                    continue
                with gzip.open(logs[0], "rt", errors="replace") as log:
                    match = re.match(r"\S+ \(([^)]+)\)", log.readline())
                if match:
                    found[package] = match.group(1)
                    break
        return found

    def _find_libraries(self, multiarch: str) -> dict[str, str]:
        found: dict[str, str] = {}
        folders = [f"usr/lib/{multiarch}", f"lib/{multiarch}"]
        for top in folders:  # the loader's own folders come first, then what lies below them
            for path in sorted(self.root.glob(f"{top}/*.so*")):
                found.setdefault(path.name, "/" + str(path.relative_to(self.root)))
        for pattern in (*(f"{top}/*/*.so*" for top in folders), "usr/lib/xen-*/lib/**/*.so*"):
            for path in sorted(self.root.glob(pattern)):
                found.setdefault(path.name, "/" + str(path.relative_to(self.root)))
        return found


class Picker:
    """Collects entries out of a tree; an ELF file brings its interpreter and its libraries with it."""

    def __init__(self, tree: Tree, arch: str) -> None:
        self._tree = tree
        self._library_folder = f"/usr/lib/{LIBRARY_FOLDERS[arch]}"
        self.entries: dict[str, Entry] = {}

    def take(self, pattern: str) -> list[str]:
        """Takes the files (folders with all in them) a glob stands for; returns where they are in the image."""
        paths = self._tree.matches(pattern)
        for path in paths:
            self._take(path)
        return [merged(path) for path in paths]

    def take_command(self, pattern: str) -> None:
        """Takes programs, and links each in /usr/bin where it is not there already."""
        for path in self.take(pattern):
            link = f"/usr/bin/{PurePosixPath(path).name}"
            if link != path:
                self.entries[link] = Entry.link(link, path)

    def _take(self, path: str) -> None:
        real = self._tree.real(path)
        if real is None:
            raise NotInTreeError(f"{path} is a link to nothing")
        here, there = merged(path), merged(real)
        if here != there and here not in self.entries:
            self.entries[here] = Entry.link(here, there)
        source = self._tree.root.joinpath(real.lstrip("/"))
        if source.is_dir():
            for child in sorted(source.iterdir()):
                self._take(f"{real}/{child.name}")
            return
        if there in self.entries:
            return
        data = source.read_bytes()
        self.entries[there] = Entry.file(there, data, 0o755 if os.access(source, os.X_OK) else 0o644)
        if is_elf(data) and data[16] in {2, 3}:  # executables and shared objects; not firmware, not kernel modules
            self._take_needed(data)

    def _take_needed(self, data: bytes) -> None:
        interpreter, libraries = elf_needs(data)
        if interpreter:
            self._take(interpreter)
        for name in libraries:
            path = self._tree.library(name)
            self._take(path)
            default = f"{self._library_folder}/{name}"
            # A library outside the loader's folders gets a link in them: no ld.so.cache, no LD_LIBRARY_PATH.
            if default != merged(path) and default not in self.entries:
                self.entries[default] = Entry.link(default, merged(path))


def edited(entries: Mapping[str, Entry], path: str, drop: Iterable[str]) -> Entry:
    """The text file at `path` without the lines that hold one of the texts `drop`; each has to be there."""
    entry = entries.get(merged(path))
    if entry is None:
        raise NotInTreeError(f"{path} is to be edited, but is not taken")
    lines = entry.data.splitlines(keepends=True)
    for text in drop:
        kept = [line for line in lines if text.encode() not in line]
        if len(kept) == len(lines):
            raise NotInTreeError(f"{path} has no line with {text!r} to drop")
        lines = kept
    return replace(entry, data=b"".join(lines))


def kernel_modules(
    tree: Tree, at_boot: Sequence[str], on_demand: Sequence[str], unzstd: Callable[[bytes], bytes]
) -> list[Entry]:
    """The wanted modules with all they depend on, uncompressed, and the indexes `modprobe` reads.

    /etc/lab/modules lists those for the boot in an order in which each can be loaded; they keep their own order.
    A module that is built into the kernel needs nothing and is passed over.
    """
    release = tree.kernel_release()
    folder = next(path for path in tree.matches(f"/lib/modules/{release}"))
    top = tree.root / folder.lstrip("/")
    files = {_module_name(path.name): path for path in sorted(top.glob("kernel/**/*.ko*"))}
    builtin = {_module_name(line.rpartition("/")[2]) for line in (top / "modules.builtin").read_text().split()}
    order: list[str] = []
    contents: dict[str, bytes] = {}
    dependencies: dict[str, list[str]] = {}
    aliases: list[str] = []

    def add(name: str) -> None:
        if name in contents or name in builtin:
            return
        if name not in files:
            raise NotInTreeError(f"the kernel {release} has no module {name}")
        contents[name] = uncompressed(files[name].read_bytes(), unzstd)
        info = module_info(contents[name])
        dependencies[name] = [_module_name(part) for part in ",".join(info.get("depends", [])).split(",") if part]
        aliases.extend(f"alias {alias} {name}" for alias in info.get("alias", []))
        for dependency in dependencies[name]:
            add(dependency)
        order.append(name)

    for module in at_boot:
        add(_module_name(module))
    boot = list(order)
    for module in on_demand:
        add(_module_name(module))

    place = {name: f"{str(files[name].relative_to(top)).partition('.ko')[0]}.ko" for name in order}

    def closure(name: str) -> list[str]:
        below: list[str] = []
        for dependency in dependencies[name]:
            if dependency in place:
                below += [one for one in (dependency, *closure(dependency)) if one not in below]
        return below

    base = f"/usr/lib/modules/{release}"
    dep = "".join(f"{place[name]}: {' '.join(place[one] for one in closure(name))}".rstrip() + "\n" for name in order)
    return [
        *(Entry.file(f"{base}/{place[name]}", contents[name]) for name in order),
        Entry.file(f"{base}/modules.dep", dep.encode()),
        Entry.file(f"{base}/modules.alias", "".join(f"{line}\n" for line in aliases).encode()),
        Entry.file(f"{base}/modules.builtin", (top / "modules.builtin").read_bytes()),
        Entry.file("/etc/lab/modules", "".join(f"{base}/{place[name]}\n" for name in boot).encode()),
    ]


# What update-alternatives and the packages' own scripts would link: name in the tree, target.
_BUILDER_LINKS: Mapping[str, str] = {
    "usr/bin/awk": "gawk",
    "usr/bin/cc": "gcc",
    "usr/bin/c++": "g++",
    "usr/bin/yacc": "bison.yacc",
    "usr/bin/which": "which.debianutils",
}
_CACHED_COMPILERS = ("gcc", "g++", "cc", "aarch64-linux-gnu-gcc")


def complete_builder(root: Path) -> None:
    """Make an extracted tree one that compiles: links to the default tools, the compiler cache, and a user."""
    for name, target in _BUILDER_LINKS.items():
        link = root / name
        if not link.is_symlink() and not link.exists() and (link.parent / target).exists():
            link.symlink_to(target)
    cached = root / "usr/lib/ccache"
    cached.mkdir(parents=True, exist_ok=True)
    for name in _CACHED_COMPILERS:
        (cached / name).unlink(missing_ok=True)
        (cached / name).symlink_to("../../bin/ccache")
    (root / "etc/passwd").write_text("root:x:0:0:root:/tmp:/bin/sh\nlab:x:1000:1000:lab:/tmp:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nlab:x:1000:\n")


def overlay_entries(folder: Path) -> list[Entry]:
    """The files and links under an overlay folder as entries of an image; a file's executable bit is kept."""
    entries: list[Entry] = []
    for path in sorted(folder.rglob("*")):
        where = merged(f"/{path.relative_to(folder).as_posix()}")
        if path.is_symlink():
            entries.append(Entry.link(where, str(path.readlink())))
        elif path.is_file():
            entries.append(Entry.file(where, path.read_bytes(), 0o755 if os.access(path, os.X_OK) else 0o644))
    return entries


def _module_name(text: str) -> str:
    return text.partition(".ko")[0].replace("-", "_")
