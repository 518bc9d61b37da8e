"""`lab try` on real Xen, with patches that break it: each is to be noticed where it breaks, with the right evidence."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from lab_cli import Cli, keep_builds

pytestmark = [pytest.mark.system, pytest.mark.timeout(2400)]

PATCHES = Path(__file__).parent / "patches"
PV = "test-amd64-amd64-xl-pv"


@pytest.fixture
def tree(cli: Cli, tmp_path: Path) -> Path:
    """A working tree of the Xen that Debian 12 has, as a developer has one."""
    keep_builds(cli)
    assert cli.run("tree", "import-debian", "xen", "bookworm").returncode == 0
    folder = tmp_path / "xen"
    _git("clone", "--quiet", "--branch", "debian-bookworm", str(cli.home / "trees/xen.git"), str(folder))
    return folder


def _git(*arguments: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(["git", *arguments], check=True, env=environment)


def tried(cli: Cli, tree: Path, patch: str) -> tuple[int, dict[str, Any]]:
    """Exit code of `lab try` on the tree with a patch of ours, uncommitted; and its jobs."""
    _git("-C", str(tree), "apply", str(PATCHES / f"{patch}.patch"))
    done = cli.run("try", "--tree", f"xen={tree}", "--jobs", PV, "--json", timeout_s=2300)
    return done.returncode, {job["name"]: job for job in json.loads(done.stdout)["jobs"]}


def failed_step(job: dict[str, Any]) -> dict[str, Any]:
    return next(step for step in job["steps"] if step["status"] not in ("pass", "skipped"))


def test_a_patch_that_does_not_compile_fails_the_build_and_blocks_the_tests(cli: Cli, tree: Path) -> None:
    code, jobs = tried(cli, tree, "compile-error")
    build = jobs["build-amd64-trial"]
    assert code == 1
    assert build["status"] == "fail"
    assert "common/version.c" in build["reason"]
    assert "error: expected expression" in build["reason"]
    assert jobs[PV]["status"] == "blocked"
    assert "error: expected expression" in jobs[PV]["reason"]


@pytest.mark.proof
@pytest.mark.parametrize(
    ("patch", "steps", "reason"),
    [
        ("boot-panic", {"host-boot"}, "patched to panic at boot"),
        ("lost-pages", {"guest-localmigrate"}, ""),
    ],
)
def test_a_patch_that_breaks_a_running_xen_fails_where_it_breaks(
    cli: Cli, tree: Path, patch: str, steps: set[str], reason: str
) -> None:
    code, jobs = tried(cli, tree, patch)
    assert code == 1
    assert jobs["build-amd64-trial"]["status"] == "pass"
    step = failed_step(jobs[PV])
    assert (step["status"], step["testid"] in steps) == ("fail", True), step
    assert reason in step["reason"]
