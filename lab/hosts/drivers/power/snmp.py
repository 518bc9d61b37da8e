"""Power by the outlet of a PDU that speaks SNMP, with pysnmp."""

from __future__ import annotations

import asyncio
from typing import Any

from pysnmp.error import PySnmpError
from pysnmp.hlapi.v3arch.asyncio import (
    CommunityData,
    ContextData,
    Integer32,
    ObjectIdentity,
    ObjectType,
    SnmpEngine,
    UdpTransportTarget,
    UsmUserData,
    get_cmd,
    set_cmd,
    usmAesCfb128Protocol,
    usmDESPrivProtocol,
    usmHMAC192SHA256AuthProtocol,
    usmHMACMD5AuthProtocol,
    usmHMACSHAAuthProtocol,
)

from lab.errors import InfraError, PowerError
from lab.machine_settings.power import SnmpPower
from lab.secrets import Secrets

_AUTH = {"sha": usmHMACSHAAuthProtocol, "sha256": usmHMAC192SHA256AuthProtocol, "md5": usmHMACMD5AuthProtocol}
_PRIVACY = {"aes": usmAesCfb128Protocol, "des": usmDESPrivProtocol}


class SnmpSwitch:
    """One outlet."""

    def __init__(self, settings: SnmpPower, secrets: Secrets) -> None:
        self._settings = settings
        self._secrets = secrets

    def set(self, on: bool) -> None:
        """Switch the outlet."""
        value = self._settings.on if on else self._settings.off
        asyncio.run(self._ask(self._settings.oid, value))

    def get(self) -> bool | None:
        """What the PDU says of the outlet; None when it says something else than on or off."""
        found = asyncio.run(self._ask(self._settings.read_oid or self._settings.oid, None))
        return {self._settings.on: True, self._settings.off: False}.get(found)

    async def _ask(self, oid: str, value: int | None) -> int:
        given = self._settings
        engine = SnmpEngine()
        where = f"{given.address}:{given.port}"
        try:
            target = await UdpTransportTarget.create(
                (given.address, given.port), timeout=given.timeout_s / 3, retries=2
            )
            identity = ObjectIdentity(f"{oid.lstrip('.')}.{given.outlet}")
            thing = ObjectType(identity) if value is None else ObjectType(identity, Integer32(value))
            ask = get_cmd if value is None else set_cmd
            problem, status, _, values = await ask(engine, self._who(), target, ContextData(), thing)
        except (PySnmpError, OSError) as error:
            raise InfraError(f"{where}: the PDU cannot be asked: {error}") from error
        finally:
            engine.close_dispatcher()
        if problem:
            told = str(problem)
            if "timed out" in told.lower() or "no snmp response" in told.lower():
                raise PowerError(f"{where}: the PDU does not answer, or does not know the community or user")
            raise PowerError(f"{where}: the PDU refuses: {told}")
        if status:
            raise PowerError(f"{where}: the PDU refuses outlet {given.outlet}: {status.prettyPrint()}")
        try:
            return int(values[0][1])
        except (TypeError, ValueError) as error:
            raise PowerError(f"{where}: the PDU has no outlet {given.outlet} ({values[0][1].prettyPrint()})") from error

    def _who(self) -> Any:
        given = self._settings
        if given.version != "3":
            return CommunityData(self._secrets.get(given.community or ""), mpModel=0 if given.version == "1" else 1)
        privacy = self._secrets.get(given.privacy_password) if given.privacy_password else None
        more = {"privKey": privacy, "privProtocol": _PRIVACY[given.privacy]} if privacy else {}
        return UsmUserData(
            given.user, authKey=self._secrets.get(given.auth_password or ""), authProtocol=_AUTH[given.auth], **more
        )
