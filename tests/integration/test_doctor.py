"""`lab doctor` finds what is really broken, and says what to do; `lab prune` deletes what may go, and nothing else."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from factories import FakeMachines, flight_of, make_lab, run_all, spec, submit
from servers import find_postgres, free_port
from sqlalchemy import update

from lab.context import Lab
from lab.db import hosts as host_rows
from lab.db.tables import FlightRow, HostRow
from lab.doctor import examine, hosts, machine, services, settings
from lab.doctor.finding import Finding, Level
from lab.errors import InfraError
from lab.flights.retention import Retention
from lab.hosts.model import Health, HostState
from lab.labfile import load_lab_file
from lab.services.prune import GOING, prunable, prune
from lab.settings import PROJECT, Settings


def worst(findings: Iterable[Finding]) -> Level:
    levels = {one.level for one in findings}
    return next(level for level in (Level.ERROR, Level.WARNING, Level.OK) if level in levels)


def told(findings: Iterable[Finding], level: Level) -> str:
    return "; ".join(f"{one.found} -> {one.advice}" for one in findings if one.level is level)


@pytest.fixture
def there(tmp_path: Path, sqlite_template: Path) -> Settings:
    """The settings of a lab that is well."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "logs").mkdir()
    (home / "lab.db").write_bytes(sqlite_template.read_bytes())
    return Settings(home=home, min_free_mib=1)


def test_a_lab_that_is_well_has_no_errors(there: Settings) -> None:
    found = dict(examine.examine(there))
    assert {name: told(findings, Level.ERROR) for name, findings in found.items()} == dict.fromkeys(found, "")
    assert {"database", "broker", "processes", "hosts", "sandbox"} <= found.keys()


def test_a_mistyped_setting_is_told() -> None:
    assert "LAB_LEASES is set" in told(settings.check_variables({"LAB_LEASES": "1", "LAB_HOME": "/x"}), Level.WARNING)
    assert worst(settings.check_variables({"LAB_HOME": "/x", "PATH": "/bin"})) is Level.OK


def test_a_lab_file_that_cannot_be_read_is_told(there: Settings, tmp_path: Path) -> None:
    broken = tmp_path / "lab.toml"
    broken.write_text("[lab]\nname = 'x'\nhosts = 3\n")
    found = list(settings.check_lab_file(there.model_copy(update={"file": broken})))
    assert "hosts" in told(found, Level.ERROR)
    broken.write_text("[lab]\nname = 'x'\n")
    assert worst(settings.check_lab_file(there.model_copy(update={"file": broken}))) is Level.WARNING


def test_a_home_that_others_may_look_into_and_a_full_disk_are_told(there: Settings) -> None:
    there.home.chmod(0o755)
    assert "chmod 700" in told(settings.check_home(there), Level.WARNING)
    full = there.model_copy(update={"min_free_mib": 1 << 40})
    assert "no flight starts with less" in told(settings.check_home(full), Level.ERROR)


def test_a_database_that_does_not_mark_its_changes_or_is_no_database_is_told(there: Settings) -> None:
    assert worst(services.check_schema(there)) is Level.OK
    with sqlite3.connect(there.home / "lab.db") as connection:
        connection.execute("DROP TRIGGER watch_host_update")
        connection.execute("DROP TRIGGER watch_host_insert")
        connection.execute("DROP TRIGGER watch_host_delete")
    assert "nothing marks the changes of hosts" in told(services.check_schema(there), Level.ERROR)
    (there.home / "lab.db").write_bytes(b"no database at all" * 1000)
    assert worst(services.check_schema(there)) is Level.ERROR


def test_a_database_server_that_is_away_or_old_is_told(
    there: Settings, new_postgres_database: Callable[[str], str]
) -> None:
    away = there.model_copy(update={"database_url": f"postgresql+psycopg://lab@127.0.0.1:{free_port()}/lab"})
    assert "LAB_DATABASE_URL" in told(services.check_schema(away), Level.ERROR)
    empty = there.model_copy(update={"database_url": new_postgres_database("for_the_doctor")})
    assert "lab db upgrade" in told(services.check_schema(empty), Level.ERROR)
    from databases import upgrade

    upgrade(empty.database_url)
    found = list(services.check_schema(empty))
    assert (worst(found), {one.what for one in found}) == (Level.OK, {"database", "clocks"})


def test_a_broker_that_is_away_is_told_and_one_that_is_there_passes_a_message_on(
    there: Settings, redis_url: str
) -> None:
    assert worst(services.check_broker(there)) is Level.OK
    assert worst(services.check_broker(there.model_copy(update={"broker_url": redis_url}))) is Level.OK
    away = there.model_copy(update={"broker_url": f"redis://127.0.0.1:{free_port()}/0"})
    assert "LAB_BROKER_URL" in told(services.check_broker(away), Level.ERROR)


def test_that_nobody_leads_or_works_is_an_error_only_where_nobody_else_would(lab: Lab, redis_url: str) -> None:
    assert worst(services.check_processes(lab)) is Level.OK
    served = replace(lab, settings=lab.settings.model_copy(update={"broker_url": redis_url}))
    errors = told(services.check_processes(served), Level.ERROR)
    assert "nobody leads" in errors
    assert "nobody works for default" in errors


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    lab_file = load_lab_file(PROJECT / "lab.toml")
    assert "qemu-system-x86_64" in told(machine.check_programs(lab_file), Level.ERROR)
    assert worst(machine.check_sandbox()) is Level.ERROR


def test_hosts_that_do_not_fit_into_memory_are_told(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text((PROJECT / "lab.toml").read_text().replace("# memory_mib = 2048 ", "memory_mib = 1000000 "))
    assert "emulated_at_once" in told(machine.check_memory(load_lab_file(path)), Level.WARNING)


def test_a_host_that_does_not_answer_or_was_left_on_is_told_and_who_has_one_is_left_alone(lab: Lab) -> None:
    machines = lab.machines
    assert isinstance(machines, FakeMachines)
    assert worst(hosts.check_hosts(lab)) is Level.OK
    machines["h1"].power.silent = InfraError("no answer from its controller")
    machines["h2"].power.on = True
    found = list(hosts.check_hosts(lab))
    assert "h1 does not answer" in told(found, Level.ERROR)
    assert "h2 is on, though nobody has it" in told(found, Level.WARNING)
    with lab.sessions.begin() as session:
        session.execute(update(HostRow).values(state=HostState.LEASED.value))
        host_rows.set_health(session, "h1", Health.MAINTENANCE, reason="a new disk", actor="ann", now=lab.clock())
    found = list(hosts.check_hosts(lab))
    assert "does not answer" not in told(found, Level.ERROR)
    assert "h1 is maintenance: a new disk" in told(found, Level.WARNING)


def test_run_folders_of_labs_that_are_gone_are_told(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "RUN_FOLDERS", tmp_path)
    assert worst(hosts.check_leftovers(lab)) is Level.OK
    (tmp_path / f"flightline-{os.getuid()}-0123").mkdir()
    assert "flightline" in told(hosts.check_leftovers(lab), Level.WARNING)


def test_a_check_that_breaks_is_a_finding(there: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_settings: Settings) -> list[Finding]:
        raise ZeroDivisionError

    monkeypatch.setattr(services, "check_broker", broken)
    found = dict(examine.examine(there))
    assert "the check itself broke" in told(found["broker"], Level.ERROR)


def test_the_command_says_it_by_its_exit_code(there: Settings) -> None:
    command = [sys.executable, "-m", "lab.cli", "doctor", "--json"]
    environment = {**os.environ, "LAB_HOME": str(there.home), "PYTHONPATH": str(PROJECT)}
    well = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (well.returncode, {one["level"] for one in json.loads(well.stdout)} <= {"ok", "warning"}) == (0, True)
    environment["LAB_BROKER_URL"] = f"redis://127.0.0.1:{free_port()}/0"
    ill = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ill.returncode == 1
    assert any(one["what"] == "broker" and one["advice"] for one in json.loads(ill.stdout))


# --- prune


def _ended(lab: Lab, days: int, intended: str = "play") -> int:
    flight = submit(lab, spec("one"))
    run_all(lab)
    with lab.sessions.begin() as session:
        session.execute(update(HostRow).values(state=HostState.FREE.value))
        ended = datetime.now(UTC) - timedelta(days=days)
        session.execute(update(FlightRow).where(FlightRow.id == flight).values(finished=ended, intended=intended))
    assert (lab.logs / str(flight)).is_dir()
    return flight


def _folders(lab: Lab) -> set[str]:
    return {path.name for path in lab.logs.iterdir()}


def test_logs_go_when_their_flight_ended_long_enough_ago(lab: Lab) -> None:
    old, real, young = _ended(lab, 100), _ended(lab, 100, "real"), _ended(lab, 10)
    submit(lab, spec("running"))
    rule = Retention(real_days=365, other_days=90)
    with lab.reads() as session:
        found = list(prunable(session, lab, rule))
    assert [one.folder.name for one in found] == [str(old)]
    assert found[0].size > 0
    assert _folders(lab) == {str(old), str(real), str(young)}, "looking deletes nothing"
    assert prune(found) == found[0].size
    assert _folders(lab) == {str(real), str(young)}
    assert flight_of(lab, old).jobs[0].last is not None, "what is in the database stays"


def test_a_pruning_that_was_interrupted_is_finished_by_the_next_one(lab: Lab) -> None:
    old = _ended(lab, 100)
    (lab.logs / str(old)).rename(lab.logs / f"{GOING}{old}")
    with lab.reads() as session:
        found = list(prunable(session, lab, Retention()))
    assert [one.folder.name for one in found] == [f"{GOING}{old}"]
    prune(found)
    assert _folders(lab) == set()


# --- backup


def _backup_and_restore(url: str, folder: Path) -> str:
    """As docs/operating.md says it, while the lab is at work; returns the URL of the restored database."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.execute("VACUUM INTO ?", [str(folder / "backup.db")])
        return f"sqlite:///{folder / 'backup.db'}"
    plain = url.replace("+psycopg", "")
    server = plain.rpartition("/")[0]
    binaries = Path(str(find_postgres())).resolve().parent
    dump = str(folder / "backup.dump")
    for command in (
        ["pg_dump", "--format=custom", f"--file={dump}", plain],
        [
            "psql",
            "--quiet",
            f"{server}/postgres",
            "-c",
            "DROP DATABASE IF EXISTS restored",
            "-c",
            "CREATE DATABASE restored",
        ],
        ["pg_restore", "--no-owner", f"--dbname={server}/restored", dump],
    ):
        subprocess.run([str(binaries / command[0]), *command[1:]], check=True, capture_output=True)
    return f"{url.rpartition('/')[0]}/restored"


def test_a_lab_goes_on_from_its_backup(lab: Lab, tmp_path: Path) -> None:
    before = _ended(lab, 1)
    restored = make_lab(_backup_and_restore(lab.settings.database, tmp_path), lab.settings.home, lab.hosts)
    try:
        assert flight_of(restored, before).jobs[0].last is not None
        after = submit(restored, spec("two"))
        assert after == before + 1
        run_all(restored)
        assert flight_of(restored, after).jobs[0].status.value == "pass"
    finally:
        restored.sessions.kw["bind"].dispose()
