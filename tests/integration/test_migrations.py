"""The schema: up, down, up again, and what a wrong database is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from databases import alembic_config, upgrade
from sqlalchemy import Engine, inspect, text

from lab.db import tables  # noqa: F401 - declares the tables
from lab.db.base import Base
from lab.db.session import make_engine
from lab.errors import ConfigError, InfraError
from lab.settings import Settings


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new.db'}"
    make: Callable[[str], str] = request.getfixturevalue("new_postgres_database")
    return make("m" + "".join(letter for letter in request.node.name if letter.isalnum()).lower()[:50])


def differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata)


def test_the_schema_goes_up_down_and_up_and_is_what_the_tables_say(empty_url: str) -> None:
    engine = make_engine(empty_url)
    try:
        for _ in range(2):
            upgrade(empty_url)
            assert differences(engine) == []
            command.downgrade(alembic_config(engine), "base")
            assert set(inspect(engine).get_table_names()) <= {"alembic_version"}
        upgrade(empty_url)
        command.check(alembic_config(engine))
    finally:
        engine.dispose()


def test_upgrading_an_upgraded_database_changes_nothing(empty_url: str) -> None:
    from lab.bootstrap import check_database, upgrade_database

    settings = Settings(database_url=empty_url)
    with pytest.raises(ConfigError, match="not at this version's schema") as caught:
        check_database(settings)
    assert "lab db upgrade" in caught.value.hint
    upgrade_database(settings)
    upgrade_database(settings)
    check_database(settings)


def test_a_database_of_a_newer_program_is_told_and_left_alone(empty_url: str) -> None:
    from lab.bootstrap import check_database, upgrade_database

    settings = Settings(database_url=empty_url)
    upgrade_database(settings)
    engine = make_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(ConfigError, match="schema"):
        check_database(settings)
    with pytest.raises(ConfigError, match="newer"):
        upgrade_database(settings)


def test_a_file_that_is_no_database_and_a_server_that_is_not_there_are_told(tmp_path: Path) -> None:
    from lab.bootstrap import check_database, upgrade_database

    (tmp_path / "lab.db").write_bytes(b"this is not a database, " * 100)
    for url in (f"sqlite:///{tmp_path}/lab.db", f"sqlite:///{tmp_path}/no/lab.db", "postgresql://lab@127.0.0.1:1/lab"):
        for act in (upgrade_database, check_database):
            with pytest.raises(InfraError, match="the database does not answer") as caught:
                act(Settings(database_url=url))
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["nonsense", "mysql://lab@localhost/lab", "://"])
def test_a_url_that_names_no_database_we_know_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match="LAB_DATABASE_URL"):
        make_engine(url)


def test_every_change_that_matters_to_the_leader_leaves_a_mark(empty_url: str) -> None:
    """Also after all migrations: one that recreates a table on SQLite loses its triggers."""
    upgrade(empty_url)
    engine = make_engine(empty_url)
    empty = "'', '', '{}', '{}'"
    steps = {
        "INSERT INTO flights (id, branch, intended, blessing, started, submitter, note) "
        "VALUES (7, 'b', 'play', 'running', '2026-01-01', 's', '')": [],
        "INSERT INTO jobs (flight, name, position, recipe, status, reason, priority, queued) "
        "VALUES (7, 'j', 0, 'r', 'queued', '', 0, '2026-01-01')": [("job", 7, "j")],
        "UPDATE jobs SET status = 'preparing'": [("job", 7, "j")],
        "UPDATE jobs SET reason = 'why'": [],
        "DELETE FROM flights": [("job", 7, "j")],
        "INSERT INTO hosts (name, arch, health_reason, health, flags, properties, state, fence, present) "
        f"VALUES ('h', 'x86_64', {empty}, 'free', 0, true)": [("host", None, "h")],
        "UPDATE hosts SET health = 'good'": [("host", None, "h")],
        "UPDATE hosts SET state = 'leased'": [("host", None, "h")],
        "UPDATE hosts SET site = 'north'": [("host", None, "h")],
        "UPDATE hosts SET setup_key = 'k'": [("host", None, "h")],
        "UPDATE hosts SET present = false": [("host", None, "h")],
        "DELETE FROM hosts": [("host", None, "h")],
    }
    for statement, marks in steps.items():
        with engine.begin() as connection:
            connection.execute(text(statement))
            seen = [tuple(row) for row in connection.execute(text("SELECT kind, flight, name FROM changes"))]
            connection.execute(text("DELETE FROM changes"))
        assert seen == marks, statement
    engine.dispose()


def test_the_flights_of_an_older_lab_keep_all_they_have(empty_url: str) -> None:
    engine = make_engine(empty_url)
    command.upgrade(alembic_config(engine), "0001")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO flights (id, branch, intended, blessing, started, submitter, note) "
                "VALUES (7, 'b', 'play', 'running', '2026-01-01', 'somebody', 'n')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO jobs (flight, name, position, recipe, status, reason, priority, queued) "
                "VALUES (7, 'j', 0, 'r', 'queued', '', 0, '2026-01-01')"
            )
        )
    upgrade(empty_url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT tenant, note FROM flights")).all() == [("somebody", "n")]
        assert connection.execute(text("SELECT flight, name FROM jobs")).all() == [(7, "j")]
    engine.dispose()


OLD, NEW = "a" * 40, "b" * 40


def test_the_revisions_that_older_flights_tested_are_known(empty_url: str) -> None:
    """From their own builds and from those of other flights; what names a branch, or two commits, says nothing."""
    builds = [
        (1, "build-amd64", {"revision": OLD}), (1, "build-arm64", {"revision": OLD, "tree": "xen"}),
        (3, "build-amd64", {"revision": "staging"}),
        (4, "build-amd64", {"revision": OLD}), (4, "build-other", {"revision": NEW}),
        (4, "build-4.17", {"revision": OLD, "tree": "linux"}), (5, "build-amd64", {"revision": OLD}),
        (6, "build-amd64", {"revision": OLD, "synth": "x"}),
    ]  # fmt: skip
    tests = [(1, "xenbuildjob", "build-amd64"), (2, "src_xenbuildjob", "1.build-amd64"), (2, "xenbuildjobs", "9.x"),
             (7, "xenbuildjob", "build-4.17"), (8, "xenbuildjob", "99.build-amd64")]  # fmt: skip
    engine = make_engine(empty_url)
    command.upgrade(alembic_config(engine), "0014")
    with engine.begin() as connection:
        for number in range(1, 9):
            connection.execute(
                text(
                    "INSERT INTO flights (id, branch, intended, blessing, started, submitter, tenant, note) "
                    "VALUES (:id, 'b', 'real', 'real', '2026-01-01', 's', 't', '')"
                ),
                {"id": number},
            )
        jobs = [(flight, name, "build-xen", runvars) for flight, name, runvars in builds]
        jobs += [(flight, f"test-{name}", "xl", {name: value}) for flight, name, value in tests]
        jobs += [(8, "test-y", "xl", {"revision": OLD})]  # no build: its runvar is about something else
        for flight, name, recipe, runvars in jobs:
            connection.execute(
                text(
                    "INSERT INTO jobs (flight, name, position, recipe, status, reason, priority, queued) "
                    "VALUES (:flight, :name, 0, :recipe, 'pass', '', 0, '2026-01-01')"
                ),
                {"flight": flight, "name": name, "recipe": recipe},
            )
            for runvar, value in runvars.items():
                connection.execute(
                    text("INSERT INTO runvars (flight, job, name, value, synth) VALUES (:f, :j, :n, :v, false)"),
                    {"f": flight, "j": name, "n": runvar, "v": value},
                )
        connection.execute(text(f"INSERT INTO flight_revisions VALUES (5, 'xen', '{NEW}')"))
        connection.execute(text("UPDATE runvars SET synth = true WHERE flight = 6"))
    upgrade(empty_url)
    with engine.begin() as connection:
        found = connection.execute(text("SELECT flight, tree, revision FROM flight_revisions ORDER BY 1, 2"))
        assert [tuple(row) for row in found] == [
            (1, "xen", OLD), (2, "xen", OLD), (4, "linux", OLD), (5, "xen", NEW),
        ]  # fmt: skip
    engine.dispose()


def test_of_several_open_runs_of_a_gate_the_first_goes_on(empty_url: str) -> None:
    engine = make_engine(empty_url)
    command.upgrade(alembic_config(engine), "0015")
    with engine.begin() as connection:
        for number, branch in ((1, "a"), (2, "a"), (3, "b")):
            connection.execute(
                text(
                    "INSERT INTO gate_runs (id, branch, started, state, old, new, verdict, decision, pushed, reason) "
                    "VALUES (:id, :branch, '2026-01-01 00:00:00', 'testing', '', '', '{}', '', false, '')"
                ),
                {"id": number, "branch": branch},
            )
    upgrade(empty_url)
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT id, state, finished IS NULL FROM gate_runs ORDER BY id"))
        assert [(number, state, bool(is_open)) for number, state, is_open in rows] == [
            (1, "testing", True), (2, "failed", False), (3, "testing", True),
        ]  # fmt: skip
    engine.dispose()
