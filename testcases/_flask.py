"""FLASK on a host: its mode, its policy, its booleans, and what it has decided."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lab.errors import Evidence, StepFailure
from lab.flights.xsm import Access, Avc, denials, parse_avc
from lab.hosts.protocols import HostAccess

CONTEXT: Final = "system_u:system_r:{}"
"""A label that every domain type may have (the role is the policy's module all_system_role)."""

POLICY: Final = "/root/policy"
LOADED: Final = Access(source="dom0_t", target="security_t", tclass="security", permission="load_policy")

_LOADED_LINE: Final = re.compile(rb"avc: +granted +\{ load_policy \}[^\n]*\n")
_CONSOLE_LAG_S: Final = 10.0


@dataclass(frozen=True)
class Harmless:
    """Denials that are no failure, and why. Each field may be a regular expression."""

    source: str
    target: str
    tclass: str
    permission: str
    reason: str

    def covers(self, access: Access) -> bool:
        """Whether the denial of this access is one of them."""
        return all(
            re.fullmatch(getattr(self, name), getattr(access, name))
            for name in ("source", "target", "tclass", "permission")
        )


HARMLESS: Final[tuple[Harmless, ...]] = (
    Harmless(
        "dom0_t", "unlabeled_t", "event", "status",
        "leak-check asks for the state of every event channel of dom0; one that is free has no label yet",
    ),
)
"""Each line excuses a denial in every job: the reason has to hold for all of them."""


def unexpected(denied: Iterable[Access], harmless: Sequence[Harmless] = HARMLESS) -> tuple[Access, ...]:
    """The denials that nothing excuses."""
    return tuple(access for access in denied if not any(rule.covers(access) for rule in harmless))


def parse_labels(text: str) -> Mapping[str, str]:
    """`xl list -Z`: the name of each domain to its security label.

    >>> parse_labels("Domain-0    0   640     1     r-----      12.3 system_u:system_r:dom0_t")
    {'Domain-0': 'system_u:system_r:dom0_t'}
    """
    lines = re.finditer(
        r"^(.+?)\s+[0-9]+\s+[0-9]+\s+[0-9]+\s+[a-z-]{6}\s+[0-9.]+\s+(\S+)\s*$", text, re.MULTILINE
    )
    return {line[1]: line[2] for line in lines}


def parse_booleans(text: str) -> Mapping[str, bool]:
    """`flask-get-bool -a`: the policy's booleans.

    >>> parse_booleans("guest_writeconsole: 1\\nprot_doms_locked: 0 (pending 1)\\n")
    {'guest_writeconsole': True, 'prot_doms_locked': False}
    """
    return {found[1]: found[2] == "1" for found in re.finditer(r"^(\w+): ([01])\b", text, re.MULTILINE)}


def new_text(before: str, after: str) -> str:
    """What a log has grown by. It is a ring: of what was there before, the beginning may be gone.

    >>> new_text("one two ", "two three")
    'three'
    """
    if after.startswith(before):
        return after[len(before) :]
    for start in _line_starts(before):
        if after.startswith(before[start:]):
            return after[len(before) - start :]
    return after


def _line_starts(text: str) -> Iterable[int]:
    return (found.end() for found in re.finditer(r"\s", text))


def since_boot(console: str) -> str | None:
    """What a serial console shows of the last boot, from Xen's banner until dom0 was ready; None without such a one."""
    ready = console.rfind("LAB-HOST-READY")
    banner = console.rfind("Xen version", 0, ready) if ready >= 0 else -1
    return console[banner:ready] if banner >= 0 else None


def more_of(now: Iterable[Access], before: Iterable[Access]) -> Counter[Access]:
    """What is there now, as often as it was not there before."""
    return Counter(now) - Counter(before)


class Flask:
    """The security server of one host."""

    def __init__(self, host: HostAccess) -> None:
        self.host = host
        self._seen = ""

    def mode(self) -> str:
        """`Enforcing` or `Permissive`; anything else it says of itself when there is no FLASK."""
        result = self.host.shell.run("xl", "getenforce", check=False)
        return result.output.strip() or f"nothing (exit status {result.exit_status})"

    def enforce(self, on: bool) -> None:
        """Enforce the policy, or only log what it would deny."""
        self.host.shell.run("xl", "setenforce", str(int(on)))
        if self.mode() != ("Enforcing" if on else "Permissive"):
            raise self.failure(f"`xl setenforce {int(on)}` should take effect, but FLASK is {self.mode()}")

    def labels(self) -> Mapping[str, str]:
        """Every domain's security label."""
        return parse_labels(self.host.shell.run("xl", "list", "-Z").stdout)

    def booleans(self) -> Mapping[str, bool]:
        """Every boolean of the policy."""
        return parse_booleans(self.host.shell.run("flask-get-bool", "-a").stdout)

    def set_boolean(self, name: str, value: bool) -> None:
        """Set a boolean of the policy; it answers with its new value."""
        self.host.shell.run("flask-set-bool", name, str(int(value)))
        if self.booleans().get(name) is not value:
            raise self.failure(f"the boolean {name} was set to {int(value)}, but is {self.booleans().get(name)}")

    def load(self, policy: bytes) -> None:
        """Replace the running policy; FLASK has to log it, as the policy asks for."""
        start = self.host.console.offset()
        self.mark()
        self.host.shell.put(POLICY, policy)
        self.host.shell.run("xl", "loadpolicy", POLICY)
        self.host.shell.run("rm", "-f", POLICY)
        lines = self.since_mark()
        if not any(LOADED in avc.accesses and not avc.denied for avc in lines):
            raise self.failure("a policy was loaded, but FLASK has not logged it", lines)
        # the console has everything in its order: once this line is there, so is what came before
        self.host.console.wait_for(_LOADED_LINE, since=start, timeout_s=_CONSOLE_LAG_S)

    def log(self) -> str:
        """Xen's log."""
        return self.host.shell.run("xl", "dmesg").stdout

    def mark(self) -> None:
        """Forget what FLASK has logged so far."""
        self._seen = self.log()

    def since_mark(self) -> tuple[Avc, ...]:
        """What FLASK has logged since the mark."""
        return parse_avc(new_text(self._seen, self.log()))

    def failure(self, message: str, lines: Iterable[Avc] = (), *, output: str = "") -> StepFailure:
        """The failure `message`, with FLASK's own lines as evidence."""
        said = "\n".join((*(avc.line for avc in lines), *([output] if output else ())))
        return StepFailure(
            f"{self.host.name}: {message}",
            evidence=Evidence(host=self.host.name, output=said or "FLASK has logged nothing of it"),
        )


def shown(denied: Iterable[Access]) -> str:
    """Denials for people, the first few of them."""
    texts = [str(access) for access in dict.fromkeys(denied)]
    return "; ".join(texts[:5]) + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")


def denied_in(text: str) -> tuple[Access, ...]:
    """Every denied access in a log."""
    return denials(parse_avc(text))
