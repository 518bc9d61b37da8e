"""A file of rules for judging: TOML. `policies/` has one of each kind, with comments."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from lab.errors import ConfigError
from lab.flights.evidence import Beta, EvidencePolicy
from lab.flights.judged_by import JudgedBy
from lab.flights.regression import TestPattern

_Glob = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9*?\[\]!._/<>() +-]{1,200}$")]
_Count = Annotated[float, Field(gt=0, le=1e6)]
_Probability = Annotated[float, Field(gt=0, lt=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AllowedTest(_Settings):
    """A `[[allow]]`: tests that may fail, by globs."""

    job: _Glob
    testid: _Glob = "*"
    why: str = Field(default="", max_length=500)


class EvidenceSettings(_Settings):
    """The `[evidence]` table (see `lab.flights.evidence.EvidencePolicy`); priors are [failures, passes]."""

    suspicion: _Probability = 0.2
    flake: tuple[_Count, _Count] = (0.5, 19.5)
    broken: tuple[_Count, _Count] = (2.0, 1.0)
    new_at: _Probability = 0.9
    old_at: _Probability = 0.5

    @model_validator(mode="after")
    def _in_order(self) -> EvidenceSettings:
        if self.old_at > self.new_at:
            raise ValueError("old_at is above new_at; lower it")
        return self

    def policy(self) -> EvidencePolicy:
        """The thresholds and priors."""
        return EvidencePolicy(
            suspicion=self.suspicion, flake=Beta(*self.flake), broken=Beta(*self.broken), new_at=self.new_at,
            old_at=self.old_at,
        )  # fmt: skip


class PolicyFile(_Settings):
    """A file of rules."""

    policy: Literal["osstest", "evidence"] = "osstest"
    evidence: EvidenceSettings = EvidenceSettings()
    allow: tuple[AllowedTest, ...] = ()

    def judged_by(self) -> JudgedBy:
        """The rules as the judge takes them."""
        return JudgedBy(
            policy=self.policy,
            allow=tuple(TestPattern(job=one.job, testid=one.testid) for one in self.allow),
            evidence=self.evidence.policy(),
        )


def read_policy(path: Path) -> JudgedBy:
    """The rules of a file; any mistake is a `ConfigError` that names the file and the field."""
    try:
        return PolicyFile.model_validate(tomllib.loads(path.read_bytes().decode())).judged_by()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file", hint="policies/ has examples") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}", hint="the file must be TOML, see toml.io") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        message = first["msg"].removeprefix("Value error, ").lower()
        raise ConfigError(f"{path}: {field}: {message}", hint="correct it, or leave it out") from error
