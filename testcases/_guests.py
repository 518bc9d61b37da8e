"""The guest of a job: how it is made from runvars, and how one sees that it lives and is still the same."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from lab.errors import ConfigError, Evidence, LabBug, StepFailure
from lab.flights.runvars import Runvars
from lab.flights.steps import GuestFiles, StepContext
from lab.hosts.protocols import AgentReply, GuestConfig, GuestDisk, GuestState, Heartbeat, HostAccess
from testcases._waiting import until

GUEST: Final = "guest"
"""The name of the job's guest in its toolstack."""

READY: Final = "LAB-GUEST ready"
"""What the guest prints once in each boot, when its agent listens."""

ARM: Final = ("arm64", "armhf")
"""The architectures on which all guests are of one kind, called pvh."""

KINDS: Final = ("pv", "pvh", "hvm")
SCRATCH: Final = "/lab/scratch"
"""Where dom0 has room for disks and saved guests (a file system in memory on emulated hosts)."""

DISK_FORMATS: Final = ("raw", "qcow2", "vhd")


QUICK_BOOT: Final = (
    "console=hvc0", "quiet", "cryptomgr.notests", "init_on_alloc=0", "mitigations=off", "lsm=", "audit=0",
    "ipv6.disable=1", "rodata=off", "8250.nr_uarts=0",
)  # fmt: skip
"""The guest is our probe, not what is tested: an emulated host shares one CPU between it and dom0. Without *quiet*
every line of its kernel wakes dom0; a panic is printed all the same."""

QUICK_BOOT_OF_X86: Final[Mapping[str, tuple[str, ...]]] = {
    "pv": (),
    # A PVH guest has neither a timer chip nor PCI, but Linux asks 100,000 times for the one (to find out how fast its
    # processor is; not if that has no time stamp counter, bit 4) and long for the other. Each time costs an exit to
    # Xen, on an emulated host 10 s in all. Its clock is Xen's in any case.
    "pvh": ("clearcpuid=4", "lpj=4000000", "pci=off"),
    # What Linux looks for on a PC, and this guest has not: each look is an exit to the device model, and costs dom0
    # milliseconds. The early search for PCI bridges alone looks 8192 times.
    "hvm": ("pci=noearly", "nokaslr", "no_timer_check", "lpj=4000000", "tsc=reliable", "i8042.noaux", "i8042.nokbd"),
}


OPTIONS: Final[Mapping[str, str]] = {"guest_hap": "hap", "guest_pvshim": "pvshim"}
"""Runvars that switch an option of xl's guest configuration on (1) or off (0)."""


def guest_options(runvars: Runvars) -> Mapping[str, str | int]:
    """The options of xl's guest configuration that the job's runvars ask for."""
    options: dict[str, str | int] = {
        option: runvars.integer(name, 0, low=0, high=1) for name, option in OPTIONS.items() if runvars.get(name)
    }
    if runvars.get("guest_cpu_family"):
        options["cpuid"] = f"host,family={runvars.integer('guest_cpu_family', 0, low=5, high=255)}"
    return options


def guest_config(
    runvars: Runvars, files: GuestFiles, *, job: str, host_address: str, stubdom: GuestFiles | None = None
) -> GuestConfig:
    """The guest this job's runvars ask for; its disk is the one that disk-create has left in `disk_path`.

    It boots from that disk when disk-boot-create has made it, and its device model runs in `stubdom` if there is one.
    """
    memory, kind = runvars.integer("guest_memory", 128, low=32, high=65536), runvars.choice("guest_kind", KINDS)
    disks: tuple[GuestDisk, ...] = ()
    if device := runvars.get("disk_nbd"):  # dom0's kernel has the image as a block device
        disks = (GuestDisk(path=device, format="raw"),)
    elif path := runvars.get("disk_device") or runvars.get("disk_path"):
        read_only = runvars.get("disk_access") == "ro"
        disks = (GuestDisk(path=path, format=runvars.choice("disk_format", DISK_FORMATS), read_only=read_only),)
    options = guest_options(runvars)
    return GuestConfig(
        name=GUEST,
        # with a shim, what Xen runs is a PVH guest, in which a Xen runs the PV guest
        kind="pvh" if options.get("pvshim") else kind,
        memory_mib=memory,
        vcpus=runvars.integer("guest_vcpus", 1, low=1, high=128),
        kernel="" if runvars.get("disk_boot_token") else _kernel(kind, files),
        ramdisk=files.ramdisk,
        kernel_args=(
            *QUICK_BOOT,
            *(QUICK_BOOT_OF_X86[kind] if runvars.get("arch") not in ARM else ()),
            # the part of its memory with the pattern whose pages are verified after each move; filling it takes time
            f"lab.mem={max(4, memory // 16)}",
            f"lab.ip={guest_address(host_address)}/24",
        ),
        disks=disks,
        bridge="xenbr0",
        mac=guest_mac(job),
        options={**options, **(stubdom_options(stubdom) if stubdom else {})},
    )


def _kernel(kind: str, files: GuestFiles) -> str:
    if kind != "hvm":
        return files.kernel
    if not files.bzimage:
        raise ConfigError(f"{files.kernel} cannot be started by a BIOS", hint="for hvm, guest_image is guest-hvm-ARCH")
    return files.bzimage


STUBDOM_MEMORY_MIB: Final = 256


def stubdom_options(files: GuestFiles) -> Mapping[str, str | int]:
    """The further xl.cfg settings of a guest whose device model runs in a Linux stub domain."""
    return {
        "device_model_version": "qemu-xen",
        "device_model_stubdomain_override": 1,
        "stubdomain_kernel": files.kernel,
        "stubdomain_ramdisk": files.ramdisk,
        "stubdomain_memory": STUBDOM_MEMORY_MIB,
        "stubdomain_cmdline": " ".join(QUICK_BOOT),
    }


def stubdom_of(runvars: Runvars, guest: str = GUEST) -> str | None:
    """The name the toolstack gives the guest's stub domain; None when its device model runs in dom0."""
    return f"{guest}-dm" if runvars.get("stubdom_image") else None


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


DYING_LIMIT_S: Final = 10.0
BOOT_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True)
class Life:
    """Which boot of the guest this is (its kernel draws a name for each), and how far its count has come."""

    boot_id: str
    beat: Heartbeat


class Guest:
    """The job's guest on one host, as a step sees it: one console, of which only what is new is fetched."""

    def __init__(self, ctx: StepContext, host: HostAccess, name: str = GUEST, *, alone: bool = True) -> None:
        """`alone`: no other guest may be on the host."""
        self.ctx = ctx
        self.host = host
        self.name = name
        self.alone = alone
        self.stubdom = stubdom_of(ctx.runvars, name)
        self.console = host.toolstack.console(name)

    def failure(self, message: str, *, output: str = "") -> StepFailure:
        """The failure `message`, with what the guest printed last as evidence."""
        tail = self.console.text()[-4000:]
        return StepFailure(
            f"{self.host.name}: {message}", evidence=Evidence(host=self.host.name, output=output, console_tail=tail)
        )

    def require_listed(self) -> GuestState:
        """The guest as the toolstack lists it; `StepFailure` when it is not, or is crashed or dying, or not alone.

        Only its stub domain, if it should have one, is there beside it, and has to be.
        """
        listed = self.host.toolstack.guests()
        state = next((guest for guest in listed if guest.name == self.name), None)
        if state is None:
            raise self.failure(f"{self.name!r} should run, but there is {_names(listed)}")
        if "c" in state.state or "d" in state.state:
            raise self.failure(f"{self.name!r} should run, but is in state {state.state!r}")
        stubdom = next((guest for guest in listed if guest.name == self.stubdom), None)
        if self.stubdom is not None and (stubdom is None or "c" in stubdom.state or "d" in stubdom.state):
            raise self.failure(
                f"{self.stubdom!r}, the stub domain with the guest's device model, should run, "
                f"but there is {_names(listed)}"
            )
        if self.alone and len(listed) > (1 if stubdom is None else 2):  # e.g. the other half of a migration
            raise self.failure(f"only {self.name!r} should be there, but there is {_names(listed)}")
        return state

    def require_none(self, when: str) -> None:
        """`StepFailure` when the host has any guest (whatever it is called by now); `when` begins the message.

        A domain that is dying has been destroyed, and goes as soon as dom0 has let go of its last pages: it may take
        a few seconds (a stub domain's more often than others'), but not for ever.
        """
        left = until(self.ctx, self._undying, limit_s=DYING_LIMIT_S)
        if left is None:
            left = self.host.toolstack.guests()
        if left:
            raise self.failure(f"{when} no guest should be there, but there is {_names(left)}")

    def _undying(self) -> Sequence[GuestState] | None:
        """The listed guests; None while there are some and all of them are dying."""
        listed = self.host.toolstack.guests()
        return None if listed and all("d" in guest.state for guest in listed) else listed

    def ask(self, verb: str, argument: str = "", *, timeout_s: float = 30.0) -> AgentReply:
        """The reply of the guest's agent; `StepFailure` when it is not *ok*."""
        try:
            reply = self.console.command(verb, argument, timeout_s=timeout_s)
        except StepFailure:
            self.require_listed()  # a guest that crashed or has gone is told as such
            raise
        if not reply.ok:
            asked = f"{verb} {argument}".strip()
            raise self.failure(
                f"the guest was asked for {asked!r} and said {reply.text!r}, expected ok",
                output="\n".join((reply.text, *reply.lines)),
            )
        return reply

    def shell(self, command: str, *, timeout_s: float = 30.0) -> tuple[str, ...]:
        """The lines a command printed in the guest; `StepFailure` when it fails there."""
        return self.ask("sh", command, timeout_s=timeout_s).lines

    def await_beats(self, *, beyond: int, more: int = 2, limit_s: float = 30.0) -> Heartbeat:
        """Wait until the guest has counted `more` beyond `beyond`; the newest heartbeat, whose memory check is good."""

        def newest() -> Heartbeat | None:
            beats = self.console.heartbeats()
            return beats[-1] if beats and beats[-1].seq >= beyond + more else None

        beat = until(self.ctx, newest, limit_s=limit_s, every_s=0.5)
        if beat is None:
            beats = self.console.heartbeats()
            seen = f"its last one is {beats[-1].seq}" if beats else "it has none at all"
            raise self.failure(f"the guest should reach heartbeat {beyond + more} in {limit_s:.0f} s, but {seen}")
        if not beat.memory_ok:
            raise self.failure(f"the guest says that its memory is damaged (heartbeat {beat.seq})")
        return beat

    def life(self) -> Life:
        """Which boot this is, and the newest heartbeat; `StepFailure` when the guest does not answer."""
        lines = self.shell("cat /proc/sys/kernel/random/boot_id")
        if len(lines) != 1 or not BOOT_ID.fullmatch(lines[0]):
            raise self.failure(f"the guest should tell its boot id, but said {lines!r}"[:300])
        return Life(boot_id=lines[0], beat=self.await_beats(beyond=0, more=0))


def check_survived(before: Life, where: Sequence[Guest], what: str) -> Life:
    """The guest came through `what`: it lives on the last of the hosts `where`, and it is the same guest.

    The same boot goes on, each heartbeat since `before` was printed on one of the hosts, and the memory pattern is
    whole. `StepFailure` otherwise; else where the guest stands now.
    """
    guest = where[-1]
    guest.ask("mem", timeout_s=60)
    now = guest.life()
    if now.boot_id != before.boot_id:
        boots = f"boot {before.boot_id}, now {now.boot_id}"
        raise guest.failure(f"{what} should keep the guest running, but it booted anew ({boots})")
    beat = guest.await_beats(beyond=before.beat.seq)
    problems: tuple[str, ...] = ()
    for _ in range(10):
        beats = [beat for each in where for beat in each.console.heartbeats()]
        problems = continuity_problems(beats, before.beat, beat)
        if not problems:
            return Life(boot_id=now.boot_id, beat=beat)
        guest.ctx.wait(0.3)  # what the guest printed on the host it left may take a moment to reach us
    raise guest.failure(f"{what} broke the guest's count: {'; '.join(problems)}")


def _names(guests: Sequence[GuestState]) -> str:
    return ", ".join(f"{guest.name} (domain {guest.domid}, state {guest.state})" for guest in guests) or "none"


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
