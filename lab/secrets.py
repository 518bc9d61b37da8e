"""Secrets by name: passwords of BMCs and PDUs, which no file under version control, log or process list shows."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Final

from lab.errors import ConfigError

PREFIX: Final = "LAB_SECRET_"


class Secrets:
    """Reads secrets from the environment (`LAB_SECRET_NAME`) or from HOME/secrets.toml (`name = "…"`), each time anew.

    The file must be its owner's alone (0600). Says of a secret only what it is called.
    """

    def __init__(self, home: Path) -> None:
        self._file = home / "secrets.toml"

    def __repr__(self) -> str:
        return f"Secrets({str(self._file)!r})"

    def get(self, name: str) -> str:
        """The secret; `ConfigError` when there is none of that name, or others could read the file."""
        variable = PREFIX + name.upper().replace("-", "_").replace(".", "_")
        if value := os.environ.get(variable):
            return value
        found = self._read().get(name)
        if not isinstance(found, str) or not found:
            raise ConfigError(
                f"there is no secret {name!r}", hint=f"set {variable}, or write {name} = '…' to {self._file}"
            )
        if "\n" in found or "\0" in found:
            raise ConfigError(f"the secret {name!r} has a line end in it", hint=f"correct it in {self._file}")
        return found

    def _read(self) -> dict[str, object]:
        try:
            mode = self._file.stat().st_mode
        except FileNotFoundError:
            return {}
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"{self._file} can be read by others", hint=f"chmod 600 {self._file}")
        try:
            return tomllib.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            # whatever the parser would quote may be the secret itself
            raise ConfigError(
                f"{self._file} cannot be read as TOML", hint="a line for each secret: name = '…'"
            ) from None
