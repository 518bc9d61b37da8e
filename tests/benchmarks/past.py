"""Fills a database with the past of a busy lab, for what is measured on many steps and for looking at the pages.

python tests/benchmarks/past.py sqlite:////tmp/past.db --steps 1000000
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Engine, Table, insert, select, text

from lab.db.base import Base
from lab.db.session import make_engine

BRANCHES: Final = (
    "xen-unstable",
    "xen-4.20-testing",
    "xen-4.19-testing",
    "xen-4.17-testing",
    "linux-linus",
    "linux-6.12",
    "libvirt",
    "qemu-mainline",
)
HOSTS: Final = tuple(
    [(f"{name}{number}", "amd64", flags) for name, flags in (
        ("albana", ("hvm", "iommu", "equiv-albana")), ("sabro", ("hvm", "equiv-sabro")),
        ("italia", ("hvm", "iommu", "equiv-italia")), ("pinot", ("hvm", "equiv-pinot")),
        ("elbling", ("hvm", "equiv-elbling")), ("fiano", ("hvm", "equiv-fiano")),
        ("godello", ("hvm", "nested", "equiv-godello")), ("huxelrebe", ("hvm", "equiv-huxelrebe")),
    ) for number in (0, 1)]
    + [(f"rochester{number}", "arm64", ("equiv-rochester",)) for number in range(4)]
)  # fmt: skip
BUILDS: Final = tuple(f"build-{arch}{kind}" for arch in ("amd64", "arm64") for kind in ("", "-xsm", "-debug", "-prev"))
_VARIANTS: Final = (
    "xl", "xl-credit1", "xl-credit2", "xl-rtds", "xl-multivcpu", "xl-pvshim", "xl-shadow", "xl-qcow2", "xl-vhd",
    "xl-raw", "xl-pvhv2-intel", "xl-xsm", "libvirt", "libvirt-xsm", "libvirt-qcow2", "libvirt-raw", "xl-qemuu-debian",
    "xl-qemuu-ovmf", "xl-qemuu-win7", "xl-qemut-debian", "dom0pvh-xl", "livepatch", "xtf-1", "xtf-2", "xtf-3",
    "examine", "qemuu-nested", "qemuu-freebsd", "stubdom", "stubdom-xsm", "xl-null", "coresched",
)  # fmt: skip
TESTS: Final = tuple(
    [f"test-amd64-amd64-{kind}" for kind in _VARIANTS]
    + [f"test-amd64-i386-{kind}" for kind in _VARIANTS]
    + [f"test-arm64-arm64-{kind}" for kind in _VARIANTS[:12]]
    + ["test-amd64-amd64-migrate-pair", "test-amd64-amd64-libvirt-pair", "test-amd64-amd64-migrupgrade"]
    + ["test-amd64-i386-migrate-pair", "test-amd64-i386-libvirt-pair", "test-amd64-i386-migrupgrade"]
)
STEPS: Final = (
    ("build-check(1)", 1), ("hosts-allocate", 40), ("host-install", 420), ("host-ping/before", 3), ("xen-install", 65),
    ("xen-boot", 110), ("host-ping", 3), ("leak-check/basis", 9), ("guest-install", 260), ("guest-start", 25),
    ("guest-saverestore", 34), ("guest-localmigrate", 70), ("guest-saverestore.2", 34), ("guest-localmigrate/x10", 410),
    ("guest-stop", 15), ("guest-start.2", 25), ("guest-start/repeat", 180), ("guest-disk-verify", 30),
    ("guest-console", 6), ("guest-destroy", 10), ("leak-check/check", 9), ("logs-capture", 60),
)  # fmt: skip
BUILD_STEPS: Final = (("host-build-prep", 60), ("xen-build", 700), ("xen-build/tools", 300), ("logs-capture", 10))
JOBS: Final = len(BUILDS) + len(TESTS)
_ALWAYS: Final = "logs-capture"
_EVIDENCE: Final = {
    "command": "xl -v migrate domu localhost",
    "exit status": "1",
    "output": "libxl: error: migration stream failed\n" * 12,
    "console tail": "(XEN) d3v0 Triple fault - invoking HVM shutdown action 1\n" * 8,
}


@dataclass(frozen=True)
class Trouble:
    """A test that goes wrong on a branch for a while: how often, and at which step."""

    branch: str
    job: str
    testid: str
    since: float
    until: float
    rate: float


@dataclass
class Past:
    """The rows of a past, flight by flight, the oldest first; the same for the same arguments.

    The branches fly in turn, `every` apart, and the last flight ends at `now`.
    """

    steps: int
    now: datetime
    every: timedelta = timedelta(hours=3)
    seed: int = 1
    flights: int = field(init=False)
    """about so many"""
    last: int = 0
    """the newest flight that has ended, once all is written"""
    chance: random.Random = field(init=False)
    tables: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: defaultdict(list))
    made: int = 0
    attempts: int = 0
    last_runs: dict[tuple[str, str], tuple[datetime, bool]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    tested: dict[str, str] = field(default_factory=dict)
    failed: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        whole = len(TESTS) * len(STEPS) + len(BUILDS) * len(BUILD_STEPS)
        self.flights = int(1.04 * self.steps / whole) + 1  # some jobs end early
        pick = self.chance
        guest = [testid for testid, _ in STEPS[8:20]]
        self.troubles = [
            Trouble(
                pick.choice(BRANCHES),
                pick.choice(TESTS),
                pick.choice(guest),
                start,
                start + pick.uniform(0.05, 0.4),
                1.0,
            )
            for start in [pick.random() for _ in range(40)]
        ]  # regressions that come and go
        self.troubles += [Trouble("", pick.choice(TESTS), pick.choice(guest), 0, 1, 0.06) for _ in range(25)]  # flaky
        self.troubles += [
            Trouble("", job, "guest-saverestore", 0, 1, 1.0) for job in pick.sample(TESTS, 4)
        ]  # never passed
        self.troubles += [Trouble("xen-unstable", "test-amd64-amd64-xl-qcow2", "guest-localmigrate", 0.97, 1.1, 1.0)]

    def batches(self, size: int = 10) -> Iterator[dict[str, list[tuple[Any, ...]]]]:
        """Rows by table, in the order in which they can be inserted, some flights at a time."""
        self._hosts()
        number = 0
        while self.made < self.steps:
            number += 1
            self._flight(number)
            if number % size == 0:
                yield self._take()
        self.last = number
        for further, branch in enumerate(BRANCHES[:3], 1):
            self._under_way(number + further, branch)
        yield self._take()

    def _take(self) -> dict[str, list[tuple[Any, ...]]]:
        taken, self.tables = self.tables, defaultdict(list)
        return taken

    def _hosts(self) -> None:
        for name, arch, flags in HOSTS:
            self.tables["hosts"].append(
                (
                    name,
                    arch,
                    "default",
                    json.dumps(dict.fromkeys(flags, True)),
                    "{}",
                    "free",
                    "good",
                    "",
                    None,
                    None,
                    1,
                    True,
                )
            )

    def _flight(self, number: int) -> None:
        pick = self.chance
        self.failed.clear()
        branch = BRANCHES[number % len(BRANCHES)]
        at = min(number / self.flights, 1.0)
        start = self.now - self.every * (self.flights - number + 1)
        tree = "linux" if "linux" in branch else branch.partition("-")[0]
        if pick.random() < 0.7 or branch not in self.revisions:
            self.revisions[branch] = f"{pick.getrandbits(160):040x}"
        revision = self.revisions[branch]
        blessing = "real-retest" if number % 23 == 0 else "real-bisect" if number % 29 == 0 else "real"
        ended = start
        for position, name in enumerate(BUILDS):
            runvars = {"arch": name.split("-")[1], "tree": tree, "revision": revision}
            ended = max(ended, self._job(number, position, name, "build-xen", start, branch, at, runvars, ()))
        pools = {arch: [name for name, of, _ in HOSTS if of == arch] for arch in ("amd64", "arm64")}
        for position, name in enumerate(TESTS, len(BUILDS)):
            arch = "arm64" if "arm64" in name else "amd64"
            pool = pools[arch]
            pair = pick.randrange(0, len(pool), 2)
            roles = (
                (("src_host", pool[pair]), ("dst_host", pool[pair + 1]))
                if "pair" in name
                else (("host", pick.choice(pool)),)
            )
            runvars = {"arch": arch, "xenbuildjob": f"build-{arch}", "dom0_image": f"dom0-{arch}", "dom0_mem": "512"}
            begin = start + timedelta(minutes=25 + position * 0.7)
            ended = max(ended, self._job(number, position, name, "test-xl", begin, branch, at, runvars, roles))
        self.tables["flights"].append(
            (number, branch, blessing, blessing, start, ended, "cron", "cron", f"{tree} {revision[:12]}")
        )
        self.tables["flight_revisions"].append((number, tree, revision))
        self.tables["flight_revisions"].append((number, "ovmf", f"{number // 40:040x}"))
        self._gate(number, branch, revision, start, ended)

    def _gate(self, flight: int, branch: str, revision: str, start: datetime, ended: datetime) -> None:
        """What the gate made of a flight: what fails on this branch alone is a regression."""
        here = {one.job for one in self.troubles if one.branch == branch and one.rate == 1.0}
        findings = []
        for job, testid, status in self.failed:
            blocks = job in here and status == "fail"
            findings.append(
                {
                    "job": job,
                    "testid": testid,
                    "stepno": 1,
                    "status": status,
                    "kind": "regression" if blocks else "like" if status == "fail" else "heisenbug",
                    "blocks": blocks,
                    "note": f"REGR. vs. {max(flight - 8, 1)}" if blocks else f"like {max(flight - 8, 1)}",
                    "ref_flight": max(flight - 8, 1),
                    "seen_in": None,
                    "reasons": [f"{max(flight - 8, 1)}.{job} passed {testid} on the baseline"],
                }
            )
        hold = any(finding["blocks"] for finding in findings)
        old, self.tested[branch] = self.tested.get(branch, f"{1:040x}"), revision
        if hold:
            self.tested[branch] = old
        verdict = {
            "flight": flight,
            "outcome": "regressions" if hold else "tolerable",
            "headline": "Regressions :-(" if hold else "Failures :-/ but no regressions.",
            "findings": findings,
            "pushable": not hold,
        }
        decision = "hold" if hold else "advance"
        self.tables["gate_runs"].append(
            (
                flight, branch, start, ended, "done", old, revision, flight, None, json.dumps(verdict), decision,
                not hold, "regressions" if hold else "no regressions",
            )
        )  # fmt: skip
        if flight % 20 < 3:
            kind = ("waive", "hold", "force")[flight % 20]
            job, testid, _ = (*self.failed, ("", "", ""))[0] if kind == "waive" else ("", "", "")
            over = ended if kind != "waive" or flight < self.flights - 40 else None
            self.tables["gate_overrides"].append(
                (
                    flight, branch, kind, job, testid, revision if kind == "force" else "", "ian",
                    "a fix is on its way",
                    start, self.now + timedelta(days=3), over, "ian" if over else None,
                )
            )  # fmt: skip
        if flight % 5 == 0 and self.failed:
            job, testid, _ = self.failed[0]
            going = flight > self.flights - 12
            self.tables["bisections"].append(
                (
                    flight, branch, job, testid, "running" if going else "found", "3 commits", flight - 1, flight,
                    "gate", ended, None if going else ended, 3, json.dumps({"hosts": "equivalent", "revert": True}),
                    '{"jobs": []}', '{"trees": []}', '{"histories": []}', "{}",
                )
            )  # fmt: skip

    def _under_way(self, number: int, branch: str) -> None:
        """A flight half of whose jobs have passed; two run, the others wait."""
        begun, revision = self.now - timedelta(hours=1), f"{self.chance.getrandbits(160):040x}"
        self.tables["flights"].append((number, branch, "real", "running", begun, None, "cron", "cron", "nightly"))
        self.tables["gate_runs"].append(
            (
                number, branch, begun, None, "flying", self.tested[branch], revision, number, None, "{}", "", False, ""
            )
        )  # fmt: skip
        for position, name in enumerate((*BUILDS, *TESTS)):
            status = "pass" if position < 45 else "running" if position < 47 else "queued"
            recipe = "build-xen" if name in BUILDS else "test-xl"
            self.tables["jobs"].append((number, name, position, recipe, status, "", 0, begun))
            if status == "running":
                self.attempts += 1
                held = (self.attempts, number, name, 1, "running", "t", "default", "w", begun, self.now, None, "", None)
                self.tables["attempts"].append(held)
            elif status == "queued":
                soon = [self.now + timedelta(minutes=10 * position + more) for more in (0, 30, 60, 120)]
                wait = (number, name, "waiting_for_host", "waits for a host", "{}", position, *soon, "{}", self.now)
                self.tables["waits"].append(wait)

    def _job(
        self, flight: int, position: int, name: str, recipe: str, start: datetime, branch: str, at: float,
        runvars: dict[str, str], roles: Sequence[tuple[str, str]],
    ) -> datetime:  # fmt: skip
        pick = self.chance
        wrong = next(
            (
                one.testid
                for one in self.troubles
                if one.job == name
                and one.branch in ("", branch)
                and one.since <= at < one.until
                and pick.random() < one.rate
            ),
            "",
        )
        status, reason, end = "", "", start
        if roles and pick.random() < 0.008:
            status, reason = "blocked", f"{runvars['xenbuildjob']} did not pass"
        number = 0
        while not status or status == "again":
            number += 1
            broken = number < 3 and pick.random() < (
                0.25 if any(host == "sabro1" for _, host in roles) and 0.6 < at < 0.7 else 0.006
            )
            status, reason, end = self._attempt(flight, name, number, end + timedelta(seconds=9), roles, wrong, broken)
            if status == "broken" and number < 3:
                status = "again"
        self.tables["jobs"].append((flight, name, position, recipe, status, reason, 0, start))
        if status in ("fail", "broken"):
            self.failed.append((name, reason.partition(": ")[0], status))
        outputs = {"xen_version": "4.20.0", **({} if roles else {"build_commit": runvars["revision"]})}
        for key, value in runvars.items():
            self.tables["runvars"].append((flight, name, key, value, False))
        for key, value in outputs.items():
            self.tables["runvars"].append((flight, name, key, value, True))
        return end

    def _attempt(
        self,
        flight: int,
        name: str,
        number: int,
        start: datetime,
        roles: Sequence[tuple[str, str]],
        wrong: str,
        broken: bool,
    ) -> tuple[str, str, datetime]:
        pick = self.chance
        self.attempts += 1
        attempt, host = self.attempts, roles[0][1] if roles else None
        slow = 1.6 if host and host.startswith(("rochester", "pinot")) else 1.0
        clock, status, reason, stepno = start, "pass", "", 0
        for testid, seconds in STEPS if roles else BUILD_STEPS:
            if status != "pass" and testid != _ALWAYS:
                continue
            stepno += 1
            step_status, why = "pass", ""
            if broken and testid in ("host-install", "host-build-prep"):
                step_status, why = "broken", f"{host}: dom0 did not come up within 90 s"
            elif testid == wrong:
                step_status, why = "fail", "migration stream failed (exit status 1)"
            elif testid == "guest-console" and "libvirt" in name:
                step_status, why = "skipped", "not with libvirt"
            if step_status in ("fail", "broken"):
                status, reason = step_status, f"{testid}: {why}"
            length = seconds * slow * pick.uniform(0.9, 1.15)
            end = clock + timedelta(seconds=length)
            self.tables["steps"].append(
                (
                    attempt, stepno, testid, testid.partition("/")[0], step_status, clock, end, host, why,
                    json.dumps(_EVIDENCE) if why and step_status != "skipped" else "{}",
                    f"{flight}/{name}/{number}/{stepno:02d}.{testid.replace('/', '_')}.log",
                    json.dumps({host: [100 * stepno, 100 * stepno + 90]}) if host else "{}",
                )
            )  # fmt: skip
            clock = end
        self.made += stepno
        self.tables["attempts"].append(
            (
                attempt, flight, name, number, status, f"token-{attempt}", "default", "worker-1", start, clock, clock,
                reason, host if status == "broken" else None,
            )
        )  # fmt: skip
        for position, (role, held) in enumerate(roles):
            self.tables["attempt_hosts"].append((attempt, role, position, held, 1, False))
            self.tables["leases"].append(
                (attempt * 2 + position, held, attempt, None, f"{flight}.{name}", 1, start, clock)
            )
            self.last_runs[name, held] = (clock, status != "pass")
        return status, reason, clock


_COLUMNS: Final = {
    "hosts": "name arch site flags properties state health health_reason setup_key setup_flight fence present",
    "flights": "id branch intended blessing started finished submitter tenant note",
    "flight_revisions": "flight tree revision",
    "jobs": "flight name position recipe status reason priority queued",
    "runvars": "flight job name value synth",
    "attempts": "id flight job number status token site worker started until finished reason blames",
    "attempt_hosts": "attempt role position host fence reused",
    "leases": "id host attempt booking holder fence since released",
    "waits": "flight job kind text data place start_p50 start_p90 end_p50 end_p90 hosts updated",
    "gate_runs": "id branch started finished state old new flight baseline_flight verdict decision pushed reason",
    "gate_overrides": "id branch kind job testid revision actor reason created expires ended ended_by",
    "bisections": (
        "id branch job testid state reason basis_flight failing_flight actor started finished turn policy template"
        " trees histories conclusion"
    ),
    "steps": "attempt stepno testid step status started finished host reason evidence log console",
}


def fill(engine: Engine, past: Past) -> None:
    """Insert a past into an empty database of this version's schema."""
    known = Base.metadata.tables
    with engine.begin() as connection, _writer(connection) as write:
        for batch in past.batches():
            for table, columns in _COLUMNS.items():
                if table in known and batch.get(table):
                    write(table, columns.split(), batch[table])
    with engine.begin() as connection:
        _tell_what_is_remembered(connection, past)
        connection.execute(known["changes"].delete())
        if connection.dialect.name == "postgresql":
            for name in known.keys() & {"flights", "attempts", "leases", "gate_runs", "gate_overrides", "bisections"}:
                connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), max(id)) FROM {name}"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE" if connection.dialect.name == "postgresql" else "PRAGMA optimize")


def _tell_what_is_remembered(connection: Connection, past: Past) -> None:
    known = Base.metadata.tables
    last_runs = known["last_runs"]
    connection.execute(
        insert(last_runs),
        [{"job": job, "host": host, "at": at, "failed": bad} for (job, host), (at, bad) in past.last_runs.items()],
    )
    events: Table = known["events"]
    flights = known["flights"].c
    ended = connection.execute(select(flights.id, flights.finished).where(flights.finished.is_not(None)))
    connection.execute(
        insert(events), [{"at": at, "flight": flight, "kind": "flight", "data": {}} for flight, at in ended]
    )


def _writer(connection: Connection) -> AbstractContextManager[Callable[[str, list[str], list[tuple[Any, ...]]], None]]:
    return _copy(connection) if connection.dialect.name == "postgresql" else _many(connection)


@contextmanager
def _copy(connection: Connection) -> Iterator[Callable[[str, list[str], list[tuple[Any, ...]]], None]]:
    cursor = connection.connection.driver_connection.cursor()  # type: ignore[union-attr]
    cursor.execute("SET session_replication_role = replica")  # foreign keys and triggers are looked at by nobody

    def write(table: str, columns: list[str], rows: list[tuple[Any, ...]]) -> None:
        with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    yield write
    cursor.execute("SET session_replication_role = origin")


@contextmanager
def _many(connection: Connection) -> Iterator[Callable[[str, list[str], list[tuple[Any, ...]]], None]]:
    cursor = connection.connection.driver_connection.cursor()  # type: ignore[union-attr]

    def plain(value: Any) -> Any:
        return value.strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value

    def write(table: str, columns: list[str], rows: list[tuple[Any, ...]]) -> None:
        marks = ", ".join("?" * len(columns))
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
        cursor.executemany(statement, (tuple(plain(value) for value in row) for row in rows))

    yield write


def main() -> None:
    """Migrate an empty database and fill it."""
    from databases import upgrade

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--steps", type=int, default=1_000_000)
    chosen = parser.parse_args()
    upgrade(chosen.url)
    engine = make_engine(chosen.url)
    past = Past(chosen.steps, datetime.now(UTC))
    fill(engine, past)
    engine.dispose()
    print(f"{past.made} steps in {past.attempts} attempts")


if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
