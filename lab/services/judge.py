"""Judge: what a flight's failures mean against a baseline."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy.orm import Session

from lab.db import flights, judging
from lab.db.judging import Versions
from lab.flights import evidence, regression
from lab.flights.judged_by import JudgedBy
from lab.flights.regression import Waiver
from lab.flights.verdict import Verdict


def judge_flight(
    session: Session,
    flight: int,
    *,
    this: Mapping[str, str],
    that: Mapping[str, str],
    policy: str | JudgedBy = regression.POLICY,
    waived: Collection[Waiver] = (),
    refer_to: Iterable[int] = (),
) -> Verdict:
    """The verdict on a flight that tested the revisions `this`, against the baseline `that` (by source tree).

    Compared are the branch's ended flights that are blessed *real* or *real-retest*: at most 1,000 of either versions,
    the newest. `refer_to` are retests whose failures are to be told in any case. Reads only; `NotFoundError` when
    there is no such flight, `ConfigError` when there is no such policy. An unfinished flight has a verdict, too, which
    says so and does not push.
    """
    by = policy if isinstance(policy, JudgedBy) else JudgedBy(policy=policy)
    branch = flights.summarise_flight(session, flight).branch
    run = judging.load_run(session, flight)
    past = judging.load_past(session, run, branch, Versions(this=this, that=that), tuple(refer_to))
    if by.policy == regression.POLICY:
        return regression.judge(
            run, past, allow=by.allow, waived=waived, refer_to=refer_to, needs_passes=by.needs_passes
        )
    tests = {(job.name, step.testid) for job, step in run.steps()}
    now = {flight, *(one.flight for one in past.same)}
    before = {*past.baseline, *judging.good_flights(session, branch)} - now
    runs = judging.load_test_runs(session, tests, now=now, before=before)
    return evidence.judge_by_evidence(run, past, runs, policy=by.evidence, allow=by.allow, waived=waived)
