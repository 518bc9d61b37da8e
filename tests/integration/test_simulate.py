"""`lab simulate`: from a file, from the lab's own history, made up; what it says no to, and what it draws."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from factories import PAIR, job_of, run_all, spec, submit

from lab.cli import main, render
from lab.context import Lab
from lab.errors import ConfigError
from lab.services.simulate import measure, scenario_from_history

FILE = """
[scheduler]
shares = { ann = 2 }
[[hosts]]
name = "arm"
arch = "arm64"
count = 2
[[hosts]]
name = "pc"
[[jobs]]
name = "build"
duration_s = 30
requires = 'arch == "x86_64"'
[[jobs]]
name = "test"
count = 4
tenant = "ann"
requires = 'arch == "arm64"'
duration_s = 100
after = ["build"]
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))

    def run(*args: str) -> Result:
        for console in (render.output, render.errors):
            console.cache_clear()
        return CliRunner().invoke(main, ["simulate", *args])

    return run


def test_a_file_is_run_and_what_ifs_are_compared(call: Callable[..., Result], tmp_path: Path) -> None:
    file, svg = tmp_path / "lab.toml", tmp_path / "picture.svg"
    file.write_text(FILE)
    result = call(str(file), "--json", "--what-if", "hosts arm64 +2", "--svg", str(svg))
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["jobs"], told["makespan_s"], told["lower_bound_s"], told["hosts"]) == (5, 230.0, 200.0, 3)
    assert told["tenants"]["ann"] == {"jobs": 4, "p50": 0.0, "p90": 100.0, "p99": 100.0, "max": 100.0}
    assert told["utilisation"]["arm64"] == {"hosts": 2, "busy": 0.8696}
    assert told["planning"]["decisions"] > 0
    assert told["what_if"][0]["makespan_s"] == 130.0
    drawn = ET.fromstring(svg.read_text())
    texts = [element.text for element in drawn.iter() if element.tag.endswith("text")]
    assert {"ann", "default", "hosts arm64 +2"} <= set(texts)
    table = call(str(file), "--what-if", "hosts arm64 +2").stdout
    assert "ratio of the two" in table
    assert "hosts arm64 +2" in table


def test_json_is_read_as_well(call: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "lab.json"
    file.write_text(json.dumps({"hosts": [{"name": "h"}], "jobs": [{"name": "j", "count": 3, "duration_s": 5}]}))
    assert json.loads(call(str(file), "--json").stdout)["makespan_s"] == 15.0


def test_what_is_made_up_is_the_same_for_the_same_seed(call: Callable[..., Result]) -> None:
    def told(seed: str) -> dict[str, object]:
        one = json.loads(call("--hosts", "10", "--jobs", "100", "--seed", seed, "--json").stdout)
        one.pop("planning")
        return one

    assert told("1") == told("1") != told("2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jobs = 3", "jobs"),
        ("[[jobs]]\nname = 'j'", "duration_s"),
        ("[[jobs]]\nname = 'j'\nduration_s = -1", "greater than or equal"),
        ("[[jobs]]\nname = 'j'\nduration_s = 1\nrequires = 'import os'", "not an expression"),
        ("[[jobs]]\nname = 'j'\nduration_s = 1\nafter = ['k']", "which is not there"),
        ("[[jobs]]\nname = 'j'\nduration_s = 1\nafter = ['j']", "in a circle"),
        ("[[jobs]]\nname = 'j'\nduration_s = 1\nrequires = 'gpu'\n[[hosts]]\nname = 'h'", "lacks gpu"),
        ("[[jobs]]\nname = 'j'\nduration_s = 1\ncount = 2000000", "less than or equal"),
        ("[[hosts]\n", "line 1"),
        ("[[jobs]]\nname = 'j'\nduration_s = 1\nfoo = 1", "foo"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(
    call: Callable[..., Result], tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    result = call(str(file))
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_other_mistakes_are_told_before_anything_runs(call: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(FILE)
    for args, words in (
        (["nowhere.toml"], "there is no such file"),
        (["--hosts", "3", "--from-history", "5"], "more than one source"),
        (["--jobs", "3", "--what-if", "moon +1"], "not known what that means"),
        (["--jobs", "3", "--svg", str(tmp_path / "none" / "x.svg")], "cannot be written"),
        (["--from-history", "5"], "no job has ended"),
        ([str(file), "--what-if", "hosts arm64 -2"], "no host matches"),
    ):
        result = call(*args)
        assert result.exit_code == 2, (args, result.output)
        assert words in " ".join(result.stderr.split()), result.stderr


def test_the_labs_own_past_is_run_again(lab: Lab) -> None:
    flight = submit(lab, spec("a"), spec("b"), spec("p", PAIR), tenant="ann")
    with lab.reads() as session, pytest.raises(ConfigError, match="no job has ended"):
        scenario_from_history(session, lab, 10)
    while any(run_all(lab)):
        pass
    assert job_of(lab, flight, "p").status.final
    with lab.reads() as session:
        scenario = scenario_from_history(session, lab, 10)
        assert len(scenario_from_history(session, lab, 2).jobs) == 2
    assert {job.request.id: len(job.request.roles) for job in scenario.jobs} == {
        f"{flight}.a": 1,
        f"{flight}.b": 1,
        f"{flight}.p": 2,
    }
    summary = measure("as it is", scenario).summary
    assert summary.ran == 3
    assert set(summary.tenants) == {"ann"}
