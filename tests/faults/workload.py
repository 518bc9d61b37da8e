"""What the lab does while it is being killed: flights of short jobs, alone and in pairs, and people who lease hosts."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from faults.machines import MachineHost
from lab.context import Lab
from lab.db import flights, leases
from lab.errors import HostDiedError, LabError, StepFailure
from lab.flights.model import JobSpec
from lab.flights.recipe import BROKEN, Recipe, Role, register, run
from lab.flights.status import Blessing
from lab.flights.steps import StepContext, step
from lab.hosts.leases import LeaseState
from lab.services.construct import construct_flight
from lab.services.lease import lease_host
from lab.services.release import release_lease

HOSTS = ("h0", "h1", "h2", "h3")
OPEN_FLIGHTS = 3
LOOKS = 5

PASS, WRONG, PAIR = "fault-pass", "fault-wrong", "fault-pair"
JOBS = (JobSpec(name="pass-1", recipe=PASS), JobSpec(name="pass-2", recipe=PASS),
        JobSpec(name="fail-1", recipe=WRONG), JobSpec(name="pass-pair", recipe=PAIR))  # fmt: skip
"""The jobs of each flight; a job's name begins with the verdict it has to get."""


def _work(ctx: StepContext) -> None:
    host = ctx.host()
    assert isinstance(host, MachineHost)
    with host.used_by(ctx.job):
        for _ in range(LOOKS):
            if not host.power.get():
                raise HostDiedError(f"{host.name}: its machine is off")
            ctx.wait(0.01)


def declare() -> None:
    """Make the steps and recipes known to this process."""

    @step("fault-boot", timeout_s=30)
    def _boot(ctx: StepContext) -> None:
        ctx.host().power.set(True)

    @step("fault-work", timeout_s=30)
    def _good(ctx: StepContext) -> None:
        _work(ctx)

    @step("fault-wrong", timeout_s=30)
    def _wrong(ctx: StepContext) -> None:
        _work(ctx)
        raise StepFailure("wrong, as it should be")

    boot = run("fault-boot", "boot", setup=True, iffail=BROKEN)
    one, two = Role(name="host"), tuple(Role(name=name, equivalent="pair") for name in "ab")
    register(Recipe(name=PASS, roles=(one,), lines=(boot, run("fault-work", "work"), run("fault-work", "more"))))
    register(Recipe(name=WRONG, roles=(one,), lines=(boot, run("fault-wrong", "work"))))
    boots = tuple(run("fault-boot", f"boot/{name}", role=name, setup=True, iffail=BROKEN) for name in "ab")
    works = tuple(run("fault-work", f"work/{name}", role=name) for name in "ab")
    register(Recipe(name=PAIR, roles=two, lines=(*boots, *works)))


def people(lab: Lab, stop: Path, seed: int) -> None:
    """Submit flights and lease hosts until the file `stop` is there; then give all leases back."""
    chance = random.Random(seed)
    while True:
        ending = stop.exists()
        try:
            if not ending:
                _submit(lab)
                _lease(lab, chance)
            if not _give_back(lab) and ending:
                return
        except (SQLAlchemyError, LabError) as error:
            print(f"people: {type(error).__name__}: {str(error)[:200]}", flush=True)
        time.sleep(0.1)


def _submit(lab: Lab) -> None:
    with lab.reads() as session:
        if len(flights.unfinished_flights(session)) >= OPEN_FLIGHTS:
            return
    with lab.sessions.begin() as session:
        construct_flight(session, lab, JOBS, branch="faults", intended=Blessing.PLAY, submitter="people")


def _lease(lab: Lab, chance: random.Random) -> None:
    with lab.reads() as session:
        if chance.random() > 0.05 or leases.going_leases(session):
            return
    with lab.sessions.begin() as session:
        lease_host(session, lab, holder="people", why="a look", length=timedelta(hours=1), host=chance.choice(HOSTS))


def _give_back(lab: Lab) -> int:
    """Release the leases that have begun; returns how many leases there are."""
    with lab.reads() as session:
        going = leases.going_leases(session)
    for lease in going:
        if lease.state is LeaseState.ACTIVE:
            with lab.sessions.begin() as session:
                release_lease(session, lab, lease, actor="people")
    return len(going)
