"""Power by an outlet behind pdudaemon, by its HTTP interface."""

from __future__ import annotations

import requests

from lab.errors import InfraError, PowerError
from lab.machine_settings.power import PdudaemonPower


class PdudaemonSwitch:
    """One outlet. pdudaemon takes commands into its queue and cannot be asked what came of them."""

    def __init__(self, settings: PdudaemonPower) -> None:
        self._settings = settings

    def set(self, on: bool) -> None:
        """Have the outlet switched; returns when the command was taken."""
        given = self._settings
        url = f"{given.url.rstrip('/')}/power/control/{'on' if on else 'off'}"
        try:
            outlet = {"hostname": given.pdu, "port": str(given.port)}
            answer = requests.get(url, params=outlet, timeout=given.timeout_s, allow_redirects=False)
        except requests.RequestException as error:
            raise InfraError(f"{given.url}: pdudaemon does not answer: {str(error)[:300]}") from error
        if answer.status_code != requests.codes.ok:
            raise PowerError(f"{given.url}: pdudaemon says {answer.status_code}: {answer.text[:300].strip()}")

    def get(self) -> bool | None:
        """Nobody knows."""
        return None
