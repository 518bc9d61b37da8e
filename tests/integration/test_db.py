"""Queries: what goes in comes out, and of two who want one thing exactly one gets it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from factories import a_host
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session

from lab.db import flights, hosts
from lab.db.queue import Queued, load_queued, load_running
from lab.db.session import after_commit, make_engine, make_read_sessions, make_sessions
from lab.db.tables import EventRow
from lab.db.waits import drop_waits, save_waits, waits_written
from lab.errors import NotFoundError
from lab.flights.model import JobSpec, StepResult, Wait, Window
from lab.flights.status import Blessing, IllegalTransitionError, JobStatus, StepStatus
from lab.hosts.model import Health, Host, HostState

T = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ODD = "ä€😀 'x' \"y\" \\ % :z \u202e \x1b[31m\ttab"


class Database:
    """Sessions, and a flight to work on."""

    def __init__(self, engine: Engine) -> None:
        self.sessions, self.reads = make_sessions(engine), make_read_sessions(engine)
        with self.sessions.begin() as session:
            hosts.sync_hosts(session, [a_host("h1"), a_host("h2")])
            self.flight = self.add(session, "j1", "j2")

    @staticmethod
    def add(session: Session, *jobs: str, **more: Any) -> int:
        return flights.add_flight(
            session,
            **{
                "branch": "b",
                "intended": Blessing.REAL,
                "submitter": "me",
                "note": ODD,
                "jobs": [JobSpec(name=name, recipe="r", runvars={"fault": ODD}) for name in jobs],
                "now": T,
                **more,
            },
        )

    def attempt(self, job: str = "j1", *, host: str = "h1", token: str = "t") -> int:
        with self.sessions.begin() as session:
            fence = hosts.fence_host(session, host)
            assert fence is not None
            attempt = flights.add_attempt(
                session, self.flight, job, token=token, hosts=[("host", host, fence, False)], now=T, until=T
            )
            hosts.take_host(session, host, attempt=attempt, holder=f"{self.flight}.{job}", now=T)
            return attempt

    @contextmanager
    def writing(self) -> Iterator[Session]:
        with self.sessions.begin() as session:
            yield session

    def ask(self, query: Callable[..., Any], *args: Any, **more: Any) -> Any:
        with self.sessions.begin() as session:
            return query(session, *args, **more)


@pytest.fixture
def db(engine: Engine) -> Database:
    return Database(engine)


def race(count: int, act: Callable[[int], Any]) -> list[Any]:
    """Let `count` threads act at one moment; what each got."""
    barrier, results = threading.Barrier(count), [None] * count

    def run(number: int) -> None:
        barrier.wait()
        try:
            results[number] = act(number)
        except Exception as error:  # noqa: BLE001 - part of the outcome
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_a_flight_comes_out_as_it_went_in(db: Database) -> None:
    attempt = db.attempt()
    step = StepResult(
        stepno=2,
        testid="work/a",
        step="work",
        status=StepStatus.FAIL,
        started=T,
        finished=T + timedelta(seconds=1),
        host="h1",
        reason=ODD,
        evidence={"output": ODD + "\n" * 3, "nul": "a\0b"},
        log="1/j1/1/02.log",
        console={"h1": (3, None)},
    )
    with db.writing() as session:
        flights.save_step(session, attempt, step)
        flights.save_runvar(session, db.flight, "j1", "host", "h1")
    job = db.ask(flights.load_job, db.flight, "j1")
    assert job.last.steps == (step,)
    assert job.last.hosts == {"host": "h1"}
    assert [(runvar.name, runvar.value, runvar.synth) for runvar in job.runvars] == [
        ("fault", ODD, False),
        ("host", "h1", True),
    ]
    whole = db.ask(flights.load_flight, db.flight)
    assert (whole.note, whole.intended, whole.started, whole.finished) == (ODD, Blessing.REAL, T, None)
    assert [one.name for one in whole.jobs] == ["j1", "j2"]
    assert whole.jobs[0] == job


def test_saving_a_step_again_updates_it(db: Database) -> None:
    attempt = db.attempt()
    for status in (StepStatus.RUNNING, StepStatus.PASS):
        with db.writing() as session:
            flights.save_step(
                session, attempt, StepResult(stepno=1, testid="x", step="x", status=status, started=T, host=None)
            )
    assert [step.status for step in db.ask(flights.load_job, db.flight, "j1").last.steps] == [StepStatus.PASS]


def test_a_naive_time_is_refused(db: Database) -> None:
    with pytest.raises(StatementError, match="naive"):
        db.ask(flights.add_event, kind="x", now=datetime(2026, 1, 1))


def test_flights_are_found_by_number_branch_and_latest(db: Database) -> None:
    with db.writing() as session:
        other = Database.add(session, "k", branch="c")
    assert db.ask(flights.resolve_flight, "latest") == other
    assert db.ask(flights.resolve_flight, str(db.flight)) == db.flight
    for name in ("", "0", "-1", "nosuch", "9" * 9, "9" * 30, "1.5", "²", "latest "):
        with pytest.raises(NotFoundError, match="no flight"):
            db.ask(flights.resolve_flight, name)
    assert [one.id for one in db.ask(flights.list_flights)] == [other, db.flight]
    assert [one.id for one in db.ask(flights.list_flights, branch="b")] == [db.flight]
    assert [one.id for one in db.ask(flights.list_flights, before=other)] == [db.flight]
    assert len(db.ask(flights.list_flights, limit=1)) == 1
    assert db.ask(flights.list_branches) == ["b", "c"]
    with pytest.raises(NotFoundError, match="has no job 'x'"):
        db.ask(flights.load_job, db.flight, "x")
    with pytest.raises(NotFoundError):
        db.ask(flights.load_flight, 4711)


def test_of_many_workers_exactly_one_claims_an_attempt(db: Database) -> None:
    attempt = db.attempt()
    until = T + timedelta(hours=1)
    won = race(8, lambda n: db.ask(flights.claim_attempt, attempt, "t", worker=f"w{n}", until=until))
    assert sorted(won) == [False] * 7 + [True]
    assert db.ask(flights.load_job, db.flight, "j1").last.worker == f"w{won.index(True)}"


def test_of_many_planners_exactly_one_fences_a_host(db: Database) -> None:
    fences = race(8, lambda _n: db.ask(hosts.fence_host, "h1"))
    assert [fence for fence in fences if fence is not None] == [1]
    assert db.ask(hosts.load_host, "h1").host.state is HostState.LEASED


def test_a_host_is_leased_once_whoever_asks(db: Database) -> None:
    attempt = db.attempt("j1")
    with pytest.raises(IntegrityError):
        db.ask(hosts.take_host, "h1", attempt=attempt, holder="x", now=T)
    assert db.ask(hosts.load_host, "h1").holder == f"{db.flight}.j1"


def test_a_released_host_can_be_leased_again_under_a_higher_fence(db: Database) -> None:
    first = db.attempt("j1")
    names = db.ask(hosts.release_hosts, first, state=HostState.FREE, setups={"h1": "key"}, flight=db.flight, now=T)
    assert names == ["h1"]
    host = db.ask(hosts.load_host, "h1").host
    assert (host.setup_key, host.setup_flight, host.state) == ("key", db.flight, HostState.FREE)
    second = db.attempt("j2")
    assert db.ask(hosts.release_hosts, first, state=HostState.FREE, setups=None, flight=1, now=T) == []
    assert db.ask(flights.find_attempt, second).hosts[0].fence == 2


def test_the_wrong_token_does_nothing(db: Database) -> None:
    attempt = db.attempt(token="right")
    later = T + timedelta(hours=1)
    assert not db.ask(flights.claim_attempt, attempt, "wrong", worker="w", until=later)
    assert not db.ask(flights.renew_attempt, attempt, "wrong", until=later)
    assert not db.ask(flights.set_attempt_status, attempt, "wrong", JobStatus.PASS, finished=later)
    assert not db.ask(flights.held, attempt, "wrong")
    assert db.ask(flights.next_expiry) == T
    row = db.ask(flights.load_job, db.flight, "j1").last
    assert (row.status, row.finished, row.worker) == (JobStatus.PREPARING, None, "")
    assert not db.ask(flights.claim_attempt, 4711, "right", worker="w", until=later)


def test_nothing_moves_an_attempt_that_has_ended(db: Database) -> None:
    attempt = db.attempt()
    assert db.ask(flights.set_attempt_status, attempt, "t", JobStatus.FAIL, reason="r", finished=T)
    assert not db.ask(flights.set_attempt_status, attempt, "t", JobStatus.PASS, finished=T)
    assert not db.ask(flights.renew_attempt, attempt, "t", until=T)
    assert not db.ask(flights.claim_attempt, attempt, "t", worker="w", until=T)
    assert not db.ask(flights.held, attempt, "t")
    assert db.ask(flights.next_expiry) is None
    assert db.ask(flights.expired_attempts, T + timedelta(days=1)) == []


def test_a_job_moves_only_from_where_it_is(db: Database) -> None:
    move = {"current": JobStatus.QUEUED, "to": JobStatus.PREPARING}
    assert db.ask(flights.set_job_status, db.flight, "j1", **move)
    assert not db.ask(flights.set_job_status, db.flight, "j1", **move)
    assert not db.ask(flights.set_job_status, db.flight, "nosuch", **move)
    assert db.ask(flights.job_status, db.flight, "j1") is JobStatus.PREPARING
    with pytest.raises(IllegalTransitionError):
        db.ask(flights.set_job_status, db.flight, "j1", current=JobStatus.PASS, to=JobStatus.QUEUED)


def test_of_many_who_move_a_job_one_does(db: Database) -> None:
    move = {"current": JobStatus.QUEUED, "to": JobStatus.PREPARING}
    assert sorted(race(6, lambda _n: db.ask(flights.set_job_status, db.flight, "j1", **move))) == [False] * 5 + [True]


def test_the_newest_job_of_a_recipe_that_passed_on_a_host_is_found(db: Database) -> None:
    def newest(recipe: str, host: str) -> str | None:
        found = db.ask(flights.newest_job_on, recipe=recipe, host=host)
        return found.id if found else None

    assert newest("r", "h1") is None
    for job, ended in (("j1", JobStatus.PASS), ("j2", JobStatus.FAIL)):
        attempt = db.attempt(job, token=job)
        db.ask(flights.set_attempt_status, attempt, job, ended, finished=T)
        db.ask(hosts.release_hosts, attempt, state=HostState.FREE, setups=None, flight=None, now=T)
        for now, to in ((JobStatus.QUEUED, JobStatus.PREPARING), (JobStatus.PREPARING, JobStatus.RUNNING)):
            db.ask(flights.set_job_status, db.flight, job, current=now, to=to)
        db.ask(flights.set_job_status, db.flight, job, current=JobStatus.RUNNING, to=ended)
    assert newest("r", "h1") == f"{db.flight}.j1", "the later one failed"
    assert newest("r", "h2") is None
    assert newest("other", "h1") is None


def test_a_new_attempt_counts_up_and_drops_the_outputs_of_the_one_before(db: Database) -> None:
    first = db.attempt()
    with db.writing() as session:
        flights.save_runvar(session, db.flight, "j1", "host", "h1")
        flights.set_attempt_status(session, first, "t", JobStatus.BROKEN, finished=T)
    db.attempt(host="h2")
    job = db.ask(flights.load_job, db.flight, "j1")
    assert [attempt.number for attempt in job.attempts] == [1, 2]
    assert [runvar.name for runvar in job.runvars] == ["fault"]


def test_a_flight_is_closed_once(db: Database) -> None:
    assert race(4, lambda _n: db.ask(flights.close_flight, db.flight, blessing=Blessing.REAL, now=T)).count(True) == 1
    assert db.ask(flights.unfinished_flights) == []


def test_the_queue_is_what_is_queued_with_its_broken_attempts_and_its_runvars(db: Database) -> None:
    with db.writing() as session:
        other = Database.add(session, "a", priority=5)

    def queue(*keys: tuple[int, str]) -> dict[str, Queued]:
        return {one.job.id: one for one in db.ask(lambda session: list(load_queued(session, keys or None)))}

    assert queue().keys() == {f"{db.flight}.j1", f"{db.flight}.j2", f"{other}.a"}
    found = queue((other, "a"), (other, "nosuch"))[f"{other}.a"]
    assert (found.priority, found.position, found.tenant) == (5, 0, "me")
    attempt = db.attempt()
    db.ask(flights.set_job_status, db.flight, "j1", current=JobStatus.QUEUED, to=JobStatus.PREPARING)
    assert queue().keys() == {f"{db.flight}.j2", f"{other}.a"}
    (running,) = db.ask(lambda session: list(load_running(session)))
    assert (running.attempt, running.job, dict(running.hosts)) == (attempt, "j1", {"host": "h1"})
    assert db.ask(lambda session: list(load_running(session, [(other, "a")]))) == []
    with db.writing() as session:
        flights.set_attempt_status(session, attempt, "t", JobStatus.BROKEN, finished=T)
        flights.set_job_status(session, db.flight, "j1", current=JobStatus.PREPARING, to=JobStatus.QUEUED)
    again = queue()[f"{db.flight}.j1"].job
    assert [dict(attempt.hosts) for attempt in again.attempts] == [{"host": "h1"}]
    assert {runvar.name for runvar in again.runvars} >= {"fault"}
    assert db.ask(lambda session: list(load_running(session))) == []


def test_a_wait_is_shown_while_its_job_is_queued_and_goes_with_it(db: Database) -> None:
    wait = Wait(kind="k", text="waits", data={"n": 1}, place=2, start=Window(p50=T, p90=T), hosts={"host": "h1"})
    with db.writing() as session:
        save_waits(session, {(db.flight, "j2"): wait, (db.flight, "nosuch"): wait}, T)
        save_waits(session, {(db.flight, "j2"): replace(wait, place=1)}, T)
    shown = db.ask(flights.load_job, db.flight, "j2")
    assert (shown.reason, shown.wait) == ("waits", replace(wait, place=1, updated=T))
    assert db.ask(flights.load_job, db.flight, "j1").wait is None
    db.ask(flights.set_job_status, db.flight, "j2", current=JobStatus.QUEUED, to=JobStatus.PREPARING)
    assert db.ask(flights.load_job, db.flight, "j2").wait is None
    db.ask(drop_waits, [(db.flight, "j2")])
    assert db.ask(waits_written) == {}


def test_events_come_in_order_and_can_be_paged(db: Database) -> None:
    for number in range(3):
        db.ask(flights.add_event, kind="k", now=T, flight=number, data={"n": ODD})
    found = db.ask(flights.events_after, 0)
    assert [kind for _id, kind, _data in found] == ["k"] * 3
    assert found[0][2] == {"n": ODD}
    assert db.ask(flights.last_event) == found[-1][0]
    assert db.ask(flights.events_after, found[1][0]) == found[2:]
    assert [one[0] for one in db.ask(flights.events_after, 0, flight=1)] == [found[1][0]]


def test_syncing_hosts_keeps_their_state_and_hides_those_that_left(db: Database) -> None:
    db.attempt()
    db.ask(hosts.set_health, "h1", Health.SUSPECT, reason="odd", actor="me", now=T)
    changed = Host(name="h1", arch="arm64", flags=frozenset({"new"}), properties={"cores": 4, "ok": True, "f": 1.5})
    db.ask(hosts.sync_hosts, [changed])
    (view,) = db.ask(hosts.list_hosts)
    assert (view.host.arch, view.host.flags, dict(view.host.properties)) == ("arm64", {"new"}, dict(changed.properties))
    assert (view.host.state, view.host.health, view.holder) == (HostState.LEASED, Health.SUSPECT, f"{db.flight}.j1")
    with pytest.raises(NotFoundError, match="h1"):
        db.ask(hosts.load_host, "h2")
    db.ask(hosts.sync_hosts, [changed, a_host("h2")])
    assert [view.host.name for view in db.ask(hosts.list_hosts)] == ["h1", "h2"]


def test_every_change_of_health_is_written_down(db: Database) -> None:
    db.ask(hosts.set_health, "h1", Health.QUARANTINED, reason=ODD, actor="lab", now=T)
    db.ask(hosts.set_health, "h1", Health.GOOD, reason="repaired", actor="ann", now=T + timedelta(days=1))
    assert [(one.old, one.new, one.actor) for one in db.ask(hosts.health_history, "h1")] == [
        (Health.QUARANTINED, Health.GOOD, "ann"),
        (Health.GOOD, Health.QUARANTINED, "lab"),
    ]
    with pytest.raises(NotFoundError):
        db.ask(hosts.set_health, "h9", Health.GOOD, reason="", actor="", now=T)


def test_only_free_hosts_of_a_finished_flight_go_to_cleaning(db: Database) -> None:
    for name in ("h1", "h2"):
        db.ask(hosts.set_host_setup, name, "key", db.flight)
    db.ask(hosts.fence_host, "h2")
    assert db.ask(hosts.start_cleaning, db.flight) == ["h1"] == db.ask(hosts.cleaning_hosts)
    assert db.ask(hosts.end_cleaning, "h1")
    assert not db.ask(hosts.end_cleaning, "h1")
    assert not db.ask(hosts.end_cleaning, "h2")


def test_a_message_leaves_after_the_commit_once_and_never_after_a_rollback(db: Database) -> None:
    sent: list[int] = []
    with db.writing() as session:
        after_commit(session, lambda: sent.append(db.ask(flights.last_event)))
        flights.add_event(session, kind="x", now=T)
        session.flush()
        assert sent == []
    assert sent == [1]
    with db.writing() as session:
        after_commit(session, lambda: sent.append(0))
        session.rollback()
    assert sent == [1]


def test_a_message_that_cannot_be_sent_does_not_undo_or_hide_what_was_written(db: Database) -> None:
    sent: list[str] = []

    def fail() -> None:
        raise ConnectionError("the broker is away")

    with db.writing() as session:
        after_commit(session, fail)
        after_commit(session, lambda: sent.append("next"))
        flights.add_event(session, kind="x", now=T)
    assert sent == ["next"]
    assert db.ask(flights.last_event) == 1


def test_a_reader_never_waits_for_a_writer(db: Database) -> None:
    with db.writing() as session:
        session.add(EventRow(at=T, flight=None, kind="x", data={}))
        session.flush()
        with db.reads() as reading:
            assert flights.last_event(reading) == 0


def test_writers_wait_for_each_other_instead_of_failing(db: Database) -> None:
    def write(_number: int) -> None:
        for _ in range(5):
            with db.writing() as session:
                newest = flights.last_event(session)
                flights.add_event(session, kind="x", now=T, data={"after": newest})

    assert race(4, write) == [None] * 4
    assert len(db.ask(flights.events_after, 0)) == 20


def test_sqlite_enforces_foreign_keys_and_keeps_a_write_ahead_log(db: Database, engine: Engine) -> None:
    orphan = text("INSERT INTO runvars (flight, job, name, value, synth) VALUES (4711, 'x', 'y', '', :no)")
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(orphan, {"no": False})
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            assert connection.scalar(text("PRAGMA journal_mode")) == "wal"


def test_a_new_database_may_be_opened_by_several_at_once(tmp_path: Path) -> None:
    """SQLite itself refuses about one in twenty of them."""
    together = threading.Barrier(3)

    def opened(number: int) -> str:
        engine = make_engine(f"sqlite:///{tmp_path / f'{number}.db'}")
        together.wait(30)
        with engine.connect() as connection:
            mode = str(connection.scalar(text("PRAGMA journal_mode")))
        engine.dispose()
        return mode

    with ThreadPoolExecutor(3) as pool:
        for number in range(150):
            assert list(pool.map(opened, [number] * 3)) == ["wal"] * 3


def test_hosts_may_be_read_in_by_several_processes_at_once(engine: Engine) -> None:
    """As when two leaders of a new lab start together."""
    sessions = make_sessions(engine)
    begun = threading.Event()

    def read_in() -> None:
        begun.set()
        with sessions.begin() as session:
            hosts.sync_hosts(session, [a_host("h1"), a_host("h3")])

    with ThreadPoolExecutor(1) as pool, sessions.begin() as session:
        hosts.sync_hosts(session, [a_host("h1"), a_host("h2")])
        session.flush()
        other = pool.submit(read_in)
        begun.wait(10)
        time.sleep(0.2)
        session.commit()
        other.result(30)
    with sessions() as session:
        assert [host.name for host in hosts.present_hosts(session)] == ["h1", "h3"]
