"""Source trees on real git repositories in a temporary folder."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.errors import ConfigError, NotFoundError
from lab.vcs import Trees, checked_source

WHEN = datetime(2026, 1, 2, tzinfo=UTC)


def git(folder: Path, *arguments: str) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    who = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "xen"
    folder.mkdir()
    git(folder, "init")
    (folder / "Makefile").write_text("all:\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / ".gitignore").write_text("*.o\n")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    git(folder, "tag", "RELEASE-1")
    return folder


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    return Trees(tmp_path / "home")


def test_a_tree_is_a_mirror_and_its_revisions_are_found(trees: Trees, work: Path, tmp_path: Path) -> None:
    state = trees.add("xen", str(work))
    assert state.branches == ("main",)
    assert state.tags == 1
    commit = git(work, "rev-parse", "HEAD")
    assert {trees.resolve("xen", revision) for revision in ("main", "RELEASE-1", commit[:8])} == {commit}
    out = tmp_path / "out"
    out.mkdir()
    trees.export("xen", commit, out)
    assert (out / "Makefile").read_text() == "all:\n"
    assert os.access(out / "run.sh", os.X_OK)
    assert trees.read("xen", commit, "Makefile") == "all:\n"
    (work / "new").write_text("x")
    git(work, "add", ".")
    git(work, "commit", "-m", "second")
    trees.add("xen", str(work))
    assert trees.resolve("xen", "main") != commit


def test_a_revision_that_is_not_there_names_what_is_near_it(trees: Trees, work: Path) -> None:
    trees.add("xen", str(work))
    with pytest.raises(NotFoundError, match="no revision 'RELEASE-2'") as missing:
        trees.resolve("xen", "RELEASE-2")
    assert "RELEASE-1" in missing.value.hint
    with pytest.raises(NotFoundError, match="no source tree 'linux'"):
        trees.resolve("linux", "main")


@pytest.mark.parametrize("revision", ["--output=/tmp/x", "-h", "", "main\nx", "main:Makefile", "@{-1}", "x" * 300])
def test_a_revision_is_never_an_option_to_git(trees: Trees, work: Path, revision: str) -> None:
    trees.add("xen", str(work))
    with pytest.raises(NotFoundError):
        trees.resolve("xen", revision)


@pytest.mark.parametrize(
    "source", ["ext::sh -c touch% /tmp/x", "--upload-pack=touch /tmp/x", "fd::17", "ftp://x/y", "", "a\nb", "/no/such"]
)
def test_a_source_that_is_no_url_or_folder_is_refused(source: str) -> None:
    with pytest.raises(ConfigError):
        checked_source(source)


@pytest.mark.parametrize("source", ["https://x.org/xen.git", "git://x/y", "ssh://me@x/y", "me@x.org:xen.git"])
def test_urls_are_taken_as_they_are(source: str) -> None:
    assert checked_source(source) == source


@pytest.mark.parametrize("name", ["../x", "Xen", "", "a/b", "x.lock", "-x"])
def test_the_name_of_a_tree_is_safe_in_a_path(trees: Trees, name: str, work: Path) -> None:
    with pytest.raises(ConfigError, match="is not the name of a tree"):
        trees.add(name, str(work))


def test_a_working_tree_is_taken_as_it_stands_and_left_as_it_is(trees: Trees, work: Path, tmp_path: Path) -> None:
    (work / "Makefile").write_text("all: changed\n")
    (work / "new.c").write_text("int x;\n")
    (work / "junk.o").write_text("ignored")
    (work / "run.sh").unlink()
    before = git(work, "status", "--porcelain"), git(work, "rev-parse", "HEAD"), git(work, "count-objects")
    commit = trees.take("try", work, None, branch="work", when=WHEN)
    assert (git(work, "status", "--porcelain"), git(work, "rev-parse", "HEAD"), git(work, "count-objects")) == before
    out = tmp_path / "out"
    out.mkdir()
    trees.export("try", commit, out)
    assert (out / "Makefile").read_text() == "all: changed\n"
    assert sorted(path.name for path in out.iterdir()) == [".gitignore", "Makefile", "new.c"]
    assert trees.take("try", work, None, branch="work", when=WHEN) == commit
    assert trees.take("try", work, "main", branch="work", when=WHEN) == git(work, "rev-parse", "main")
    with pytest.raises(NotFoundError, match="no revision 'nope'"):
        trees.take("try", work, "nope", branch="work", when=WHEN)


def test_a_working_tree_without_changes_is_its_own_commit(trees: Trees, work: Path) -> None:
    assert trees.take("try", work, None, branch="work", when=WHEN) == git(work, "rev-parse", "HEAD")
    with pytest.raises(ConfigError, match="no git working tree"):
        trees.take("try", work.parent, None, branch="work", when=WHEN)


def test_a_folder_becomes_the_same_commit_everywhere(tmp_path: Path, work: Path) -> None:
    commits = {
        Trees(tmp_path / name).commit_folder(
            "xen", work, message="m", when=WHEN, branch="debian-x", tag="debian/1"
        )
        for name in ("a", "b")
    }
    assert len(commits) == 1
    assert Trees(tmp_path / "a").has("xen", "debian-x")


def test_a_history_has_what_leads_from_one_commit_to_another(trees: Trees, work: Path) -> None:
    first = git(work, "rev-parse", "HEAD")
    git(work, "checkout", "-b", "side")
    (work / "side").write_text("x")
    git(work, "add", ".")
    git(work, "commit", "-m", "on the side\x1b[31m")
    side = git(work, "rev-parse", "HEAD")
    git(work, "checkout", "main")
    (work / "Makefile").write_text("all: x\n")
    git(work, "commit", "-am", "second")
    second = git(work, "rev-parse", "HEAD")
    git(work, "merge", "--no-ff", "-m", "merge", "side")
    merge = git(work, "rev-parse", "HEAD")
    trees.add("xen", str(work))
    found = {commit.id: commit for commit in trees.history("xen", first, merge, most=10)}
    assert found.keys() == {side, second, merge}
    assert found[merge].parents == (second, side)
    assert "\x1b" not in found[side].subject
    assert [commit.id for commit in trees.history("xen", second, merge, most=10)] == [merge]
    assert [commit.id for commit in trees.history("xen", merge, first, most=10)] == [first]
    assert "Author: x <x@x>" in trees.message("xen", second)
    with pytest.raises(ConfigError, match="more than 2 commits"):
        trees.history("xen", first, merge, most=2)
    ways = ((first, merge), (second, merge), (merge, first))
    assert [trees.distance("xen", old, new) for old, new in ways] == [3, 2, 0]
    with pytest.raises(NotFoundError, match="no revision"):
        trees.distance("xen", first, "--output=x")


def test_a_commit_is_taken_back_on_top_of_another_if_that_is_clean(trees: Trees, work: Path) -> None:
    (work / "a").write_text("1\n2\n3\n")
    git(work, "add", ".")
    git(work, "commit", "-m", "a")
    (work / "a").write_text("1\nx\n3\n")
    git(work, "commit", "-am", "culprit")
    culprit = git(work, "rev-parse", "HEAD")
    (work / "b").write_text("b")
    git(work, "add", ".")
    git(work, "commit", "-m", "b")
    tip = git(work, "rev-parse", "HEAD")
    (work / "a").write_text("1\ny\n3\n")
    git(work, "commit", "-am", "over it")
    over = git(work, "rev-parse", "HEAD")
    state = trees.add("xen", str(work))
    made = trees.revert("xen", culprit, at=tip, keep="1-revert")
    assert made is not None
    assert trees.read("xen", made, "a") == "1\n2\n3\n"
    assert trees.read("xen", made, "b") == "b"
    assert trees.revert("xen", culprit, at=tip, keep="2-revert") == made
    assert trees.revert("xen", culprit, at=over, keep="3-revert") is None
    assert trees.state()[0].branches == state.branches
