"""Sites: who does not answer is shut, asked, and opened again; what it was given does not count against the job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from factories import PASS, Messages, a_host, a_recipe, later, spec, start, submit

from lab.context import Lab
from lab.db import flights, hosts, processes
from lab.db import sites as rows
from lab.db.changes import take_changes
from lab.flights.recipe import run
from lab.flights.status import JobStatus
from lab.hosts.breaker import Circuit
from lab.services.clean_host import clean_host
from lab.services.run_job import run_job
from lab.services.settle import reap
from lab.services.sites import ask_sites, note_answer, note_silence


@pytest.fixture
def two_sites(new_lab: Callable[..., Lab]) -> Lab:
    return new_lab(a_host("n1", site="north"), a_host("s1", site="south"))


def at(site: str) -> dict[str, str]:
    return {"all_hostflags": f'site == "{site}"'}


def reaped(lab: Lab, seconds: float = 61) -> int:
    with lab.sessions.begin() as session:
        return reap(session, later(lab, seconds))


def standing(lab: Lab) -> dict[str, Circuit]:
    with lab.reads() as session:
        return {name: breaker.state for name, breaker in rows.list_breakers(session).items()}


def answered(lab: Lab, site: str) -> None:
    with lab.sessions.begin() as session:
        note_answer(session, lab, site)


def asked(lab: Lab) -> Sequence[str]:
    assert isinstance(lab.dispatch, Messages)
    return lab.dispatch.asked


def test_an_attempt_is_for_the_site_of_its_hosts_and_a_build_for_the_one_that_builds(two_sites: Lab) -> None:
    lab = replace(two_sites, build_site="south")
    build = a_recipe(run(PASS, "build"), roles=())
    submit(lab, spec("n", **at("north")), spec("s", **at("south")), spec("b", build))
    ids = [attempt for attempt, _token in start(lab)]
    with lab.reads() as session:
        found = {}
        for attempt in ids:
            row = flights.find_attempt(session, attempt)
            assert row is not None
            found[row.job] = flights.site_of_attempt(session, attempt)
        assert found == {"n": "north", "s": "south", "b": "south"}
        assert flights.site_of_attempt(session, 4711) == "default"
        assert (hosts.site_of_host(session, "n1"), hosts.site_of_host(session, "no")) == ("north", "default")


def test_a_site_nobody_answers_for_is_shut_and_the_job_is_none_the_worse(two_sites: Lab) -> None:
    lab = two_sites
    number = submit(lab, spec("n", **at("north")), spec("s", **at("south")))
    for attempt, token in start(lab):
        with lab.sessions.begin() as session:
            if flights.site_of_attempt(session, attempt) == "south":
                flights.claim_attempt(session, attempt, token, worker="w", until=later(lab, 1000).clock())
    assert reaped(lab) == 1
    assert standing(lab) == {"north": Circuit.OPEN}
    with lab.reads() as session:
        assert f"no worker took {number}.n" in rows.shut_sites(session)["north"].reason
        assert flights.job_status(session, number, "n") is JobStatus.QUEUED
        assert flights.count_tries(session, number, "n") == 0


def shut(lab: Lab, site: str) -> None:
    submit(lab, spec("x", **at(site)))
    assert start(lab)
    assert reaped(lab) == 1


def test_a_shut_site_is_asked_in_time_and_opens_when_it_answers(two_sites: Lab) -> None:
    lab = two_sites
    shut(lab, "north")
    assert ask_sites(later(lab, 62)) == [], "not yet"
    ahead = later(lab, 70)
    assert ask_sites(ahead) == ["north"]
    assert asked(lab) == ["north"]
    assert standing(lab) == {"north": Circuit.HALF_OPEN}
    assert ask_sites(ahead) == [], "one question at a time"
    with lab.sessions.begin() as session:
        take_changes(session, 1000)
    rings = lab.bell.rings  # type: ignore[attr-defined]
    answered(ahead, "north")
    assert standing(lab) == {"north": Circuit.CLOSED}
    assert lab.bell.rings == rings + 1, "there may be work to give out"  # type: ignore[attr-defined]
    with lab.sessions.begin() as session:
        assert "site" in take_changes(session, 1000).others
    answered(ahead, "north")
    assert lab.bell.rings == rings + 1  # type: ignore[attr-defined]


def test_a_site_that_stays_silent_is_asked_again_and_again(two_sites: Lab) -> None:
    lab = two_sites
    shut(lab, "north")
    for second in range(61, 400):
        ask_sites(later(lab, second))
    assert 4 <= len(asked(lab)) <= 12
    assert set(asked(lab)) == {"north"}


def test_a_worker_that_comes_to_life_is_asked_at_once(two_sites: Lab) -> None:
    lab = two_sites
    shut(lab, "north")
    for second in range(61, 300):
        ask_sites(later(lab, second))
    before = len(asked(lab))
    now = later(lab, 301).clock()
    with lab.sessions.begin() as session:
        processes.see_process(session, "w:1", kind="worker", sites=["north"], version="1", started=now, now=now)
    for second in range(301, 325):
        ask_sites(later(lab, second))
    assert len(asked(lab)) > before


def silent(lab: Lab, site: str) -> None:
    with lab.sessions.begin() as session:
        note_silence(session, lab, site, "nobody answers")


def test_whatever_a_worker_does_for_a_site_is_an_answer(two_sites: Lab) -> None:
    lab = two_sites
    submit(lab, spec("x", **at("north")))
    ((attempt, token),) = start(lab)
    silent(lab, "north")
    run_job(lab, attempt, "another's")
    clean_host(lab, "s1")
    assert standing(lab) == {"north": Circuit.OPEN}, "there was nothing to do"
    run_job(lab, attempt, token)
    assert standing(lab) == {"north": Circuit.CLOSED}, "it took up a job"
    silent(lab, "north")
    clean_host(lab, "n1")
    assert standing(lab) == {"north": Circuit.CLOSED}, "it cleaned a host"


def test_processes_are_seen_and_forgotten(lab: Lab) -> None:
    now = lab.clock()
    with lab.sessions.begin() as session:
        for name, kind in (("a:1", processes.LEADER), ("b:2", processes.WORKER)):
            processes.see_process(session, name, kind=kind, sites=["x", "default"], version="1", started=now, now=now)
    number = submit(lab, spec("a"))
    ((attempt, token),) = start(lab)
    with lab.sessions.begin() as session:
        flights.claim_attempt(session, attempt, token, worker="b:2", until=now)
        leader, worker = processes.list_processes(session)
        assert (leader.kind, worker.sites, worker.jobs) == ("leader", ("default", "x"), (f"{number}.a",))
        assert worker.alive(now)
        assert not worker.alive(later(lab, 30).clock())
        assert processes.living_sites(session, now) == {"default", "x"}
        assert processes.living_sites(session, later(lab, 30).clock()) == set()
        processes.forget_process(session, "a:1")
        processes.forget_silent_processes(session, later(lab, 30).clock())
        assert [view.name for view in processes.list_processes(session)] == ["b:2"]
        processes.forget_silent_processes(session, later(lab, 8 * 86_400).clock())
        assert processes.list_processes(session) == []


def test_jobs_of_a_site_that_is_shut_wait_and_say_so(two_sites: Lab) -> None:
    lab = two_sites
    with lab.sessions.begin() as session:
        for _ in range(5):
            note_silence(session, lab, "north", "no worker took 1.a")
    assert standing(lab)["north"] is not Circuit.CLOSED
    number = submit(lab, spec("n", **at("north")), spec("s", **at("south")))
    assert len(start(lab)) == 1
    with lab.reads() as session:
        wait = flights.load_job(session, number, "n").wait
    assert wait is not None
    assert (wait.kind, wait.start) == ("blockage_until", None)
    assert "site north does not answer" in wait.text
