"""A lab of fake machines with one gated branch: real bare git repositories, a real database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from bisection_lab import a_tree, git, specs, work
from factories import trial_catalogue

import testcases
from lab.context import Lab
from lab.db import board
from lab.flights import recipes
from lab.flights.board import GateRun
from lab.flights.model import JobSpec
from lab.flights.steps import load_all
from lab.labfile import BranchSettings
from lab.services import gate_step
from lab.services.gate import begin_gate, override
from lab.services.gate_step import step_gates

load_all(testcases)
load_all(recipes)

NAME = "xen-unstable"


@dataclass
class World:
    """A lab with one gated branch; `source` is where people commit, `output` what the gate moves."""

    lab: Lab
    source: Path
    output: Path
    commits: list[str]

    def at(self, ref: str = "master") -> str:
        return git(self.output, "rev-parse", f"refs/heads/{ref}")

    def tip(self, commit: str) -> None:
        """Where `staging` of the source is."""
        git(self.source, "update-ref", "refs/heads/staging", commit)

    def run(self, rounds: int = 30) -> GateRun:
        """A whole run of the gate."""
        with self.lab.sessions.begin() as session:
            number = begin_gate(session, self.lab, NAME, actor="tester")
        return self.finish(number, rounds)

    def finish(self, number: int, rounds: int = 30) -> GateRun:
        for _ in range(rounds):
            step_gates(self.lab)
            if (run := self.load(number)).finished is not None:
                return run
            work(self.lab)
        raise AssertionError(f"it does not end: {run}")

    def load(self, number: int) -> GateRun:
        with self.lab.reads() as session:
            return board.load_run(session, number)

    def notes(self, run: GateRun) -> list[str]:
        return [f"{one['testid']} {one['note']}" for one in run.verdict.get("findings", ()) if one["blocks"]]

    def say(self, kind: str, **more: Any) -> int:
        with self.lab.sessions.begin() as session:
            return override(
                session, self.lab, NAME, kind,
                **{"actor": "ian", "reason": "because", "expires": None, **more},
            )  # fmt: skip


@pytest.fixture
def make_world(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    """Makes the world; settings are those of the branch."""

    def make(**settings: Any) -> World:
        source, output = tmp_path / "source", tmp_path / "output.git"
        commits = a_tree(lab, source, 6)
        git(tmp_path, "init", "--quiet", "--bare", str(output))
        git(source, "push", "--quiet", str(output), f"{commits[1]}:refs/heads/master")
        git(source, "checkout", "--quiet", "--detach")
        branch = BranchSettings(
            **{"url": str(source), "ref": "staging", "push_url": str(output), "push_ref": "master",
               "jobs": ("test-amd64-amd64-xl-pv",), "bisect": False, **settings}
        )  # fmt: skip

        def jobs(_lab: Lab, _branch: BranchSettings, commit: str) -> tuple[JobSpec, ...]:
            return tuple(specs(commit))

        monkeypatch.setattr(gate_step, "gate_specs", jobs)
        world = World(replace(lab, branches={NAME: branch}), source, output, commits)
        world.tip(commits[2])
        return world

    with trial_catalogue():
        yield make
