"""XSM: what the test of a FLASK policy expects, and what the hypervisor says of its decisions. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from lab.errors import ConfigError

MODES: Final = ("enforcing", "permissive", "late", "disabled")
"""What Xen's boot argument `flask` may be."""

def boot_arguments(mode: str) -> tuple[str, ...]:
    """Xen's boot arguments for FLASK in a mode; on arm64 another module of XSM is the default."""
    return ("xsm=flask", f"flask={mode}")


DEEDS: Final = ("create", "save", "migrate", "pause", "event-channel", "grant")
"""What an expectation may be about; the last two are between a guest and its peer."""

WITH_PEER: Final = ("event-channel", "grant")

VERDICTS: Final = ("allowed", "denied", "unknown-label")

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
"""The name of a policy: its folder's."""

_TYPE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")


@dataclass(frozen=True, kw_only=True)
class Access:
    """One permission of a class, from one type to another: what an avc line is about."""

    source: str
    target: str
    tclass: str
    permission: str

    def __str__(self) -> str:
        """As a rule of the policy language."""
        return f"{self.source} {self.target}:{self.tclass} {self.permission}"


@dataclass(frozen=True, kw_only=True)
class Avc:
    """A line that FLASK wrote: it denied, or it granted what the policy wants to be told of."""

    denied: bool
    accesses: tuple[Access, ...]
    line: str


_AVC: Final = re.compile(
    r"avc: +(denied|granted) +\{ ([\w ]+) \} +for [^\n]*?scontext=(\S+) tcontext=(\S+) tclass=(\w+)[^\n\r]*"
)


def parse_avc(text: str) -> tuple[Avc, ...]:
    """Every decision in a log of Xen or on a serial console, in its order.

    >>> line = "(XEN) avc:  denied  { create } for  current=d0 scontext=a:b:dom0_t tcontext=a:b:x_t tclass=domain"
    >>> str(parse_avc(line)[0].accesses[0])
    'dom0_t x_t:domain create'
    """
    return tuple(
        Avc(
            denied=found[1] == "denied",
            accesses=tuple(
                Access(source=type_of(found[3]), target=type_of(found[4]), tclass=found[5], permission=permission)
                for permission in found[2].split()
            ),
            line=found[0].strip(),
        )
        for found in _AVC.finditer(text)
    )


def type_of(context: str) -> str:
    """The type in a security context (user:role:type, and a level where there are levels).

    >>> type_of("system_u:system_r:dom0_t")
    'dom0_t'
    """
    parts = context.split(":")
    return parts[2] if len(parts) > 2 else context


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """That `guest` (the type of a guest's label) may or may not do something, or have it done to it.

    `peer` is the type of a second guest, for what takes two. Policy booleans in `booleans` are set, all others are as
    the policy has them. With `loosened` it is expected of the policy's loosened variant, loaded while the guest runs.
    With `build_label` the guest is built under that label, and relabelled before it runs. `avc` are the denials that
    must be logged, `also` those that may follow from them; there may be no others. A denial with `contrast` is shown
    to be FLASK's own: without enforcement the same is done.
    """

    does: str
    guest: str
    peer: str = ""
    verdict: str
    avc: tuple[Access, ...] = ()
    also: tuple[Access, ...] = ()
    booleans: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    loosened: bool = False
    contrast: bool = False
    build_label: str = ""

    def __str__(self) -> str:
        """For people."""
        set_to = "".join(f" with {name}={int(value)}" for name, value in self.booleans.items())
        peer = f" with {self.peer}" if self.peer else ""
        return f"{self.does} {self.guest}{peer}{set_to}{' once loosened' if self.loosened else ''}: {self.verdict}"


@dataclass(frozen=True, kw_only=True)
class PolicyTest:
    """What the test of one policy proves, in this order."""

    name: str
    summary: str
    expectations: tuple[Expectation, ...]


@dataclass(frozen=True, kw_only=True)
class XsmPolicy:
    """A policy as a job gets it: its test, and compiled for the Xen that the job's host runs.

    `loosened` is the variant with a hole that the test must notice; None when the policy has none.
    """

    test: PolicyTest
    binary: bytes
    loosened: bytes | None


def parse_test(name: str, text: str, *, where: str) -> PolicyTest:
    """An expect.toml; `ConfigError` names the file `where` and what is wrong in it."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} cannot be read: {error}") from error
    summary, expected = content.pop("summary", None), content.pop("expect", None)
    if not isinstance(summary, str) or not summary:
        raise ConfigError(f"{where}: summary: say in a line what the policy is for")
    if not isinstance(expected, list) or not expected:
        raise ConfigError(f"{where}: a policy without a single [[expect]] proves nothing")
    if content:
        raise ConfigError(f"{where}: {', '.join(sorted(content))}: there is no such setting")
    return PolicyTest(
        name=name,
        summary=summary,
        expectations=tuple(_expectation(each, f"{where}: expect {number}") for number, each in enumerate(expected, 1)),
    )


_FIELDS: Final = frozenset(
    {"does", "guest", "peer", "verdict", "avc", "also", "booleans", "loosened", "contrast", "build_label"}
)


def _expectation(raw: object, where: str) -> Expectation:
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: must be a table")
    if unknown := raw.keys() - _FIELDS:
        raise ConfigError(f"{where}: {', '.join(sorted(unknown))}: there is no such setting")
    does, verdict = _one_of(raw, "does", DEEDS, where), _one_of(raw, "verdict", VERDICTS, where)
    if ("peer" in raw) != (does in WITH_PEER):
        takes = "a guest and a peer" if does in WITH_PEER else "one guest only"
        raise ConfigError(f"{where}: peer: {does} takes {takes}")
    if verdict == "unknown-label" and does != "create":
        raise ConfigError(f"{where}: verdict: a label is unknown when a guest is created, not to {does}")
    for name in ("avc", "also"):
        if not isinstance(raw.get(name, []), list):
            raise ConfigError(f"{where}: {name}: must be a list of tables")
    if (verdict == "denied") != bool(raw.get("avc")):
        raise ConfigError(f"{where}: avc: a denial names the line that shows it, and nothing else does")
    booleans = raw.get("booleans", {})
    if not isinstance(booleans, dict) or not all(
        _TYPE.fullmatch(name) and isinstance(value, bool) for name, value in booleans.items()
    ):
        raise ConfigError(f"{where}: booleans: must be names with true or false")
    for flag in ("loosened", "contrast"):
        if not isinstance(raw.get(flag, False), bool):
            raise ConfigError(f"{where}: {flag}: must be true or false")
    if raw.get("contrast") and verdict != "denied":
        raise ConfigError(f"{where}: contrast: only what is denied can be contrasted")
    return Expectation(
        does=does,
        guest=_type(raw, "guest", where),
        peer=_type(raw, "peer", where) if "peer" in raw else "",
        verdict=verdict,
        avc=tuple(_access(each, f"{where}: avc") for each in raw.get("avc", [])),
        also=tuple(_access(each, f"{where}: also") for each in raw.get("also", [])),
        booleans=MappingProxyType(dict(booleans)),
        loosened=raw.get("loosened", False),
        contrast=raw.get("contrast", False),
        build_label=_type(raw, "build_label", where) if "build_label" in raw else "",
    )


def _access(raw: object, where: str) -> Access:
    if not isinstance(raw, dict) or raw.keys() != {"source", "target", "class", "permission"}:
        raise ConfigError(f"{where}: each is a table of source, target, class and permission")
    return Access(
        source=_type(raw, "source", where),
        target=_type(raw, "target", where),
        tclass=_type(raw, "class", where),
        permission=_type(raw, "permission", where),
    )


def _type(raw: Mapping[str, Any], name: str, where: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not _TYPE.fullmatch(value):
        raise ConfigError(f"{where}: {name}: {value!r} is not a name of the policy language")
    return value


def _one_of(raw: Mapping[str, Any], name: str, allowed: Sequence[str], where: str) -> str:
    value = raw.get(name)
    if value not in allowed:
        raise ConfigError(f"{where}: {name}: {value!r} is not one of {', '.join(allowed)}")
    return str(value)


def denials(lines: Iterable[Avc]) -> tuple[Access, ...]:
    """Every denied permission, in the order of the log."""
    return tuple(access for avc in lines if avc.denied for access in avc.accesses)
