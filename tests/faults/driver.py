"""Runs a lab of real processes and kills them, one after the other, at the points they report."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from databases import upgrade
from servers import PostgresServer, RedisServer, find_postgres, free_port
from sqlalchemy import func, select

from faults import processes
from faults.invariants import violations
from faults.machines import kill_machine
from faults.points import AFTER
from faults.workload import HOSTS
from lab.db.session import make_engine, make_read_sessions
from lab.db.tables import AttemptRow, FlightRow, JobRow

EMBEDDED, SERVERS = "sqlite", "postgresql"
SELF, DATABASE, BROKER, MACHINE, WEB = "itself", "database", "broker", "machine", "web"

LEASE_S = 2.0
GIVE_UP_S = 5.0
"""A process that starts while a server is away may say so and end; so long after the server is back, it may not."""
REST_S = 60.0
"""How long a lab may take to come to rest once nothing is killed any more."""

Combination = tuple[str, str, str, str]
"""(role, point, phase, victim)"""


@dataclass
class Kill:
    """One kill, and how many seconds later the lab's work went on: a step had ended, and all processes were back."""

    role: str
    point: str
    phase: str
    victim: str
    at: float
    recovered: float | None = None


@dataclass
class Report:
    """How it went."""

    engine: str
    seed: int
    kills: list[Kill] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    points: set[tuple[str, str, str]] = field(default_factory=set)
    seconds: float = 0.0
    flights: int = 0
    jobs: int = 0
    attempts: int = 0


class _Member:
    """A process of the lab: started, killed, started again."""

    def __init__(self, role: str, command: tuple[str, ...]) -> None:
        self.role, self.command = role, command
        self.running: ForkServerProcess | None = None
        self.there = False
        """whether it has reported to the driver"""


class FaultRun:
    """A lab on `engine` whose processes are killed `kills` times; `told` is called after each kill."""

    def __init__(self, engine: str, kills: int, seed: int, *, told: Callable[[Report], None] = lambda _: None) -> None:
        self.report = Report(engine, seed)
        self._wanted, self._told = kills, told
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._done: Counter[Combination] = Counter()
        self._deaths: dict[int, float] = {}
        self._finished: list[tuple[int, int, str]] = []
        self._servers_back = 0.0
        self._steps_seen = 0
        self._steps_at_kill = -1
        self._over = False
        self._home = Path(tempfile.mkdtemp(prefix="flightline-faults-"))
        self._postgres: PostgresServer | None = None
        self._redis: RedisServer | None = None
        self._web_port = free_port()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["faults.processes"])
        roles = [
            ("leader", ("leader",)),
            ("standby", ("leader",)),
            ("worker", ("worker",)),
            ("worker2", ("worker",)),
            ("people", ()),
        ]
        if engine == SERVERS:
            roles.append(("web", ("serve", "--no-engine", "--port", str(self._web_port))))
        self._members = [_Member(role, command) for role, command in roles]

    def run(self) -> Report:
        """Kill, let the lab come to rest, look at what is left."""
        begun = time.monotonic()
        try:
            self._prepare()
            with self._listening():
                self._kill_all_wanted()
                self._rest()
            self._judge()
        finally:
            self._clear()
        self.report.seconds = time.monotonic() - begun
        return self.report

    # --- the world

    def _prepare(self) -> None:
        (self._home / "logs").mkdir()
        (self._home / "machines").mkdir()
        (self._home / "machines" / "journal").touch()
        self._settings = {
            "LAB_HOME": str(self._home),
            "LAB_LEASE_S": str(LEASE_S),
            "LAB_RETRIES": "60",
            "LAB_CONCURRENCY": "4",
            "LAB_MIN_FREE_MIB": "0",
        }
        if self.report.engine == SERVERS:
            initdb, redis = find_postgres(), shutil.which("redis-server")
            assert initdb, "PostgreSQL is needed"
            assert redis, "Redis is needed"
            self._postgres, self._redis = PostgresServer(initdb, durable=True), RedisServer(redis)
            self._postgres.start()
            self._redis.start()
            self._database = f"{self._postgres.url}/postgres"
            self._settings |= {"LAB_DATABASE_URL": self._database, "LAB_BROKER_URL": self._redis.url}
        else:
            self._database = f"sqlite:///{self._home / 'lab.db'}"
        upgrade(self._database)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        path = str(self._home / "driver")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen(32)
            threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
            try:
                yield
            finally:
                self._over = True
                for member in self._members:
                    if member.running is not None:
                        member.running.kill()
                        member.running.join(10)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _clear(self) -> None:
        for host in HOSTS:
            kill_machine(self._home / "machines" / f"{host}.pid")
        for server in (self._postgres, self._redis):
            if server is not None:
                server.stop()
        if not self.report.violations:
            shutil.rmtree(self._home, ignore_errors=True)

    # --- processes

    def _keep(self) -> None:
        """Start what does not run, as a supervisor of services does."""
        for member in self._members:
            if self._over or (member.running is not None and member.running.is_alive()):
                continue
            if member.running is not None and member.running.pid not in self._deaths:
                code = member.running.exitcode
                if member.role == "people" and (self._home / "stop").exists() and code == 0:
                    continue
                if not code or code < 0 or time.monotonic() > self._servers_back + GIVE_UP_S:
                    self.report.violations.append(f"{member.role} ended by itself with {code}: see {self._log(member)}")
                time.sleep(0.2)  # it found no server when it started, and says so; its supervisor tries again
            member.there = member.role == "web"  # it changes nothing, and so reports nothing
            member.running = self._context.Process(
                target=processes.run,
                args=(member.role, member.command, self._settings, str(self._home / "driver"), str(self._log(member))),
            )
            member.running.start()

    def _log(self, member: _Member) -> Path:
        return self._home / f"{member.role}.log"

    def _all_there(self) -> bool:
        return all(
            member.there and member.running is not None and member.running.is_alive() for member in self._members
        )

    # --- what processes report

    def _converse(self, connection: socket.socket) -> None:
        member: _Member | None = None
        pid = 0
        with contextlib.suppress(OSError, ValueError), connection, connection.makefile("r") as lines:
            for line in lines:
                said = json.loads(line)
                if "role" in said:
                    member, pid = next(each for each in self._members if each.role == said["role"]), said["pid"]
                    member.there = True
                    continue
                assert member is not None
                self._at(member, pid, said)
                connection.sendall(b"go\n")

    def _at(self, member: _Member, pid: int, said: Mapping[str, Any]) -> None:
        with self._lock:
            phase, point = said["phase"], said["point"]
            role = member.role.rstrip("2").replace("standby", "leader")
            self.report.points.add((role, point, phase))
            if phase == AFTER:
                self._note(said["rows"])
            victim = self._choose(role, point, phase, said["rows"])
            if victim is None:
                return
            self._done[role, point, phase, victim] += 1
            self._steps_at_kill = self._steps_seen
            self.report.kills.append(Kill(role, point, phase, victim, time.monotonic()))
            self._kill(victim, member, pid, said["rows"])
        self._told(self.report)
        if victim == SELF:
            time.sleep(60)  # nobody is there to be told anything

    def _note(self, rows: list[tuple[str, Mapping[str, Any]]]) -> None:
        for table, values in rows:
            if table == "steps" and values.get("finished") and "stepno" in values:
                self._finished.append((int(values["attempt"]), int(values["stepno"]), str(values["status"])))
                self._steps_seen += 1

    def _choose(self, role: str, point: str, phase: str, rows: list[tuple[str, Mapping[str, Any]]]) -> str | None:
        """Whom to kill now, if anybody: what was killed least often, and never before the lab has recovered."""
        if len(self.report.kills) >= self._wanted or self._over or not self._recovered():
            return None
        victims = [SELF]
        if self._postgres is not None:
            victims += [DATABASE, BROKER, WEB]
        if point.startswith("step ") and any(values.get("host") for _, values in rows):
            victims.append(MACHINE)
        counts = {victim: self._done[role, point, phase, victim] for victim in victims}
        least = min(counts.values())
        # What was not tried here yet is tried now; what comes again and again leaves room for what is rare.
        if least > 0 and self._chance.random() > 0.05 / least:
            return None
        if least == 0 and self._chance.random() > 0.5:
            return None
        weights = {SELF: 6, MACHINE: 2, DATABASE: 2, BROKER: 1, WEB: 1}
        able = [victim for victim in victims if counts[victim] == least]
        return self._chance.choices(able, [weights[victim] for victim in able])[0]

    def _recovered(self) -> bool:
        last = self.report.kills[-1] if self.report.kills else None
        if not self._all_there() or self._steps_seen <= self._steps_at_kill:
            return False
        if last is not None and last.recovered is None:
            last.recovered = time.monotonic() - last.at
        return True

    def _kill(self, victim: str, member: _Member, pid: int, rows: list[tuple[str, Mapping[str, Any]]]) -> None:
        match victim:
            case "itself":
                member.there = False
                self._deaths[pid] = time.monotonic()
                os.kill(pid, signal.SIGKILL)
            case "database":
                assert self._postgres is not None
                self._servers_back = math.inf
                self._postgres.kill()
                self._postgres.start()
                self._servers_back = time.monotonic()
            case "broker":
                assert self._redis is not None
                self._redis.kill()
                self._redis.start()
            case "machine":
                host = next(values["host"] for _, values in rows if values.get("host"))
                kill_machine(self._home / "machines" / f"{host}.pid")
            case _:
                web = next(each for each in self._members if each.role == "web")
                if web.running is not None and web.running.pid is not None:
                    self._deaths[web.running.pid] = time.monotonic()
                    web.running.kill()

    # --- from the first kill to the last word

    def _kill_all_wanted(self) -> None:
        last, seen = time.monotonic(), 0
        while len(self.report.kills) < self._wanted:
            self._keep()
            time.sleep(0.02)
            if len(self.report.kills) != seen:
                last, seen = time.monotonic(), len(self.report.kills)
            if time.monotonic() - last > REST_S:
                self.report.violations.append(
                    f"the lab did not go on within {REST_S:.0f} s of {self.report.kills[-1:]}"
                )
                return

    def _rest(self) -> None:
        end = time.monotonic() + REST_S
        while time.monotonic() < end and self.report.kills and self.report.kills[-1].recovered is None:
            self._keep()
            time.sleep(0.02)
            with self._lock:
                self._recovered()
        (self._home / "stop").touch()
        engine = make_engine(self._database)
        end = time.monotonic() + REST_S
        sessions = make_read_sessions(engine)
        while time.monotonic() < end:
            self._keep()
            with contextlib.suppress(Exception), sessions() as session:
                people = next(each for each in self._members if each.role == "people")
                if (
                    people.running is not None
                    and people.running.exitcode == 0
                    and not violations(
                        session, self._home / "machines", deaths=self._deaths, finished=list(self._finished)
                    )
                ):
                    break
            time.sleep(0.2)
        self._look_at_web()
        engine.dispose()

    def _look_at_web(self) -> None:
        if self.report.engine != SERVERS:
            return
        end = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._web_port}/", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError as error:
                if time.monotonic() > end:
                    self.report.violations.append(f"the web does not answer: {error}")
                    return
                time.sleep(0.2)

    def _judge(self) -> None:
        engine = make_engine(self._database)
        with make_read_sessions(engine)() as session:
            self.report.violations += violations(
                session, self._home / "machines", deaths=self._deaths, finished=self._finished
            )
            self.report.flights = session.scalar(select(func.count()).select_from(FlightRow)) or 0
            self.report.jobs = session.scalar(select(func.count()).select_from(JobRow)) or 0
            self.report.attempts = session.scalar(select(func.count()).select_from(AttemptRow)) or 0
        engine.dispose()
        if self.report.violations:
            print(f"what is left is in {self._home}", file=sys.stderr)


def by_point(report: Report) -> Mapping[tuple[str, str, str], Counter[str]]:
    """(role, point, phase) -> how often who was killed there."""
    table: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for key in report.points:
        table[key] = Counter()
    for kill in report.kills:
        table[kill.role, kill.point, kill.phase][kill.victim] += 1
    return table
