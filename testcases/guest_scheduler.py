"""The step guest-scheduler."""

from __future__ import annotations

from collections.abc import Mapping

from lab.errors import Evidence, StepFailure
from lab.flights.steps import StepContext, step
from lab.hosts.protocols import HostAccess
from testcases._guests import GUEST, Guest, check_survived
from testcases._readings import read_all
from testcases._schedulers import (
    LIMIT_PERCENT,
    LOOK,
    SCHEDULERS,
    SLACK_PERCENT,
    UNLIMITED_PERCENT,
    Scheduler,
    parse_table,
    parse_vcpu_list,
    share,
    shared_processors,
)
from testcases._xl_output import parse_xl_info

MEASURE_S = 3


@step("guest-scheduler", timeout_s=180)
def guest_scheduler(ctx: StepContext) -> None:
    """The scheduler asked for is the one that runs, and a guest gets what it was given.

    Its settings are changed, read back, and seen to work: a guest that takes all the processor it can get is held to
    its limit, and gets more once the limit is lifted. Under *null* each virtual CPU has a processor to itself.
    """
    host, guest = ctx.host(), Guest(ctx, ctx.host())
    wanted = ctx.runvars.choice("scheduler", SCHEDULERS)
    said = host.shell.run("xl", "info")
    running = parse_xl_info(said.stdout).get("xen_scheduler", "none")
    if running != wanted:
        raise StepFailure(
            f"{host.name}: the scheduler should be {wanted}, but it is {running}",
            evidence=Evidence(host=host.name, command=said.command, output=said.output),
        )
    before = guest.life()
    if SCHEDULERS[wanted].command:
        _check_settings(ctx, guest, SCHEDULERS[wanted])
    else:
        _check_placement(ctx, guest)
    after = check_survived(before, [guest], "another share of the processor")
    ctx.log(f"{host.name}: {wanted}; heartbeats {before.beat.seq} to {after.beat.seq} without a hole")


def _check_settings(ctx: StepContext, guest: Guest, scheduler: Scheduler) -> None:
    host = guest.host
    shares = []
    for settings in (scheduler.limited, scheduler.unlimited):
        host.shell.run("xl", *scheduler.arguments(GUEST, settings))
        _read_back(host, scheduler, settings)
        shares.append(_measure(guest))
    limited, unlimited = shares
    ctx.runvars.set("limited_percent", round(limited))
    ctx.runvars.set("unlimited_percent", round(unlimited))
    seen = f"took {limited:.0f} % of a processor with a limit of {LIMIT_PERCENT} %, and {unlimited:.0f} % without"
    if limited > LIMIT_PERCENT + SLACK_PERCENT or unlimited < max(UNLIMITED_PERCENT, limited):
        raise guest.failure(f"the scheduler should hold a busy guest to its limit and to nothing else, but it {seen}")
    ctx.log(f"{host.name}: a busy guest {seen}")


def _read_back(host: HostAccess, scheduler: Scheduler, settings: Mapping[str, int]) -> None:
    table = host.shell.run("xl", *scheduler.arguments(GUEST, {}))
    seen = parse_table(table.stdout, GUEST)
    if {name: seen.get(name) for name in settings} != dict(settings):
        raise StepFailure(
            f"{host.name}: the guest was given {dict(settings)}, but xl {scheduler.command} says {dict(seen)}",
            evidence=Evidence(host=host.name, command=table.command, output=table.output),
        )


def _measure(guest: Guest) -> float:
    """How much of a processor the guest takes while it takes all it can get, in percent."""
    # `timeout` becomes what it limits: its number is that of the loop, which ends by itself in any case
    guest.shell(f"timeout {MEASURE_S + 30} sh -c 'while :; do :; done' >/dev/null 2>&1 & echo $! >/busy")
    look = f"set -- {GUEST}; {LOOK}"
    looks = read_all(guest.host.shell, {"first": look, "wait": f"sleep {MEASURE_S}", "second": look})
    guest.shell("kill $(cat /busy)")
    percent = share(looks["first"].output, looks["second"].output)
    if percent is None:
        raise guest.failure("`xl list` should tell how long the guest ran", output=looks["second"].output)
    return percent


def _check_placement(ctx: StepContext, guest: Guest) -> None:
    readings = read_all(guest.host.shell, {"first": "xl vcpu-list", "wait": "sleep 1", "second": "xl vcpu-list"})
    first, second = (parse_vcpu_list(readings[name].output) for name in ("first", "second"))
    problems = [*shared_processors(second)]
    if GUEST not in {placed.domain for placed in second}:
        problems.append("the guest has no virtual CPU")
    places = [[(placed.domain, placed.vcpu, placed.cpu) for placed in look] for look in (first, second)]
    if places[0] != places[1]:
        problems.append("a virtual CPU moved")
    if problems:
        raise guest.failure(
            f"under null each virtual CPU should have its processor alone, but {'; '.join(problems)}",
            output=readings["first"].output + readings["second"].output,
        )
    ctx.log(f"{guest.host.name}: " + ", ".join(f"{p.domain}/{p.vcpu} on processor {p.cpu}" for p in second))
