"""Debian's source packages as commits: anyone has a real Xen tree at hand, from the mirror the machine is set up with.

apt is run with settings of its own (state, cache, sources), so the system's are neither read for this nor changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from lab.errors import ConfigError, Evidence, InfraError
from lab.image_debian import KEYRING, debian_mirror, need_tools
from lab.vcs import Trees

SUITE = re.compile(r"[a-z]{3,20}")


def import_debian(trees: Trees, name: str, suite: str, stage: Callable[[str], None] = lambda _text: None) -> str:
    """Put the upstream source of Debian's `xen` package of `suite` into the tree, as branch debian-SUITE.

    Returns the commit: the same for everyone who imports the same version. Debian's own patches are left out.
    """
    if not SUITE.fullmatch(suite):
        raise ConfigError(f"{suite!r} is not the name of a Debian suite", hint="e.g. bookworm or trixie")
    need_tools("apt-get", "git")
    with tempfile.TemporaryDirectory(prefix="flightline-source-") as place:
        folder = Path(place)
        stage("download")
        version, archive = _download("xen", suite, folder)
        stage("unpack")
        content = folder / "content"
        content.mkdir()
        when = _unpack(archive, content)
        stage("commit")
        return trees.commit_folder(
            name,
            content,
            message=f"Xen {upstream_of(version)}\n\nThe upstream source of Debian's package xen {version}.\n",
            when=when,
            branch=f"debian-{suite}",
            tag=f"debian/{tag_of(version)}",
        )


def tag_of(version: str) -> str:
    """A Debian version as part of the name of a tag.

    >>> tag_of("1:4.17.5+72~rc1-1")
    '1%4.17.5+72_rc1-1'
    """
    return version.replace(":", "%").replace("~", "_").replace("..", "._")


def _download(package: str, suite: str, folder: Path) -> tuple[str, Path]:
    """The version and the upstream archive of a source package; apt has checked the signature and the sums."""
    mirror = debian_mirror()
    if not mirror:
        raise InfraError("this machine's apt sources name no Debian mirror", hint="add one: `apt-get update` must work")
    signed = f" [signed-by={KEYRING}]" if Path(KEYRING).exists() else ""
    (folder / "sources.list").write_text(f"deb-src{signed} {mirror[0]} {suite} main\n")
    for needed in ("state/lists/partial", "cache/archives/partial", "parts"):
        (folder / needed).mkdir(parents=True)
    options = [
        f"-oDir::State={folder}/state", f"-oDir::Cache={folder}/cache", "-oDir::State::status=/dev/null",
        f"-oDir::Etc::sourcelist={folder}/sources.list", f"-oDir::Etc::sourceparts={folder}/parts",
        f"-oDir::Etc::preferencesparts={folder}/parts", "-oDir::Etc::preferences=/dev/null", "-oAPT::Sandbox::User=",
    ]  # fmt: skip
    _apt(suite, folder, "apt-get", *options, "-qy", "update")
    known = _apt(suite, folder, "apt-cache", *options, "showsrc", "--only-source", package)
    _apt(suite, folder, "apt-get", *options, "-qy", "source", "--tar-only", "--only-source", package)
    archive = next(folder.glob("*.orig.tar.*[!c]"), None)
    versions = re.findall(r"^Version: *(\S+)$", known, re.MULTILINE)
    version = next((one for one in versions if archive and f"_{upstream_of(one)}.orig." in archive.name), None)
    if version is None or archive is None:
        raise InfraError(f"the source package {package} of {suite} has no upstream archive")
    return version, archive


def upstream_of(version: str) -> str:
    """A Debian version without its epoch and its Debian revision.

    >>> upstream_of("1:4.17.5+72-g01140da4e8-1")
    '4.17.5+72-g01140da4e8'
    """
    return re.sub(r"^[0-9]+:|-[^-]*$", "", version)


def _apt(suite: str, folder: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        env=os.environ | {"LC_ALL": "C"}, timeout=900,
    )  # fmt: skip
    said = done.stdout + done.stderr
    failed = [line for line in said.splitlines() if line.startswith(("E: ", "Err:"))]
    if done.returncode == 0 and not failed and "Failed to fetch" not in said:
        return done.stdout
    evidence = Evidence(command=" ".join(command), exit_status=done.returncode, output=said[-20_000:])
    if "404  Not Found" in said and "source" in command:
        raise InfraError(
            f"the Debian mirror lists the sources of {suite}, but does not have their files",
            hint="use another mirror, or name a git repository: `lab tree add xen URL`", evidence=evidence,
        )  # fmt: skip
    if "does not have a Release file" in said or "404  Not Found" in said or "Unable to find a source package" in said:
        raise ConfigError(
            f"the Debian mirror has no sources of the suite {suite}",
            hint="name another suite, e.g. bookworm or trixie", evidence=evidence,
        )  # fmt: skip
    raise InfraError(
        f"apt cannot fetch the sources of {suite}: {failed[0] if failed else 'see the evidence'}",
        hint="check the network and this machine's apt sources: `apt-get update` must work", evidence=evidence,
    )  # fmt: skip


def _unpack(archive: Path, folder: Path) -> datetime:
    """The archive's files without its top folder; returns the time of the newest one."""
    newest = 0.0
    with tarfile.open(archive) as packed:
        members = []
        for member in packed:
            _top, _, rest = member.name.removeprefix("./").partition("/")
            if rest:
                member.name = rest
                if member.islnk():
                    member.linkname = member.linkname.removeprefix("./").partition("/")[2]
                members.append(member)
                newest = max(newest, member.mtime)
        packed.extractall(folder, members=members, filter="data")
    return datetime.fromtimestamp(newest, UTC)
