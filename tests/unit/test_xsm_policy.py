"""Policies on their way from xsm_policies/ through a build to a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import ConfigError, StepFailure
from lab.xsm_policy import PolicyFolder, collect, read_policy

POLICY = bytes.fromhex("8cff7cf908000000") + b"XenFlask" + b"rest"
TEST = 'summary = "s"\n[[expect]]\ndoes = "save"\nguest = "domU_t"\nverdict = "allowed"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "xsm_policies"
    for name, files in {
        "default": {},
        "keep": {"keep.te": "type keep_t;\n", "keep.if": "# macros\n", "loosened.te": "# hole\n"},
    }.items():
        (place / name).mkdir(parents=True)
        for file, text in {**files, "expect.toml": TEST}.items():
            (place / name / file).write_text(text)
    return place


def laid_out(folder: Path, place: Path) -> Path:
    for variant in PolicyFolder(folder).lay_out(place):
        (place / variant.name / "policy").write_bytes(POLICY + variant.name.encode())
    return place


def test_a_policy_and_its_loosened_variant_are_laid_out_beside_the_trees_modules(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    variants = PolicyFolder(folder).lay_out(place)
    assert [variant.name for variant in variants] == ["default", "keep", "keep.loosened"]
    assert sorted(path.name for path in (place / "keep/modules").iterdir()) == ["lab_keep.if", "lab_keep.te"]
    assert (place / "keep/modules.conf").read_text().split() == ["lab_keep", "=", "on"]
    assert (place / "keep.loosened/modules.conf").read_text().split()[::3] == ["lab_keep", "lab_loosened"]
    assert (place / "default/modules.conf").read_text() == ""
    assert variants[1].command()[-1] == "keep"


def test_a_compiled_policy_reaches_a_job_with_its_test(folder: Path, tmp_path: Path) -> None:
    place, build = laid_out(folder, tmp_path / "place"), tmp_path / "build"
    build.mkdir()
    policies = PolicyFolder(folder)
    collect(place, policies.variants(), policies, build)
    keep, default = read_policy(build, "keep"), read_policy(build, "default")
    assert keep.binary.endswith(b"keep")
    assert keep.loosened is not None
    assert keep.loosened.endswith(b"keep.loosened")
    assert default.loosened is None
    assert default.test.summary == "s"


@pytest.mark.parametrize("name", ["nix", "../default", ""])
def test_a_policy_there_is_not_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "default.toml").write_text(TEST)
    with pytest.raises(ConfigError, match="there are: default"):
        read_policy(tmp_path, name)


def test_what_the_trees_rules_leave_is_not_trusted(folder: Path, tmp_path: Path) -> None:
    place = laid_out(folder, tmp_path / "place")
    policies = PolicyFolder(folder)
    compiled = place / "keep/policy"
    for broken in (b"no policy", None):
        compiled.unlink()
        if broken is None:
            compiled.symlink_to("/etc/passwd")
        else:
            compiled.write_bytes(broken)
        with pytest.raises(StepFailure, match="policy keep: "):
            collect(place, policies.variants(), policies, tmp_path)


def test_every_change_of_a_policy_gives_another_build(folder: Path) -> None:
    before = PolicyFolder(folder).digest()
    assert PolicyFolder(folder).digest() == before
    (folder / "keep/loosened.te").write_text("# another hole\n")
    assert PolicyFolder(folder).digest() != before


@pytest.mark.parametrize(
    ("path", "text", "told"),
    [
        ("keep/run.sh", "", "run.sh has no place there"),
        ("default/expect.toml", "summary = 1\n", "summary"),
        ("Keep/expect.toml", TEST, "no name for a policy"),
        ("more/more.te", "", "expect.toml cannot be read"),
    ],
)
def test_a_folder_that_is_not_as_it_should_be_is_refused(folder: Path, path: str, text: str, told: str) -> None:
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_text(text)
    with pytest.raises(ConfigError, match=told):
        PolicyFolder(folder).variants()
