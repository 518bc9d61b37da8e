"""The guest of a job: how it is made from runvars, and how one sees that it lives and is still the same."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from lab.errors import Evidence, LabBug, StepFailure
from lab.flights.runvars import Runvars
from lab.flights.steps import GuestFiles, StepContext
from lab.hosts.protocols import AgentReply, GuestConfig, GuestDisk, GuestState, Heartbeat, HostAccess
from testcases._waiting import until

GUEST: Final = "guest"
"""The name of the job's guest in its toolstack."""

READY: Final = "LAB-GUEST ready"
"""What the guest prints once in each boot, when its agent listens."""

KINDS: Final = ("pv", "pvh", "hvm")
SCRATCH: Final = "/lab/scratch"
"""Where dom0 has room for disks and saved guests (a file system in memory on emulated hosts)."""

DISK_FORMATS: Final = ("raw", "qcow2", "vhd")


def guest_config(runvars: Runvars, files: GuestFiles, *, job: str, host_address: str) -> GuestConfig:
    """The guest this job's runvars ask for; its disk is the one that disk-create has left in `disk_path`."""
    memory = runvars.integer("guest_memory", 128, low=32, high=65536)
    disks: tuple[GuestDisk, ...] = ()
    if path := runvars.get("disk_path"):
        disks = (GuestDisk(path=path, format=runvars.choice("disk_format", DISK_FORMATS)),)
    return GuestConfig(
        name=GUEST,
        kind=runvars.choice("guest_kind", KINDS),
        memory_mib=memory,
        vcpus=runvars.integer("guest_vcpus", 1, low=1, high=128),
        kernel=files.kernel,
        ramdisk=files.ramdisk,
        # a quarter of its memory carries the pattern whose pages are verified after each move
        kernel_args=("console=hvc0", f"lab.mem={memory // 4}", f"lab.ip={guest_address(host_address)}/24"),
        disks=disks,
        bridge="xenbr0",
        mac=guest_mac(job),
    )


def guest_mac(job: str) -> str:
    """A MAC address in Xen's range that no other job's guest on the same network is likely to have."""
    digest = hashlib.sha256(job.encode()).digest()
    return f"00:16:3e:{digest[0] & 0x7F:02x}:{digest[1]:02x}:{digest[2]:02x}"


def guest_address(host_address: str) -> str:
    """The guest's address on the lab's network: 201 to 254, by its first host's number (hosts are 1 to 200).

    >>> guest_address("192.168.77.2")
    '192.168.77.202'
    """
    network, _, number = host_address.rpartition(".")
    if not re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", network) or not number.isdigit():
        raise LabBug(f"the host's address {host_address!r} is not an IPv4 address")
    return f"{network}.{201 + (int(number) - 1) % 54}"


@dataclass(frozen=True, kw_only=True)
class Life:
    """Which boot of the guest this is, and how far its count has come."""

    boot_id: str
    beat: Heartbeat


def guest_failure(host: HostAccess, message: str, *, output: str = "") -> StepFailure:
    """The failure `message`, with what the guest printed last as evidence."""
    tail = host.toolstack.console(GUEST).text()[-4000:]
    return StepFailure(message, evidence=Evidence(host=host.name, output=output, console_tail=tail))


def require_guest(host: HostAccess) -> GuestState:
    """The guest as the toolstack lists it; `StepFailure` when it does not, or when it is dying or crashed."""
    state = host.toolstack.find(GUEST)
    if state is None:
        raise guest_failure(host, f"{host.name}: there is no guest {GUEST!r}, expected it to run")
    if "c" in state.state or "d" in state.state:
        raise guest_failure(host, f"{host.name}: guest {GUEST!r} is in state {state.state!r}, expected it to run")
    return state


def require_gone(host: HostAccess, after: str) -> None:
    """`StepFailure` when the host still has any guest (whatever it is called by now) `after` what was done."""
    left = host.toolstack.guests()
    if left:
        names = ", ".join(f"{guest.name} (domain {guest.domid}, state {guest.state})" for guest in left)
        raise guest_failure(host, f"{host.name}: after {after} no guest should be left, but there is {names}")


def require_only_guest(host: HostAccess) -> None:
    """`StepFailure` when there is another guest beside the job's own, e.g. the other half of a migration."""
    if others := [guest.name for guest in host.toolstack.guests() if guest.name != GUEST]:
        raise guest_failure(host, f"{host.name}: only {GUEST!r} should be there, but there is also {', '.join(others)}")


def await_beats(ctx: StepContext, host: HostAccess, *, beyond: int, more: int = 2, limit_s: float = 30.0) -> Heartbeat:
    """Wait until the guest has counted `more` beyond `beyond`; the newest heartbeat, which says its memory is whole."""

    def newest() -> Heartbeat | None:
        beats = host.toolstack.console(GUEST).heartbeats()
        return beats[-1] if beats and beats[-1].seq >= beyond + more else None

    beat = until(ctx, newest, limit_s=limit_s)
    if beat is None:
        beats = host.toolstack.console(GUEST).heartbeats()
        seen = f"its last one is {beats[-1].seq}" if beats else "it has none at all"
        raise guest_failure(
            host, f"{host.name}: the guest should reach heartbeat {beyond + more} within {limit_s:.0f} s, but {seen}"
        )
    if not beat.memory_ok:
        raise guest_failure(host, f"{host.name}: the guest says that its memory is damaged (heartbeat {beat.seq})")
    return beat


def ask_agent(host: HostAccess, verb: str, argument: str = "", *, timeout_s: float = 30.0) -> AgentReply:
    """The reply of the guest's agent; `StepFailure` when it is not *ok*."""
    reply = host.toolstack.console(GUEST).command(verb, argument, timeout_s=timeout_s)
    if not reply.ok:
        asked = f"{verb} {argument}".strip()
        raise guest_failure(
            host,
            f"{host.name}: the guest was asked for {asked!r} and said {reply.text!r}, expected ok",
            output="\n".join((reply.text, *reply.lines)),
        )
    return reply


def guest_shell(host: HostAccess, command: str, *, timeout_s: float = 30.0) -> tuple[str, ...]:
    """The lines a command printed in the guest; `StepFailure` when it fails there."""
    return ask_agent(host, "sh", command, timeout_s=timeout_s).lines


def boot_id(host: HostAccess) -> str:
    """Names this boot of the guest: the kernel draws it anew whenever it starts."""
    lines = guest_shell(host, "cat /proc/sys/kernel/random/boot_id")
    if len(lines) != 1 or not re.fullmatch(r"[0-9a-f-]{36}", lines[0].strip()):
        raise guest_failure(host, f"{host.name}: expected the guest's boot id, got {' '.join(lines)[:200]!r}")
    return lines[0].strip()


def read_life(ctx: StepContext, host: HostAccess) -> Life:
    """Where the guest stands now; `StepFailure` when it does not live."""
    require_guest(host)
    beats = host.toolstack.console(GUEST).heartbeats()
    beat = await_beats(ctx, host, beyond=beats[-1].seq if beats else 0, more=1)
    return Life(boot_id=boot_id(host), beat=beat)


def check_survived(ctx: StepContext, before: Life, where: Sequence[HostAccess], what: str) -> Life:
    """The guest came through `what`: it lives on the last of the hosts `where`, and it is the same guest.

    The same boot goes on, each heartbeat since `before` was printed on one of the hosts, and the memory pattern is
    whole. `StepFailure` otherwise.
    """
    host = where[-1]
    require_guest(host)
    beat = await_beats(ctx, host, beyond=before.beat.seq)
    now = Life(boot_id=boot_id(host), beat=beat)
    if now.boot_id != before.boot_id:
        boots = f"boot {before.boot_id}, now {now.boot_id}"
        raise guest_failure(host, f"{host.name}: {what} should keep the guest running, but it booted anew ({boots})")
    beats = [beat for each in where for beat in each.toolstack.console(GUEST).heartbeats()]
    if problems := continuity_problems(beats, before.beat, now.beat):
        raise guest_failure(host, f"{host.name}: {what} broke the guest's count: {'; '.join(problems)}")
    memory = ask_agent(host, "mem")
    ctx.log(f"{what}: heartbeats {before.beat.seq} to {now.beat.seq} without a hole, memory {memory.text}")
    return now


def continuity_problems(beats: Iterable[Heartbeat], first: Heartbeat, last: Heartbeat) -> tuple[str, ...]:
    """What is wrong with the heartbeats from `first` to `last` of one boot; nothing when all is well.

    Every number must have been printed (a move may print one twice: on both of its ends), and the guest's own clock
    must go up with the numbers.
    """
    by_seq: dict[int, Heartbeat] = {}
    for beat in beats:
        # an earlier boot's heartbeats may be in the same log; they are not older by number, but by the guest's clock
        if first.seq <= beat.seq <= last.seq and first.mono_s <= beat.mono_s <= last.mono_s:
            by_seq[beat.seq] = beat
    problems = []
    if last.mono_s < first.mono_s:
        problems.append(f"the guest's clock went back from {first.mono_s:.1f} to {last.mono_s:.1f} s")
    elif missing := [str(seq) for seq in range(first.seq, last.seq + 1) if seq not in by_seq]:
        problems.append(f"heartbeat {', '.join(missing[:10])}{' …' if len(missing) > 10 else ''} is missing")
    ordered = [by_seq[seq] for seq in sorted(by_seq)]
    problems.extend(
        f"the guest's clock went back from {earlier.mono_s:.1f} to {later.mono_s:.1f} s at heartbeat {later.seq}"
        for earlier, later in pairwise(ordered)
        if later.mono_s < earlier.mono_s
    )
    if damaged := [str(beat.seq) for beat in ordered if not beat.memory_ok]:
        problems.append(f"the memory was damaged at heartbeat {', '.join(damaged[:10])}")
    return tuple(problems)
