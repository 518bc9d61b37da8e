"""A bisection on real Xen, unattended: a series of commits on Debian's source, of which one loses a guest's pages."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab_cli import Cli, keep_builds

pytestmark = [pytest.mark.system, pytest.mark.proof, pytest.mark.timeout(5400)]

PATCHES = Path(__file__).parent / "patches"
PV = "test-amd64-amd64-xl-pv"
TESTID = "guest-localmigrate"
TREE = "bisect-xen"
"""Of its own, so that neither branches nor compiler cache get among those of others."""


def git(folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # the same commits each time: what they give is compiled once for all runs of this test
    environment |= {"GIT_COMMITTER_DATE": "1767225600 +0000", "GIT_AUTHOR_DATE": "1767225600 +0000"}
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
    done = subprocess.run(
        ["git", *who, "-C", str(folder), *arguments], check=True, env=environment, capture_output=True, text=True
    )
    return done.stdout.strip()


def comment(path: str) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        with (tree / path).open("a") as file:
            file.write("/* One more line, and no difference. */\n")

    return change


def patch(name: str, *, take_back: bool = False) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        git(tree, "apply", *(["--reverse"] if take_back else []), str(PATCHES / f"{name}.patch"))

    return change


SERIES = (
    ("docs: say nothing more", comment("README")),
    ("xen/sched: comment", comment("xen/common/sched/null.c")),
    ("xen: comment in the kexec code", comment("xen/common/kexec.c")),
    ("xen: version: new default", patch("compile-error")),
    ("xen: version: mend the build", patch("compile-error", take_back=True)),
    ("x86/mm: mark fewer pages dirty", patch("lost-pages")),
    ("xen/sched: another comment", comment("xen/common/sched/rt.c")),
    ("docs: say it again", comment("README")),
)
UNBUILDABLE, CULPRIT = 4, 6
"""The numbers of two commits, from 1. The one that does not compile is in the middle, where a search begins."""


@pytest.fixture
def series(cli: Cli, tmp_path: Path) -> list[str]:
    """The lab's tree with the series; the ids of Debian's source and of the commits on it."""
    keep_builds(cli)
    assert cli.run("tree", "import-debian", "xen", "bookworm").returncode == 0
    folder = tmp_path / "xen"
    subprocess.run(
        ["git", "clone", "--quiet", "--branch", "debian-bookworm", str(cli.home / "trees/xen.git"), str(folder)],
        check=True,
    )
    ids = [git(folder, "rev-parse", "HEAD")]
    for subject, change in SERIES:
        change(folder)
        git(folder, "commit", "--quiet", "--all", "-m", subject)
        ids.append(git(folder, "rev-parse", "HEAD"))
    assert cli.run("tree", "add", TREE, str(folder)).returncode == 0
    return ids


def probes_of(cli: Cli) -> list[dict[str, Any]]:
    done = cli.run("bisect", "list", "--json")
    return [probe for one in json.loads(done.stdout) for probe in one["probes"]]


def test_the_commit_that_loses_pages_is_found_past_one_that_does_not_compile(
    cli: Cli, series: list[str], ending: Callable[[subprocess.Popen[str]], None]
) -> None:
    begun = cli.start(
        "bisect", "start", PV, "--testid", TESTID, "--tree", TREE, "--good", series[0], "--bad", series[-1],
        "--set", "build-amd64-trial:xen_tools=packaged", "--at-once", "1", "--alternations", "1",
        "--confidence", "0.95", "--follow", "--json",
    )  # fmt: skip
    ending(begun)
    deadline = time.monotonic() + 1500
    while sum(probe["result"] != "running" for probe in probes_of(cli)) < 3:
        assert begun.poll() is None
        assert time.monotonic() < deadline
        time.sleep(5)
    begun.kill()  # another one goes on from what is in the database
    before = [probe for probe in probes_of(cli) if probe["result"] != "running"]

    done = cli.run("bisect", "show", "1", "--follow", "--json", timeout_s=3500)
    found = json.loads(done.stdout)
    print(json.dumps(found, indent=1))
    assert done.returncode == 0
    assert found["probes"][: len(before)] == before
    assert found["state"] == "found"
    assert found["conclusion"]["suspects"] == [{"tree": TREE, "commit": series[CULPRIT]}]
    assert found["conclusion"]["passing"] == [[series[CULPRIT - 1]]]
    assert "x86/mm: mark fewer pages dirty" in found["conclusion"]["message"]
    assert found["conclusion"]["revert"] == "reverting it mends the failure"
    [skipped] = [probe for probe in found["probes"] if probe["result"] == "skip"]
    assert skipped["revisions"][TREE] == series[UNBUILDABLE]
    assert "error: expected expression" in skipped["reason"]
    assert cli.machines_on() == []
