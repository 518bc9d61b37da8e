"""The step guest-vcpus."""

from __future__ import annotations

import re
from typing import Final

from lab.flights.steps import StepContext, step
from testcases._guests import GUEST, Guest, check_survived
from testcases._schedulers import parse_vcpu_list
from testcases._waiting import until

ONLINE: Final = "cat /sys/devices/system/cpu/online"
BRING_UP: Final = "for cpu in /sys/devices/system/cpu/cpu[0-9]*/online; do echo 1 >$cpu; done 2>/dev/null"
"""Linux leaves it to its user space to use a processor that was added."""

UNPLUG_LIMIT_S: Final = 20.0


@step("guest-vcpus", timeout_s=240)
def guest_vcpus(ctx: StepContext) -> None:
    """The guest has all its virtual CPUs: its kernel uses each of them, and so does a program pinned to it.

    One less and one more: what `xl vcpu-set` takes away, the guest's kernel gives up, and it takes back what it gets.
    """
    host, guest = ctx.host(), Guest(ctx, ctx.host())
    count = ctx.runvars.integer("guest_vcpus", 1, low=2, high=64)
    before = guest.life()
    _require_online(guest, range(count), "it was created with")
    for cpu in range(count):
        ran = guest.shell(f"taskset -p {1 << cpu:x} $$ >/dev/null && cut -d ' ' -f 39 /proc/self/stat")
        if ran != (str(cpu),):
            raise guest.failure(f"a program pinned to virtual CPU {cpu} should run there, but runs on {ran!r}")
    placed = [each for each in parse_vcpu_list(host.shell.run("xl", "vcpu-list", GUEST).stdout) if each.seconds > 0]
    if len(placed) != count:
        raise guest.failure(f"each of the {count} virtual CPUs should have run, but only {len(placed)} have")
    host.shell.run("xl", "vcpu-set", "--ignore-host", GUEST, str(count - 1))
    left = until(ctx, lambda: _online(guest, count - 1), limit_s=UNPLUG_LIMIT_S)
    if not left:
        _require_online(guest, range(count - 1), "it was left")
    host.shell.run("xl", "vcpu-set", "--ignore-host", GUEST, str(count))

    def back() -> bool | None:
        guest.shell(BRING_UP)
        return _online(guest, count)

    if not until(ctx, back, limit_s=UNPLUG_LIMIT_S):
        _require_online(guest, range(count), "it was given back")
    after = check_survived(before, [guest], "taking a virtual CPU away and giving it back")
    ctx.log(f"{host.name}: {count} virtual CPUs, one less, and {count} again")
    ctx.log(f"heartbeats {before.beat.seq} to {after.beat.seq} without a hole, memory whole")


def _online(guest: Guest, count: int) -> bool | None:
    return True if online(guest.shell(ONLINE)) == tuple(range(count)) else None


def _require_online(guest: Guest, expected: range, when: str) -> None:
    seen = online(guest.shell(ONLINE))
    if seen != tuple(expected):
        names = ", ".join(map(str, seen)) or "none"
        raise guest.failure(f"the guest's kernel should use the {len(expected)} CPUs that {when}, but uses {names}")


def online(lines: tuple[str, ...]) -> tuple[int, ...]:
    """The processors of Linux' list of ranges.

    >>> online(("0-2,4",))
    (0, 1, 2, 4)
    """
    ranges = re.findall(r"([0-9]+)(?:-([0-9]+))?", lines[0] if lines else "")
    return tuple(cpu for first, last in ranges for cpu in range(int(first), int(last or first) + 1))
