"""What a queued job asks of the planner."""

from __future__ import annotations

import functools
from typing import Final

from lab.flights.model import Job
from lab.flights.recipe import Role, find_recipe
from lab.flights.reuse import may_reuse, setup_key
from lab.flights.runvars import Runvars
from lab.flights.status import JobStatus
from lab.hosts.durations import UNKNOWN, Estimate
from lab.hosts.model import Requirement
from lab.hosts.request import Request, RoleRequest

BUILD_LANE: Final = "build"
"""Jobs without hosts run in it, on the controller."""


def request_of(
    job: Job, *, priority: int = 0, position: int = 0, tenant: str = "", estimate: Estimate | None = None
) -> Request:
    """The request of a job: its recipe's roles, narrowed by its hostflags runvars.

    Hosts on which an earlier attempt was *broken* are avoided. Older flights go first, then the place in the flight.
    """
    recipe = find_recipe(job.recipe)
    runvars = Runvars(job.values)
    broken_on = {
        host
        for attempt in job.attempts
        if attempt.status is JobStatus.BROKEN and attempt.worker  # else nobody has touched them
        for host in attempt.hosts.values()
    }
    return Request(
        id=job.id,
        order=job.flight * 100_000 + position,
        roles=tuple(
            RoleRequest(
                role=role.name,
                requirement=role_requirement(role, runvars),
                equivalent=role.equivalent,
                setup_key=setup_key(role.name, runvars) if may_reuse(runvars) else None,
            )
            for role in recipe.roles
        ),
        flight=job.flight,
        priority=priority,
        avoid=frozenset(broken_on),
        lane="" if recipe.roles else BUILD_LANE,
        tenant=tenant,
        submitted=job.queued.timestamp() if job.queued else 0.0,
        estimate=estimate or UNKNOWN,
    )


def role_requirement(role: Role, runvars: Runvars) -> Requirement:
    """The recipe's requirement and the job's (`all_hostflags`, `<role>_hostflags`), all to be met."""
    parts = [role.requirement, runvars.get("all_hostflags"), runvars.get(f"{role.name}_hostflags")]
    return _all_of(*parts)


@functools.lru_cache(maxsize=4096)
def _all_of(*parts: str) -> Requirement:
    for part in parts:
        Requirement(part)  # each must stand alone: joined text could close a parenthesis of its neighbour
    return Requirement(" and ".join(f"({part})" if len(parts) > 1 else part for part in parts if part))
