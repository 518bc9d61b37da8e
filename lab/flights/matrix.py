"""Which jobs a flight has: a small table of variants, multiplied by the architectures they are tested on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Final

from lab.errors import NotFoundError
from lab.flights.model import JobSpec

HOST_ARCH: Final[Mapping[str, str]] = {"amd64": "x86_64", "arm64": "arm64"}
"""Debian's word for an architecture to the word for the hosts that have it."""

NEWEST: Final = "xen-4.20"
OLDER: Final = "xen-4.17"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A kind of test job: the end of its name, its recipe, the runvars that set it apart, the host flags it needs.

    `images` says which Xen its hosts boot, by runvar: the newest one unless said otherwise.
    """

    name: str
    recipe: str
    runvars: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    flags: tuple[str, ...] = ()
    images: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({"dom0_image": NEWEST}))


@dataclass(frozen=True, kw_only=True)
class Row:
    """Variants that a flight tests with one architecture of Xen and of dom0."""

    xen_arch: str
    dom0_arch: str
    variants: tuple[Variant, ...]


def _kind(kind: str, xen: str, *flags: str) -> Variant:
    return Variant(
        name=f"xl-{kind}", recipe="test-xl", runvars={"guest_kind": kind}, flags=flags, images={"dom0_image": xen}
    )


def _disk(disk_format: str, xen: str) -> Variant:
    return Variant(
        name=f"xl-{disk_format}",
        recipe="test-disk",
        runvars={"guest_kind": "pv", "disk_format": disk_format},
        images={"dom0_image": xen},
    )


# A smoke flight has one host of each Xen, and both are busy all the time. PV goes to the older one: Debian builds the
# newer one without shadow paging, and without that a PV guest cannot be migrated live.
_PV, _PVH = _kind("pv", OLDER), _kind("pvh", NEWEST, "hvm")
_DISKS = (_disk("raw", OLDER), _disk("qcow2", NEWEST), _disk("vhd", OLDER))
_MIGRUPGRADE = Variant(
    name="migrupgrade",
    recipe="test-migrupgrade",
    runvars={"guest_kind": "pv"},
    images={"src_host_dom0_image": OLDER, "dst_host_dom0_image": NEWEST},
)

FLIGHTS: Final[Mapping[str, tuple[Row, ...]]] = {
    "smoke": (Row(xen_arch="amd64", dom0_arch="amd64", variants=(_PV, _PVH, *_DISKS, _MIGRUPGRADE)),),
}
"""Every flight that can be asked for by name. Further architectures and variants are further rows."""


def flight_specs(name: str) -> tuple[JobSpec, ...]:
    """The jobs of the flight called `name`, in the order they are submitted; `NotFoundError` if there is none."""
    if name not in FLIGHTS:
        raise NotFoundError(f"unknown flight {name!r}", hint=f"there are: {', '.join(sorted(FLIGHTS))}")
    return tuple(_spec(row, variant) for row in FLIGHTS[name] for variant in row.variants)


def _spec(row: Row, variant: Variant) -> JobSpec:
    needs = (f'arch == "{HOST_ARCH[row.xen_arch]}"', *variant.flags)
    return JobSpec(
        name=f"test-{row.xen_arch}-{row.dom0_arch}-{variant.name}",
        recipe=variant.recipe,
        runvars=MappingProxyType(
            {
                "arch": row.dom0_arch,
                "all_hostflags": " and ".join(needs),
                **{runvar: f"dom0-{xen}-{row.dom0_arch}" for runvar, xen in variant.images.items()},
                "guest_image": f"guest-tiny-{row.dom0_arch}",
                "guest_memory": "128",
                **variant.runvars,
            }
        ),
    )


def select(specs: Sequence[JobSpec], patterns: Iterable[str]) -> tuple[JobSpec, ...]:
    """The jobs that any of `patterns` names (exactly, or with `*`, `?`, `[…]`), in their own order; all without one.

    A pattern that names no job is a mistake: `NotFoundError`.
    """
    wanted = tuple(patterns)
    for pattern in wanted:
        if not any(fnmatchcase(spec.name, pattern) for spec in specs):
            raise NotFoundError(f"no job is called {pattern!r}", hint=f"there are: {', '.join(s.name for s in specs)}")
    return tuple(spec for spec in specs if not wanted or any(fnmatchcase(spec.name, pattern) for pattern in wanted))
