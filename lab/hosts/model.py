"""What a host is and what a job may ask of it."""

from __future__ import annotations

import ast
import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from lab.errors import ConfigError

PropertyValue = str | int | float | bool


class HostState(enum.Enum):
    """Machine-owned: what the lab is doing with the host right now."""

    FREE = "free"
    LEASED = "leased"
    CLEANING = "cleaning"


class Health(enum.Enum):
    """Owned by people and health checks: whether the host may be used at all."""

    GOOD = "good"
    SUSPECT = "suspect"
    BURN_IN = "burn-in"
    QUARANTINED = "quarantined"
    MAINTENANCE = "maintenance"
    RETIRED = "retired"


USABLE_HEALTH = frozenset({Health.GOOD, Health.SUSPECT, Health.BURN_IN})

BURN_IN_FLAG = "burn_in"
"""A requirement that names it is met by hosts in burn-in alone; all others are met by none of them."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine that can be leased: its name, what it offers, and how it stands.

    `site` is where it stands: the workers near it run its jobs, and a job's hosts are all of one site.
    `setup_key` says what is booted on it since its last power-on (see `lab.flights.reuse`), `setup_flight` for which
    flight; both are None when it must be set up anew.
    """

    name: str
    arch: str
    flags: frozenset[str] = frozenset()
    properties: Mapping[str, PropertyValue] = field(default_factory=lambda: MappingProxyType({}))
    state: HostState = HostState.FREE
    health: Health = Health.GOOD
    health_reason: str = ""
    site: str = "default"
    setup_key: str | None = None
    setup_flight: int | None = None

    def usable(self) -> bool:
        """True when a job that it suits may be placed here once it is free (see `Requirement.matches` for burn-in)."""
        return self.health in USABLE_HEALTH


_COMPARISONS: Mapping[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}

_DEEPEST = 50
"""Levels of `not` and parentheses that mean something to a person; far from what Python's stack can hold."""


@dataclass(frozen=True)
class Requirement:
    """A boolean expression over a host's flags and properties, e.g. `arch == "x86_64" and hvm and not slow`.

    A bare name is true when the host has that flag. `name OP literal` compares a property (`arch`, `name` and `site`
    are always there; a missing property makes the comparison false). Only `and`, `or`, `not`, comparisons and
    parentheses are allowed: the text comes from submitters and is never evaluated as Python.

    A host in burn-in is for those who name `burn_in`, and they get no other.
    """

    text: str = ""

    def __post_init__(self) -> None:
        """Refuse what is not in the language, with a `ConfigError` that quotes the part."""
        try:
            _check(self._tree(), self.text, depth=0)
        except RecursionError as error:
            raise _bad(self.text, "it is nested too deeply") from error

    def _tree(self) -> ast.expr:
        return _parsed(self.text)

    def matches(self, host: Host) -> bool:
        """True when `host` offers everything asked for, and is in burn-in exactly if that is asked for."""
        return self.for_burn_in == (host.health is Health.BURN_IN) and self.offered_by(host)

    def offered_by(self, host: Host) -> bool:
        """True when `host` offers everything asked for, whatever its health."""
        return _evaluate(self._tree(), host)

    @property
    def for_burn_in(self) -> bool:
        """Whether hosts in burn-in are asked for."""
        return _names_burn_in(self.text)

    def missing(self, host: Host) -> tuple[str, ...]:
        """The parts of the top-level conjunction that `host` does not meet, as text; empty when it matches."""
        tree = self._tree()
        parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
        return tuple(ast.unparse(part) for part in parts if not _evaluate(part, host))


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> ast.expr:
    if not text.strip():
        return ast.Constant(value=True)
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _bad(text, "it is not an expression") from error


@functools.lru_cache(maxsize=4096)
def _names_burn_in(text: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == BURN_IN_FLAG for node in ast.walk(_parsed(text)))


def _bad(text: str, why: str) -> ConfigError:
    return ConfigError(
        f"host requirement {_short(text)}: {why}",
        hint='use flags and comparisons joined by and/or/not, e.g. arch == "x86_64" and hvm',
    )


def _short(text: str) -> str:
    quoted = repr(text)
    return quoted if len(quoted) <= 200 else quoted[:197] + "..."


def _check(node: ast.expr, text: str, *, depth: int) -> None:
    if depth > _DEEPEST:
        raise _bad(text, "it is nested too deeply")
    match node:
        case ast.BoolOp(values=values):
            for value in values:
                _check(value, text, depth=depth + 1)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _check(operand, text, depth=depth + 1)
        case ast.Name() | ast.Constant(value=bool()):
            pass
        case ast.Compare(left=ast.Name(), ops=[op], comparators=[ast.Constant(value=value)]) if type(
            op
        ) in _COMPARISONS and isinstance(value, str | int | float | bool):
            pass
        case _:
            raise _bad(text, f"{_short(ast.unparse(node))} is not allowed")


def _evaluate(node: ast.expr, host: Host) -> bool:
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_evaluate(value, host) for value in values)
        case ast.BoolOp(values=values):
            return any(_evaluate(value, host) for value in values)
        case ast.UnaryOp(operand=operand):
            return not _evaluate(operand, host)
        case ast.Name(id=name) if name == BURN_IN_FLAG:
            return True  # whether it may be had is for `matches` to say
        case ast.Name(id=name):
            return name in host.flags or name.replace("_", "-") in host.flags
        case ast.Constant(value=value):
            return bool(value)
        case ast.Compare(left=ast.Name(id=name), ops=[op], comparators=[ast.Constant(value=wanted)]):
            return _compare(_property(host, name), _COMPARISONS[type(op)], wanted)
        case _:
            raise _bad(ast.unparse(node), "unexpected")


def _property(host: Host, name: str) -> PropertyValue | None:
    match name:
        case "arch":
            return host.arch
        case "name":
            return host.name
        case "site":
            return host.site
        case _:
            return host.properties.get(name)


def _compare(have: PropertyValue | None, operator: str, wanted: object) -> bool:
    if have is None:
        return False
    if operator == "==":
        return have == wanted
    if operator == "!=":
        return have != wanted
    if isinstance(have, str) and isinstance(wanted, str):  # noqa: SIM114 - mypy narrows each branch on its own
        order = (have > wanted) - (have < wanted)
    elif isinstance(have, int | float) and isinstance(wanted, int | float):
        order = (have > wanted) - (have < wanted)
    else:
        return False
    return {"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}[operator]
