from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lab.flights.model import Attempt, Flight, Job, StepResult
from lab.flights.plain_text import clean, clean_piece
from lab.flights.recipe import Recipe, Role, run
from lab.flights.status import Blessing, JobStatus, StepStatus
from web.filters import ago, breakable, duration
from web.flight_views import tally
from web.grid_views import grid, merge_order
from web.job_views import job_page

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAIR = Recipe(
    name="pair",
    roles=(Role(name="src"), Role(name="dst")),
    lines=(run("boot", "boot/src"), run("boot", "boot/dst"), run("migrate"), run("logs", always=True)),
)


def step(number: int, testid: str, status: str = "pass", *, start: int = 0, took: int | None = 5) -> StepResult:
    began = NOW + timedelta(seconds=start)
    ended = None if took is None else began + timedelta(seconds=took)
    return StepResult(
        stepno=number, testid=testid, step=testid, status=StepStatus(status), started=began, finished=ended, host="a"
    )


def job(name: str, status: str, *steps: StepResult, recipe: str = "pair", **more: Any) -> Job:
    hosts = {"src": "a", "dst": "b"}
    attempt = Attempt(id=1, number=1, status=JobStatus(status), hosts=hosts, started=NOW, steps=steps)
    return Job(
        flight=7, name=name, recipe=recipe, status=JobStatus(status), attempts=(attempt,) if steps else (), **more
    )


def flight(*jobs: Job) -> Flight:
    return Flight(
        id=7,
        branch="b",
        intended=Blessing.PLAY,
        blessing=Blessing.RUNNING,
        status=JobStatus.RUNNING,
        started=NOW,
        jobs=jobs,
    )


@given(st.lists(st.permutations(range(12)).map(lambda order: sorted(order[:7])), max_size=6))
def test_one_order_keeps_the_order_of_every_list(lists: list[list[int]]) -> None:
    merged = merge_order([[str(item) for item in items] for items in lists])
    assert sorted(merged) == sorted({str(item) for items in lists for item in items})
    for items in lists:
        places = [merged.index(str(item)) for item in items]
        assert places == sorted(places)


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True), max_size=6))
def test_lists_that_contradict_each_other_still_make_one_order(lists: list[list[str]]) -> None:
    assert sorted(merge_order(lists)) == sorted({item for items in lists for item in items})


def test_a_step_on_each_host_is_one_row_with_a_cell_a_host() -> None:
    laid = grid(flight(job("j", "running", step(1, "boot/src"), step(2, "boot/dst", "broken"))), {"pair": PAIR}, NOW)
    assert [row.testid for row in laid.rows] == ["boot", "migrate", "logs"]
    assert [row.places[0].status for row in laid.rows] == ["pass broken", "pending", "pending"]


def test_steps_an_ended_job_did_not_reach_are_told_from_those_of_other_jobs() -> None:
    one = job("one", "fail", step(1, "boot/src"), step(2, "boot/dst"), step(3, "migrate", "fail"))
    two = job("two", "queued", recipe="other")
    laid = grid(flight(one, two), {"pair": PAIR, "other": Recipe(name="other", roles=(), lines=(run("disk"),))}, NOW)
    by_row = {row.testid: [place.status for place in row.places] for row in laid.rows}
    assert by_row["logs"] == ["unreached", "absent"]
    assert by_row["disk"] == ["absent", "pending"]


def test_a_filter_says_how_many_jobs_it_left_out() -> None:
    both = flight(job("one", "pass", step(1, "x")), job("two", "fail", step(1, "x", "fail")))
    assert [column.name for column in grid(both, {}, NOW, only_bad=True).columns] == ["two"]
    assert grid(both, {}, NOW, name="ON").hidden == 1


def test_steps_side_by_side_are_in_different_lanes_of_the_time_line() -> None:
    told = job(
        "j",
        "running",
        step(1, "boot/src"),
        step(2, "boot/dst", start=1),
        step(3, "migrate", "running", start=7, took=None),
    )
    page = job_page(told, told.last, {}, NOW + timedelta(seconds=20), tails={}, files={})
    assert [mark.lane for mark in page.marks] == [0, 1, 0]
    assert page.lanes == 2
    assert page.marks[2].x == 35.0
    assert page.marks[2].width == 65.0


def test_the_bar_of_a_flight_is_full() -> None:
    parts = tally({JobStatus.FAIL: 1, JobStatus.PASS: 2}).parts
    assert [(part.status, part.count) for part in parts] == [("pass", 2), ("fail", 1)]
    assert abs(sum(part.width for part in parts) - 100) < 0.01


def test_times_read_well() -> None:
    assert duration(59.7) == "1m 00s"
    assert ago(NOW - timedelta(seconds=30), NOW) == "30 s ago"
    assert ago(NOW - timedelta(days=60), NOW) == "2025-12-31"
    assert breakable("test-amd64-xl/x") == ["test-", "amd64-", "xl/", "x"]


def test_terminal_sequences_and_disguises_are_taken_out_of_text() -> None:
    assert (
        clean("\x1b[1;31mred\x1b[0m \x1b]0;title\x07ok\r\r\n50%\r100%\r\n\x00\u202eabc\ttab")
        == "red ok\n50%\n100%\nabc\ttab"
    )


@given(st.lists(st.sampled_from(["a", "é", "🙂", "\x1b[31m", "\x1b[0m", "\r\n", "\n", "<b>"]), max_size=30), st.data())
def test_text_cleaned_as_it_grows_is_text_cleaned_at_once(parts: list[str], draw: st.DataObject) -> None:
    data = "".join(parts).encode() + b"\n"
    told, offset, size = "", 0, 0
    while offset < len(data):
        size = draw.draw(st.integers(min(size + 1, len(data)), len(data)))  # a file grows under its reader
        if size - offset < 6 and size < len(data):
            continue  # what is shorter than a character or a sequence may have to be given as it is
        text, used = clean_piece(data[offset:size])
        told, offset = told + text, offset + used
    assert told == clean(data.decode())
