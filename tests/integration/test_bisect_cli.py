"""`lab bisect` as it is typed, on a lab of fake machines' database."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from bisection_lab import JOB, PRODUCT, TESTID, a_tree, fly, to_the_end
from click.testing import CliRunner, Result

import testcases
from lab.context import Lab
from lab.flights import recipes
from lab.flights.bisection import Policy
from lab.flights.steps import load_all
from lab.services.bisect import start_bisection

load_all(testcases)
load_all(recipes)
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def call(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command in this process, on the lab of the test; JSON in its output is the last thing it prints."""
    from lab.cli import bisect, main, render

    monkeypatch.setattr(bisect, "open_lab", lambda *_: lab)
    monkeypatch.setattr(bisect, "open_working_lab", lambda *_: lab)

    def run(*args: str) -> Result:
        for console in (render.output, render.errors):
            console.cache_clear()
        return CliRunner().invoke(main, ["bisect", *args], env={"COLUMNS": "200"})

    return run


def test_a_bisection_is_started_shown_listed_and_stopped(lab: Lab, tmp_path: Path, call: Callable[..., Result]) -> None:
    commits = a_tree(lab, tmp_path / "xen", 6)
    PRODUCT.bad |= set(commits[3:])
    good = fly(lab, commits[0])
    bad = fly(lab, commits[-1])
    started = json.loads(call("start", f"{bad}.{JOB}", "--testid", TESTID, "--at-once", "1", "--json").stdout)
    assert (started["basis_flight"], started["failing_flight"], started["state"]) == (good, bad, "running")
    assert started["trees"] == [
        {"name": "xen", "repository": "xen", "builds": ["build-amd64"], "basis": commits[0], "failure": commits[-1],
         "commits": 5}
    ]  # fmt: skip
    assert "searching" in call("show", "1").stdout
    [listed] = json.loads(call("list", "--running", "--json").stdout)
    assert listed["bisection"] == 1
    assert "stopped" in call("stop", "1", "--reason", "[x] enough").stdout
    assert "had ended already" in call("stop", "1").stdout
    assert "[x] enough" in call("show", "1").stdout
    assert JOB in call("list").stdout
    mail = call("show", "1", "--mail").stdout
    assert mail.startswith(f"Subject: [xen-unstable bisection] stopped {JOB}\n\nbranch xen-unstable\n")


@pytest.mark.parametrize(("lucky", "code", "state"), [(False, 0, "found"), (True, 1, "not-reproducible")])
def test_the_exit_code_of_following_says_whether_it_was_found(
    lab: Lab, tmp_path: Path, call: Callable[..., Result], lucky: bool, code: int, state: str
) -> None:
    commits = a_tree(lab, tmp_path / "xen", 5)
    PRODUCT.bad |= set(commits[3:])
    basis, failing = fly(lab, commits[0]), fly(lab, commits[-1])
    with lab.sessions.begin() as session:
        number = start_bisection(
            session, lab, job=JOB, testid=TESTID, basis_flight=basis, failing_flight=failing, actor="ann",
            policy=Policy(confidence=0.9, alternations=1, at_once=1), revert=False,
        )  # fmt: skip
    if lucky:
        PRODUCT.bad.clear()
    to_the_end(lab, number)
    shown = call("show", str(number), "--follow", "--json")
    assert shown.exit_code == code
    assert json.loads(shown.stdout)["state"] == state


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["start", JOB, "--testid", "x"], ["--good and --bad are needed", "FLIGHT.JOB"]),
        (["start", f"1.{JOB}", "--testid", "x", "--tree", "xen"], ["has its revisions already"]),
        (["start", f"99.{JOB}", "--testid", "x"], ["no flight '99'"]),
        (["start", JOB, "--testid", "x", "--tree", "no", "--good", "a", "--bad", "b"], ["no source tree 'no'"]),
        (["start", JOB, "--testid", "x", "--tree", "--upload-pack=x", "--good", "a", "--bad", "b"], ["name of a tree"]),
        (["start", f"1.{JOB}", "--testid", "x", "--confidence", "1"], ["0.9999"]),
        (["show", "77"], ["there is no bisection 77"]),
        (["show", "99999999999999999999"], ["there is no bisection"]),
        (["stop", "0"], ["there is no bisection 0"]),
    ],
)
def test_what_makes_no_sense_is_refused(
    lab: Lab, call: Callable[..., Result], arguments: list[str], words: list[str]
) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    for word in words:
        assert word in result.stderr
    assert result.stdout == ""
