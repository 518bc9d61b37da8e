"""Settings, the lab's file, and the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from lab.doctor.finding import Finding, error, ok, warning
from lab.errors import ConfigError
from lab.labfile import load_lab_file
from lab.settings import Settings

COMFORTABLE_MIB: Final = 6 * 1024
"""Disk with which no flight has to think of it."""

_OTHERS: Final = frozenset({"LAB_PERSON", "LAB_TEST_HOME"})
"""Variables of this prefix that commands and tests read, beside the settings."""


def check_variables(environment: Mapping[str, str]) -> Iterator[Finding]:
    """A setting whose name is mistyped does nothing, and nothing else would say so."""
    known = {f"LAB_{name.upper()}" for name in Settings.model_fields} | _OTHERS
    ours = sorted(name for name in environment if name.startswith("LAB_"))
    for name in ours:
        if name not in known:
            yield warning(
                "settings", f"{name} is set, but there is no such setting", "see the README's list of settings"
            )
    yield ok(
        "settings", f"{', '.join(name for name in ours if name in known) or 'none'} set; the rest is as by default"
    )


def check_lab_file(settings: Settings) -> Iterator[Finding]:
    """The lab's file can be read, and has hosts."""
    try:
        hosts = load_lab_file(settings.file).hosts()
    except ConfigError as problem:
        yield error("lab file", problem.message, problem.hint or "see the comments in the project's lab.toml")
        return
    if hosts:
        yield ok("lab file", f"{settings.file}: {len(hosts)} hosts")
    else:
        yield warning("lab file", f"{settings.file} has no hosts", "add a [[host]], as in the project's lab.toml")


def check_home(settings: Settings) -> Iterator[Finding]:
    """The lab's home is there, ours alone, and on a disk with room."""
    home = settings.home
    if not home.is_dir():
        yield warning("home", f"{home} is not there yet", "the first command that needs it makes it")
        home = next(parent for parent in home.parents if parent.is_dir())
    elif not os.access(home, os.W_OK):
        yield error("home", f"{home} cannot be written", f"give it to this user: chown {os.getuid()} {home}")
    elif home.stat().st_mode & 0o077:
        yield warning("home", f"others may look into {home}, where keys of hosts are kept", f"chmod 700 {home}")
    else:
        yield ok("home", str(home))
    yield _disk(home, settings.min_free_mib)


def _disk(folder: Path, least_mib: int) -> Finding:
    free = shutil.disk_usage(folder).free >> 20
    told = f"{free / 1024:.1f} GiB are free in {folder}"
    if free < least_mib:
        return error(
            "disk", f"{told}; no flight starts with less than {least_mib / 1024:.1f}", "`lab prune` tells what can go"
        )
    if free < COMFORTABLE_MIB:
        return warning("disk", told, "`lab prune` tells what can go")
    return ok("disk", told)
