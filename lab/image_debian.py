"""Fetches Debian packages and extracts them into a folder, and says in the lab's words why that failed."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from lab.errors import ConfigError, Evidence, InfraError
from lab.image_manifest import Manifest

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_TOOLS = {
    "mmdebstrap": "mmdebstrap", "zstd": "zstd", "mkfs.ext4": "e2fsprogs", "mkfs.ext2": "e2fsprogs",
    "grub-mkimage": "grub-common", "gcc": "gcc libc6-dev",
    "git": "git", "apt-get": "apt", "bwrap": "bubblewrap", "prlimit": "util-linux",
}  # fmt: skip
_STAGES = {
    "running apt-get update": "index",
    "downloading packages": "download",
    "extracting archives": "extract",
}


class Extractor(Protocol):
    """Fetches the manifest's packages and extracts them into the empty folder `tree`; raises a LabError."""

    def __call__(self, manifest: Manifest, tree: Path, stage: Callable[[str], None]) -> None: ...


def extract_with_mmdebstrap(manifest: Manifest, tree: Path, stage: Callable[[str], None]) -> None:
    """The real Extractor: mmdebstrap from the mirror this machine is set up with. Works as root and as anybody."""
    need_tools("mmdebstrap")
    command = [
        "mmdebstrap", "--variant=extract", "--format=directory", f"--architectures={manifest.arch}",
        f"--mode={'root' if os.geteuid() == 0 else 'chrootless'}", f"--include={','.join(manifest.packages)}",
    ]  # fmt: skip
    if Path(KEYRING).exists():  # the machine's own keyring may not know a newer or older suite
        command.append(f"--keyring={KEYRING}")
    command += [manifest.suite, str(tree), *debian_mirror()]
    lines: list[str] = []
    # Its own process group, so that an interrupted build takes apt and all the others with it.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        errors="replace", process_group=0, env=os.environ | {"LC_ALL": "C", "TMPDIR": str(tree.parent)},
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(line.rstrip())
                for text, name in _STAGES.items():
                    if text in line:
                        stage(name)
            status = process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
    if status:
        raise extraction_error(manifest, command, status, "\n".join(lines))


def extraction_error(manifest: Manifest, command: Sequence[str], status: int, output: str) -> ConfigError | InfraError:
    """What a failed mmdebstrap means, in one line; its whole output is in the error's evidence."""
    evidence = Evidence(command=" ".join(command), exit_status=status, output=output[-20_000:])
    lines = output.splitlines()
    for line in lines:
        for mark in ("Unable to locate package ", "has no installation candidate"):
            if mark in line:
                package = line.rpartition(mark)[2] or line.partition("Package '")[2].partition("'")[0]
                return ConfigError(
                    f"image {manifest.name}: there is no package {package} in {manifest.suite} ({manifest.arch})",
                    hint=f"correct `packages` in {manifest.name}.toml",
                    evidence=evidence,
                )
    if any("No space left on device" in line for line in lines):
        return disk_full(manifest.name, command[-1], evidence)
    if any(word in line for line in lines for word in ("does not have a Release file", "404  Not Found")):
        return ConfigError(
            f"image {manifest.name}: the mirror has no suite {manifest.suite} for {manifest.arch}",
            hint="correct `suite`, or use a mirror that has it in the apt sources of this machine",
            evidence=evidence,
        )
    network = ("Could not connect", "Could not resolve", "Temporary failure resolving", "Failed to fetch", "timed out")
    if any(word in line for line in lines for word in network):
        return InfraError(
            f"image {manifest.name}: the Debian mirror cannot be reached",
            hint="check the network and this machine's apt sources: `apt-get update` must work",
            evidence=evidence,
        )
    last = next((line for line in reversed(lines) if line.startswith("E: ") and "failed to run" not in line), "")
    return InfraError(
        f"image {manifest.name}: mmdebstrap failed with exit status {status}: "
        f"{last.removeprefix('E: ') or 'no error text'}",
        evidence=evidence,
    )


def debian_mirror() -> list[str]:
    """The Debian mirror in this machine's apt sources, as arguments for mmdebstrap; empty if there is none."""
    try:
        found = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"],
            capture_output=True, text=True, check=False, timeout=60,
        ).stdout.split()  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    return next(([site] for site in found if site.rstrip("/").endswith("/debian")), [])


def need_tools(*tools: str) -> None:
    """Raises InfraError, saying what to install, if a program is not on PATH."""
    for tool in tools:
        if shutil.which(tool) is None:
            raise InfraError(f"{tool} is not installed", hint=f"apt install {_TOOLS[tool]}")


def disk_full(name: str, place: str, evidence: Evidence | None) -> InfraError:
    """The error for a disk that ran full while the image was built at `place`."""
    return InfraError(
        f"image {name}: the disk is full at {place}",
        hint="free some space (about 2 GiB), or set LAB_HOME to a larger disk",
        evidence=evidence,
    )
