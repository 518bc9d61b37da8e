"""Power by Redfish, with sushy."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Final

import requests
import sushy
from sushy import auth, exceptions

from lab.errors import ConfigError, InfraError, PowerError
from lab.machine_settings.power import RedfishPower
from lab.secrets import Secrets

_ON: Final = (sushy.PowerState.ON, sushy.PowerState.POWERING_ON)


class RedfishSwitch:
    """The power of a system of a Redfish service."""

    def __init__(self, settings: RedfishPower, secrets: Secrets) -> None:
        self._settings = settings
        self._secrets = secrets

    def set(self, on: bool) -> None:
        """Switch; off is at once (ForceOff). What is so already is left alone: some services refuse it."""
        with self._told():
            system = self._system()
            if (system.power_state in _ON) is not on:
                system.reset_system(sushy.ResetType.ON if on else sushy.ResetType.FORCE_OFF)

    def get(self) -> bool | None:
        """What the service says; None while it does not know."""
        with self._told():
            state = self._system().power_state
        return None if state is None else state in _ON

    def boot_from_network(self) -> None:
        """Boot from the network at the next power-on, and only then."""
        with self._told():
            self._system().set_system_boot_options(
                target=sushy.BootSource.PXE, enabled=sushy.BootSourceOverrideEnabled.ONCE
            )

    def _system(self) -> Any:
        given = self._settings
        verify: bool | str = str(Path(given.ca)) if given.ca else given.verify
        root = sushy.Sushy(
            given.url, verify=verify, auth=auth.BasicAuth(given.user, self._secrets.get(given.password)),
            read_timeout=given.timeout_s, connect_timeout=given.timeout_s, server_side_retries=1,
            server_side_retries_delay=0,
        )  # fmt: skip
        if given.system:
            return root.get_system(given.system)
        members = root.get_system_collection().get_members()
        if len(members) != 1:
            names = ", ".join(member.path for member in members[:5])
            raise ConfigError(f"{given.url} has {len(members)} systems: {names}", hint="name one: system = ...")
        return members[0]

    @contextlib.contextmanager
    def _told(self) -> Any:
        try:
            yield
        except exceptions.AccessError as error:
            raise PowerError(f"{self._settings.url}: the BMC refuses user or password") from error
        except exceptions.HTTPError as error:
            raise PowerError(f"{self._settings.url}: the BMC says {error.status_code}: {str(error)[:300]}") from error
        except (exceptions.SushyError, requests.RequestException) as error:
            raise InfraError(f"{self._settings.url}: the BMC does not answer: {str(error)[:300]}") from error

    def health(self) -> list[tuple[str, object]]:
        """`Status.Health` of the system, its processors and its memory, as the service tells it (None: untold)."""
        with self._told():
            told = self._system().json
        parts = {"system": told, "processors": told.get("ProcessorSummary"), "memory": told.get("MemorySummary")}
        states = {part: (given or {}).get("Status") or {} for part, given in parts.items()}
        return [(part, state.get("HealthRollup") or state.get("Health")) for part, state in states.items()]
