"""A flight on real Xen, on PostgreSQL and Redis, while its worker is killed twice and its scheduler once."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from lab_cli import Cli
from servers import PostgresServer, RedisServer, find_postgres

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

GUEST, BOOT = "test-amd64-amd64-xl-credit2", "test-amd64-amd64-boot"


@dataclass(frozen=True)
class Served(Cli):
    """A lab whose database and broker are servers, with services that a supervisor starts again when they die."""

    settings: dict[str, str] = field(default_factory=dict)
    services: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, **self.settings}

    def keep(self, *services: str) -> None:
        """What a supervisor does, once: start what does not run."""
        for name in services:
            running = self.services.get(name)
            if running is None or running.poll() is not None:
                with (self.home / f"{name}.log").open("ab") as output:
                    self.services[name] = subprocess.Popen(
                        self.command(name), env=self.environment, stdout=output, stderr=output, cwd="/"
                    )

    def kill(self, name: str) -> None:
        self.services[name].send_signal(signal.SIGKILL)
        self.services[name].wait(10)

    def end(self) -> None:
        for running in self.services.values():
            running.send_signal(signal.SIGTERM)
        for running in self.services.values():
            running.wait(60)


@pytest.fixture
def served(cli: Cli) -> Iterator[Served]:
    initdb, redis = find_postgres(), shutil.which("redis-server")
    assert initdb
    assert redis
    postgres, broker = PostgresServer(initdb, durable=True), RedisServer(redis)
    try:
        postgres.start()
        broker.start()
        urls = {"LAB_DATABASE_URL": f"{postgres.url}/postgres", "LAB_BROKER_URL": broker.url}
        lab = Served(cli.home, urls)
        assert lab.run("db", "upgrade").returncode == 0
        lab.keep("leader", "worker")
        yield lab
        lab.end()
        for name in lab.services:
            print(f"--- {name}\n{(lab.home / f'{name}.log').read_text()[-3000:]}")
    finally:
        for running in lab.services.values():
            running.kill()
        postgres.stop()
        broker.stop()


def test_a_flight_ends_right_though_its_worker_is_killed_twice_and_its_scheduler_once(served: Served) -> None:
    running = served.start("flight", "run", "--matrix", "full", "--jobs", f"{GUEST},{BOOT}", "--json")
    try:
        reach(served, "guest-start", attempt=1)
        served.kill("worker")
        reach(served, "host-boot", attempt=2)
        served.kill("leader")
        reach(served, "guest-start", attempt=2)
        served.kill("worker")
        while running.poll() is None:
            served.keep("leader", "worker")
            time.sleep(0.2)
        output, _ = running.communicate()
    finally:
        running.kill()
    flight = json.loads(output)
    assert running.returncode == 0, flight
    jobs = {job["name"]: job for job in flight["jobs"]}
    assert {name: job["status"] for name, job in jobs.items()} == {GUEST: "pass", BOOT: "pass"}
    assert jobs[GUEST]["attempts"] == 3
    history = json.loads(served.run("job", "show", f"1.{GUEST}", "--json").stdout)["history"]
    assert ["silent" in attempt["reason"] for attempt in history] == [True, True, False]
    for attempt in history:  # what had ended before the kill is there
        assert {"host-boot", "xen-boot"} <= {s["testid"] for s in attempt["steps"] if s["status"] == "pass"}
    until = time.monotonic() + 60
    while served.machines_on():
        assert time.monotonic() < until, "a machine was left on"
        served.keep("leader", "worker")
        time.sleep(0.5)
    hosts = json.loads(served.run("host", "list", "--json").stdout)
    assert {(host["state"], host["health"]) for host in hosts} == {("free", "good")}


def reach(served: Served, testid: str, *, attempt: int, seconds: float = 240) -> None:
    """Wait until an attempt at the guest's job is at a step, while the supervisor works."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        served.keep("leader", "worker")
        for job in (served.flight() or {"jobs": []})["jobs"]:
            at = [step["testid"] for step in job["steps"]]
            if job["name"] == GUEST and job["attempts"] == attempt and testid in at:
                return
        time.sleep(0.3)
    raise AssertionError(f"{testid} of attempt {attempt} was not reached: {served.flight()}")
