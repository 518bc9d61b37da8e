"""Power of a libvirt domain."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import libvirt

from lab.errors import InfraError, PowerError
from lab.machine_settings.power import LibvirtPower

_REFUSED: Final = (
    libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_OPERATION_DENIED,
    libvirt.VIR_ERR_AUTH_FAILED,
)  # fmt: skip


class DomainSwitch:
    """A domain as a machine: on is created, off is destroyed."""

    def __init__(self, settings: LibvirtPower) -> None:
        self._settings = settings

    def set(self, on: bool) -> None:
        """Switch; what is so already is left alone."""
        with self._domain() as domain:
            if bool(domain.isActive()) is on:
                return
            if on:
                domain.create()
            else:
                domain.destroy()

    def get(self) -> bool | None:
        """Whether the domain is active."""
        with self._domain() as domain:
            return bool(domain.isActive())

    @contextlib.contextmanager
    def _domain(self) -> Iterator[Any]:
        given = self._settings
        connection = None
        try:
            connection = libvirt.open(given.uri)
            yield connection.lookupByName(given.domain)
        except libvirt.libvirtError as error:
            kind = PowerError if error.get_error_code() in _REFUSED else InfraError
            raise kind(f"{given.uri}: {given.domain}: {error}") from error
        finally:
            if connection is not None:
                with contextlib.suppress(libvirt.libvirtError):
                    connection.close()
