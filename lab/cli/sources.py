"""What build jobs need before they can run: source trees and builder images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lab.bootstrap import make_builds, make_trees
from lab.cli.render import errors
from lab.cli.tree import import_suite
from lab.errors import ConfigError, LabError, NotFoundError
from lab.flights.builds import DEBIAN_BRANCH, RECIPE, build_request
from lab.flights.matrix.flights import REVISIONS
from lab.flights.model import JobSpec
from lab.flights.runvars import Runvars
from lab.settings import Settings

XEN: str = "xen"
"""The tree that is filled by itself, from Debian's source packages."""


def series_with_source(settings: Settings) -> tuple[str, ...]:
    """The series of Xen that can be compiled here: those whose source is there, or can be imported now.

    One that cannot be had is told and left out.
    """
    _import(settings, REVISIONS.values())
    trees = make_trees(settings)
    return tuple(series for series, revision in REVISIONS.items() if trees.has(XEN, revision))


def prepare_sources(settings: Settings, specs: Sequence[JobSpec]) -> list[str]:
    """Import what the flight's build jobs need of Debian's sources; returns the builder images they need.

    A suite that cannot be had is told and passed over: its build job will be blocked, and say why.
    """
    requests = [build_request(Runvars(spec.runvars)) for spec in specs if spec.recipe == RECIPE]
    _import(settings, {one.revision for one in requests if one.tree == XEN and one.revision.startswith(DEBIAN_BRANCH)})
    builds = make_builds(settings)
    builders = set()
    for request in requests:
        try:
            builders.add(builds.builder_of(request))
        except NotFoundError:
            continue  # told above, or refused when the flight is constructed
    return sorted(builders)


def _import(settings: Settings, revisions: Iterable[str]) -> None:
    trees = make_trees(settings)
    for revision in sorted(revisions):
        if trees.has(XEN, revision):
            continue
        try:
            import_suite(trees, XEN, revision.removeprefix(DEBIAN_BRANCH))
        except ConfigError:
            raise
        except LabError as error:
            errors().print(f"tree {XEN}: {revision} is not to be had: {error}", style="yellow", markup=False)
