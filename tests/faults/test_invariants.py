"""The invariants of the fault matrix can fail: each is broken on purpose, and told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from databases import upgrade
from factories import a_host, make_lab, run_all, spec, submit, trial_catalogue
from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from faults.invariants import violations
from lab.db.tables import AttemptRow, FlightRow, HostRow, JobRow, LeaseRow, StepRow

HELD = {101: 5.0}
"""A process that was killed at 5."""


@pytest.fixture
def machines(tmp_path: Path) -> Path:
    folder = tmp_path / "machines"
    folder.mkdir()
    return folder


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A lab at rest: two jobs ran on one host, one after the other."""
    url = f"sqlite:///{tmp_path / 'lab.db'}"
    upgrade(url)
    lab = make_lab(url, tmp_path / "home", [a_host("h0")])
    with trial_catalogue():
        submit(lab, spec("pass-1"), spec("pass-2"))
        assert len(run_all(lab) + run_all(lab)) == 2
    with lab.sessions.begin() as opened:
        opened.execute(update(HostRow).values(state="free"))  # the flight's end had it cleaned; nobody did here
        opened.flush()
        yield opened
        opened.rollback()
    lab.sessions.kw["bind"].dispose()


def journal(folder: Path, *lines: tuple[str, str, str, float]) -> None:
    """(what, use, job, when), all on h0 by process 101."""
    entries = [
        {"what": what, "use": use, "job": job, "host": "h0", "pid": 101, "at": at} for what, use, job, at in lines
    ]
    (folder / "journal").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def found(session: Session, machines: Path, finished: tuple[tuple[int, int, str], ...] = ()) -> str:
    if not (machines / "journal").exists():
        journal(machines)
    return "; ".join(violations(session, machines, deaths=HELD, finished=finished))


def test_a_lab_at_rest_has_none(session: Session, machines: Path) -> None:
    assert found(session, machines, finished=((1, 1, "pass"), (1, 2, "pass"))) == ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (update(FlightRow).values(finished=None), "was never closed"),
        (update(JobRow).where(JobRow.name == "pass-1").values(status="broken"), "should end as pass, but is broken"),
        (update(JobRow).where(JobRow.name == "pass-1").values(status="queued"), "should end as pass, but is queued"),
        (update(AttemptRow).where(AttemptRow.id == 1).values(number=2), "not numbered one by one"),
        (update(AttemptRow).where(AttemptRow.id == 1).values(finished=None), "is still being tried"),
        (update(HostRow).values(state="cleaning"), "host h0 is cleaning"),
        (update(HostRow).values(health="quarantined"), "its health quarantined"),
        (update(LeaseRow).where(LeaseRow.id == 2).values(released=None), "still held by"),
        (update(LeaseRow).values(fence=1), "under the same token 1"),
        (delete(StepRow).where(StepRow.attempt == 1, StepRow.stepno == 2), "now it is None"),
        (update(StepRow).where(StepRow.attempt == 1).values(status="broken"), "now it is broken"),
        (update(StepRow).where(StepRow.attempt == 1).values(finished=None), "never ended"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_in_the_database_is_told(session: Session, machines: Path, change, told: str) -> None:  # type: ignore[no-untyped-def]
    session.execute(change)
    session.expire_all()
    assert told in found(session, machines, finished=((1, 1, "pass"), (1, 2, "pass")))


def test_a_machine_that_was_left_on_is_told(session: Session, machines: Path) -> None:
    (machines / "h0.pid").write_text("1")
    assert "the machine of h0 was left on" in found(session, machines)


def test_two_users_of_a_host_at_one_time_are_told(session: Session, machines: Path) -> None:
    journal(machines, ("begin", "a", "1.one", 1.0), ("begin", "b", "1.other", 2.0), ("end", "a", "1.one", 3.0))
    assert "1.one and 1.other used h0 at one time" in found(session, machines)


def test_a_use_ends_with_its_process(session: Session, machines: Path) -> None:
    journal(machines, ("begin", "a", "1.one", 1.0), ("begin", "b", "1.other", 6.0), ("end", "b", "1.other", 7.0))
    assert found(session, machines) == ""
    journal(machines, ("begin", "a", "1.one", 1.0), ("begin", "b", "1.other", 4.0), ("end", "b", "1.other", 7.0))
    assert "used h0 at one time" in found(session, machines)


def test_two_leases_of_a_host_at_one_time_are_told(session: Session, machines: Path) -> None:
    first = session.get_one(LeaseRow, 1)
    assert first.released is not None
    first.released += timedelta(hours=1)
    session.flush()
    assert "h0 was leased to 1.pass-1 and to 1.pass-2 at one time" in found(session, machines)
