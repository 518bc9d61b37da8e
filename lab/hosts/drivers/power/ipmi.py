"""Power by IPMI, with ipmitool."""

from __future__ import annotations

import os
import subprocess
from typing import Final

from lab.errors import Evidence, InfraError, PowerError
from lab.machine_settings.power import IpmiPower
from lab.secrets import Secrets

_PASSWORD: Final = "IPMI_PASSWORD"  # noqa: S105 - the variable's name; -E makes ipmitool read it


class IpmiSwitch:
    """The chassis power of a BMC."""

    def __init__(self, settings: IpmiPower, secrets: Secrets) -> None:
        self._settings = settings
        self._secrets = secrets

    def set(self, on: bool) -> None:
        """Switch; off is at once, without asking the system."""
        self.run("chassis", "power", "on" if on else "off")

    def get(self) -> bool | None:
        """What the BMC says."""
        said = self.run("chassis", "power", "status").lower()
        if "power is on" in said:
            return True
        if "power is off" in said:
            return False
        raise InfraError(
            f"{self._settings.address}: the BMC says nothing of its power", evidence=Evidence(output=said[:500])
        )

    def boot_from_network(self) -> None:
        """Boot from the network at the next power-on, and only then."""
        self.run("chassis", "bootdev", "pxe")

    def run(self, *words: str) -> str:
        """Run ipmitool on this BMC; returns what it says. `PowerError` when the BMC refuses or does not answer."""
        given = self._settings
        command = [
            "ipmitool", "-I", "lanplus", "-H", given.address, "-p", str(given.port), "-U", given.user, "-E",
            "-C", str(given.cipher_suite), "-L", given.privilege, "-N", "1", "-R", "2", *words,
        ]  # fmt: skip
        environment = {**os.environ, _PASSWORD: self._secrets.get(given.password), "LC_ALL": "C"}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, errors="replace", check=False,
                stdin=subprocess.DEVNULL, timeout=given.timeout_s,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise InfraError("ipmitool is not installed", hint="apt install ipmitool") from error
        except subprocess.TimeoutExpired as error:
            raise PowerError(
                f"{given.address}:{given.port}: the BMC does not answer within {given.timeout_s:g} s"
            ) from error
        # it has done what was asked, and the BMC was slow to say good-bye
        parted_badly = "close session command failed" in done.stderr.lower() and done.stdout.strip()
        if done.returncode and not parted_badly:
            said = (done.stderr or done.stdout).strip()
            evidence = Evidence(command=" ".join(command), exit_status=done.returncode, output=said[-2000:])
            raise PowerError(f"{given.address}:{given.port}: {_meaning(said)}", evidence=evidence)
        return done.stdout


def _meaning(said: str) -> str:
    """What ipmitool means, in a line."""
    low = said.lower()
    if "rakp" in low and ("unauthorized" in low or "hmac is invalid" in low or "2 message" in low):
        return "the BMC refuses user or password"
    if "unable to establish" in low or "timeout" in low:
        return "the BMC does not answer, or refuses user, password or cipher suite"
    if "insufficient privilege" in low:
        return "the BMC's user may not switch power"
    return said.splitlines()[-1][:200] if said else "ipmitool says nothing"
