"""Files that say how branches are gated and judged, and what the doctor says of them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.doctor import gates
from lab.errors import ConfigError
from lab.flights.evidence import Beta, EvidencePolicy
from lab.flights.judged_by import JudgedBy
from lab.flights.regression import TestPattern
from lab.labfile import BranchSettings, MailSettings, load_lab_file
from lab.policy_file import read_policy
from lab.settings import PROJECT

BRANCH = """
[lab]
name = "x"

[branch.xen-unstable]
url = "https://example.org/xen.git"
ref = "staging"
push_url = "ssh://git@example.org/xen.git"
push_ref = "master"
"""


def load(tmp_path: Path, text: str) -> BranchSettings:
    file = tmp_path / "lab.toml"
    file.write_text(text)
    return load_lab_file(file).branch["xen-unstable"]


def test_a_branch_has_defaults(tmp_path: Path) -> None:
    branch = load(tmp_path, BRANCH)
    assert (branch.tree, branch.retest, branch.bisect, branch.schedule) == ("xen", 0, True, "")
    assert branch.rules.judged_by() == JudgedBy()


def test_rules_may_stand_with_the_branch(tmp_path: Path) -> None:
    more = """
[branch.xen-unstable.rules]
policy = "evidence"
[branch.xen-unstable.rules.evidence]
new_at = 0.95
[[branch.xen-unstable.rules.allow]]
job = "test-*-rtds*"
why = "slow"
"""
    by = load(tmp_path, BRANCH + more).rules.judged_by()
    assert (by.policy, by.evidence.new_at, by.allow) == ("evidence", 0.95, (TestPattern(job="test-*-rtds*"),))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('schedule = "sometimes"', "no cron expression"),
        ('schedule = "61 * * * *"', "no cron expression"),
        ("retest_passes = 2\nretest = 1", "retest_passes is more than retest"),
        ('tree = "Xen Tree"', "branch.xen-unstable.tree"),
        ('jobs = ["a b"]', "jobs"),
        ("jobs = []", "jobs"),
        ('config = "fast"', "config"),
        ("colour = 1", "no such setting"),
    ],
)
def test_mistakes_in_a_branch_are_told(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, BRANCH + line)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('ref = "staging"\n', 'ref = "-f"\n', "ref"),
        ('push_ref = "master"', 'push_ref = "a:b"', "push_ref"),
        ("[branch.xen-unstable]", '[branch."a b"]', "branch"),
        ('url = "https://example.org/xen.git"\n', "", "is missing"),
    ],
)
def test_a_branch_needs_proper_names(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, BRANCH.replace(old, new, 1))


def test_what_is_tested_is_not_what_is_pushed_to(tmp_path: Path) -> None:
    text = BRANCH.replace("ssh://git@example.org", "https://example.org").replace('"master"', '"refs/heads/staging"')
    with pytest.raises(ConfigError, match="what is tested would be what is pushed to"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('to = ["a b"]', "to"),
        ('sender = "a@b, c@d"', "sender"),
        ('url = "javascript:alert(1)"', "url"),
        ('digest = "daily"', "no cron expression"),
        ('tls = "maybe"', "tls"),
    ],
)
def test_mistakes_in_mail_are_told(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(f'[lab]\nname = "x"\n[mail]\n{text}\n')
    with pytest.raises(ConfigError, match=message):
        load_lab_file(file)


def test_the_policies_that_come_with_the_program() -> None:
    assert read_policy(PROJECT / "policies" / "osstest.toml") == JudgedBy()
    assert read_policy(PROJECT / "policies" / "evidence.toml") == JudgedBy(
        policy="evidence", evidence=EvidencePolicy(flake=Beta(0.5, 19.5), broken=Beta(2.0, 1.0))
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("policy = 1", "policy"),
        ('policy = "coin"', "policy"),
        ("[evidence]\nnew_at = 1.5", "new_at"),
        ("[evidence]\nflake = [0, 1]", "flake"),
        ("[evidence]\nold_at = 0.95", "old_at is above new_at"),
        ("[[allow]]\njob = 'a\\nb'", "allow"),
        ("[", "must be TOML"),
    ],
)
def test_mistakes_in_a_policy_are_told(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_policy(file)
    assert message in str(caught.value)
    with pytest.raises(ConfigError, match="no such file"):
        read_policy(tmp_path / "none.toml")


def test_the_doctor_looks_at_branches_and_mail(tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "out.git"
    for command in (
        ["git", "init", "-q", "-b", "staging", str(source)],
        [
            "git",
            "-C",
            str(source),
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "x",
        ],
        ["git", "init", "-q", "--bare", str(output)],
        ["git", "-C", str(source), "push", "-q", str(output), "staging:refs/heads/master"],
    ):
        subprocess.run(command, check=True)
    good = BranchSettings(url=str(source), ref="staging", push_url=str(output), push_ref="master")
    branches = {
        "good": good,
        "no-ref": replace_ref(good, ref="none"),
        "not-yet": replace_ref(good, push_ref="never"),
        "gone": replace_ref(good, url="/no/such/place"),
    }
    lab = SimpleNamespace(settings=SimpleNamespace(home=tmp_path), branches=branches, mail=MailSettings())
    told = {one.what: (one.level.name, one.found) for one in gates.check_branches(lab)}  # type: ignore[arg-type]
    assert {name: level for name, (level, _) in told.items()} == {
        "good": "OK", "no-ref": "ERROR", "not-yet": "WARNING", "gone": "ERROR",
    }  # fmt: skip
    lab.branches = {}
    assert [one.found for one in gates.check_branches(lab)] == ["none has a gate"]  # type: ignore[arg-type]
    assert [one.level.name for one in gates.check_mail(lab)] == ["OK"]  # type: ignore[arg-type]


def replace_ref(branch: BranchSettings, **changes: str) -> BranchSettings:
    return branch.model_copy(update=changes)
