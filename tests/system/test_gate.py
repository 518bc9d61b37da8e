"""A push gate on real Xen, unattended: what is good passes, what breaks migration is held and its commit found."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lab_cli import Cli, keep_builds

from lab.settings import PROJECT

pytestmark = [pytest.mark.system, pytest.mark.proof, pytest.mark.timeout(7200)]

PATCHES = Path(__file__).parent / "patches"
BRANCH, TREE = "xen-proof", "gate-xen"
PV, TESTID = "test-amd64-amd64-xl-pv", "guest-localmigrate"


def git(folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # the same commits each time: what they give is compiled once for all runs of this test
    environment |= {"GIT_COMMITTER_DATE": "1767225600 +0000", "GIT_AUTHOR_DATE": "1767225600 +0000"}
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
    done = subprocess.run(
        ["git", *who, "-C", str(folder), *arguments], check=True, env=environment, capture_output=True, text=True
    )
    return done.stdout.strip()


@dataclass
class Project:
    """Where people commit, and what the gate moves."""

    cli: Cli
    source: Path
    output: Path
    lab_file: Path

    def commit(self, subject: str, change: Callable[[Path], None]) -> str:
        """One more commit on staging."""
        change(self.source)
        git(self.source, "commit", "--quiet", "--all", "-m", subject)
        return git(self.source, "rev-parse", "HEAD")

    def tested(self) -> str:
        """What was let through."""
        return git(self.output, "rev-parse", "refs/heads/master")

    def lab(self, *words: str, timeout_s: float = 3600) -> tuple[int, dict[str, Any]]:
        """Exit code and JSON of a command."""
        done = self.cli.run(*words, "--lab", str(self.lab_file), "--json", timeout_s=timeout_s)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)


def comment(path: str) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        with (tree / path).open("a") as file:
            file.write("/* One more line, and no difference. */\n")

    return change


def lost_pages(tree: Path) -> None:
    git(tree, "apply", str(PATCHES / "lost-pages.patch"))


@pytest.fixture
def project(cli: Cli, tmp_path: Path) -> Project:
    """Debian's source of Xen, of which the last commit was let through some day."""
    keep_builds(cli)
    assert cli.run("tree", "import-debian", "xen", "bookworm").returncode == 0
    source, output = tmp_path / "xen", tmp_path / "output.git"
    subprocess.run(
        ["git", "clone", "--quiet", "--branch", "debian-bookworm", str(cli.home / "trees/xen.git"), str(source)],
        check=True,
    )
    git(source, "checkout", "--quiet", "-b", "staging")
    subprocess.run(["git", "init", "--quiet", "--bare", str(output)], check=True)
    git(source, "push", "--quiet", str(output), "HEAD:refs/heads/master")
    lab_file = tmp_path / "lab.toml"
    lab_file.write_text(
        (PROJECT / "lab.toml").read_text()
        + f"""
[branch.{BRANCH}]
tree = "{TREE}"
url = "{source}"
ref = "staging"
push_url = "{output}"
push_ref = "master"
jobs = ["{PV}"]
xen_tools = "packaged"
retest = 1

[bisection]
confidence = 0.95
alternations = 1
at_once = 1
"""
    )
    return Project(cli, source, output, lab_file)


def test_good_is_pushed_bad_is_held_and_bisected_mended_is_pushed(project: Project) -> None:
    begun = time.monotonic()
    base = project.tested()
    project.commit("docs: say nothing more", comment("README"))
    good = project.commit("xen/sched: comment", comment("xen/common/sched/null.c"))
    code, pushed = project.lab("gate", "run", BRANCH, "--follow")
    print(json.dumps(pushed, indent=1))
    assert (code, pushed["decision"], pushed["pushed"], pushed["reason"]) == (0, "advance", True, "Perfect :-)")
    assert (pushed["old"], pushed["new"], project.tested()) == (base, good, good)
    assert pushed["baseline_flight"] < pushed["flight"]  # what was let through had never been tested here
    print(f"pushed after {time.monotonic() - begun:.0f} s")

    project.commit("xen: comment in the kexec code", comment("xen/common/kexec.c"))
    culprit = project.commit("x86/mm: mark fewer pages dirty", lost_pages)
    project.commit("docs: say it again", comment("README"))
    bad = project.commit("xen/sched: another comment", comment("xen/common/sched/rt.c"))
    code, held = project.lab("gate", "run", BRANCH, "--follow")
    print(json.dumps(held, indent=1))
    assert (code, held["decision"], held["pushed"], held["new"], project.tested()) == (1, "hold", False, bad, good)
    (blocker,) = [one for one in held["verdict"]["findings"] if one["blocks"]]
    assert (blocker["job"], blocker["testid"], blocker["kind"]) == (PV, TESTID, "regression")
    assert blocker["note"] == f"REGR. vs. {pushed['flight']}"
    (retest,) = held["verdict"]["retests"]  # it was tried again, and failed again
    assert any(f"fail in {retest}" in reason for reason in blocker["reasons"])
    code, told = project.lab("gate", "explain", BRANCH)
    assert (code, told["waive"], told["besides"]) == (1, [{"job": PV, "testid": TESTID}], [])
    print(f"held after {time.monotonic() - begun:.0f} s")

    code, found = project.lab("bisect", "show", "1", "--follow", timeout_s=5400)
    print(json.dumps(found, indent=1))
    assert (code, found["state"], found["actor"]) == (0, "found", "gate")
    assert found["conclusion"]["suspects"] == [{"tree": TREE, "commit": culprit}]
    assert found["conclusion"]["revert"] == "reverting it mends the failure"
    print(f"found after {time.monotonic() - begun:.0f} s, {len(found['probes'])} runs")

    git(project.source, "revert", "--no-edit", culprit)
    mended = git(project.source, "rev-parse", "HEAD")
    code, again = project.lab("gate", "run", BRANCH, "--follow")
    print(json.dumps(again, indent=1))
    assert (code, again["pushed"], again["reason"], project.tested()) == (0, True, "Perfect :-)", mended)
    assert project.lab("gate", "status", BRANCH)[1]["state"] == "open"
    assert project.cli.machines_on() == []
    print(f"pushed again after {time.monotonic() - begun:.0f} s")
