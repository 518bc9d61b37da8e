"""Switch the power of a leased host, for its holder and nobody else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from lab.context import Lab
from lab.db import hosts, leases
from lab.db.leadership import only_cleaner
from lab.errors import ConfigError, InfraError
from lab.hosts.leases import PersonLease, check_holder, check_person, how_ended
from lab.hosts.power import cycle, switch
from lab.hosts.protocols import BootTarget

PATIENCE_S = 30.0


class Deed(StrEnum):
    """What can be done to a machine's power."""

    ON = "on"
    OFF = "off"
    CYCLE = "cycle"


def power_host(
    lab: Lab, name: str, deed: Deed, *, person: str, token: int | None = None, target: BootTarget | None = None
) -> PersonLease:
    """Switch a host that `person` has leased, under `token` if one is told; returns the lease.

    With `target`, that is what it boots from now on. The lease is looked at while nobody can clean the host, so a lease
    that ends at this moment either comes before, and nothing is switched, or after, and the host is powered off again.
    Raises `ConfigError` when the host is not this person's, or the token is an old one.
    """
    check_person(person)
    with _alone_with(lab, name):
        lease = held_by(lab, name, person, token)
        access = lab.machines.open(name)
        try:
            if target is not None:
                access.boot.set_target(target)
            if deed is Deed.CYCLE:
                cycle(access.power, wait=time.sleep)
            else:
                switch(access.power, deed is Deed.ON, wait=time.sleep)
        finally:
            access.close()
        with lab.sessions.begin() as session:
            leases.hear(session, lease.id, now=lab.clock())
            what = f"power {deed.value}"
            leases.add_change(session, lease.id, what, actor=person, now=lab.clock(), host=name)
    with lab.reads() as session:
        ended = name in hosts.cleaning_hosts(session)
    if ended:  # while this was going on: who was to clean it found it occupied
        lab.dispatch.clean_host(name)
    return lease


def held_by(lab: Lab, name: str, person: str, token: int | None = None) -> PersonLease:
    """The lease under which `person` has the host now; `ConfigError` that says who has it else."""
    with lab.reads() as session:
        lease = leases.active_lease(session, name)
        if lease is None:
            hosts.load_host(session, name)
            hold = leases.holders(session, [name]).get(name)
            if hold is not None:
                raise ConfigError(f"{name} is held by job {hold.holder}", hint="wait until it has ended")
            told = f"token {token} of {name} has expired: " if token is not None else ""
            raise ConfigError(f"{told}nobody has leased {name}", hint=f"first `lab host lease {name} --for 2h`")
    check_holder(lease, person, token)
    if how_ended(lease, lab.clock()) is not None:
        raise ConfigError(f"the time of {lease.name} is over", hint="take a new one with `lab host lease`")
    return lease


@contextmanager
def _alone_with(lab: Lab, name: str) -> Iterator[None]:
    """While nobody else switches this host's power for a lease, or cleans it."""
    end = time.monotonic() + PATIENCE_S
    while True:
        with only_cleaner(lab.sessions.kw["bind"], lab.settings.home, name) as alone:
            if alone:
                yield
                return
        if time.monotonic() > end:
            raise InfraError(f"{name} has been occupied for {PATIENCE_S:.0f} s", hint="it is being switched or cleaned")
        time.sleep(0.05)
