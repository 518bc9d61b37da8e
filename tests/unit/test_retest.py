"""Which failures are tried again, and where."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from past_flights import a_past, a_run

from lab.flights.model import Attempt, Job, Runvar
from lab.flights.regression import judge
from lab.flights.retest import Retest, plan_retests, retest_specs
from lab.flights.status import JobStatus
from lab.flights.verdict import Verdict

AT = datetime(2026, 1, 1, tzinfo=UTC)


def verdict(mine: dict[str, str]) -> Verdict:
    return judge(a_run(50, mine), a_past(50, mine, baseline={40: dict.fromkeys(mine, "pass")}))


def planned(mine: dict[str, str], *, jobs: int = 20, times: int = 3) -> tuple[Retest, ...]:
    names = {f"test-{number}": False for number in range(jobs)} | {"build-x": True}
    names |= {name.split()[0]: name.startswith("build") for name in mine}
    return plan_retests(verdict(mine), names, times=times)


def test_a_failure_is_tried_here_and_elsewhere_in_turns() -> None:
    found = planned({"test-a s": "fail"})
    assert [(one.jobs, one.elsewhere) for one in found] == [
        (("test-a",), False), (("test-a",), True), (("test-a",), False),
    ]  # fmt: skip
    assert found[1].note == "retest on other hosts: test-a"


def test_nothing_is_tried_that_would_not_open_the_gate() -> None:
    assert planned({"test-a s": "pass"}) == ()
    assert planned({"build-x b": "fail", "test-a s": "fail"}) == ()
    assert planned({"test-a s": "broken"}) == ()  # its <job status> blocks as well
    assert planned({"test-a s": "fail"}, times=0) == ()
    many = {f"test-{letter} s": "fail" for letter in "abcdef"}
    assert planned(many) == ()  # more than a tenth: that is no flake
    assert planned({"test-a s": "fail"}, jobs=1) != ()  # but one always is


def job(name: str, hosts: dict[str, str], **runvars: str) -> Job:
    attempt = Attempt(id=1, number=1, status=JobStatus.FAIL, hosts=hosts, started=AT)
    listed = tuple(Runvar(name=one, value=value) for one, value in runvars.items())
    return Job(
        flight=7, name=name, recipe="test-xl", status=JobStatus.FAIL, attempts=(attempt,) if hosts else (),
        runvars=(*listed, Runvar(name="build_key", value="k", synth=True)),
    )  # fmt: skip


def specs(one: Job, flags: dict[str, frozenset[str]], *, elsewhere: bool) -> dict[str, str]:
    build = Job(flight=7, name="build-x", recipe="build-xen", status=JobStatus.PASS)
    (spec,) = retest_specs((build, one), Retest(jobs=(one.name,), elsewhere=elsewhere), flags=flags)
    return dict(spec.runvars)


HVM = frozenset({"hvm"})


def test_the_build_is_the_flights_own_and_what_steps_wrote_is_left_out() -> None:
    runvars = specs(job("test-a", {}, xenbuildjob="build-x", arch="amd64"), {}, elsewhere=False)
    assert runvars == {"xenbuildjob": "7.build-x", "arch": "amd64"}


def test_on_the_same_host_or_on_none_of_them() -> None:
    one = job("test-a", {"host": "h1"}, host_hostflags="hvm")
    flags = {"h1": HVM, "h2": HVM, "h3": frozenset()}
    assert specs(one, flags, elsewhere=False)["host_hostflags"] == '(hvm) and name == "h1"'
    assert specs(one, flags, elsewhere=True)["host_hostflags"] == '(hvm) and name != "h1"'
    # where no other host offers as much it may have the same again
    assert specs(one, {"h1": HVM, "h3": frozenset()}, elsewhere=True)["host_hostflags"] == "hvm"
    pair = job("test-a", {"src_host": "h1", "dst_host": "h2"})
    assert "src_host_hostflags" not in specs(pair, {"h1": HVM, "h2": HVM, "h4": HVM}, elsewhere=True)
    four = specs(pair, {"h1": HVM, "h2": HVM, "h4": HVM, "h5": HVM}, elsewhere=True)
    assert four["dst_host_hostflags"] == 'name != "h1" and name != "h2"'


@given(
    st.dictionaries(st.sampled_from([f"test-{n} s" for n in range(30)]), st.sampled_from(["pass", "fail"]), min_size=1)
)
def test_no_more_than_a_tenth_is_tried(mine: dict[str, str]) -> None:
    found = planned(mine, jobs=0, times=2)
    failed = {name.split()[0] for name, status in mine.items() if status == "fail"}
    assert all(set(one.jobs) == failed for one in found)
    assert bool(found) == (0 < len(failed) <= max(1, -(-len(mine) // 10)))
