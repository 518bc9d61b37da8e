"""Leadership: of many that may lead one does, and when it dies another one follows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from processes import Process, process, until
from sqlalchemy import Engine, text

from lab.db.leadership import Candidate, PostgresCandidate, leader_is_there, make_candidate
from lab.db.session import make_engine


@pytest.fixture
def candidates(engine: Engine, tmp_path: Path) -> Iterator[tuple[Candidate, Candidate]]:
    pair = make_candidate(engine, tmp_path), make_candidate(engine, tmp_path)
    yield pair
    for candidate in pair:
        candidate.close()


def test_of_two_candidates_one_leads_until_it_ends(
    candidates: tuple[Candidate, Candidate], engine: Engine, tmp_path: Path
) -> None:
    first, second = candidates
    assert not leader_is_there(engine, tmp_path)
    assert first.leads()
    for _ in range(3):
        assert (second.leads(), first.leads()) == (False, True)
    assert leader_is_there(engine, tmp_path)
    first.close()
    assert second.leads()
    assert not first.leads()
    second.close()
    assert not leader_is_there(engine, tmp_path)
    assert first.leads()


def test_who_loses_its_connection_leads_no_more_and_another_one_may(postgres_database: str) -> None:
    engine = make_engine(postgres_database)
    old, heir = PostgresCandidate(engine), PostgresCandidate(engine)
    assert old.leads()
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
                " WHERE l.locktype = 'advisory' AND a.application_name = 'flightline leader'"
            )
        )
    deadline = time.monotonic() + 5
    while not heir.leads():
        assert time.monotonic() < deadline
    assert not old.leads(), "it notices at its next look"
    assert not old.leads(), "it stands by, on a new connection"
    heir.close()
    assert old.leads()
    old.close()
    engine.dispose()


def test_a_candidate_without_a_database_does_not_lead_and_does_not_fail() -> None:
    candidate = PostgresCandidate(make_engine("postgresql://lab@127.0.0.1:1/lab"))
    assert not candidate.leads()
    candidate.close()


def _leading(leader: Process) -> bool:
    return leader.said().rstrip().endswith("leading")


def test_when_the_leading_process_is_killed_another_one_follows(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_DATABASE_URL", database_url)
    with ExitStack() as stack:
        leaders = [stack.enter_context(process(tmp_path / "home", "leader", name=f"leader{n}")) for n in range(3)]
        while len(leaders) > 1:
            until(lambda: any(map(_leading, leaders)), *leaders)
            [leader] = filter(_leading, leaders)
            leaders.remove(leader)
            until(lambda: all("standing by" in other.said() for other in leaders), *leaders)
            killed = leader.kill()
            until(lambda: any(map(_leading, leaders)), *leaders, seconds=10)
            assert time.monotonic() - killed < 3, "somebody leads again within a second or two"
        assert leaders[0].stop() == 0
        assert "Traceback" not in leaders[0].said()
