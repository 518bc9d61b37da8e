"""The step host-ping."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lab.errors import Evidence, StepFailure
from lab.flights.steps import StepContext, step

COUNT: Final = 20
LOST_PERCENT: Final = 1.0
"""What OSSTest allows (of 100 pings)."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """How many echo requests were sent, and how many answers came."""

    sent: int
    received: int

    @property
    def percent(self) -> float:
        """Lost ones of a hundred."""
        return 100.0 * (self.sent - self.received) / self.sent if self.sent else 100.0


def parse_ping(text: str) -> Loss | None:
    """The summary of iputils' or busybox' ping; None when there is none."""
    found = re.search(r"([0-9]+) packets transmitted, ([0-9]+) (?:packets )?received", text)
    return Loss(sent=int(found[1]), received=int(found[2])) if found else None


@step("host-ping", timeout_s=120)
def host_ping(ctx: StepContext) -> None:
    """The host's network carries packets: to every other host of the job, or, without one, to its gateway."""
    host = ctx.host()
    peers = [ctx.host(role).address for role in ctx.roles if role != ctx.role]
    script = (
        'target=${1:-$(ip -4 route show default | sed -n "s/^default via \\([0-9.]*\\).*/\\1/p" | head -n 1)}; '
        # an emulated host without a default route still has its gateway there
        f'ping -q -i 0.05 -c {COUNT} -w 30 "${{target:-10.0.2.2}}"'
    )
    for peer in peers or [""]:
        to = peer or "the gateway"
        result = host.shell.script(script, *([peer] if peer else []), timeout_s=60, check=False)
        loss = parse_ping(result.output)
        if loss is None or loss.sent < COUNT or loss.percent > LOST_PERCENT:
            seen = f"{loss.received} of {loss.sent} came back" if loss else repr(result.output.strip()[-200:])
            raise StepFailure(
                f"{host.name}: of {COUNT} pings to {to} at most {LOST_PERCENT:g} % may be lost, but {seen}",
                evidence=Evidence(
                    host=host.name, command=result.command, exit_status=result.exit_status, output=result.output
                ),
            )
        ctx.log(f"{host.name}: {loss.received} of {loss.sent} pings to {to} came back")
