"""Bisections in a lab of fake machines: a real repository, in which some commits are bad and some do not compile."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from factories import BOOT, FakeBuilds, Messages, a_recipe, a_step, run_all, spec, submit

from lab.context import Lab
from lab.db import bisections
from lab.errors import InfraError, StepFailure
from lab.flights.bisection_runs import Bisection
from lab.flights.builds import RECIPE
from lab.flights.model import JobSpec
from lab.flights.recipe import run
from lab.flights.status import Blessing
from lab.flights.steps import StepContext
from lab.services.bisect_step import step_bisections
from lab.services.clean_host import clean_host
from lab.vcs import Trees

JOB, TESTID = "test-amd64-amd64-xl", "guest-localmigrate"


@dataclass
class Product:
    """How the commits of the trees behave; by what their builds are called."""

    bad: set[str] = field(default_factory=set)
    unbootable: set[str] = field(default_factory=set)
    broken: dict[str, int] = field(default_factory=dict)
    """how often a job at that commit breaks before it works"""
    recipe: str = ""
    says: str = "the guest lost 4 pages"
    """what a bad commit fails with; `{host}` is the name of the host"""
    lucky: Callable[[], bool] = lambda: False
    """whether a bad commit passes this time"""


PRODUCT = Product()


def _early(ctx: StepContext) -> None:
    if _commits(ctx)[0] in PRODUCT.unbootable:
        raise StepFailure("Xen does not boot")


def _work(ctx: StepContext) -> None:
    commit = _commits(ctx)[0]
    if PRODUCT.broken.get(commit, 0) > 0:
        PRODUCT.broken[commit] -= 1
        raise InfraError("the disk is full")
    if PRODUCT.bad.intersection(_commits(ctx)) and not PRODUCT.lucky():
        raise StepFailure(PRODUCT.says.format(host=ctx.host().name))


def _commits(ctx: StepContext) -> list[str]:
    return [ctx.runvars.get(f"{prefix}build_key").partition("-")[2] for prefix in ("", "host_")]


def git(folder: Path, *arguments: str, when: int = 0) -> str:
    env = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_COMMITTER_DATE": f"{1_700_000_000 + when} +0000", "GIT_AUTHOR_DATE": f"{1_700_000_000 + when} +0000",
    }  # fmt: skip
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "init.defaultBranch=staging"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def a_series(folder: Path, count: int) -> list[str]:
    """A repository of so many commits in a row, each with a file of its own; returns their ids, the oldest first."""
    folder.mkdir()
    git(folder, "init", "--quiet")
    ids = []
    for number in range(count):
        (folder / f"file{number}").write_text(f"{number}\n")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", f"{folder.name}: change number {number}", when=100 * number)
        ids.append(git(folder, "rev-parse", "HEAD"))
    return ids


def a_tree(lab: Lab, folder: Path, count: int = 12, *, tree: str = "xen") -> list[str]:
    """A tree of the lab's, a mirror of a series; nothing is bad in it yet."""
    PRODUCT.bad, PRODUCT.unbootable, PRODUCT.broken, PRODUCT.lucky = set(), set(), {}, lambda: False
    PRODUCT.recipe = a_recipe(run(BOOT, "boot"), run(a_step(_early), "host-boot"), run(a_step(_work), TESTID))
    ids = a_series(folder, count)
    Trees(lab.settings.home).add(tree, str(folder))
    return ids


def specs(revision: str, **runvars: str) -> list[JobSpec]:
    return [
        spec("build-amd64", RECIPE, tree="xen", revision=revision),
        spec(JOB, PRODUCT.recipe, xenbuildjob="build-amd64", **runvars),
    ]


def fly(lab: Lab, revision: str, *, intended: Blessing = Blessing.REAL, **runvars: str) -> int:
    """Test a revision in a flight of the branch; returns its number once it has ended."""
    number = submit(lab, *specs(revision, **runvars), branch="xen-unstable", intended=intended)
    work(lab)
    return number


def work(lab: Lab) -> None:
    """Run all there is to run."""
    messages = lab.dispatch
    assert isinstance(messages, Messages)
    while run_all(lab):
        while messages.cleans:
            clean_host(lab, messages.cleans.pop())


def bisection_of(lab: Lab, number: int) -> Bisection:
    with lab.reads() as session:
        return bisections.load_bisection(session, number)


def to_the_end(lab: Lab, number: int, *, rounds: int = 100) -> Bisection:
    for _ in range(rounds):
        step_bisections(lab)
        if (found := bisection_of(lab, number)).state.final:
            return found
        work(lab)
    raise AssertionError(f"it does not end: {found}")


def does_not_compile(lab: Lab, errors: Mapping[str, str]) -> None:
    builds = lab.builds
    assert isinstance(builds, FakeBuilds)
    builds.errors.update({commit: StepFailure(message) for commit, message in errors.items()})
