"""Run a command on a host that a person has leased."""

from __future__ import annotations

from lab.context import Lab
from lab.db import leases
from lab.hosts.protocols import CommandResult
from lab.services.power_host import held_by

LONGEST_S = 3600.0


def run_on_host(lab: Lab, name: str, argv: tuple[str, ...], *, person: str, token: int | None = None) -> CommandResult:
    """Run one command in dom0 of a host that `person` has leased, as root; each argument is one there, too.

    Raises `ConfigError` when the host is not this person's, `HostDiedError` when its dom0 does not answer.
    """
    lease = held_by(lab, name, person, token)
    access = lab.machines.open(name)
    try:
        result = access.shell.run(*argv, timeout_s=LONGEST_S, check=False)
    finally:
        access.close()
    with lab.sessions.begin() as session:
        leases.hear(session, lease.id, now=lab.clock())
    return result
