"""Every recipe can be run: its steps exist, its testids are its own, and its frame is whole."""

from __future__ import annotations

import pytest

import lab.flights.recipes
import testcases
from lab.flights.recipe import Recipe, all_recipes
from lab.flights.status import StepStatus
from lab.flights.steps import all_steps, load_all

load_all(testcases)
load_all(lab.flights.recipes)
RECIPES = sorted(all_recipes().values(), key=lambda recipe: recipe.name)


def test_the_recipes_of_the_smoke_flight_are_there() -> None:
    assert {"test-xl", "test-disk", "test-migrupgrade"} <= set(all_recipes())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_step_of_a_recipe_exists(recipe: Recipe) -> None:
    assert {line.step for line in recipe.lines} <= set(all_steps())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_testid_is_there_once_and_safe_in_a_path(recipe: Recipe) -> None:
    testids = [line.testid for line in recipe.lines]
    assert len(set(testids)) == len(testids)
    assert len({testid.replace("/", "-") for testid in testids}) == len(testids)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_each_host_is_looked_at_for_leaks_and_has_its_logs_taken_whatever_happens(recipe: Recipe) -> None:
    for role in recipe.roles:
        here = [line for line in recipe.lines if line.role == role.name]
        assert [line.args["mode"] for line in here if line.step == "leak-check"] == ["basis", "check"]
        assert here[-1].step == "logs-capture"
        assert here[-1].always
        assert here[-1].iffail is StepStatus.BROKEN


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_arguments_that_name_roles_name_those_of_the_recipe(recipe: Recipe) -> None:
    roles = {role.name for role in recipe.roles}
    for line in recipe.lines:
        assert {line.args[end] for end in ("source", "target") if end in line.args} <= roles


@pytest.mark.parametrize("recipe", [one for one in RECIPES if one.roles], ids=lambda recipe: recipe.name)
def test_a_fault_can_be_injected_into_a_running_guest_and_be_noticed_afterwards(recipe: Recipe) -> None:
    steps = [line.step for line in recipe.lines]
    if not {"guest-start", "xsm-policy"} & set(steps):
        return  # it has no guest
    # a policy's guests come and go in one step
    running = steps.index("xsm-policy" if recipe.name == "test-xsm" else "guest-start")
    injected = [line.testid for line in recipe.lines].index("fault-inject")
    assert running < injected < len(steps) - 1 - steps[::-1].index("leak-check")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_ends_every_guest_it_starts_and_removes_every_disk(recipe: Recipe) -> None:
    steps = [line.step for line in recipe.lines]
    assert steps.count("guest-start") == steps.count("guest-stop") + steps.count("guest-destroy")
    assert steps.count("disk-create") + steps.count("disk-boot-create") == steps.count("disk-remove")


def test_every_step_says_what_it_proves_and_has_a_limit() -> None:
    for step in all_steps().values():
        assert len(step.function.__doc__ or "") > 40, step.name
        assert 0 < step.timeout_s <= 3600, step.name
