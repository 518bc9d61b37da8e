"""A bisection as it is kept: what moves, the job to repeat, its probes, and what each probe's flight told. Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

from lab.errors import ConfigError
from lab.flights.bisection import (
    Belief,
    Found,
    Inconclusive,
    Inconsistent,
    NotReproducible,
    Observation,
    Outcome,
    Policy,
    believe,
)
from lab.flights.builds import RECIPE
from lab.flights.dependencies import RUNVAR, needed
from lab.flights.model import Job, JobKey, JobSpec, StepResult
from lab.flights.recipe import STOP_AFTER
from lab.flights.revision_graph import Commit, History, Node, RevisionGraph, Suspect, make_graph
from lab.flights.status import JobStatus, StepStatus

MOST_BROKEN: Final = 3
"""A revision whose probes were broken so often counts as one that cannot be tested."""

EQUIVALENT: Final = "equiv-"
"""Flags of hosts that are alike begin with it."""


class BisectionState(enum.Enum):
    """How a bisection stands. *failed*: it could not go on, and `reason` says why."""

    RUNNING = "running"
    FOUND = "found"
    INCONCLUSIVE = "inconclusive"
    INCONSISTENT = "inconsistent"
    NOT_REPRODUCIBLE = "not-reproducible"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """True once it has ended."""
        return self is not BisectionState.RUNNING


class Hosts(enum.Enum):
    """On which hosts probes run: those of the failing job, such as are equivalent to them, or any that it may use."""

    SAME = "same"
    EQUIVALENT = "equivalent"
    ANY = "any"


class Result(enum.Enum):
    """What came of a probe. *broken* and *aborted*: it has to be run again."""

    RUNNING = "running"
    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    SKIP = "skip"
    BROKEN = "broken"
    ABORTED = "aborted"


ORIGINAL: Final = frozenset({"basis", "failure"})
"""Purposes of the two runs that a bisection began with."""

KNOWN: Final = "known"
"""The purpose of a run that another flight had made before."""

REVERT: Final = "revert"
"""The purpose of the run of the failure without the culprit."""


@dataclass(frozen=True, kw_only=True)
class ProbeRun:
    """A run at a node: an own flight, or one that there was before. `flight` is None when none could be made."""

    number: int
    flight: int | None
    node: Node
    purpose: str
    result: Result
    reason: str = ""
    started: datetime | None = None
    finished: datetime | None = None

    @property
    def own(self) -> bool:
        """Whether the bisection made the flight."""
        return self.purpose not in ORIGINAL and self.purpose != KNOWN


@dataclass(frozen=True, kw_only=True)
class MovingTree:
    """A source tree whose revision differs: `repository` in the lab, and the build jobs that compile it.

    `name` is the repository's, unless two of its revisions move apart.
    """

    name: str
    repository: str
    builds: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Bisection:
    """All there is to know of one; its state is what the database says, whoever works at it."""

    id: int
    branch: str
    job: str
    testid: str
    state: BisectionState
    template: tuple[JobSpec, ...]
    """the job and its builds, as they are repeated"""
    trees: tuple[MovingTree, ...]
    histories: tuple[History, ...]
    policy: Policy = field(default_factory=Policy)
    hosts: Hosts = Hosts.ANY
    revert: bool = True
    """whether the failure is tested without the culprit, when that can be taken out"""
    basis_flight: int | None = None
    failing_flight: int | None = None
    actor: str = ""
    reason: str = ""
    conclusion: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    started: datetime | None = None
    finished: datetime | None = None
    turn: int = 0
    """counts up with each change: who decided on an older one has to look again"""
    probes: tuple[ProbeRun, ...] = ()

    @cached_property
    def graph(self) -> RevisionGraph:
        """What is searched."""
        return make_graph(self.histories)

    @property
    def running(self) -> tuple[ProbeRun, ...]:
        """The probes whose flights have not ended."""
        return tuple(probe for probe in self.probes if probe.result is Result.RUNNING)


_OUTCOMES: Final = {Result.PASS: Outcome.PASS, Result.FAIL: Outcome.FAIL, Result.SKIP: Outcome.SKIP}


def observations(probes: Iterable[ProbeRun]) -> list[Observation]:
    """What the probes have shown; a node whose probes broke again and again is skipped."""
    seen, broken = [], dict[Node, int]()
    for probe in probes:
        if probe.purpose == REVERT:
            continue
        if probe.result in (Result.BROKEN, Result.ABORTED):
            broken[probe.node] = broken.get(probe.node, 0) + 1
            if broken[probe.node] == MOST_BROKEN:
                seen.append(Observation(node=probe.node, outcome=Outcome.SKIP, order=probe.number))
        elif outcome := _OUTCOMES.get(probe.result):
            original = probe.purpose in ORIGINAL
            seen.append(Observation(node=probe.node, outcome=outcome, order=probe.number, original=original))
    return seen


def belief_of(bisection: Bisection) -> Belief:
    """What to think of each suspect by now."""
    return believe(bisection.graph, observations(bisection.probes))


# --- what a flight tells


def result_of(job: Job, testid: str) -> tuple[Result, str] | None:
    """What a job told of the step, and why, in a line; None as long as it has not ended.

    A failure of anything before the step (a build, the boot) says nothing of it: that revision is skipped.
    """
    if not job.status.final:
        return None
    if job.status is JobStatus.ABORTED:
        return Result.ABORTED, job.reason or "it was aborted"
    if job.status is JobStatus.STARVED:
        return Result.BROKEN, job.reason or "it was starved"
    steps = job.last.steps if job.last else ()
    step = next((one for one in steps if one.testid == testid), None)
    if step is not None:
        return _result_of_step(step, job.reason)
    if job.status is JobStatus.BROKEN:
        return Result.BROKEN, job.reason
    first = next((one for one in steps if one.status in (StepStatus.FAIL, StepStatus.BLOCKED)), None)
    if first is not None:
        return Result.SKIP, f"{first.testid} {first.status.value}: {first.reason}".rstrip(": ")
    return Result.SKIP, job.reason or f"the job has no step {testid}"


def _result_of_step(step: StepResult, why: str) -> tuple[Result, str]:
    match step.status:
        case StepStatus.PASS:
            return Result.PASS, ""
        case StepStatus.FAIL:
            return Result.FAIL, step.reason
        case StepStatus.SKIPPED | StepStatus.BLOCKED:
            return Result.SKIP, f"{step.testid} {step.status.value}: {step.reason}".rstrip(": ")
        case StepStatus.BROKEN | StepStatus.RUNNING | StepStatus.ABORTED:
            return Result.BROKEN, step.reason or why


# --- the job that is repeated


def build_jobs(job: Job) -> Mapping[str, JobKey]:
    """The build jobs that a job needs, by the prefix of the runvar that names each; of a build job, itself."""
    return {"": (job.flight, job.name)} if job.recipe == RECIPE else needed(job.values, job.flight)


def definition(job: Job) -> Mapping[str, str]:
    """What was asked for, without what steps wrote."""
    return MappingProxyType({runvar.name: runvar.value for runvar in job.runvars if not runvar.synth})


def commit_of(build: Job) -> str:
    """The commit that a build job compiled; what it was asked for, if it did not get that far."""
    return build.values.get("build_commit") or build.values.get("revision", "")


@dataclass(frozen=True, kw_only=True)
class Template:
    """A job and the builds it needs, all of one flight, and where each tree stands in the pass and in the failure."""

    specs: tuple[JobSpec, ...]
    trees: tuple[MovingTree, ...]
    basis: Node
    failure: Node


def make_template(
    failing: Job, failing_builds: Mapping[str, Job], passing: Job, passing_builds: Mapping[str, Job]
) -> Template:
    """Copy a failing job with its builds, and find what moved since it passed; builds are given by their prefix.

    `ConfigError` when the two jobs cannot be compared, or nothing moved.
    """
    if not failing_builds:
        raise ConfigError(
            f"{failing.id} needs no build: its Xen is packaged", hint="only what is built from source can be bisected"
        )
    if failing_builds.keys() != passing_builds.keys():
        raise ConfigError(f"{failing.id} and {passing.id} do not need the same builds")
    names, specs = _names(failing, failing_builds), dict[str, JobSpec]()
    groups: dict[tuple[str, str, str], list[str]] = {}
    for prefix, build in failing_builds.items():
        other = passing_builds[prefix]
        name, tree = names[prefix], build.values.get("tree", "xen")
        if other.values.get("tree", "xen") != tree:
            raise ConfigError(f"{build.id} and {other.id} are builds of different trees")
        specs[name] = JobSpec(
            name=name, recipe=build.recipe, runvars={**definition(build), "revision": commit_of(build)}
        )
        group = groups.setdefault((tree, commit_of(other), commit_of(build)), [])
        if name not in group:
            group.append(name)
    if failing.recipe != RECIPE:
        runvars = definition(failing)
        own = {f"{prefix}{RUNVAR}": name for prefix, name in names.items()}
        specs[failing.name] = JobSpec(name=failing.name, recipe=failing.recipe, runvars={**runvars, **own})
    moving = {key: builds for key, builds in groups.items() if key[1] != key[2]}
    if not moving:
        raise ConfigError(
            f"{failing.id} and {passing.id} test the same revisions", hint="a flaky test, or another host: not a commit"
        )
    trees = []
    for (tree, _basis, _failure), builds in moving.items():
        alone = sum(key[0] == tree for key in moving) == 1
        name = tree if alone else f"{tree}/{builds[0]}"
        trees.append(MovingTree(name=name, repository=tree, builds=tuple(builds)))
    return Template(
        specs=tuple(specs.values()),
        trees=tuple(trees),
        basis=tuple(key[1] for key in moving),
        failure=tuple(key[2] for key in moving),
    )


def _names(job: Job, builds: Mapping[str, Job]) -> dict[str, str]:
    """A name in one flight for each build, though they may come from several."""
    given: dict[JobKey, str] = {}
    for build in builds.values():
        key = (build.flight, build.name)
        if key not in given:
            taken = build.name in given.values() or (build.name == job.name and job.recipe != RECIPE)
            given[key] = f"{build.name[:50]}.{build.flight}" if taken else build.name
    return {prefix: given[build.flight, build.name] for prefix, build in builds.items()}


def compared(job: Job, builds: Mapping[str, Job], bisection: Bisection) -> Node | None:
    """The node that another flight's run of the job was at; None when it is another test than what is repeated."""
    own = {spec.name: spec for spec in bisection.template}
    target = own[bisection.job]
    if job.recipe != target.recipe or _kept(definition(job)) != _kept(target.runvars):
        return None
    wanted = {"": bisection.job} if job.recipe == RECIPE else {
        prefix: name for prefix, (_, name) in needed(target.runvars, 0).items()
    }  # fmt: skip
    if wanted.keys() != builds.keys():
        return None
    moving = {name: place for place, tree in enumerate(bisection.trees) for name in tree.builds}
    node = [""] * len(bisection.trees)
    for prefix, name in wanted.items():
        build = builds[prefix]
        if _kept(definition(build)) != _kept(own[name].runvars):
            return None
        commit = commit_of(build)
        if name not in moving:
            if commit != own[name].runvars.get("revision"):
                return None
        elif node[moving[name]] in ("", commit):
            node[moving[name]] = commit
        else:
            return None
    return tuple(node)


_CHOSEN: Final = re.compile(rf"(.*_)?({RUNVAR}|hostflags)|all_hostflags|revision|{STOP_AFTER}")


def _kept(runvars: Mapping[str, str]) -> dict[str, str]:
    """The runvars that make a job the test it is: not where it runs, nor of which revision."""
    return {name: value for name, value in runvars.items() if not _CHOSEN.fullmatch(name)}


def probe_specs(bisection: Bisection, node: Node) -> tuple[JobSpec, ...]:
    """The jobs of a probe's flight: the template with each tree at its revision in the node, up to the step."""
    revisions = {name: revision for tree, revision in zip(bisection.trees, node, strict=True) for name in tree.builds}
    specs = []
    for spec in bisection.template:
        changed = {"revision": revisions[spec.name]} if spec.name in revisions else {}
        if spec.name == bisection.job:
            changed[STOP_AFTER] = bisection.testid
        specs.append(replace(spec, runvars=MappingProxyType({**spec.runvars, **changed})))
    return tuple(specs)


def on_hosts(
    specs: Sequence[JobSpec], job: str, used: Mapping[str, str], flags: Mapping[str, frozenset[str]], hosts: Hosts
) -> tuple[JobSpec, ...]:
    """The jobs, `job` among them bound to the hosts it used (by role), or to such as have the same `equiv-` flags.

    A host that has no such flag is equivalent to itself alone.
    """
    if hosts is Hosts.ANY or not used:
        return tuple(specs)
    bound = dict[str, str]()
    for role, host in used.items():
        alike = sorted(flag.replace("-", "_") for flag in flags.get(host, ()) if flag.startswith(EQUIVALENT))
        if hosts is Hosts.SAME or not alike:
            bound[f"{role}_hostflags"] = f'name == "{host}"'
        else:
            bound[f"{role}_hostflags"] = " and ".join(alike)
    return tuple(
        replace(spec, runvars=MappingProxyType({**spec.runvars, **_both(spec.runvars, bound)}))
        if spec.name == job
        else spec
        for spec in specs
    )


def _both(before: Mapping[str, str], bound: Mapping[str, str]) -> dict[str, str]:
    return {name: f"({before[name]}) and {flag}" if before.get(name) else flag for name, flag in bound.items()}


# --- verdicts, as they are kept and told


def state_of(verdict: Found | Inconclusive | Inconsistent | NotReproducible) -> BisectionState:
    """The state a verdict ends a bisection in."""
    match verdict:
        case Found():
            return BisectionState.FOUND
        case Inconclusive():
            return BisectionState.INCONCLUSIVE
        case Inconsistent():
            return BisectionState.INCONSISTENT
        case NotReproducible():
            return BisectionState.NOT_REPRODUCIBLE


def conclusion_of(verdict: Found | Inconclusive | Inconsistent | NotReproducible) -> dict[str, Any]:
    """A verdict as JSON: `suspects` are {tree, commit}; for one that was found, the edge and the confidence."""
    match verdict:
        case Found():
            return {
                "suspects": [_suspect(verdict.suspect)],
                "confidence": verdict.confidence,
                "failing": list(verdict.failing),
                "passing": [list(node) for node in verdict.passing],
                "outside": list(verdict.outside),
            }
        case Inconclusive():
            return {"suspects": [_suspect(one) for one in verdict.suspects], "confidence": verdict.confidence}
        case Inconsistent():
            conflicts = [list(node) for node in verdict.conflicts]
            return {"suspects": [_suspect(verdict.suspect)], "conflicts": conflicts}
        case NotReproducible():
            return {"suspects": [], "end": verdict.end}


def told(verdict: Found | Inconclusive | Inconsistent | NotReproducible) -> str:
    """A verdict in a line."""
    match verdict:
        case Found(suspect=suspect):
            merged = ", which merges commits older than the basis, not tested" if verdict.outside else ""
            return f"{suspect.tree} {suspect.commit.id[:12]} {suspect.commit.subject}".strip() + merged
        case Inconclusive(suspects=suspects, reason=reason):
            return f"one of {len(suspects)} commits: {reason}"
        case Inconsistent(suspect=suspect, reason=reason):
            return f"an edge at {suspect.tree} {suspect.commit.id[:12]}, but {reason}"
        case NotReproducible(end=end, reason=reason):
            return f"the {end} does not reproduce: {reason}"


def _suspect(suspect: Suspect) -> dict[str, str]:
    return {"tree": suspect.tree, "commit": suspect.commit.id}


# --- as rows keep it


def histories_json(histories: Sequence[History]) -> list[dict[str, Any]]:
    """Histories for the database."""
    return [
        {
            "tree": one.tree,
            "basis": one.basis,
            "failure": one.failure,
            "jump": one.jump,
            "commits": [[c.id, list(c.parents), c.when, c.author, c.subject] for c in one.commits],
        }
        for one in histories
    ]


def read_histories(data: Sequence[Mapping[str, Any]]) -> tuple[History, ...]:
    """The same, back."""
    return tuple(
        History(
            tree=one["tree"],
            basis=one["basis"],
            failure=one["failure"],
            jump=one["jump"],
            commits=tuple(
                Commit(id=name, parents=tuple(parents), when=when, author=author, subject=subject)
                for name, parents, when, author, subject in one["commits"]
            ),
        )
        for one in data
    )
