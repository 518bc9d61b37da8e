"""The mail about a bisection."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from lab.flights.bisection import NotReproducible
from lab.flights.bisection_mail import bisection_mail
from lab.flights.bisection_runs import Bisection, BisectionState, MovingTree, ProbeRun, Result, conclusion_of, told
from lab.flights.revision_graph import Commit, history_of

GOLDEN = Path(__file__).parents[1] / "golden" / "bisection-mail.txt"
REVISIONS = [letter * 40 for letter in "abcde"]


def a_bisection() -> Bisection:
    commits = [
        Commit(id=one, parents=(before,), author="Ann", subject=f"xen: change {one[0]}")
        for before, one in pairwise(REVISIONS)
    ]
    runs = [
        (181195, 0, "basis", Result.PASS), (181292, 4, "failure", Result.FAIL), (181293, 4, "reproduce", Result.FAIL),
        (181294, 0, "reproduce", Result.PASS), (181295, 2, "search", Result.SKIP), (181296, 3, "search", Result.FAIL),
        (181297, 1, "search", Result.PASS), (181298, 2, "confirm", Result.BROKEN), (181299, 3, "confirm", Result.FAIL),
        (181300, 4, "revert", Result.PASS), (181301, 1, "search", Result.RUNNING),
    ]  # fmt: skip
    return Bisection(
        id=7, branch="xen-unstable-smoke", job="test-amd64-amd64-xl", testid="guest-start",
        state=BisectionState.FOUND, template=(), trees=(MovingTree(name="xen", repository="xen", builds=("build",)),),
        histories=(history_of("xen", REVISIONS[0], REVISIONS[4], commits),), basis_flight=181195, failing_flight=181292,
        reason="xen dddddddddddd",
        conclusion={
            "suspects": [{"tree": "xen", "commit": REVISIONS[3]}], "confidence": 0.9953, "failing": [REVISIONS[3]],
            "passing": [[REVISIONS[2]]], "outside": [], "revert": "reverting it mends the failure",
            "message": f"commit {REVISIONS[3]}\nAuthor: Ann <ann@example.org>\n\n    xen: change d\n    \x1b[31mred\n",
        },
        probes=tuple(
            ProbeRun(
                number=number,
                flight=flight,
                node=("f" * 40 if purpose == "revert" else REVISIONS[at],),
                purpose=purpose,
                result=result,
            )
            for number, (flight, at, purpose, result) in enumerate(runs, 1)
        ),
    )  # fmt: skip


def test_the_mail_of_a_culprit_looks_as_osstests_do() -> None:
    mail = bisection_mail(a_bisection(), url="https://lab.example.org/")
    assert mail.subject == "[xen-unstable-smoke bisection] complete test-amd64-amd64-xl"
    assert mail.body == GOLDEN.read_text()


def test_a_lab_without_pages_names_flights_by_number() -> None:
    body = bisection_mail(a_bisection()).body
    assert "http" not in body
    assert "Last fail repro: flight 181299" in body


def test_each_way_to_end_is_told() -> None:
    verdict = NotReproducible(end="failure", reason="it passed in 6 of 6 runs")
    whole = a_bisection()
    ends = {
        BisectionState.NOT_REPRODUCIBLE: ("unreproducible", "no changeset is to blame"),
        BisectionState.INCONCLUSIVE: ("inconclusive", "one of these changesets"),
        BisectionState.INCONSISTENT: ("inconsistent", "go against it"),
        BisectionState.STOPPED: ("stopped", "Not finished"),
        BisectionState.RUNNING: ("testing", "Not finished yet."),
    }
    for state, (word, said) in ends.items():
        conclusion = conclusion_of(verdict) if state is BisectionState.NOT_REPRODUCIBLE else whole.conclusion
        mail = bisection_mail(replace(whole, state=state, conclusion=conclusion, reason=told(verdict)))
        assert f"bisection] {word} test-amd64" in mail.subject
        assert said in mail.body
        assert "Found and reproduced" not in mail.body


def test_an_inconclusive_one_names_all_suspects_up_to_a_limit() -> None:
    suspects = [{"tree": "xen", "commit": f"{number:040x}"} for number in range(60)]
    mail = bisection_mail(
        replace(a_bisection(), state=BisectionState.INCONCLUSIVE, conclusion={"suspects": suspects, "confidence": 1.0})
    )
    assert f"xen {49:040x}" in mail.body
    assert f"xen {50:040x}" not in mail.body
    assert "(and 10 more)" in mail.body
