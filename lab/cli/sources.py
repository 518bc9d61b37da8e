"""What build jobs need before they can run: source trees and builder images."""

from __future__ import annotations

from collections.abc import Sequence

from lab.bootstrap import make_builds, make_trees
from lab.cli.render import errors
from lab.cli.tree import import_suite
from lab.errors import ConfigError, LabError, NotFoundError
from lab.flights.builds import DEBIAN_BRANCH, RECIPE, BuildRequest, build_request
from lab.flights.model import JobSpec
from lab.flights.runvars import Runvars
from lab.settings import Settings

XEN: str = "xen"
"""The tree that is filled by itself, from Debian's source packages."""


def prepare_sources(settings: Settings, specs: Sequence[JobSpec]) -> list[str]:
    """Import what the flight's build jobs need of Debian's sources; returns the builder images they need.

    A suite that cannot be had is told and passed over: its build job will be blocked, and say why.
    """
    requests = [build_request(Runvars(spec.runvars)) for spec in specs if spec.recipe == RECIPE]
    _import_missing(settings, requests)
    builds = make_builds(settings)
    builders = set()
    for request in requests:
        try:
            builders.add(builds.builder_of(request))
        except NotFoundError:
            continue  # told above, or refused when the flight is constructed
    return sorted(builders)


def _import_missing(settings: Settings, requests: Sequence[BuildRequest]) -> None:
    trees = make_trees(settings)
    wanted = {one.revision for one in requests if one.tree == XEN and one.revision.startswith(DEBIAN_BRANCH)}
    for revision in sorted(wanted):
        if trees.has(XEN, revision):
            continue
        try:
            import_suite(trees, XEN, revision.removeprefix(DEBIAN_BRANCH))
        except ConfigError:
            raise
        except LabError as error:
            errors().print(f"tree {XEN}: {revision} is not to be had: {error}", style="yellow", markup=False)
