"""How a machine's power is switched: a BMC, an outlet, a domain, a command, or a person."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9.:-]{0,253}[A-Za-z0-9])?$")]
"""A host name, or an IPv4 or IPv6 address."""
Port = Annotated[int, Field(ge=1, le=65535)]
Secret = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""The name of a secret (`lab.secrets`): the file has no password in it."""
User = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x20\x7f-\x9f]{1,64}$")]
Oid = Annotated[str, StringConstraints(pattern=r"^\.?1(?:\.[0-9]{1,10}){3,40}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,500}$")]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s@<>\"']{1,300}$")]
"""Without a name or a password in it."""

APC_OUTLET: Final = "1.3.6.1.4.1.318.1.1.4.4.2.1.3"
"""sPDUOutletCtl of APC's PowerNet-MIB: 1 on, 2 off; the outlet's number follows."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Patient(_Settings):
    """A command that fails is tried `tries` times; `settle_s`: within so many seconds the machine has to say so."""

    tries: int = Field(default=3, ge=1, le=10)
    timeout_s: float = Field(default=10.0, gt=0, le=120)
    settle_s: float = Field(default=30.0, ge=0, le=600)


class IpmiPower(_Patient):
    """A BMC by IPMI 2.0 over the LAN (RMCP+), with ipmitool."""

    method: Literal["ipmi"]
    address: Address
    port: Port = 623
    user: User
    password: Secret
    cipher_suite: int = Field(default=17, ge=0, le=17)
    privilege: Literal["OPERATOR", "ADMINISTRATOR"] = "OPERATOR"


class RedfishPower(_Patient):
    """A BMC by Redfish. `system` is its path there; without one, the only system there is. `ca` verifies its key."""

    method: Literal["redfish"]
    url: Url
    user: User
    password: Secret
    system: Annotated[str, StringConstraints(pattern=r"^(/redfish/v1/Systems/[A-Za-z0-9_.~-]{1,100})?$")] = ""
    ca: str = ""
    verify: bool = True


class SnmpPower(_Patient):
    """An outlet of a PDU by SNMP. `outlet` is its number; `oid` where outlets are switched, by numbers `on` and `off`.

    `write` is what must be asked after a command to know (some PDUs have another object for that: `read_oid`).
    """

    method: Literal["snmp"]
    address: Address
    port: Port = 161
    outlet: int = Field(ge=1, le=4096)
    oid: Oid = APC_OUTLET
    read_oid: Oid | None = None
    on: int = Field(default=1, ge=0, le=1 << 31)
    off: int = Field(default=2, ge=0, le=1 << 31)
    version: Literal["1", "2c", "3"] = "2c"
    community: Secret | None = None
    user: User | None = None
    auth_password: Secret | None = None
    privacy_password: Secret | None = None
    auth: Literal["sha", "sha256", "md5"] = "sha"
    privacy: Literal["aes", "des"] = "aes"

    @model_validator(mode="after")
    def _who_asks(self) -> SnmpPower:
        if self.version == "3" and not (self.user and self.auth_password):
            raise ValueError("SNMP 3 needs a user and an auth_password; name them")
        if self.version != "3" and not self.community:
            raise ValueError("a community is missing; name the secret that holds it")
        return self


class PdudaemonPower(_Patient):
    """An outlet behind a pdudaemon, by its HTTP interface: `pdu` as its configuration calls it. It cannot be read."""

    method: Literal["pdudaemon"]
    url: Url
    pdu: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
    port: int = Field(ge=0, le=4096)


class LibvirtPower(_Patient):
    """A domain of a libvirt that is defined there already."""

    method: Literal["libvirt"]
    uri: Annotated[
        str, StringConstraints(pattern=r"^(?:qemu|test|xen)(?:\+(?:ssh|tls|unix|tcp|libssh|libssh2))?://[^\s]{0,300}$")
    ]
    domain: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]{1,64}$")]


class CommandPower(_Patient):
    """Programs of the operator: lists of words, given to no shell. `status` exits with 0 (on) or 1 (off)."""

    method: Literal["command"]
    on: tuple[Word, ...] = Field(min_length=1, strict=False)
    off: tuple[Word, ...] = Field(min_length=1, strict=False)
    status: tuple[Word, ...] | None = Field(default=None, strict=False)


class ManualPower(_Settings):
    """A person presses the button: asked by mail or on the terminal, given `wait_s` seconds."""

    method: Literal["manual"]
    ask: tuple[Word, ...] = Field(min_length=1, strict=False)
    wait_s: float = Field(default=900.0, gt=0, le=86_400)


PowerSettings = Annotated[
    IpmiPower | RedfishPower | SnmpPower | PdudaemonPower | LibvirtPower | CommandPower | ManualPower,
    Field(discriminator="method"),
]
