"""By which rules a branch's flights are judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from lab.errors import ConfigError
from lab.flights import evidence, regression
from lab.flights.evidence import EvidencePolicy
from lab.flights.regression import TestPattern

POLICIES: Final = (regression.POLICY, evidence.POLICY)


@dataclass(frozen=True, kw_only=True)
class JudgedBy:
    """The policy's name, the tests that may fail, and what the policy `evidence` goes by.

    Under the policy `osstest`, `needs_passes` passes of the same versions excuse a failure.
    `ConfigError` when there is no policy of this name.
    """

    policy: str = regression.POLICY
    allow: tuple[TestPattern, ...] = ()
    evidence: EvidencePolicy = field(default_factory=EvidencePolicy)
    needs_passes: int = 1

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(f"there is no policy {self.policy!r}", hint=f"policies: {', '.join(POLICIES)}")
