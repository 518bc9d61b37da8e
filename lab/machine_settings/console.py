"""How a machine's serial console is reached: a port of a console server, a BMC's serial over LAN, a program."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from lab.machine_settings.power import Address, Port, Secret, User, Word


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TcpConsole(_Settings):
    """A TCP port of a console server (ser2net, a terminal server): raw, or with telnet's commands in between."""

    method: Literal["tcp"]
    address: Address
    port: Port
    telnet: bool = False


class SolConsole(_Settings):
    """A BMC's serial over LAN, with ipmitool."""

    method: Literal["ipmi-sol"]
    address: Address
    port: Port = 623
    user: User
    password: Secret
    cipher_suite: int = Field(default=17, ge=0, le=17)


class ProgramConsole(_Settings):
    """A program that is the console on its terminal: conserver's `console`, `ssh` to such a server, `virsh console`."""

    method: Literal["program"]
    run: tuple[Word, ...] = Field(min_length=1, strict=False)


ConsoleSettings = Annotated[TcpConsole | SolConsole | ProgramConsole, Field(discriminator="method")]
