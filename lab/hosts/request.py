"""What a waiting job asks for: hosts for its roles, together, and what decides about its turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lab.hosts.durations import UNKNOWN, Estimate
from lab.hosts.model import Requirement

ANY_HOST: Final = Requirement()

Kind = tuple[object, ...]
"""What a request asks for: those of one kind can be served by the same hosts."""


@dataclass(frozen=True, kw_only=True)
class RoleRequest:
    """One host asked for: `requirement` must match; roles with one `equivalent` name need a common `equiv-*` flag.

    `setup_key` names the set-up the role needs (None: always from scratch); `flight` the flight it may be reused in.
    """

    role: str
    requirement: Requirement = ANY_HOST
    equivalent: str | None = None
    setup_key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """A waiting job: lower `priority` and then lower `order` go first; hosts in `avoid` are taken only if need be.

    A job without hosts runs on the controller, in a `lane` of which only so many places are free. `submitted` is in
    seconds since the epoch; `estimate` says how long it will hold its hosts.
    """

    id: str
    order: int
    roles: tuple[RoleRequest, ...]
    flight: int | None = None
    priority: int = 0
    avoid: frozenset[str] = frozenset()
    lane: str = ""
    tenant: str = ""
    submitted: float = 0.0
    estimate: Estimate = UNKNOWN


def kind_of(request: Request) -> Kind:
    """Requests of one kind have the same requirements in the same roles."""
    return (request.lane, *((role.requirement.text, role.equivalent) for role in request.roles))
