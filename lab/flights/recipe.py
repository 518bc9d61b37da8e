"""Recipes: which hosts a job needs and which steps it runs, as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from lab.errors import LabBug, NotFoundError
from lab.flights.status import StepStatus

STOP_AFTER: Final = "stop_after"
"""The runvar that cuts a job short."""

BROKEN: Final = StepStatus.BROKEN
FAIL: Final = StepStatus.FAIL


@dataclass(frozen=True, kw_only=True)
class Role:
    """A host a recipe asks for. Roles with the same `equivalent` name get hosts with the same `equiv-` flag."""

    name: str
    requirement: str = ""
    equivalent: str | None = None


@dataclass(frozen=True, kw_only=True)
class Line:
    """One step of a recipe.

    `testid` is the step's stable name across flights; `role` the host it works on (None: the job's first);
    `iffail` what a failure of the product means here; `always` runs it even after a failure; `setup` marks a step
    that prepares the host: it reads declared inputs only and is skipped on a host that is reused. Neighbouring lines
    with one `together` run side by side, each on its own host. A line with `when` is there only in jobs that have a
    runvar of that name.
    """

    step: str
    testid: str
    role: str | None = None
    iffail: StepStatus = FAIL
    always: bool = False
    setup: bool = False
    together: str = ""
    when: str = ""
    args: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An ordered list of steps on hosts in certain roles."""

    name: str
    roles: tuple[Role, ...]
    lines: tuple[Line, ...]
    summary: str = ""

    def __post_init__(self) -> None:
        """Refuse a recipe that cannot be: a testid twice, or a role that is not declared."""
        testids = [line.testid for line in self.lines]
        if doubled := {testid for testid in testids if testids.count(testid) > 1}:
            raise LabBug(f"recipe {self.name}: testid {', '.join(sorted(doubled))} is there twice")
        roles = {role.name for role in self.roles}
        if unknown := {line.role for line in self.lines if line.role} - roles:
            raise LabBug(f"recipe {self.name}: role {', '.join(sorted(unknown))} is not declared")

    def lines_of(self, runvars: Mapping[str, str]) -> tuple[Line, ...]:
        """The lines that a job with these runvars has.

        After the line whose testid the runvar `stop_after` names (and what runs beside it) only those follow that
        always run.
        """
        there = [line for line in self.lines if not line.when or runvars.get(line.when)]
        end = next((number for number, line in enumerate(there, 1) if line.testid == runvars.get(STOP_AFTER)), None)
        if end is None:
            return tuple(there)
        while end < len(there) and there[end].together and there[end].together == there[end - 1].together:
            end += 1
        return (*there[:end], *(line for line in there[end:] if line.always))


def run(
    step: str,
    testid: str | None = None,
    *,
    role: str | None = None,
    iffail: StepStatus = FAIL,
    always: bool = False,
    setup: bool = False,
    when: str = "",
    **args: str,
) -> Line:
    """A recipe line; the testid is the step's own name unless given."""
    return Line(
        step=step,
        testid=testid or step,
        role=role,
        iffail=iffail,
        always=always,
        setup=setup,
        when=when,
        args=MappingProxyType(args),
    )


def on_each(roles: Iterable[Role], line: Line) -> tuple[Line, ...]:
    """The line once for every role, side by side; with more than one role the testid gets `/role`, as in OSSTest."""
    several = tuple(roles)
    if len(several) == 1:
        return (replace(line, role=several[0].name),)
    return tuple(
        replace(line, role=role.name, testid=f"{line.testid}/{role.name}", together=line.testid) for role in several
    )


def test_frame(roles: tuple[Role, ...], body: Iterable[Line]) -> tuple[Line, ...]:
    """The frame every test job has (OSSTest's sg-run-job): boot Xen, look for leaks, keep the logs whatever happens."""
    return (
        run("build-check", iffail=StepStatus.BLOCKED),
        *on_each(roles, run("xen-install", iffail=BROKEN, setup=True)),
        *on_each(roles, run("host-boot", setup=True)),
        *on_each(roles, run("xen-boot")),
        *on_each(roles, run("xsm-boot", when="flask")),
        *on_each(roles, run("host-ping")),
        *on_each(roles, run("leak-check", "leak-check/basis", mode="basis")),
        *body,
        *on_each(roles, run("xsm-audit", when="flask")),
        *on_each(roles, run("leak-check", "leak-check/check", mode="check")),
        *on_each(roles, run("logs-capture", iffail=BROKEN, always=True)),
    )


def batches(lines: Iterable[Line]) -> tuple[tuple[tuple[int, Line], ...], ...]:
    """The lines with their step numbers (from 1), those that run side by side put together."""
    groups: list[list[tuple[int, Line]]] = []
    for number, line in enumerate(lines, start=1):
        if line.together and groups and groups[-1][0][1].together == line.together:
            groups[-1].append((number, line))
        else:
            groups.append([(number, line)])
    return tuple(tuple(group) for group in groups)


_RECIPES: dict[str, Recipe] = {}


def register(recipe: Recipe) -> Recipe:
    """Put a recipe into the table; the same name twice is a mistake."""
    if recipe.name in _RECIPES:
        raise LabBug(f"recipe {recipe.name} is registered twice")
    _RECIPES[recipe.name] = recipe
    return recipe


def all_recipes() -> Mapping[str, Recipe]:
    """Every recipe by name (bootstrap has loaded lab.flights.recipes)."""
    return MappingProxyType(_RECIPES)


def find_recipe(name: str) -> Recipe:
    """The recipe of this name, or `NotFoundError` with the names there are."""
    try:
        return _RECIPES[name]
    except KeyError:
        raise NotFoundError(f"unknown recipe {name!r}", hint=f"there are: {', '.join(sorted(_RECIPES))}") from None
