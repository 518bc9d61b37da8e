"""How a real machine boots: the network card it boots by, and what its Xen and dom0 are told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from lab.hosts.dhcp import MAC
from lab.hosts.protocols import BOOT_ARGUMENT

Mac = Annotated[str, StringConstraints(pattern=rf"^{MAC.pattern}$")]
Argument = Annotated[str, StringConstraints(pattern=rf"^{BOOT_ARGUMENT.pattern}$", max_length=200)]


class NetworkBootSettings(BaseModel):
    """A machine that boots over the network, by iPXE.

    `mac` (lower case) is the card it boots by; dom0 has its address there, too. `xen_args` and `dom0_args` are what
    this machine needs beside what a job asks for: above all where its serial console is. A machine that has not asked
    for its boot script within `asks_within_s` seconds after power-on does not boot from the network.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    method: Literal["network"] = "network"
    mac: Mac
    xen_args: tuple[Argument, ...] = Field(default=("console=com1", "com1=115200,8n1"), strict=False)
    dom0_args: tuple[Argument, ...] = Field(default=("console=hvc0",), strict=False)
    asks_within_s: float = Field(default=240.0, ge=5, le=1800)


BootSettings = NetworkBootSettings
