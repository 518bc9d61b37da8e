"""Gates in a database, for tests and for looking at the pages."""

from __future__ import annotations

from datetime import timedelta

from weblab import Demo

from lab.db.tables import GateOverrideRow, GateRunRow

EVIL = "<script>alert(1)</script>"
OLD, NEW, TIP = "1" * 40, "2" * 40, "3" * 40


def tell_gates(demo: Demo) -> dict[str, int]:
    """One branch that is held, one that is open, one held by hand, one that could not decide; their last runs."""
    now = demo.lab.clock()
    finding = {
        "job": "test-amd64-xsm", "testid": "xsm-denied", "stepno": 8, "status": "fail", "kind": "regression",
        "blocks": True, "note": "REGR. vs. 1", "ref_flight": 1, "seen_in": None, "reasons": [f"passed in 1 {EVIL}"],
    }  # fmt: skip
    like = finding | {"testid": "guest-stop", "kind": "like", "blocks": False, "note": "like 1"}
    flaky = finding | {
        "testid": "guest-create",
        "kind": "heisenbug",
        "blocks": False,
        "note": "pass in 1",
        "seen_in": 1,
    }
    verdict = {"flight": 3, "outcome": "regressions", "headline": "Regressions :-(", "findings": [like, finding, flaky]}
    with demo.lab.sessions.begin() as session:

        def run(branch: str, decision: str, days: float, **more: object) -> GateRunRow:
            row = GateRunRow(
                **{
                    "branch": branch, "started": now - timedelta(days=days),
                    "finished": now - timedelta(days=days - 0.1),
                    "state": "done", "old": OLD, "new": NEW, "flight": None, "baseline_flight": None, "verdict": {},
                    "decision": decision, "pushed": decision == "advance", "reason": "", **more,
                }
            )  # fmt: skip
            session.add(row)
            session.flush()
            return row

        rows = {
            "pushed": run("xen-unstable", "advance", 9, old="0" * 40, new=OLD),
            "held": run("xen-unstable", "hold", 1, flight=3, baseline_flight=1, verdict=verdict, reason=f"held {EVIL}"),
            "open": run("xen-4.20-testing", "advance", 2, flight=2),
            "stopped": run("stopped", "advance", 3),
            "broken": run("broken", "", 1, reason="the tree vanished"),
            "going": run("going", "", 0.01, finished=None, state="flying", pushed=False),
        }
        for kind, branch, expires, ended in (
            ("hold", "stopped", None, None),
            ("waive", "xen-unstable", now + timedelta(days=2), None),
            ("waive", "xen-unstable", now - timedelta(days=2), None),
            ("force", "xen-unstable", None, now - timedelta(days=1)),
        ):
            session.add(
                GateOverrideRow(
                    branch=branch, kind=kind, job="test-amd64-xl" if kind == "waive" else "", testid="guest-stop",
                    revision="", actor=f"ian {EVIL}", reason=f"{kind} {EVIL}", created=now - timedelta(days=5),
                    expires=expires, ended=ended, ended_by="ian" if ended else None,
                )
            )  # fmt: skip
        return {name: row.id for name, row in rows.items()}
