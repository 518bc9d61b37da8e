"""What `lab try` runs: pure choice of jobs, and the parsing of its option."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.cli.trial import parse_source
from lab.errors import ConfigError, NotFoundError
from lab.flights.builds import BuildRequest
from lab.flights.matrix import flight_specs
from lab.flights.model import JobSpec
from lab.flights.trial import BUILD_JOB, DEFAULT_JOBS, trial_specs

REQUEST = BuildRequest(tree="try-xen", revision="c0ffee", arch="amd64", config="default")


def trial(*patterns: str, version: str = "4.17") -> dict[str, JobSpec]:
    return {spec.name: spec for spec in trial_specs(flight_specs("full"), patterns, REQUEST, version)}


def test_the_default_jobs_run_on_the_build_with_dom0_of_its_series() -> None:
    specs = trial()
    assert list(specs) == [BUILD_JOB, *[name for name in specs if name in DEFAULT_JOBS]]
    assert len(specs) == len(DEFAULT_JOBS) + 1
    assert specs[BUILD_JOB].runvars["revision"] == "c0ffee"
    pvh = specs["test-amd64-amd64-xl-pvh"].runvars
    assert pvh["dom0_image"] == "dom0-xen-4.17-amd64"
    assert pvh["xenbuildjob"] == BUILD_JOB


def test_a_guest_comes_from_the_packaged_xen_of_the_same_series() -> None:
    for version, series, kind in (("4.17", "4.17", "pv"), ("4.20", "4.20", "pvh"), ("4.22", "4.20", "pvh")):
        runvars = trial(version=version)["test-amd64-amd64-migrupgrade"].runvars
        assert runvars["src_host_dom0_image"] == runvars["dst_host_dom0_image"] == f"dom0-xen-{series}-amd64"
        assert runvars["dst_host_xenbuildjob"] == BUILD_JOB
        assert not {"xenbuildjob", "src_host_xenbuildjob"} & set(runvars)
        assert runvars["guest_kind"] == kind


def test_jobs_may_be_chosen_and_lose_the_build_they_had() -> None:
    specs = trial("*-xl-raw", version="4.20")
    assert list(specs) == [BUILD_JOB, "test-amd64-amd64-xl-raw"]  # the one of the other architecture is not tried
    assert specs["test-amd64-amd64-xl-raw"].runvars["dom0_image"] == "dom0-xen-4.20-amd64"
    with pytest.raises(NotFoundError, match="no job is called"):
        trial("*-nothing")


def test_a_tree_is_named_by_path_and_revision(tmp_path: Path) -> None:
    assert parse_source(f"xen={tmp_path}") == (tmp_path, None)
    assert parse_source(f"xen={tmp_path}#my-branch") == (tmp_path, "my-branch")


@pytest.mark.parametrize("text", ["xen", "linux=/tmp", "xen=", "xen=#x", "xen=/tmp#", "xen=/no/such"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_source(text)
