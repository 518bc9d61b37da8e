"""Which jobs a flight has, and how some of them are picked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lab.flights.recipes
from lab.errors import NotFoundError
from lab.flights.matrix import FLIGHTS, dump, flight_specs, select
from lab.flights.matrix.flights import placed
from lab.flights.matrix.table import EVERYWHERE, Variant
from lab.flights.model import JobSpec, check_name
from lab.flights.recipe import find_recipe
from lab.flights.runvars import check_runvar
from lab.flights.steps import load_all
from lab.hosts.model import Host, Requirement

load_all(lab.flights.recipes)
SMOKE = flight_specs("smoke")
NAMES = [spec.name for spec in SMOKE]


def _spec(name: str) -> JobSpec:
    return next(spec for spec in SMOKE if spec.name == name)


def test_the_smoke_flight_is_these_jobs_in_this_order() -> None:
    assert NAMES == [
        "test-amd64-amd64-xl-pv",
        "test-amd64-amd64-xl-pvh",
        "test-amd64-amd64-xl-raw",
        "test-amd64-amd64-xl-qcow2",
        "test-amd64-amd64-xl-vhd",
        "test-amd64-amd64-migrupgrade",
    ]


def test_a_job_says_what_it_boots_and_migrupgrade_goes_from_an_older_xen_to_a_newer() -> None:
    pvh = dict(_spec("test-amd64-amd64-xl-pvh").runvars)
    assert pvh == {
        "arch": "amd64",
        "all_hostflags": 'arch == "x86_64" and hvm',
        "dom0_image": "dom0-xen-4.20-amd64",
        "guest_image": "guest-tiny-amd64",
        "guest_memory": "128",
        "guest_kind": "pvh",
    }
    upgrade = _spec("test-amd64-amd64-migrupgrade").runvars
    assert upgrade["src_host_dom0_image"] == "dom0-xen-4.17-amd64"
    assert upgrade["dst_host_dom0_image"] == "dom0-xen-4.20-amd64"
    assert "dom0_image" not in upgrade


def test_a_pv_guest_is_migrated_where_xen_can_do_it() -> None:
    assert _spec("test-amd64-amd64-xl-pv").runvars["dom0_image"] == "dom0-xen-4.17-amd64"


def test_a_guest_that_needs_hardware_virtualisation_is_not_put_on_a_host_without() -> None:
    plain = Host(name="plain", arch="x86_64")
    capable = Host(name="capable", arch="x86_64", flags=frozenset({"hvm"}))
    other = Host(name="other", arch="arm64", flags=frozenset({"hvm"}))
    pv = Requirement(_spec("test-amd64-amd64-xl-pv").runvars["all_hostflags"])
    pvh = Requirement(_spec("test-amd64-amd64-xl-pvh").runvars["all_hostflags"])
    assert [host.name for host in (plain, capable, other) if pv.matches(host)] == ["plain", "capable"]
    assert [host.name for host in (plain, capable, other) if pvh.matches(host)] == ["capable"]


@pytest.mark.parametrize("flight", sorted(FLIGHTS))
def test_every_job_could_be_submitted(flight: str) -> None:
    specs = flight_specs(flight)
    assert len({spec.name for spec in specs}) == len(specs)
    for spec in specs:
        check_name("job", spec.name)
        roles = [role.name for role in find_recipe(spec.recipe).roles]
        for name, value in spec.runvars.items():
            check_runvar(name, value, roles)


def test_an_unknown_flight_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(NotFoundError, match="smoke"):
        flight_specs("smok")


def test_jobs_are_picked_by_name_or_pattern_in_their_own_order() -> None:
    picked = select(SMOKE, ["*-migrupgrade", "test-amd64-amd64-xl-pv", "test-amd64-amd64-xl-pv?"])
    assert [spec.name for spec in picked] == [NAMES[0], NAMES[1], NAMES[5]]


@given(st.lists(st.sampled_from(NAMES), min_size=1))
def test_names_pick_exactly_the_jobs_they_name(names: list[str]) -> None:
    assert {spec.name for spec in select(SMOKE, names)} == set(names)


def test_without_a_pattern_all_jobs_are_picked() -> None:
    assert select(SMOKE, []) == SMOKE


def test_a_pattern_that_names_nothing_is_a_mistake_even_beside_a_good_one() -> None:
    with pytest.raises(NotFoundError, match="test-amd64-amd64-xl-vhd"):
        select(SMOKE, ["test-amd64-amd64-xl-pv", "*-arm64"])


def test_with_builds_from_source_each_test_names_a_build_job_of_its_flight() -> None:
    specs = {spec.name: spec for spec in flight_specs("smoke", build="source")}
    upgrade = specs["test-amd64-amd64-migrupgrade"].runvars
    assert (upgrade["src_host_xenbuildjob"], upgrade["dst_host_xenbuildjob"]) == (
        "build-amd64-xen-4.17",
        "build-amd64-xen-4.20",
    )
    assert specs["build-amd64-xen-4.20"].runvars["revision"] == "debian-trixie"
    assert set(NAMES) == {name for name in specs if not name.startswith("build-")}


def test_the_build_a_picked_job_boots_from_comes_along() -> None:
    picked = select(flight_specs("smoke", build="source"), ["*-xl-pvh"])
    assert [spec.name for spec in picked] == ["build-amd64-xen-4.20", "test-amd64-amd64-xl-pvh"]


def test_samples_are_spread_over_their_architectures_but_for_the_full_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    def variant(name: str, *arches: str, sample: str = "s") -> Variant:
        return Variant(name=name, recipe="test-xl", arches=arches, sample=sample, flights=EVERYWHERE)

    here = (variant("a", "amd64"), variant("b", "amd64"), variant("c", "amd64"), variant("d", "amd64", sample=""))
    there = (variant("a", "arm64"), variant("b", "arm64"), variant("d", "arm64", sample=""))
    monkeypatch.setattr("lab.flights.matrix.flights.FAMILIES", (there, here))
    assert sorted((variant.name, arch) for variant, arch in placed("smoke")) == [
        ("a", "amd64"),
        ("b", "arm64"),
        ("c", "amd64"),
        ("d", "amd64"),
        ("d", "arm64"),
    ]
    assert len(list(placed("full"))) == 7


def test_the_dump_has_a_fact_a_line_and_the_recipe_first() -> None:
    lines = dump(SMOKE[:1]).splitlines()
    assert lines[0] == "test-amd64-amd64-xl-pv recipe test-xl"
    assert "test-amd64-amd64-xl-pv guest_kind pv" in lines
    assert len(lines) == 1 + len(SMOKE[0].runvars)


def test_what_has_no_source_moves_to_a_series_that_has_or_stays_packaged() -> None:
    specs = {
        spec.name: spec.runvars for spec in flight_specs("smoke", build="source", sources=("xen-4.14", "xen-4.17"))
    }
    pvh, upgrade = specs["test-amd64-amd64-xl-pvh"], specs["test-amd64-amd64-migrupgrade"]
    assert (pvh["dom0_image"], pvh["xenbuildjob"]) == ("dom0-xen-4.17-amd64", "build-amd64-xen-4.17")
    assert upgrade["dst_host_dom0_image"] == "dom0-xen-4.20-amd64"
    assert "dst_host_xenbuildjob" not in upgrade
    assert upgrade["src_host_xenbuildjob"] == "build-amd64-xen-4.17"
    assert "build-amd64-xen-4.20" not in specs
