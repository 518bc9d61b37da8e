"""What this machine needs to emulate hosts and to compile: programs, KVM, memory, the sandbox, images."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lab.bootstrap import make_image_store
from lab.doctor.finding import Finding, error, ok, warning
from lab.errors import LabError
from lab.hosts.drivers.machine.accel import runs
from lab.labfile import LabFile, QemuSettings
from lab.settings import Settings

_QEMU: Final = {"x86_64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}
_PROGRAMS: Final = ("qemu-img", "mmdebstrap", "bwrap", "git", "cpio", "mke2fs", "zstd", "xz", "gcc", "pkg-config")


def check_programs(lab_file: LabFile) -> Iterator[Finding]:
    """The programs of the Debian packages that `./run` installs."""
    wanted = [*(_QEMU[host.arch] for host in lab_file.host if host.arch in _QEMU), *_PROGRAMS]
    missing = sorted({program for program in wanted if shutil.which(program) is None})
    if missing:
        yield error("programs", f"not found: {', '.join(missing)}", "`./run help` installs what is missing on Debian")
    else:
        yield ok("programs", f"all {len(set(wanted))} are there")


def check_kvm() -> Iterator[Finding]:
    """Whether hosts can be virtualised, which is ten times as fast."""
    if not Path("/dev/kvm").exists():
        yield ok("KVM", "there is none: hosts are emulated, which is slower and needs nothing")
    elif not os.access("/dev/kvm", os.R_OK | os.W_OK):
        yield warning("KVM", "/dev/kvm is there, but not for this user", "add the user to the group kvm")
    elif shutil.which("qemu-system-x86_64") and runs("kvm"):
        yield ok("KVM", "works: x86 hosts are virtualised")
    else:
        yield ok("KVM", "/dev/kvm is there, but no machine runs with it: hosts are emulated")


def check_memory(lab_file: LabFile) -> Iterator[Finding]:
    """The emulated hosts that may run at once fit into memory."""
    emulated = (host.driver for host in lab_file.host if isinstance(host.driver, QemuSettings))
    sizes = sorted((driver.memory_mib for driver in emulated), reverse=True)
    wanted = sum(sizes[: lab_file.lab.emulated_at_once])
    facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    have = int(facts["MemTotal"].split()[0]) >> 10
    told = f"hosts that run at once have {wanted / 1024:.1f} GiB, the machine {have / 1024:.1f}"
    if wanted > 0.8 * have:
        yield warning("memory", told, "lower `emulated_at_once` or `memory_mib` in the lab's file")
    else:
        yield ok("memory", told)


def check_sandbox() -> Iterator[Finding]:
    """Compilers can be locked in: what is built is other people's code."""
    command = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev", "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        yield error("sandbox", f"bubblewrap does not run: {problem}", "install bubblewrap")
        return
    if done.returncode == 0:
        yield ok("sandbox", "bubblewrap works")
    else:
        advice = "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)"
        yield error("sandbox", done.stderr.strip()[:200] or f"exit status {done.returncode}", advice)


def check_images(settings: Settings) -> Iterator[Finding]:
    """Which images are built."""
    try:
        states = make_image_store(settings).state()
    except LabError as problem:
        yield error("images", problem.message, problem.hint or "see images/README.md")
        return
    missing = [state.name for state in states if not state.built]
    if missing:
        told = f"{len(states) - len(missing)} of {len(states)} are built"
        yield ok("images", f"{told}; the others are when they are needed, or by `lab image build`")
    else:
        yield ok("images", f"all {len(states)} are built")
