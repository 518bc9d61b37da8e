"""The jobs that check a host: it is switched on, boots its Xen, answers, and leaks nothing. Pure."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from lab.errors import ConfigError
from lab.flights.matrix import flight_specs
from lab.flights.matrix.table import FULL
from lab.flights.model import JobSpec

RECIPE: Final = "health-check"
CHECKED_HOST: Final = "check_host"
"""The runvar that names the host of a check."""

BRANCH: Final = "host-health"


def check_specs(host: str, arch: str, count: int, *, burn_in: bool) -> tuple[JobSpec, ...]:
    """`count` checks of a host, on what the matrix boots on its architecture (`ConfigError`: it boots nothing there).

    With `burn_in` they suit the host while it is in burn-in, and only then.
    """
    wanted = f'arch == "{arch}"'
    like = next((spec for spec in flight_specs(FULL) if spec.runvars.get("all_hostflags") == wanted), None)
    if like is None:
        raise ConfigError(f"no job of the matrix runs on {arch}, so nothing tells how to check {host}")
    kept = {name: value for name, value in like.runvars.items() if name in ("arch", "dom0_image", "guest_image")}
    need = f'name == "{host}"' + (" and burn_in" if burn_in else "")
    runvars = {**kept, "all_hostflags": need, "host_start": "cold", CHECKED_HOST: host}
    names = [f"check-{arch.replace('_', '-')}-{number}" for number in range(1, count + 1)]
    return tuple(JobSpec(name=name, recipe=RECIPE, runvars=MappingProxyType(runvars)) for name in names)
