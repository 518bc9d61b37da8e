"""What xl prints, as values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


def parse_xl_info(text: str) -> Mapping[str, str]:
    """`xl info` as names and values.

    >>> parse_xl_info("xen_major              : 4\\nxen_extra              : .5\\n")["xen_extra"]
    '.5'
    """
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon and re.fullmatch(r"\w+ *", name)}


def xen_version(info: Mapping[str, str]) -> str | None:
    """The hypervisor's version from `xl info`, e.g. 4.17.5; None when it is not there."""
    major, minor, extra = (info.get(f"xen_{part}", "") for part in ("major", "minor", "extra"))
    if not (major.isdigit() and minor.isdigit()):
        return None
    return f"{major}.{minor}{extra}"


def banner_version(log: str) -> str | None:
    """The version in the newest banner of a hypervisor log or serial console; None when there is none."""
    banners = re.findall(r"Xen version (\S+) \(", log)
    return str(banners[-1]) if banners else None


def promised_version(image: str) -> str | None:
    """The Xen series the name of an image promises.

    >>> promised_version("dom0-xen-4.17-amd64")
    '4.17'
    """
    found = re.search(r"(?:^|-)xen-([0-9]+\.[0-9]+)(?:-|$)", image)
    return found[1] if found else None


def in_series(version: str, series: str) -> bool:
    """Whether a version is one of a series: 4.17.5 is one of 4.17, but not of 4.1."""
    return re.match(rf"{re.escape(series)}(?![0-9])", version) is not None


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A line of `xl list`."""

    name: str
    domid: int
    memory_mib: int
    vcpus: int
    state: str


def parse_xl_list(text: str) -> tuple[Domain, ...]:
    """All domains of `xl list`, domain 0 too."""
    lines = re.finditer(r"^(.+?)\s+([0-9]+)\s+([0-9]+)\s+([0-9]+)\s+([a-z-]{6})\s+[0-9.]+\s*$", text, re.MULTILINE)
    return tuple(
        Domain(name=line[1], domid=int(line[2]), memory_mib=int(line[3]), vcpus=int(line[4]), state=line[5])
        for line in lines
    )
