"""Recipes and steps as data: what cannot be is refused when it is declared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from factories import PASS, PASSES, a_step, trial_catalogue

from lab.errors import LabBug, NotFoundError
from lab.flights.model import check_name
from lab.flights.recipe import Recipe, Role, all_recipes, find_recipe, on_each, register, run
from lab.flights.recipe import test_frame as frame
from lab.flights.steps import StepContext, all_steps, find_step, step


@pytest.fixture(autouse=True)
def _catalogue() -> Iterator[None]:
    with trial_catalogue():
        yield


def test_a_doubled_testid_is_refused() -> None:
    with pytest.raises(LabBug, match="testid x is there twice"):
        Recipe(name="r", roles=(Role(name="host"),), lines=(run("a", "x"), run("b", "x")))


def test_a_role_nobody_declared_is_refused() -> None:
    with pytest.raises(LabBug, match="role dst is not declared"):
        Recipe(name="r", roles=(Role(name="src"),), lines=(run("a", role="dst"),))


def test_a_recipe_or_step_is_declared_once() -> None:
    with pytest.raises(LabBug, match="twice"):
        register(find_recipe(PASSES))

    def other(ctx: StepContext) -> None:
        """Never runs."""

    with pytest.raises(LabBug, match="twice"):
        step(PASS, timeout_s=1)(other)


def test_what_is_not_there_is_told_with_what_is() -> None:
    with pytest.raises(NotFoundError, match=PASSES):
        find_recipe("nosuch")
    with pytest.raises(NotFoundError, match=PASS):
        find_step("nosuch")


def test_the_tables_cannot_be_changed_from_outside() -> None:
    for table in (all_recipes(), all_steps()):
        with pytest.raises(TypeError):
            table["x"] = None  # type: ignore[index]


def test_a_declared_step_is_found_with_its_limit() -> None:
    def quick(ctx: StepContext) -> None:
        """Passes."""

    found = find_step(a_step(quick, timeout_s=7))
    assert (found.function, found.timeout_s) == (quick, 7)


def test_a_line_on_each_of_several_roles_has_the_role_in_its_testid() -> None:
    one, two = Role(name="src"), Role(name="dst")
    assert [(line.testid, line.role) for line in on_each((one, two), run("boot"))] == [
        ("boot/src", "src"),
        ("boot/dst", "dst"),
    ]
    assert [(line.testid, line.role) for line in on_each((one,), run("boot"))] == [("boot", "src")]


def test_every_test_job_looks_for_leaks_and_keeps_its_logs_whatever_happens() -> None:
    lines = frame((Role(name="host"),), (run("body"),))
    names = [line.testid for line in lines]
    assert names.index("leak-check/basis") < names.index("body") < names.index("leak-check/check")
    assert [line.testid for line in lines if line.always] == ["logs-capture"] == names[-1:]
    assert {line.testid for line in lines if line.setup} == {"xen-install", "host-boot"}


@pytest.mark.parametrize("name", ["a", "xen-unstable", "4.20_x", "A" * 64])
def test_a_good_name_is_taken(name: str) -> None:
    assert check_name("branch", name) == name


@pytest.mark.parametrize("name", ["", ".", "-x", "../x", "a/b", "a b", "a\n", "ä", "A" * 65, "a\0"])
def test_a_name_that_is_unsafe_in_a_path_is_refused(name: str) -> None:
    with pytest.raises(NotFoundError.__bases__[0], match="not a valid name"):
        check_name("branch", name)


def test_a_job_that_is_cut_short_keeps_what_always_runs_and_what_runs_beside_the_last_step() -> None:
    roles = (Role(name="a"), Role(name="b"))
    recipe = Recipe(
        name="r",
        roles=roles,
        lines=(run("one"), *on_each(roles, run("two")), run("three"), *on_each(roles, run("logs", always=True))),
    )
    whole = [line.testid for line in recipe.lines]
    logs = ["logs/a", "logs/b"]
    for last, left in [
        ("", whole),
        ("nowhere", whole),
        ("one", ["one", *logs]),
        ("two/a", ["one", "two/a", "two/b", *logs]),
        ("two/b", ["one", "two/a", "two/b", *logs]),
        ("three", whole),
        ("logs/b", whole),
    ]:
        assert [line.testid for line in recipe.lines_of({"stop_after": last})] == left
