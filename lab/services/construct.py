"""Construct a flight: check everything a submitter wrote, then insert it whole."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import flights, gates
from lab.db import session as db
from lab.errors import ConfigError
from lab.flights.builds import DEBIAN_BRANCH, RECIPE, BuildRequest, build_request
from lab.flights.dependencies import needed
from lab.flights.model import TENANT, Job, JobSpec, Runvar, check_name
from lab.flights.recipe import find_recipe
from lab.flights.requests import request_of
from lab.flights.runvars import Runvars, check_runvar
from lab.flights.status import Blessing, JobStatus
from lab.hosts.planner import check_possible


def construct_flight(
    session: Session,
    lab: Lab,
    specs: Sequence[JobSpec],
    *,
    branch: str,
    intended: Blessing,
    submitter: str,
    tenant: str = "",
    note: str = "",
    priority: int = 0,
) -> int:
    """Insert a flight of these jobs, queued; returns its number. Its tenant is the submitter unless told.

    Raises `ConfigError` when any part is wrong: an unknown recipe, runvar or image, a bad name, a host requirement
    that no combination of the lab's hosts could ever meet. Then nothing is inserted.
    """
    if not specs:
        raise ConfigError("a flight needs at least one job", hint="name one with --jobs")
    check_name("branch", branch)
    for name, value, longest in (("submitter", submitter, 128), ("note", note, 4096)):
        if len(value) > longest or not value.isprintable():
            raise ConfigError(
                f"the {name} is not printable text of at most {longest} characters",
                hint="remove control characters and newlines",
            )
    tenant = tenant or submitter
    if tenant and (not TENANT.fullmatch(tenant) or not tenant.isprintable()):
        raise ConfigError(
            "the tenant is not printable text of at most 128 characters",
            hint="name a person or a team, e.g. --tenant arm",
        )
    served: set[object] = set()
    recipes = {spec.name: spec.recipe for spec in specs}
    for spec in specs:
        check_job(lab, spec, served)
        _check_dependencies(session, spec, recipes)
    if len({spec.name for spec in specs}) != len(specs):
        raise ConfigError("two jobs of the flight have the same name")
    now = lab.clock()
    flight = flights.add_flight(
        session,
        branch=branch,
        intended=intended,
        submitter=submitter,
        tenant=tenant,
        note=note,
        jobs=specs,
        now=now,
        priority=priority,
    )
    gates.save_revisions(session, flight, _revisions(session, specs))
    flights.add_event(session, kind="flight", now=now, flight=flight, data={"status": JobStatus.QUEUED.value})
    db.after_commit(session, lab.bell.ring)
    return flight


_COMMIT: Final = re.compile("[0-9a-f]{40}")


def _revisions(session: Session, specs: Sequence[JobSpec]) -> dict[str, str]:
    """The commit of each source tree that the jobs test, builds of other flights among them.

    A tree of which they test two says nothing: no flight of one revision can be compared with it. Nor does a branch.
    """
    found: dict[str, set[str]] = {}
    for spec in specs:
        pairs = []
        if spec.recipe == RECIPE:
            pairs = [(spec.runvars.get("tree", "xen"), spec.runvars.get("revision", ""))]
        for flight, job in needed(spec.runvars, 0).values():
            if flight and (pair := gates.build_revision(session, flight, job)) is not None:
                pairs.append(pair)
        for tree, revision in pairs:
            found.setdefault(tree, set()).add(revision)
    return {
        tree: revision
        for tree, revisions in found.items()
        for revision in revisions
        if len(revisions) == 1 and _COMMIT.fullmatch(revision)
    }


def check_job(lab: Lab, spec: JobSpec, served: set[object] | None = None) -> None:
    """Raise `ConfigError`, naming the job, when it could never run.

    `served` collects what the lab's hosts are known to serve: the many jobs of a flight ask for few kinds of hosts.
    """
    try:
        check_name("job", spec.name)
        roles = [role.name for role in find_recipe(spec.recipe).roles]
        for name, value in spec.runvars.items():
            check_runvar(name, value, roles)
            if name.endswith("_image"):
                lab.images.check(value)
        if spec.recipe == RECIPE:
            _check_build(lab, build_request(Runvars(spec.runvars)))
        job = Job(flight=0, name=spec.name, recipe=spec.recipe, status=JobStatus.QUEUED)
        request = request_of(replace(job, runvars=_definition(spec)))
        asked = tuple((role.requirement, role.equivalent) for role in request.roles)
        if served is None or asked not in served:
            check_possible(request, lab.hosts, lab.limit)
        if served is not None:
            served.add(asked)
    except ConfigError as error:
        raise type(error)(f"job {spec.name}: {error.message}", hint=error.hint) from error


def _check_build(lab: Lab, request: BuildRequest) -> None:
    """The revision must be there; but for one a mirror of Debian should have: without it the job will be blocked."""
    if not request.revision.startswith(DEBIAN_BRANCH):
        lab.builds.check(request)


def _check_dependencies(session: Session, spec: JobSpec, recipes: Mapping[str, str]) -> None:
    for flight, name in needed(spec.runvars, 0).values():
        if flight:
            found = flights.load_jobs(session, [(flight, name)])
            recipe = found[flight, name].recipe if found else None
        else:
            recipe = recipes.get(name)
        if recipe != RECIPE:
            what = "is no build job" if recipe else "does not exist"
            raise ConfigError(
                f"job {spec.name}: {f'{flight}.' if flight else ''}{name}, which it needs, {what}",
                hint=f"name a job of recipe {RECIPE}, of this flight or as FLIGHT.JOB",
            )


def _definition(spec: JobSpec) -> tuple[Runvar, ...]:
    return tuple(Runvar(name=name, value=value) for name, value in spec.runvars.items())
