"""What a build is made of, and what its log says when it fails. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lab.errors import ConfigError
from lab.flights.runvars import Runvars

RECIPE: Final = "build-xen"
"""The recipe of jobs that other jobs may name as their build."""

HYPERVISOR: Final = "hypervisor"
TOOLS: Final = "tools"
POLICIES: Final = "policies"
PARTS: Final = (HYPERVISOR, TOOLS, POLICIES)

DEBIAN_BRANCH: Final = "debian-"
"""Branches that hold the source of Debian's package of a suite begin with it."""

RECIPE_VERSION: Final = 1
"""Counted up whenever the same source and builder would give something else; part of every key."""

ARCHES: Final = ("amd64", "arm64")

XSM: Final = "xsm"
"""The configuration with FLASK, and with policies of ours beside the tree's."""

_COMMON: Final = (
    "CONFIG_EXPERT=y",
    "CONFIG_UNSUPPORTED=y",
    "CONFIG_SCHED_CREDIT=y",
    "CONFIG_SCHED_CREDIT2=y",
    "CONFIG_SCHED_RTDS=y",
    "CONFIG_SCHED_ARINC653=y",
    "CONFIG_SCHED_NULL=y",
    "CONFIG_LIVEPATCH=y",
)
_BY_ARCH: Final[Mapping[str, tuple[str, ...]]] = {
    # Kconfig leaves HVM out once the shim is in, unless it is asked for
    "amd64": (
        "CONFIG_HVM=y",
        "CONFIG_SHADOW_PAGING=y",
        "CONFIG_XEN_GUEST=y",
        "CONFIG_PVH_GUEST=y",
        "CONFIG_PV_SHIM=y",
    ),
    "arm64": (),
}
CONFIGS: Final[Mapping[str, tuple[str, ...]]] = {
    "default": (),
    "debug": ("CONFIG_DEBUG=y",),
    XSM: (
        "CONFIG_XSM=y",
        "CONFIG_XSM_FLASK=y",
        "CONFIG_XSM_FLASK_AVC_STATS=y",
        "CONFIG_XSM_FLASK_POLICY=y",
        "CONFIG_XSM_SILO=y",
        "CONFIG_XSM_FLASK_DEFAULT=y",
    ),
}
"""How Xen can be configured, by the runvar `xen_config`: what is put on top of the tree's own defaults."""


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What a build job asks for."""

    tree: str
    revision: str
    arch: str
    config: str
    builder: str = ""
    """builder image; empty: the one that goes with the version of Xen"""


def build_request(runvars: Runvars) -> BuildRequest:
    """The request in a build job's runvars; `ConfigError` when one is wrong."""
    return BuildRequest(
        tree=runvars.get("tree", "xen"),
        revision=runvars.require("revision"),
        arch=_one_of("arch", runvars.get("arch", "amd64"), ARCHES),
        config=_one_of("xen_config", runvars.get("xen_config", "default"), tuple(CONFIGS)),
        builder=runvars.get("builder_image"),
    )


def _one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ConfigError(f"runvar {name}={value!r}: not one of {', '.join(allowed)}")
    return value


def kconfig(config: str, arch: str) -> str:
    """The Kconfig fragment of a configuration."""
    return "".join(f"{line}\n" for line in (*_COMMON, *_BY_ARCH[arch], *CONFIGS[config]))


def not_taken(fragment: str, config: str) -> tuple[str, ...]:
    """The settings of the fragment that the finished configuration does not have (this Xen does not know them).

    >>> not_taken("CONFIG_XSM=y\\nCONFIG_NEW=y\\n", "CONFIG_XSM=y\\n# CONFIG_NEW is not set\\n")
    ('CONFIG_NEW=y',)
    """
    have = set(config.splitlines())
    return tuple(line for line in fragment.splitlines() if line not in have)


def xen_version(makefile: str) -> str:
    """The series (`4.17`) that xen/Makefile says; `ConfigError` when it says none: this is no Xen."""
    found = [re.search(rf"XEN_{name}\s*=\s*([0-9]+)\s*$", makefile, re.MULTILINE) for name in ("VERSION", "SUBVERSION")]
    if not all(found):
        raise ConfigError("xen/Makefile says no version", hint="is this a tree of Xen?")
    return ".".join(match[1] for match in found if match)


def dom0_series(version: str) -> str:
    """The series of the dom0 image that a Xen of this version runs with: the nearest one there is.

    >>> dom0_series("4.14"), dom0_series("4.17"), dom0_series("4.19"), dom0_series("4.22")
    ('xen-4.14', 'xen-4.17', 'xen-4.20', 'xen-4.20')
    """
    return _home(version)[0]


def builder_for(version: str) -> str:
    """The builder image whose libraries are those of the dom0 the build will run in."""
    return f"builder-{_home(version)[1]}-amd64"


def _home(version: str) -> tuple[str, str]:
    """The series of dom0 images, and the suite of Debian they are made of."""
    number = tuple(int(part) for part in version.split("."))
    if number <= (4, 14):
        return "xen-4.14", "bullseye"
    return ("xen-4.17", "bookworm") if number <= (4, 17) else ("xen-4.20", "trixie")


def build_key(part: str, facts: Mapping[str, str]) -> str:
    """Name what a build gives by everything that makes it (16 hex digits)."""
    content = json.dumps([RECIPE_VERSION, part, sorted(facts.items())])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


_ERROR: Final = re.compile(
    r"(?P<compiler>^[^\s:][^:\n]*:\d+(?::\d+)?: (?:fatal )?error: .*)"
    r"|(?P<linker>^.*(?:undefined reference to|multiple definition of|relocation truncated).*)"
    r"|(?P<policy>^\S+:\d+:ERROR .*|^libsepol\.(?!check_assertions)\S+: .*|^checkpolicy:.*(?:error|loading policy).*)"
    r"|(?P<configure>^configure: error: .*)"
    r"|(?P<other>^.*\b(?:error|Error|ERROR): .*)"
    r"|(?P<make>^.*: \*\*\* (?!\[).*)",
    re.MULTILINE,
)
_BEFORE, _AFTER = 4, 12


def compiler_error(log: str) -> tuple[str, str]:
    """The line of a build's log that says what went wrong, and the lines around it.

    The compiler's first error counts; a make that only says that something below it failed does not.
    """
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", log)
    found = _first(text)
    if found is None:
        made = re.search(r"^.*\*\*\* \[.*$", text, re.MULTILINE)
        if made is None:
            lines = text.rstrip().splitlines()
            return (lines[-1] if lines else "it printed nothing"), "\n".join(lines[-_AFTER:])
        found = made
    number = text.count("\n", 0, found.start())
    lines = text.splitlines()
    return found[0].strip(), "\n".join(lines[max(0, number - _BEFORE) : number + _AFTER])


def _first(text: str) -> re.Match[str] | None:
    """The first match of the strongest kind there is."""
    matches = list(_ERROR.finditer(text))
    for kind in ("compiler", "linker", "policy", "configure", "other", "make"):
        if best := next((match for match in matches if match.lastgroup == kind), None):
            return best
    return None
