"""Power by programs of the operator, and by a person."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from lab.errors import Evidence, InfraError, PowerError
from lab.machine_settings.power import CommandPower, ManualPower


class CommandSwitch:
    """Programs that switch, and one that tells."""

    def __init__(self, settings: CommandPower) -> None:
        self._settings = settings

    def set(self, on: bool) -> None:
        """Run the program for it; `PowerError` when it fails."""
        command = self._settings.on if on else self._settings.off
        done = _run(command, self._settings.timeout_s)
        if done.returncode:
            raise _failed(command, done)

    def get(self) -> bool | None:
        """What the status program says by its exit status: 0 on, 1 off; None without such a program."""
        if self._settings.status is None:
            return None
        done = _run(self._settings.status, self._settings.timeout_s)
        if done.returncode not in (0, 1):
            raise _failed(self._settings.status, done)
        return done.returncode == 0


class ManualSwitch:
    """A person: `ask` is run with `on` or `off` as its last word, and exits with 0 once it is done."""

    def __init__(self, settings: ManualPower) -> None:
        self._settings = settings

    def set(self, on: bool) -> None:
        """Have somebody asked, and wait."""
        command = (*self._settings.ask, "on" if on else "off")
        done = _run(command, self._settings.wait_s)
        if done.returncode:
            raise _failed(command, done)

    def get(self) -> bool | None:
        """Nobody knows."""
        return None


def _run(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            list(command), capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL,
            timeout=timeout_s,
        )  # fmt: skip
    except OSError as error:
        raise InfraError(f"{command[0]} cannot be run: {error.strerror}", hint="is the path right?") from error
    except subprocess.TimeoutExpired as error:
        raise PowerError(f"{command[0]} did not end within {timeout_s:g} s") from error


def _failed(command: Sequence[str], done: subprocess.CompletedProcess[str]) -> PowerError:
    said = (done.stderr or done.stdout).strip()
    evidence = Evidence(command=" ".join(command), exit_status=done.returncode, output=said[-2000:])
    last = said.splitlines()[-1][:200] if said else "it says nothing"
    return PowerError(f"{command[0]} failed with {done.returncode}: {last}", evidence=evidence)
