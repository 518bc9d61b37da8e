"""From the families of variants to the jobs of a flight."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from lab.errors import LabBug, NotFoundError
from lab.flights.matrix import (
    arm,
    boot,
    disk,
    features,
    hvm,
    libvirt,
    migrate,
    scheduler,
    stubdom,
    xl,
    xsm,
)
from lab.flights.matrix.table import EVERYWHERE, FULL, Build, Variant
from lab.flights.model import JobSpec

FAMILIES: Final = (
    arm.VARIANTS,
    xl.VARIANTS,
    disk.VARIANTS,
    migrate.VARIANTS,
    boot.VARIANTS,
    scheduler.VARIANTS,
    features.VARIANTS,
    hvm.VARIANTS,
    stubdom.VARIANTS,
    libvirt.VARIANTS,
    xsm.VARIANTS,
)
"""In the order in which their jobs are submitted: those of the one arm64 host first, so that it never has to wait at
the end with nothing to run beside it."""

FLIGHTS: Final = EVERYWHERE
"""Every flight that can be asked for by name."""

HOST_ARCH: Final[Mapping[str, str]] = {"amd64": "x86_64", "arm64": "arm64"}
"""Debian's word for an architecture to the word for the hosts that have it."""

REVISIONS: Final[Mapping[str, str]] = {
    "xen-4.14": "debian-bullseye",
    "xen-4.17": "debian-bookworm",
    "xen-4.20": "debian-trixie",
}
"""A series of Xen to the revision of the tree `xen` that a build of it is made from."""

_IMAGE: Final = "dom0_image"
_BUILD_JOB: Final = "xenbuildjob"


def flight_specs(
    name: str, *, build: Build = "packaged", sources: Sequence[str] = tuple(REVISIONS)
) -> tuple[JobSpec, ...]:
    """The jobs of the flight called `name`, in the order they are submitted: build jobs first.

    With `build` *source*, what would run on Debian's package of Xen runs on a build of the same version instead.
    `sources` are the series whose source is at hand (default: every one). A job whose only series is not among them
    moves to the newest one that is; of a job with several, the hosts whose series has no source boot the package.
    Raises `NotFoundError` when there is no such flight.
    """
    if name not in FLIGHTS:
        raise NotFoundError(f"unknown flight {name!r}", hint=f"there are: {', '.join(FLIGHTS)}")
    tests = [
        _test(_sourced(variant, sources) if build == "source" else variant, arch, build, sources)
        for variant, arch in placed(name)
    ]
    needed = {value for spec in tests for runvar, value in spec.runvars.items() if runvar.endswith(_BUILD_JOB)}
    return (*(_build_job(job) for job in sorted(needed)), *tests)


def placed(flight: str) -> Iterator[tuple[Variant, str]]:
    """The flight's variants with the architectures each is tested on, in their own order."""
    chosen = [(v, arch) for family in FAMILIES for v in family if flight in v.flights for arch in v.arches]
    if flight == FULL:
        yield from chosen
        return
    samples: dict[str, dict[str, list[str]]] = {}
    for variant, arch in chosen:
        samples.setdefault(variant.sample, {}).setdefault(variant.name, []).append(arch)
    kept = {
        (sample, name): sorted(arches)[place % len(arches)]
        for sample, names in samples.items()
        for place, (name, arches) in enumerate(sorted(names.items()))
    }
    for variant, arch in chosen:
        if not variant.sample or kept[variant.sample, variant.name] == arch:
            yield variant, arch


def _sourced(variant: Variant, sources: Sequence[str]) -> Variant:
    """The variant on a series whose source is at hand, if it is one that runs on any series."""
    series = {_series(image) for image in variant.images.values()}
    if variant.build != "packaged" or len(series) != 1 or series <= set(sources) or not sources:
        return variant
    [old], new = series, max(sources, key=_number)
    return replace(variant, images={runvar: image.replace(old, new) for runvar, image in variant.images.items()})


def _test(variant: Variant, arch: str, asked: Build, sources: Sequence[str]) -> JobSpec:
    build = asked if variant.build == "packaged" else variant.build
    needs = (f'arch == "{HOST_ARCH[arch]}"', *variant.flags)
    return JobSpec(
        name=f"test-{arch}-{arch}-{variant.name}",
        recipe=variant.recipe,
        runvars=MappingProxyType(
            {
                "arch": arch,
                "all_hostflags": " and ".join(needs),
                **{runvar: f"dom0-{xen}-{arch}" for runvar, xen in variant.images.items()},
                **_build_jobs(variant.images, arch, build, sources),
                "guest_image": f"guest-{'hvm' if variant.runvars.get('guest_kind') == 'hvm' else 'tiny'}-{arch}",
                "guest_memory": "128",
                **variant.runvars,
            }
        ),
    )


def _build_jobs(images: Mapping[str, str], arch: str, build: Build, sources: Sequence[str]) -> Mapping[str, str]:
    if build == "packaged":
        return {}
    end = "-xsm" if build == "xsm" else ""
    return {
        runvar.removesuffix(_IMAGE) + _BUILD_JOB: f"build-{arch}-{_series(image)}{end}"
        for runvar, image in images.items()
        if build == "xsm" or _series(image) in sources
    }


def _series(image: str) -> str:
    found = re.search(r"xen-[0-9]+\.[0-9]+$", image)
    if found is None or found[0] not in REVISIONS:
        raise LabBug(f"no Xen is built for the image {image}")
    return found[0]


def _number(series: str) -> tuple[int, ...]:
    return tuple(int(part) for part in series.removeprefix("xen-").split("."))


def _build_job(name: str) -> JobSpec:
    found = re.fullmatch(r"build-([a-z0-9]+)-(xen-[0-9.]+)(-xsm)?", name)
    if found is None:
        raise LabBug(f"{name} is not the name of a build job")
    arch, series, xsm_end = found.groups()
    return JobSpec(
        name=name,
        recipe="build-xen",
        runvars=MappingProxyType(
            {
                "arch": arch,
                "tree": "xen",
                "revision": REVISIONS[series],
                "xen_config": "xsm" if xsm_end else "default",
            }
        ),
    )
