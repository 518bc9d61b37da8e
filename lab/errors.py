"""Every error of the lab, named by who must act on it.

An error says in one line what is wrong and, in `hint`, what to do. The class decides both the exit code of the
command line and what the error means inside a step: `StepFailure` blames the product under test, everything else
blames the lab (a `TypeError` of ours must never look like a regression of Xen).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was seen when something went wrong; kept with the step and shown with it.

    `host` is the host's name, `command` what was run there, `exit_status` its exit code (None: it never ended),
    `output` its last output, `console_tail` the last lines of the serial console. Text is untrusted.
    """

    host: str | None = None
    command: str | None = None
    exit_status: int | None = None
    output: str = ""
    console_tail: str = ""


class LabError(Exception):
    """Base of all errors that are told to a person: one line, a hint, and evidence."""

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, hint: str = "", evidence: Evidence | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.evidence = evidence

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(LabError):
    """The operator's input is wrong: a file, an option, a name. Nothing was started."""

    exit_code = 2


class NotFoundError(ConfigError):
    """A flight, job, host, recipe, image or runvar that does not exist was named."""


class InfraError(LabError):
    """The lab failed: a host, a disk, a network, a tool. In a job this means *broken*."""

    exit_code = 3


class PowerError(InfraError):
    """A power command was refused, or the machine does not do as it was told."""


class HostDiedError(InfraError):
    """A host went away while it was in use: its machine is off or its shell does not answer any more."""


class StepFailure(LabError):  # noqa: N818 - the word of the field, and not a mistake of the program
    """The product under test did wrong. In a job this means what the recipe line says: *fail* by default."""

    exit_code = 1


class Blocked(LabError):  # noqa: N818 - a status, as in OSSTest
    """Something the job needs is not there: a job that did not pass, or support in its Xen or its host.

    Nothing was tested, so this is no pass; the message says what is missing.
    """

    exit_code = 1


class Aborted(LabError):  # noqa: N818 - a status, as in OSSTest
    """A person stopped the flight, or this worker no longer holds the job."""

    exit_code = 4


class LabBug(LabError):  # noqa: N818 - names who must act: us
    """An inconsistency only a mistake of ours explains."""

    exit_code = 3
