"""The command line on an empty lab: what it shows, and how it says no."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lab.settings import read_settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv("LAB_HOME", str(home))
    monkeypatch.setenv("LAB_MIN_FREE_MIB", "0")
    return home


@pytest.fixture
def call(home: Path) -> Callable[..., Result]:
    """Run a command in this process."""
    from lab.cli import main, render

    def run(*args: str) -> Result:
        for console in (render.output, render.errors):
            console.cache_clear()  # they keep the streams they first saw
        result = CliRunner().invoke(main, args)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert lines[0].startswith(("error: ", "Usage: ")), result.stderr
    assert len(lines) <= 4
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    assert result.stdout == ""


def nothing_there(call: Callable[..., Result]) -> None:
    assert json.loads(call("flight", "list", "--json").stdout) == []


def test_an_empty_lab_says_so_and_how_to_begin(call: Callable[..., Result], home: Path) -> None:
    listed = call("flight", "list")
    assert listed.exit_code == 0
    assert "There is no flight yet" in listed.stdout
    assert (home / "lab.db").exists()
    assert home.stat().st_mode & 0o077 == 0, "the home is the owner's only"
    nothing_there(call)
    refused(call("flight", "show"), "there is no flight yet")


@pytest.mark.parametrize(
    "args",
    [
        ("flight", "show", "nosuch"),
        ("flight", "show", "nosuch", "--json"),
        ("flight", "watch", "7"),
        ("flight", "abort", "7"),
        ("job", "show", "7.x"),
        ("job", "log", "latest.x"),
    ],
)
def test_what_is_not_there_is_told_in_a_line(call: Callable[..., Result], args: tuple[str, ...]) -> None:
    refused(call(*args), "error: there is no flight", "what to do:")


def test_a_job_is_named_by_flight_and_job(call: Callable[..., Result]) -> None:
    refused(call("job", "show", "x"), "'x' does not name a job", "FLIGHT.JOB")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--matrix", "nosuch"), ["unknown flight 'nosuch'", "smoke"]),
        (("--build", "nosuch"), ["nosuch", "packaged"]),
        (("--jobs", "nosuch"), ["no job is called 'nosuch'"]),
        (("--set", "colour=red"), ["unknown runvar 'colour'"]),
        (("--set", "colour"), ["there is no '='"]),
        (("--set", "nosuch:guest_memory=1"), ["the flight has no job 'nosuch'"]),
        (("--set", "all_hostflags=hvm and ipmi"), ["lacks ipmi"]),
        (("--set", "all_hostflags=exit()"), ["host requirement"]),
        (("--set", "dom0_image=nosuch"), ["nosuch"]),
        (("--set", "guest_memory=1\n2"), ["guest_memory"]),
        (("--intended", "real-fun"), ["real-fun"]),
    ],
)
def test_a_flight_that_cannot_be_is_refused_before_anything_is_built(
    call: Callable[..., Result], home: Path, args: tuple[str, ...], words: list[str]
) -> None:
    refused(call("flight", "run", *args), *words)
    nothing_there(call)
    assert not any((home / "images").glob("*/*")), "nothing was built"


def test_a_broken_lab_file_is_told_by_name_and_line(
    call: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab.toml").write_text("[lab]\nname = \n")
    refused(call("flight", "run", "--lab", str(tmp_path / "lab.toml")), "lab.toml", "line 2")
    monkeypatch.setenv("LAB_FILE", str(tmp_path / "none.toml"))
    refused(call("host", "list"), "none.toml", "no such file")


def test_a_wrong_setting_is_told_by_its_variable(call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_RETRIES", "many")
    refused(call("flight", "list"), "LAB_RETRIES")


def test_too_little_disk_starts_nothing(call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_MIN_FREE_MIB", str(1 << 40))
    result = call("flight", "run")
    assert result.exit_code == 3
    assert "MiB are free" in result.stderr


def test_a_home_that_cannot_be_made_is_told(
    call: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "file" / "home"))
    refused(call("flight", "list"), "cannot be made", "LAB_HOME")


@pytest.fixture
def a_flight(call: Callable[..., Result]) -> int:
    """A flight of two jobs in the lab of the command line, the first with an output in markup's clothes."""
    from lab.bootstrap import bootstrap
    from lab.db import flights
    from lab.flights.matrix import flight_specs
    from lab.flights.status import Blessing
    from lab.services.construct import construct_flight

    call("host", "list")
    lab = bootstrap(read_settings())
    with lab.sessions.begin() as session:
        number = construct_flight(
            session,
            lab,
            flight_specs("smoke")[:2],
            branch="b",
            intended=Blessing.PLAY,
            submitter="me",
            note="[red]why[/]",
        )
        flights.save_runvar(session, number, flight_specs("smoke")[0].name, "odd", "[bold]é[/nosuch]")
    lab.sessions.kw["bind"].dispose()
    return number


FLIGHT_KEYS = {
    "flight", "branch", "status", "blessing", "intended", "submitter", "tenant", "note", "started", "finished",
    "counts",
}  # fmt: skip
JOB_KEYS = {"name", "recipe", "status", "reason", "waiting", "hosts", "attempts", "runvars", "steps"}


def test_json_has_the_promised_words(call: Callable[..., Result], a_flight: int) -> None:
    (summary,) = json.loads(call("flight", "list", "--json").stdout)
    assert set(summary) == FLIGHT_KEYS
    shown = json.loads(call("flight", "show", "latest", "--json").stdout)
    assert set(shown) == FLIGHT_KEYS | {"jobs", "coverage", "unmet"}
    assert (shown["flight"], shown["status"], shown["counts"], shown["note"]) == (
        a_flight,
        "queued",
        {"queued": 2},
        "[red]why[/]",
    )
    assert set(shown["jobs"][0]) == JOB_KEYS
    name = shown["jobs"][0]["name"]
    job = json.loads(call("job", "show", f"latest.{name}", "--json").stdout)
    assert set(job) == JOB_KEYS | {"flight", "queued", "outputs", "history"}
    assert (job["outputs"], job["runvars"]["odd"], job["history"]) == (["odd"], "[bold]é[/nosuch]", [])
    hosts = json.loads(call("host", "list", "--json").stdout)
    assert [host["name"] for host in hosts] == ["emu0", "emu1", "emu2", "emu3"]
    assert {**hosts[0], "health_history": []} == json.loads(call("host", "show", "emu0", "--json").stdout)


def test_a_host_shows_what_its_examination_found(call: Callable[..., Result]) -> None:
    from lab.bootstrap import bootstrap
    from lab.db import flights, hosts
    from lab.flights.matrix import flight_specs, select
    from lab.flights.status import Blessing, JobStatus
    from lab.services.construct import construct_flight

    call("host", "list")
    assert "examined" not in call("host", "show", "emu0").stdout
    lab = bootstrap(read_settings())
    [spec] = select(flight_specs("full"), ["test-amd64-amd64-examine"])
    with lab.sessions.begin() as session:
        number = construct_flight(session, lab, [spec], branch="b", intended=Blessing.PLAY, submitter="me")
        fence = hosts.fence_host(session, "emu0")
        assert fence is not None
        held = [("host", "emu0", fence, False)]
        attempt = flights.add_attempt(
            session, number, spec.name, token="t", hosts=held, now=lab.clock(), until=lab.clock()
        )
        for name, value in {"host_found_flags": "hvm pv [red]", "host_found_cpus": "2"}.items():
            flights.save_runvar(session, number, spec.name, name, value)
        flights.set_attempt_status(session, attempt, "t", JobStatus.PASS, finished=lab.clock())
        moves = (JobStatus.QUEUED, JobStatus.PREPARING, JobStatus.RUNNING, JobStatus.PASS)
        for old, new in pairwise(moves):
            flights.set_job_status(session, number, spec.name, current=old, to=new)
    shown = call("host", "show", "emu0").stdout
    assert f"examined in {number}.{spec.name}" in shown
    assert "flag pv: found, but not configured" in shown
    assert "flag [red]: found" in shown
    assert "property cpus = 2: found, but not configured" in shown
    found = json.loads(call("host", "show", "emu0", "--json").stdout)["examined"]
    assert (found["flags"], found["properties"]) == (["[red]", "hvm", "pv"], {"cpus": "2"})
    assert "examined" not in json.loads(call("host", "show", "emu1", "--json").stdout)


@pytest.fixture
def a_past(call: Callable[..., Result]) -> str:
    """Two flights of one job: it passed, then a step failed; returns its name."""
    from lab.bootstrap import bootstrap
    from lab.db import flights, hosts
    from lab.flights.matrix import flight_specs
    from lab.flights.model import StepResult
    from lab.flights.status import Blessing, JobStatus, StepStatus
    from lab.services.construct import construct_flight

    call("host", "list")
    lab = bootstrap(read_settings())
    spec = next(spec for spec in flight_specs("smoke") if "pair" not in spec.name)
    for end, step in ((JobStatus.PASS, StepStatus.PASS), (JobStatus.FAIL, StepStatus.FAIL)):
        with lab.sessions.begin() as session:
            number = construct_flight(session, lab, [spec], branch="b", intended=Blessing.PLAY, submitter="me")
            fence = hosts.fence_host(session, "emu0") or 1
            held = [("host", "emu0", fence, False)]
            now = lab.clock()
            attempt = flights.add_attempt(session, number, spec.name, token="t", hosts=held, now=now, until=now)
            seen = StepResult(
                stepno=1, testid="guest-start", step="guest-start", status=step, started=now, finished=now,
                reason="" if step is StepStatus.PASS else "[red]it hangs[/]",
            )  # fmt: skip
            flights.save_step(session, attempt, seen)
            flights.set_attempt_status(session, attempt, "t", end, finished=now)
            for old, new in pairwise((JobStatus.QUEUED, JobStatus.PREPARING, JobStatus.RUNNING, end)):
                flights.set_job_status(session, number, spec.name, current=old, to=new)
    lab.sessions.kw["bind"].dispose()
    return spec.name


def test_two_flights_are_compared_and_the_exit_code_says_whether_one_is_worse(
    call: Callable[..., Result], a_past: str
) -> None:
    worse = call("flight", "compare", "1")
    assert worse.exit_code == 1
    assert "[red]it hangs[/]" in worse.stdout
    assert f"worse: {a_past}" in worse.stdout
    assert call("flight", "compare", "2", "1").exit_code == 0
    told = json.loads(call("flight", "compare", "1", "2", "--json").stdout)
    assert [(job["job"], job["change"]) for job in told["jobs"]] == [(a_past, "worse")]
    refused(call("flight", "compare", "1", "77"), "no flight '77'")


def test_the_history_of_a_job_and_of_a_test(call: Callable[..., Result], a_past: str) -> None:
    shown = call("job", "history", a_past).stdout
    assert "guest-start: [red]it hangs[/]" in shown
    assert "50 % of 2 passed" in shown
    told = json.loads(call("job", "history", a_past, "guest-start", "--branch", "b", "--json").stdout)
    assert [run["status"] for run in told["runs"]] == ["fail", "pass"]
    assert json.loads(call("job", "history", a_past, "--branch", "c", "--json").stdout)["runs"] == []
    refused(call("job", "history", "nosuch"), "no job 'nosuch' was ever run")
    refused(call("job", "history", a_past, "nosuch"), "'nosuch' was not among")


def test_people_see_text_of_others_as_it_is(call: Callable[..., Result], a_flight: int) -> None:
    shown = call("flight", "show", str(a_flight))
    assert shown.exit_code == 0
    assert "queued" in shown.stdout
    job = call("job", "show", "latest.test-amd64-amd64-xl-pv")
    assert "[bold]é[/nosuch]" in job.stdout
    refused(call("job", "log", "latest.test-amd64-amd64-xl-pv"), "no attempt")
    refused(call("job", "show", "latest.[red]"), "[red]")
    refused(call("host", "show", "nosuch"), "emu0, emu1")
    aborted = call("flight", "abort", str(a_flight))
    assert aborted.exit_code == 0, aborted.output
    assert json.loads(call("flight", "show", "--json").stdout)["status"] == "aborted"


def test_help_of_every_command_works(call: Callable[..., Result]) -> None:
    for args in ((), ("flight",), ("flight", "run"), ("job",), ("host",), ("image",), ("db",), ("serve",), ("worker",)):
        assert "Usage: " in call(*args, "--help").stdout
    assert call("--version").exit_code == 0


def test_a_home_that_several_commands_find_empty_at_once_is_made_once(home: Path) -> None:
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "lab.cli", "flight", "list", "--json"],
            cwd=ROOT,
            env={**os.environ, "LAB_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for command in commands:
        out, err = command.communicate(timeout=60)
        assert (command.returncode, out, err) == (0, "[]\n", "")


def test_a_database_without_the_schema_is_upgraded_only_when_asked(
    call: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_DATABASE_URL", f"sqlite:///{tmp_path}/own.db")
    refused(call("flight", "list"), "lab db upgrade")
    assert call("db", "upgrade").exit_code == 0
    nothing_there(call)


def test_the_matrix_is_shown_without_running_anything(call: Callable[..., Result]) -> None:
    shown = call("matrix", "show", "--jobs", "*-migrupgrade")
    assert shown.exit_code == 0, shown.output
    assert "test-amd64-amd64-migrupgrade" in shown.output
    assert "xl-raw" not in shown.output
    plain = call("matrix", "show", "--plain", "--build", "source", "--jobs", "*-migrupgrade")
    assert "test-amd64-amd64-migrupgrade src_host_xenbuildjob build-amd64-xen-4.17\n" in plain.output
    assert "build-amd64-xen-4.20 revision debian-trixie\n" in plain.output
    listed = json.loads(call("matrix", "list", "--json").output)
    assert {"name": "smoke", "jobs": 6} in listed


def test_a_waiting_job_says_why_and_until_when_and_so_does_the_plan(call: Callable[..., Result], a_flight: int) -> None:
    from lab.bootstrap import bootstrap
    from lab.db import waits
    from lab.flights.model import Wait, Window

    name = "test-amd64-amd64-xl-pv"
    assert "no leader has looked at it yet" in call("job", "why", f"latest.{name}").stdout
    lab = bootstrap(read_settings())
    now = lab.clock()
    start = Window(p50=now + timedelta(minutes=10), p90=now + timedelta(minutes=20))
    end = Window(p50=now + timedelta(minutes=30), p90=now + timedelta(minutes=60))
    wait = Wait(
        kind="waiting_for_host", text="waiting for [red]emu0[/]", place=1, start=start, end=end, hosts={"host": "emu0"}
    )
    with lab.sessions.begin() as session:
        waits.save_waits(session, {(a_flight, name): wait}, now)
    lab.sessions.kw["bind"].dispose()
    why = call("job", "why", f"latest.{name}")
    assert why.exit_code == 0
    for words in ("waiting for [red]emu0[/]", "in ~10 min", "at most 20 min", "host = emu0", "place"):
        assert words in why.stdout
    told = json.loads(call("job", "why", f"latest.{name}", "--json").stdout)
    assert (told["waiting"]["kind"], told["waiting"]["place"], told["tenant"]) == ("waiting_for_host", 1, "me")
    plan = json.loads(call("plan", "--json").stdout)
    assert [host["name"] for host in plan["hosts"]] == ["emu0", "emu1", "emu2", "emu3"]
    assert [span["kind"] for span in plan["hosts"][0]["spans"]] == ["projected"]
    shown = call("plan").stdout
    assert "░" in next(line for line in shown.splitlines() if line.startswith("emu0"))
    assert "2 jobs waiting" in shown
    (first, _second) = json.loads(call("queue", "--json").stdout)
    assert (first["job"], first["waiting"]["text"]) == (name, "waiting for [red]emu0[/]")
    assert "[red]" in call("queue").stdout
    assert json.loads(call("queue", "--tenant", "nobody", "--json").stdout) == []
    assert "expected in ~10 min" in " ".join(call("flight", "show", "latest").stdout.split())


def test_whoever_reads_a_console_does_not_type_on_it(call: Callable[..., Result]) -> None:
    assert call("host", "console", "emu0").exit_code == 0
    refused(call("host", "console", "emu0", "--attach"), "nobody has leased emu0", "lab host lease emu0")
    assert call("host", "lease", "emu0", "--for", "1h", "--why", "a hang", "--as", "ann").exit_code == 0
    refused(call("host", "console", "emu0", "--attach", "--as", "bob"), "held by ann")
    # its holder, and an operator, come as far as the terminal that is not there
    refused(call("host", "console", "emu0", "--attach", "--as", "ann"), "needs a terminal")
    refused(call("host", "console", "emu0", "--attach", "--force", "--as", "bob"), "needs a terminal")
    assert call("host", "console", "emu0", "--as", "bob").exit_code == 0


def test_a_host_is_quarantined_drained_and_returned(call: Callable[..., Result]) -> None:
    assert (
        call("host", "quarantine", "emu0", "--why", "smells of smoke").stdout
        == "emu0 is quarantined: smells of smoke\n"
    )
    assert call("host", "drain", "emu0", "--why", "a new [red]fan", "--wait").exit_code == 0
    shown = json.loads(call("host", "show", "emu0", "--json").stdout)
    assert (shown["health"], shown["health_reason"]) == ("maintenance", "a new [red]fan")
    assert [change["new"] for change in shown["health_history"]] == ["maintenance", "quarantined"]
    refused = call("host", "drain", "emu0", "--why", "again")
    assert (refused.exit_code, "maintenance already" in refused.stderr) == (2, True)
    assert call("host", "return", "emu0").stdout == "emu0 is burn-in: to be checked\n"
    assert call("host", "return", "emu0", "--at-once", "--why", "aired").stdout == "emu0 is good: aired\n"
    assert "burn-in -> good by" in call("host", "show", "emu0").stdout
