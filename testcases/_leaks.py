"""What a job may leave behind on a host: inventories, and the difference between two of them. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from testcases._xl_output import parse_xl_list

Inventory = Mapping[str, tuple[str, ...]]
"""Kind of object to the objects' names; the same name several times when there are several."""


@dataclass(frozen=True)
class Suppression:
    """Objects of a kind that are no leak, and why."""

    kind: str
    pattern: str
    reason: str


SUPPRESSED: Final = (
    Suppression("process", r"\S*(dropbear|sshd)\b.*", "the shell of the lab comes through it, once a session"),
    Suppression(
        "process", r"(sh -c )?guest-consoles \S+", "the lab's ear on the guests' consoles, for as long as it listens"
    ),
    Suppression("process", r"(sh -c .*)?\bguest-consoles\b.*", "the lab's listener to guests' consoles"),
    Suppression("process", r"\[.*\]", "a kernel thread, or a process about to end"),
    Suppression("xenstore", r"/(vm|libxl|tool|tool/.*)", "made by the toolstack at its first use, for good"),
    Suppression("xenstore", r"/libxl/0(/.*)?|/local/domain/0/(libxl|device-model)(/.*)?", "dom0's own devices"),
    Suppression("xenstore", r"/local/domain/0/backend(/[a-z0-9]+)?", "an empty folder of a kind of device stays"),
    Suppression("xenstore", r"/local/domain/0/memory(/.*)?", "dom0's ballooning"),
    Suppression("file", r"(/var)?/run/xen/domid-history", "xl remembers the numbers of ended domains, on purpose"),
    Suppression("file", r"(/var)?/run/(lock|xen-hotplug)/.*", "lock files are not removed after use"),
    Suppression("file", r"/etc/libvirt/libxl", "libvirt's folder of definitions, made for the first, stays when empty"),
    Suppression("file", r"(/var)?/run/lab(/.*)?", "guest configurations and logs of the lab's own toolstack driver"),
)
"""Each line excuses a kind of object for everybody: the reason has to hold for every job."""

MEMORY: Final = "memory"
MEMORY_SLACK_MIB: Final = 8
"""Less than any guest has, and more than Xen keeps for itself after the first one."""

INVENTORY_COMMANDS: Final = {
    "domain": "xl list",
    "process": "echo self $$; ps -o pid,ppid,args",
    "xenstore": "xenstore-ls -f",
    "loop": "losetup -a",
    "file": "find /tmp /run /var/run /var/tmp /var/lib/xen /lab/scratch /etc/libvirt /var/lib/libvirt 2>/dev/null; "
    "true",
    "nbd": "ls -d /sys/block/nbd*/pid 2>/dev/null; true",
    "interface": "ip -o link",
    "mount": "cat /proc/mounts",
    "event-channel": "lsevtchn 0",
    "memory": "xl info",
    # a process is only taken for one that stays when it is seen twice
    "process-again": "sleep 0.5; echo self $$; ps -o pid,ppid,args",
}
"""What to run on the host for an inventory."""


def inventory(outputs: Mapping[str, str]) -> Inventory:
    """The inventory from the outputs of `INVENTORY_COMMANDS`."""
    first, again = parse_ps(outputs["process"]), parse_ps(outputs["process-again"])
    return {
        "domain": tuple(sorted(domain.name for domain in parse_xl_list(outputs["domain"]) if domain.domid != 0)),
        "process": tuple(sorted(args for pid, args in first.items() if again.get(pid) == args)),
        "xenstore": tuple(sorted(re.findall(r"^(/\S*) = ", outputs["xenstore"], re.MULTILINE))),
        "loop": tuple(sorted(line.strip() for line in outputs["loop"].splitlines() if line.startswith("/dev/loop"))),
        "nbd": tuple(sorted(re.findall(r"^/sys/block/(nbd[0-9]+)/pid$", outputs["nbd"], re.MULTILINE))),
        "interface": tuple(sorted(re.findall(r"^[0-9]+: ([^:@\s]+)", outputs["interface"], re.MULTILINE))),
        "mount": tuple(sorted(" ".join(line.split()[1:3]) for line in outputs["mount"].splitlines() if line.strip())),
        # with a guest that has gone; dom0's own come and go with its drivers
        "event-channel": tuple(sorted(re.findall(r"Remote Domain [1-9][0-9]*", outputs["event-channel"]))),
        "memory": tuple(re.findall(r"^free_memory\s*: ([0-9]+)$", outputs["memory"], re.MULTILINE)),
        "file": tuple(sorted({line for line in outputs["file"].splitlines() if line.startswith("/")})),
    }


def parse_ps(text: str) -> Mapping[int, str]:
    """Processes by number: not the kernel's own threads, and not the ones that this very look consists of.

    The text is `self PID` of the looking shell, then `ps -o pid,ppid,args`.
    """
    rows: dict[int, tuple[int, str]] = {}
    for row in re.finditer(r"^\s*([0-9]+)\s+([0-9]+)\s+(\S.*?)\s*$", text, re.MULTILINE):
        rows[int(row[1])] = (int(row[2]), row[3])
    found = re.search(r"^self ([0-9]+)$", text, re.MULTILINE)
    looking = _family(int(found[1]), rows) if found else frozenset()
    return {pid: args for pid, (parent, args) in rows.items() if pid != 2 and parent != 2 and pid not in looking}


def _family(pid: int, rows: Mapping[int, tuple[int, str]]) -> frozenset[int]:
    """The process, what it started, and what started it (up to the first process, which is not of the family)."""
    family = {pid}
    while grown := {child for child, (parent, _) in rows.items() if parent in family} - family:
        family |= grown
    parent = rows.get(pid, (1, ""))[0]
    while parent > 1 and parent not in family:
        family.add(parent)
        parent = rows.get(parent, (1, ""))[0]
    return frozenset(family)


def leaked(
    before: Inventory, after: Inventory, suppressed: Iterable[Suppression] = SUPPRESSED
) -> tuple[tuple[str, str], ...]:
    """What is there now and was not before, as (kind, name), sorted; suppressed objects left out.

    Objects of one name are counted: a second process with the same command line is a leak. Xen's memory is no object:
    there, less free memory than before is one, if it is more than `MEMORY_SLACK_MIB`. A page that is still granted
    or mapped keeps its dead domain in the list of domains.
    """
    rules = [(rule.kind, re.compile(rule.pattern)) for rule in suppressed]
    return tuple(
        sorted(
            [*_lost_memory(before.get(MEMORY, ()), after.get(MEMORY, ()))]
            + [
                (kind, name)
                for kind, names in after.items()
                if kind != MEMORY
                for name in (Counter(names) - Counter(before.get(kind, ()))).elements()
                if not any(kind == of and pattern.fullmatch(name) for of, pattern in rules)
            ]
        )
    )


def _lost_memory(before: tuple[str, ...], after: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    lost = sum(map(int, before)) - sum(map(int, after))
    if before and after and lost > MEMORY_SLACK_MIB:
        yield MEMORY, f"{lost} MiB of Xen's memory ({after[0]} are free, {before[0]} were)"


def dump_basis(job: str, seen: Inventory) -> bytes:
    """The basis of a job as a file."""
    return json.dumps({"job": job, "inventory": {kind: list(names) for kind, names in seen.items()}}).encode()


def load_basis(job: str, data: bytes) -> Inventory | None:
    """The basis that `dump_basis` wrote for the same job; None for anything else."""
    try:
        basis = json.loads(data)
        if basis["job"] != job:
            return None
        return {str(kind): tuple(map(str, names)) for kind, names in basis["inventory"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
