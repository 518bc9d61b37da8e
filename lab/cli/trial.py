"""`lab try`: a developer's own tree, built and tested here and now."""

from __future__ import annotations

import getpass
import signal
import sys
from pathlib import Path

import click

from lab.bootstrap import make_builds, make_image_store, make_trees
from lab.cli.engine import Engine
from lab.cli.flight import fly, images_of, interrupt, print_verdict, with_settings
from lab.cli.image import build_images
from lab.cli.opening import lab_option, open_working_lab
from lab.cli.render import errors, json_option, print_json
from lab.errors import ConfigError
from lab.flights.builds import CONFIGS, BuildRequest
from lab.flights.matrix import flight_specs
from lab.flights.matrix.table import FULL
from lab.flights.status import Blessing, exit_code
from lab.flights.trial import DEFAULT_JOBS, trial_specs
from lab.flights.views import flight_view
from lab.services.construct import check_job, construct_flight

TREE = "try-xen"
"""A tree, and so a compiler cache, of its own: what is tried here must not reach the builds of other trees."""


@click.command("try")
@click.option("--tree", "source", required=True, metavar="xen=PATH[#REV]", help="A working tree, or a revision of it.")
@click.option("--jobs", "patterns", multiple=True, help=f"Jobs of the matrix (default: {', '.join(DEFAULT_JOBS)}).")
@click.option("--config", type=click.Choice(sorted(CONFIGS)), default="default", show_default=True)
@click.option("--set", "settings", multiple=True, metavar="[JOB:]NAME=VALUE", help="Set a runvar.")
@click.option("--tenant", default="", help="Whose share of the hosts it uses (default: you).")
@lab_option
@json_option
def try_(
    source: str,
    patterns: tuple[str, ...],
    config: str,
    settings: tuple[str, ...],
    tenant: str,
    lab_file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Build your tree of Xen and run the jobs that matter on it.

    Without #REV it is the working tree as it stands, with uncommitted changes and new files (ignored ones left out);
    nothing in it is touched. The exit code is the verdict.
    """
    path, revision = parse_source(source)
    lab = open_working_lab(lab_file)
    branch = f"try-{getpass.getuser()}"
    commit = make_trees(lab.settings).take(TREE, path, revision, branch=branch, when=lab.clock())
    request = BuildRequest(tree=TREE, revision=commit, arch="amd64", config=config)
    builds = make_builds(lab.settings)
    version = builds.version_of(request)
    errors().print(f"trying Xen {version} at {commit[:12]}", markup=False)
    wanted = [part for text in patterns for part in text.split(",") if part]
    specs = with_settings(trial_specs(flight_specs(FULL), wanted, request, version), settings)
    for spec in specs:
        check_job(lab, spec)
    signal.signal(signal.SIGTERM, interrupt)
    with Engine(lab) as engine:
        build_images(make_image_store(lab.settings), [*images_of(specs), builds.builder_of(request)])
        with lab.sessions.begin() as session:
            number = construct_flight(
                session, lab, specs, branch=branch, intended=Blessing.ADHOC, submitter=getpass.getuser(), tenant=tenant,
                note=f"{path}{f'#{revision}' if revision else ''} at {commit[:12]}",
            )  # fmt: skip
        ended = fly(lab, number, engine)
    if as_json:
        print_json(flight_view(ended, lab.coverage))
    else:
        print_verdict(ended, lab)
    sys.exit(exit_code(ended.status))


def parse_source(text: str) -> tuple[Path, str | None]:
    """Path and revision (None: the working tree) of `xen=PATH[#REV]`; `ConfigError` when it is something else."""
    name, separator, place = text.partition("=")
    if not separator or name != "xen":
        raise ConfigError(f"--tree {text!r}: only a tree of xen can be tried", hint="--tree xen=PATH or xen=PATH#REV")
    path, mark, revision = place.rpartition("#") if "#" in place else (place, "", "")
    if not path or (mark and not revision):
        raise ConfigError(f"--tree {text!r}: path or revision is missing", hint="--tree xen=PATH or xen=PATH#REV")
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(f"--tree: there is no folder {folder}")
    return folder, revision or None
