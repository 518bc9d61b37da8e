"""How long it takes to judge an 89-job flight of some 2,000 steps against 1,000 past flights of its branch.

pytest tests/benchmarks/test_judge_speed.py -m benchmark -s
"""

from __future__ import annotations

import os
import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import past as pasts
import pytest
from databases import upgrade
from sqlalchemy import select, text, update

from lab.db import flights, judging
from lab.db.session import make_engine, make_read_sessions
from lab.db.tables import AttemptRow, FlightRevisionRow, FlightRow, StepRow
from lab.services.judge import judge_flight

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

FLIGHTS = int(os.environ.get("FLIGHTLINE_BENCHMARK_FLIGHTS", "1000"))
JOBS = 89
MOST_MS = 200.0
TIMES = 9
OLD, NEW = "0" * 40, "1" * 40


@pytest.mark.parametrize("policy", ["osstest", "evidence"])
@pytest.mark.parametrize("baseline", [5, 300])
def test_a_flight_is_judged_quickly(
    big_database: str, policy: str, baseline: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`baseline` flights of the past are of the baseline's revision."""
    engine = make_engine(big_database)
    last = _arrange(engine, baseline)
    sessions = make_read_sessions(engine)
    with sessions() as session:
        steps = len(session.scalars(select(StepRow.stepno).join(AttemptRow).where(AttemptRow.flight == last)).all())
        jobs = len(flights.load_flight(session, last, evidence=False).jobs)
    taken = []
    for _ in range(TIMES):
        with sessions() as session:
            begin = time.perf_counter()
            verdict = judge_flight(session, last, this={"xen": NEW}, that={"xen": OLD}, policy=policy)
            taken.append(1000 * (time.perf_counter() - begin))
    with sessions() as session:
        compared = len(judging.flights_testing(session, "xen-unstable", {"xen": OLD}))
    engine.dispose()
    median = statistics.median(taken)
    print(
        f"\n{engine.dialect.name}, {policy}: {jobs} jobs, {steps} steps, {FLIGHTS} flights, {compared} of the "
        f"baseline, {len(verdict.findings)} findings: {median:.0f} ms (longest of {TIMES}: {max(taken):.0f})"
    )
    assert jobs == JOBS
    assert verdict.findings
    assert median < MOST_MS


def _arrange(engine, baseline: int) -> int:  # type: ignore[no-untyped-def]
    """Give the newest flight the revision in question, and so many before it the baseline's."""
    with engine.begin() as connection:
        numbers = list(
            connection.scalars(
                select(FlightRow.id).where(FlightRow.finished.is_not(None), FlightRow.blessing == "real")
                .order_by(FlightRow.id.desc()).limit(baseline + 1)
            )
        )  # fmt: skip
        connection.execute(update(FlightRevisionRow).values(revision=OLD[:-1] + "f"))
        connection.execute(
            update(FlightRevisionRow).where(FlightRevisionRow.flight.in_(numbers[1:])).values(revision=OLD)
        )
        connection.execute(update(FlightRevisionRow).where(FlightRevisionRow.flight == numbers[0]).values(revision=NEW))
        if engine.dialect.name == "postgresql":
            connection.execute(text("ANALYZE"))
    return int(numbers[0])


@pytest.fixture(scope="module")
def big_database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A past of one branch (PostgreSQL: set FLIGHTLINE_BENCHMARK_URL to an empty database)."""
    url = os.environ.get("FLIGHTLINE_BENCHMARK_URL") or f"sqlite:///{_path(tmp_path_factory)}"
    upgrade(url)
    engine = make_engine(url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pasts, "BRANCHES", ("xen-unstable",))
        patch.setattr(pasts, "TESTS", pasts.TESTS[: JOBS - len(pasts.BUILDS)])
        # the made-up bisections of one branch are too many for it
        patch.setattr(pasts, "_COLUMNS", {name: one for name, one in pasts._COLUMNS.items() if "bisection" not in name})
        whole = len(pasts.TESTS) * len(pasts.STEPS) + len(pasts.BUILDS) * len(pasts.BUILD_STEPS)
        now = datetime.now(UTC) - timedelta(hours=1)
        pasts.fill(engine, pasts.Past(steps=int(FLIGHTS * whole / 1.04), now=now))
    engine.dispose()
    return url


def _path(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("judged") / "lab.db"
