"""Settings from the environment (`LAB_…`), read once by bootstrap and passed down."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lab.errors import ConfigError

PROJECT = Path(__file__).resolve().parent.parent
"""The folder of the program: manifests, migrations, the default lab.toml."""

BROKERS = frozenset({"redis", "rediss", "sentinel", "amqp", "amqps"})
"""The kinds of broker a URL may name."""


def _default_home() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    return Path(state) / "flightline"


class Settings(BaseSettings):
    """How this installation is set up. Every field is an environment variable with the prefix `LAB_`."""

    model_config = SettingsConfigDict(env_prefix="LAB_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=_default_home, description="database, images, logs, and the hosts' run folders")
    file: Path = Field(default=PROJECT / "lab.toml", description="the lab's hosts")
    manifests: Path = Field(default=PROJECT / "images", description="image manifests")
    policies: Path = Field(default=PROJECT / "xsm_policies", description="XSM policies and what their tests expect")
    database_url: str = Field(default="", description="default: SQLite in the lab's home")
    broker_url: str = Field(default="", description="default: a folder in the lab's home; redis://… or amqp://… else")
    concurrency: int = Field(default=16, ge=1, le=1000, description="jobs one worker runs at a time")
    lease_s: float = Field(default=15.0, gt=0, description="a job whose worker is silent for so long is taken from it")
    retries: int = Field(default=2, ge=0, le=99, description="how often a broken job is tried again")
    min_free_mib: int = Field(default=1024, ge=0, description="no flight starts with less free disk than this")

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, url: str) -> str:
        if url and url.partition("://")[0] not in BROKERS:
            raise ValueError("no broker of this kind is supported; use redis://… or amqp://…, or leave it out")
        return url

    @property
    def database(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{self.home / 'lab.db'}"

    @property
    def logs(self) -> Path:
        """Where step logs and evidence go: FLIGHT/JOB/ATTEMPT/."""
        return self.home / "logs"


def read_settings() -> Settings:
    """The settings of the environment; `ConfigError` names the variable that is wrong."""
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "LAB_" + "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigError(f"{name}: {first['msg']}", hint="see the README's list of settings") from error
    # Everything below works with absolute paths: workers have another working directory.
    return settings.model_copy(
        update={
            "home": settings.home.expanduser().absolute(),
            "file": settings.file.expanduser().absolute(),
            "manifests": settings.manifests.expanduser().absolute(),
            "policies": settings.policies.expanduser().absolute(),
        }
    )
