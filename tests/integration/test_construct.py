"""Submitting a flight: all of it or nothing, and every mistake in words."""

from __future__ import annotations

from typing import Any

import pytest
from factories import PAIR, PASSES, flight_of, spec, submit

from lab.context import Lab
from lab.db import flights
from lab.errors import ConfigError, NotFoundError
from lab.flights.model import JobSpec
from lab.flights.status import Blessing, JobStatus


def test_a_good_flight_is_queued_whole_and_the_leader_is_woken(lab: Lab) -> None:
    number = submit(lab, spec("a", fault="x", dom0_image="dom0-test"), spec("b", PAIR, a_dom0_mem="512"), note="why")
    flight = flight_of(lab, number)
    assert (flight.branch, flight.intended, flight.status) == ("trial", Blessing.PLAY, JobStatus.QUEUED)
    assert [job.name for job in flight.jobs] == ["a", "b"]
    assert flight.jobs[0].values == {"fault": "x", "dom0_image": "dom0-test"}
    assert lab.bell.rings == 1  # type: ignore[attr-defined]


BAD: dict[str, tuple[list[JobSpec], dict[str, Any], str]] = {
    "no job": ([], {}, "at least one job"),
    "bad branch": ([spec("a")], {"branch": "../x"}, "branch"),
    "bad job name": ([spec("a b")], {}, "job"),
    "two of a name": ([spec("a"), spec("a")], {}, "same name"),
    "unknown recipe": ([spec("a", "nosuch")], {}, "job a: unknown recipe 'nosuch'"),
    "unknown runvar": ([spec("a", colour="red")], {}, "job a: unknown runvar 'colour'"),
    "runvar of no role": ([spec("a", src_dom0_mem="1")], {}, "src_dom0_mem"),
    "newline in a runvar": ([spec("a", fault="x\ny")], {}, "fault"),
    "NUL in a runvar": ([spec("a", fault="x\0y")], {}, "fault"),
    "unknown image": ([spec("a", dom0_image="nosuch")], {}, "there is no image 'nosuch'"),
    "requirement outside the language": ([spec("a", all_hostflags="exit()")], {}, "requirement"),
    "requirement nobody meets": ([spec("a", all_hostflags="hvm and ipmi")], {}, "nearest is h1, which lacks ipmi"),
    "a pair on one host": ([spec("a", PAIR, all_hostflags='name == "h1"')], {}, "needs 2 hosts"),
    "the second job is bad": ([spec("a"), spec("b", colour="red")], {}, "job b"),
    "NUL in the note": ([spec("a")], {"note": "x\0"}, "note"),
    "undecodable note": ([spec("a")], {"note": "\udcff"}, "note"),
    "endless note": ([spec("a")], {"note": "x" * 5000}, "note"),
    "NUL in the tenant": ([spec("a")], {"tenant": "x\0"}, "tenant"),
    "endless tenant": ([spec("a")], {"tenant": "x" * 200}, "tenant"),
    "endless submitter": ([spec("a")], {"submitter": "x" * 200}, "submitter"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_told_and_nothing_is_inserted(lab: Lab, case: str) -> None:
    specs, more, words = BAD[case]
    with pytest.raises(ConfigError) as caught:
        submit(lab, *specs, **more)
    assert words in str(caught.value)
    with lab.reads() as session:
        assert flights.list_flights(session) == []
        assert flights.last_event(session) == 0
    assert lab.bell.rings == 0  # type: ignore[attr-defined]


def test_an_unknown_name_stays_a_not_found_error(lab: Lab) -> None:
    with pytest.raises(NotFoundError):
        submit(lab, spec("a", "nosuch"))


def test_a_branch_and_jobs_may_be_as_long_as_names_may_be(lab: Lab) -> None:
    number = submit(lab, spec("j" * 64, PASSES), branch="b" * 64, submitter="s" * 128, note="é" * 4096)
    assert flight_of(lab, number).jobs[0].name == "j" * 64


def test_a_flight_is_its_submitters_unless_it_is_told_whose(lab: Lab) -> None:
    mine, theirs = submit(lab, spec("a")), submit(lab, spec("a"), tenant="arm team")
    assert [flight_of(lab, number).tenant for number in (mine, theirs)] == ["tester", "arm team"]
