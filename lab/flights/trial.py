"""A developer's trial: the jobs of the matrix that matter for one revision of Xen, put on its build. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from lab.flights.builds import RECIPE, BuildRequest, dom0_series
from lab.flights.dependencies import RUNVAR
from lab.flights.matrix import select
from lab.flights.model import JobSpec

BUILD_JOB: Final = "build-amd64-trial"

DEFAULT_JOBS: Final = ("test-amd64-amd64-xl-pv", "test-amd64-amd64-xl-pvh", "test-amd64-amd64-migrupgrade")
"""Guests of both kinds that are created, saved, restored, moved and destroyed; and one that arrives from a host with
the packaged Xen of the same series."""

_IMAGE: Final = "dom0_image"
_SOURCE: Final = "src_host_"


def trial_specs(
    matrix: Sequence[JobSpec], patterns: Iterable[str], request: BuildRequest, version: str
) -> tuple[JobSpec, ...]:
    """The build job of the request, and the jobs of the matrix that `patterns` name, on what it gives.

    Every host has dom0's image of the series that goes with `version`. A host that a guest comes from keeps its
    packaged Xen: what is tried has to take over guests of the Xen that people run. `NotFoundError` when a pattern
    names no job of the request's architecture.
    """
    series = dom0_series(version)
    fit = [spec for spec in matrix if spec.recipe != RECIPE and spec.runvars.get("arch") == request.arch]
    tests = select(fit, tuple(patterns) or DEFAULT_JOBS)
    build = JobSpec(
        name=BUILD_JOB,
        recipe=RECIPE,
        runvars=MappingProxyType(
            {
                "arch": request.arch,
                "tree": request.tree,
                "revision": request.revision,
                "xen_config": request.config,
            }
        ),
    )
    return (build, *(replace(spec, runvars=_on_trial(spec.runvars, series)) for spec in tests))


def _on_trial(runvars: Mapping[str, str], series: str) -> Mapping[str, str]:
    changed = {
        name: re.sub(r"xen-[0-9]+\.[0-9]+", series, value) if name.endswith(_IMAGE) else value
        for name, value in runvars.items()
        if not name.endswith(RUNVAR)
    }
    for name in runvars:
        if name.endswith(_IMAGE) and not name.startswith(_SOURCE):
            changed[name.removesuffix(_IMAGE) + RUNVAR] = BUILD_JOB
    if any(name.startswith(_SOURCE) for name in runvars) and series != "xen-4.17":
        # Debian builds newer ones without shadow paging: no PV guest can leave such a host alive.
        changed["guest_kind"] = "pvh"
    return MappingProxyType(changed)
