"""Terms: who led before decides nothing any more, and takes no marks that the new leader has to read."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from factories import FakeBell, host_of, job_of, spec, submit
from sqlalchemy import Engine, func, select

from lab.context import Lab
from lab.db.changes import take_changes
from lab.db.session import make_sessions
from lab.db.tables import ChangeRow
from lab.db.terms import DeposedError, begin_term, check_term
from lab.flights.status import JobStatus
from lab.services import lead as leading


def test_terms_only_grow_and_the_newest_one_holds(engine: Engine) -> None:
    sessions = make_sessions(engine)
    with sessions.begin() as session:
        first = begin_term(session)
        check_term(session, first)
    with sessions.begin() as session:
        assert begin_term(session) == first + 1
    with sessions() as session, pytest.raises(DeposedError, match=f"term {first + 1}, no longer {first}"):
        check_term(session, first)


def test_a_new_term_waits_for_the_decision_that_is_being_made(engine: Engine) -> None:
    sessions = make_sessions(engine)
    with sessions.begin() as session:
        term = begin_term(session)

    def succeed() -> float:
        with sessions.begin() as session:
            begin_term(session)
        return time.monotonic()

    with ThreadPoolExecutor(1) as pool:
        with sessions.begin() as session:
            check_term(session, term)
            heir = pool.submit(succeed)
            time.sleep(0.3)
            assert not heir.done()
            decided = time.monotonic()
        assert heir.result(10) >= decided


def test_marks_stay_for_the_new_leader(lab: Lab) -> None:
    with lab.sessions.begin() as session:
        old = begin_term(session)
    submit(lab, spec("one"))
    with lab.sessions.begin() as session:
        begin_term(session)

    def marks() -> int:
        with lab.reads() as session:
            return session.scalar(select(func.count()).select_from(ChangeRow)) or 0

    before = marks()
    assert before

    def follow() -> None:
        with lab.sessions.begin() as session:
            take_changes(session, 100)
            check_term(session, old)

    with pytest.raises(DeposedError):
        follow()
    assert marks() == before


def test_a_deposed_leader_starts_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was stopped for a while, and does not know yet that it has lost the lock."""
    monkeypatch.setattr(leading, "DEPOSED_S", 30.0)
    bell, stop = FakeBell(), threading.Event()
    lab = replace(lab, bell=bell)
    thread = threading.Thread(target=leading.lead, args=(lab, stop), daemon=True)
    thread.start()
    first = submit(lab, spec("one", all_hostflags='name == "h1"'))
    end = time.monotonic() + 20
    while job_of(lab, first, "one").status is JobStatus.QUEUED:
        assert time.monotonic() < end
        time.sleep(0.05)
    with lab.sessions.begin() as session:
        begin_term(session)
    second = submit(lab, spec("two", all_hostflags='name == "h2"'))
    bell.ring()
    time.sleep(1.0)
    assert job_of(lab, second, "two").status is JobStatus.QUEUED
    assert host_of(lab, "h2").state.value == "free"
    stop.set()
    bell.ring()
    thread.join(20)
    assert not thread.is_alive()
