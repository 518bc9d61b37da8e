"""Bisections in a database, for tests and for looking at the pages: `python tests/web/bisection_tales.py FOLDER`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from weblab import Demo

from lab.db.bisections import (
    add_bisection,
    end_bisection,
    load_bisection,
    note_progress,
    save_conclusion,
    save_probes,
)
from lab.flights.bisection import Policy, Probes, decide
from lab.flights.bisection_runs import (
    Bisection,
    BisectionState,
    MovingTree,
    ProbeRun,
    Result,
    conclusion_of,
    observations,
    state_of,
    told,
)
from lab.flights.model import JobSpec
from lab.flights.revision_graph import Commit, History, history_of, make_graph

EVIL = "<script>alert(1)</script>"
_WORDS = ["x86/mm", "xen/sched", "tools/xl", "arm/p2m", "vmx", "common/grant", "docs", "xsm", "libxl", "hvm/ioreq"]


def _id(tree: str, number: int) -> str:
    return f"{random.Random(f'{tree}{number}').getrandbits(160):040x}"


def a_history(tree: str, count: int, *, merges: bool = False) -> History:
    """So many commits in a row; with `merges` some of them on branches of their own."""
    chance = random.Random(tree)
    commits: list[Commit] = []
    tip, number = _id(tree, 0), 0
    while number < count:
        number += 1
        subject = f"{chance.choice(_WORDS)}: {'never lose a page that is mapped twice ' * (number % 3)}change {number}"
        if merges and number % 5 == 3 and number + 2 < count:
            side = [_id(tree, number), _id(tree, number + 1)]
            commits.append(Commit(id=side[0], parents=(tip,), when=number, author="Bob", subject=subject))
            commits.append(Commit(id=side[1], parents=(side[0],), when=number + 1, author="Bob", subject=subject))
            merge = _id(tree, number + 2)
            straight = _id(f"{tree} straight", number)
            commits.append(Commit(id=straight, parents=(tip,), when=number + 1, author="Ann", subject="ann's change"))
            commits.append(
                Commit(
                    id=merge, parents=(straight, side[1]), when=number + 2, author="Ann", subject="Merge branch 'side'"
                )
            )
            tip, number = merge, number + 2
            continue
        author = "Ann Author" if number % 2 else EVIL
        commits.append(Commit(id=_id(tree, number), parents=(tip,), when=number, author=author, subject=subject))
        tip = _id(tree, number)
    return history_of(tree, _id(tree, 0), tip, commits)


def tell_bisection(
    demo: Demo, job: str, histories: Sequence[History], *, culprit: int, skips: Sequence[int] = (),
    stop_after: int = 999, flake: float = 0.0, running: bool = False,
) -> int:  # fmt: skip
    """Run a bisection on paper and write it down; returns its number."""
    graph, chance, now = make_graph(histories), random.Random(job), demo.lab.clock() - timedelta(hours=3)
    first = ProbeRun(number=1, flight=1, node=graph.basis, purpose="basis", result=Result.PASS, started=now)
    second = ProbeRun(number=2, flight=3, node=graph.failure, purpose="failure", result=Result.FAIL, started=now)
    probes = [first, second]
    policy = Policy(at_once=2)
    nodes_skipped = {graph.node_of(number) for number in skips}
    while True:
        decision = decide(graph, observations(probes), policy)
        if not isinstance(decision, Probes) or len(probes) > stop_after:
            break
        for probe in decision.probes:
            bad = graph.masks[probe.node] >> culprit & 1
            result = Result.FAIL if bad and chance.random() >= flake else Result.PASS
            reason = "guest lost 4 pages while it moved" if result is Result.FAIL else ""
            if probe.node in nodes_skipped:
                result, reason = Result.SKIP, f"build-amd64 ended as fail: {EVIL}: error: expected expression"
            number = len(probes) + 1
            probes.append(
                ProbeRun(
                    number=number, flight=100 + number, node=probe.node, purpose=probe.purpose.value, result=result,
                    reason=reason, started=now + timedelta(minutes=4 * number),
                )
            )  # fmt: skip
    if running and isinstance(decision, Probes):
        for probe in decision.probes:
            number = len(probes) + 1
            probes.append(
                ProbeRun(
                    number=number, flight=100 + number, node=probe.node, purpose=probe.purpose.value,
                    result=Result.RUNNING, started=demo.lab.clock() - timedelta(minutes=2),
                )
            )  # fmt: skip
    with demo.lab.sessions.begin() as session:
        number = add_bisection(
            session,
            Bisection(
                id=0, branch="xen-unstable", job=job, testid="guest-localmigrate", state=BisectionState.RUNNING,
                template=(JobSpec(name=job, recipe="test-xl"),),
                trees=tuple(MovingTree(name=one.tree, repository=one.tree, builds=("build",)) for one in histories),
                histories=tuple(histories), basis_flight=1, failing_flight=3, actor="gate",
                reason="9 runs told, as uncertain as among 12 commits",
            ),
            now=now,
        )  # fmt: skip
        save_probes(session, number, probes)
        if not isinstance(decision, Probes):
            message = f"commit {'0' * 40}\nAuthor: Ann\n\n    {EVIL}\n    Mark fewer pages dirty.\n"
            revert = "reverting it mends the failure"
            save_conclusion(session, number, conclusion_of(decision) | {"message": message, "revert": revert})
            end_bisection(session, number, state_of(decision), told(decision), now=demo.lab.clock())
    return number


def tell_bisections(demo: Demo) -> dict[str, int]:
    """One of each kind."""
    xen = [a_history("xen", 61)]
    return {
        "found": tell_bisection(demo, "test-amd64-amd64-xl", xen, culprit=37, skips=[30], flake=0.1),
        "short": tell_bisection(demo, "test-amd64-amd64-xl-pv", [a_history("xen", 8)], culprit=4, skips=[2]),
        "running": tell_bisection(demo, "test-amd64-amd64-pvh", xen, culprit=20, stop_after=5, running=True),
        "skipped": tell_bisection(demo, "test-arm64-arm64-xl", xen, culprit=33, skips=[31, 32, 33]),
        "merges": tell_bisection(demo, "test-amd64-xsm", [a_history("xen", 40, merges=True)], culprit=11),
        "trees": tell_bisection(demo, "test-qcow2", [a_history("xen", 9), a_history("qemuu", 7)], culprit=6),
    }


def tell_result(demo: Demo, number: int) -> None:
    """A run of a bisection ends."""
    with demo.lab.sessions.begin() as session:
        bisection = load_bisection(session, number)
        save_probes(session, number, [replace(bisection.running[0], result=Result.FAIL, reason="lost again")])
        note_progress(session, number, "one more run told", now=demo.lab.clock())


if __name__ == "__main__":
    import sys
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from playwright.sync_api import sync_playwright
    from weblab import empty_lab, served, tell

    with TemporaryDirectory() as home, empty_lab(Path(home)) as demo, sync_playwright() as playwright:
        tell(demo)
        told_of = tell_bisections(demo)
        with served(demo) as url:
            chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            for scheme in ("light", "dark"):
                page = chromium.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
                for name, path in {"list": "", **{name: f"/{number}" for name, number in told_of.items()}}.items():
                    page.goto(f"{url}/bisections{path}")
                    page.screenshot(path=f"{sys.argv[1]}/{name}-{scheme}.png", full_page=True)
                page.close()
            page = chromium.new_page(viewport={"width": 390, "height": 844})
            page.goto(f"{url}/bisections/{told_of['found']}")
            page.screenshot(path=f"{sys.argv[1]}/phone.png", full_page=True)
            page.close()
            chromium.close()
