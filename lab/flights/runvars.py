"""Reading and writing runvars: named strings, checked where they enter and where they are used."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from lab.errors import ConfigError, LabBug, NotFoundError

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
MAX_LENGTH: Final = 4096
"""Longest value, in characters."""

DECLARED: Final[Mapping[str, str]] = {
    "arch": "architecture of dom0, e.g. amd64",
    "dom0_image": "image manifest dom0 boots from; `<role>_dom0_image` overrides it for one host",
    "dom0_mem": "dom0's memory in MiB",
    "xen_boot_append": "further Xen command line arguments, separated by blanks",
    "flask": "boot Xen with XSM, in this FLASK mode: enforcing | permissive | late | disabled",
    "check_host": "the host that a check is for",
    "host_start": "auto | cold | netboot: how hosts come up; auto starts from a checkpoint where there is one",
    "guest_image": "image manifest of the guest",
    "guest_kind": "pv | pvh | hvm",
    "stubdom_image": "image manifest of the stub domain in which an HVM guest's device model runs (default: in dom0)",
    "guest_memory": "the guest's memory in MiB",
    "guest_vcpus": "the guest's virtual CPUs",
    "guest_hap": "1: the processor translates the guest's memory; 0: Xen does, by shadow page tables",
    "guest_pvshim": "1: a PV guest runs in a PVH guest, on a Xen of its own",
    "guest_cpu_family": "the processor family that the guest is told, instead of the host's",
    "scheduler": "credit | credit2 | rtds | null; what the host's Xen has to run (see xen_boot_append)",
    "guest_boot": "disk: an HVM guest is booted from a disk by its firmware, not started with a kernel (test-xl)",
    "disk_format": "raw | qcow2 | vhd",
    "disk_subformat": "dynamic | fixed; what kind of VHD",
    "disk_backing": "raw | qcow2; a qcow2 stands on a backing file of this format",
    "disk_snapshot": "yes: a qcow2 has an internal snapshot from before the guest writes",
    "disk_size": "size of the guest's disk in MiB",
    "all_hostflags": 'further host requirement for every role, e.g. name == "emu0"',
    "xenbuildjob": "build job of the flight whose Xen is booted; `<role>_xenbuildjob` overrides it for one host",
    "tree": "source tree a build job compiles",
    "revision": "what of that tree: a branch, a tag or a commit",
    "xen_config": "default | debug | xsm: how a build job configures Xen",
    "xen_tools": "packaged: a build job compiles no toolstack, dom0 keeps that of its image",
    "xsm_policy": "name of the folder in xsm_policies/ that test-xsm loads and proves",
    "toolstack": "xl (unless set) | libvirt: by which the guests are handled",
    "stop_after": "testid of the last step that matters: what follows is left out, but for what always runs",
    "fault": "break something on purpose, to prove that a test can fail (see testcases/README.md)",
}
"""Every runvar a submitter may set, and what it means."""

_PER_ROLE: Final = frozenset({"dom0_image", "dom0_mem", "xen_boot_append", "xenbuildjob", "hostflags"})


def check_runvar(name: str, value: str, roles: Iterable[str]) -> None:
    """Raise `ConfigError` unless a submitter may set `name` to `value` on a job with these roles."""
    known = set(DECLARED) | {f"{role}_{name}" for role in roles for name in _PER_ROLE}
    if name not in known:
        raise NotFoundError(f"unknown runvar {name!r}", hint=f"known here: {', '.join(sorted(known))}")
    if len(value) > MAX_LENGTH or not value.isprintable():
        raise ConfigError(
            f"runvar {name}: its value is not printable text of at most {MAX_LENGTH} characters",
            hint="remove control characters and newlines",
        )


class Runvars:
    """The runvars of a running job.

    With `readable`, reading any other name raises `LabBug`: the steps that set a host up may depend on declared
    inputs only, else a host reused for another job might not be what that job asked for.
    """

    def __init__(
        self,
        values: Mapping[str, str],
        *,
        on_set: Callable[[str, str], None] = lambda _name, _value: None,
        readable: frozenset[str] | None = None,
    ) -> None:
        self._values = dict(values)
        self._on_set = on_set
        self._readable = readable

    def restricted(self, readable: frozenset[str]) -> Runvars:
        """The same runvars (a copy), but only `readable` may be read."""
        return Runvars(self._values, on_set=self.set, readable=readable)

    def get(self, name: str, default: str = "") -> str:
        """The value of `name`, or `default`."""
        if self._readable is not None and name not in self._readable:
            raise LabBug(
                f"a host set-up step reads the runvar {name!r}, which is not among its declared inputs",
                hint="declare it in lab/flights/reuse.py, so that hosts set up otherwise are not reused",
            )
        return self._values.get(name, default)

    def require(self, name: str) -> str:
        """The value of `name`; `ConfigError` when the job has none."""
        value = self.get(name)
        if not value:
            raise ConfigError(f"the job has no runvar {name!r}", hint="set it when submitting the flight")
        return value

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        """The value of `name` as a number in [low, high]; `ConfigError` when it is not one."""
        text = self.get(name, str(default))
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ConfigError(f"runvar {name}={text!r}: not a number from {low} to {high}")
        return int(text)

    def choice(self, name: str, allowed: Iterable[str], *, default: str = "") -> str:
        """The value of `name` (or `default`), one of `allowed`; `ConfigError` otherwise."""
        value, options = self.get(name) or default or self.require(name), list(allowed)
        if value not in options:
            raise ConfigError(f"runvar {name}={value!r}: not one of {', '.join(options)}")
        return value

    def for_role(self, role: str, name: str, default: str = "") -> str:
        """`<role>_<name>` if set, else `<name>`."""
        return self.get(f"{role}_{name}") or self.get(name, default)

    def set(self, name: str, value: object) -> None:
        """Record an output of a step (synth)."""
        if not NAME.fullmatch(name):
            raise LabBug(f"{name!r} is not the name of a runvar")
        text = str(value)[:MAX_LENGTH]
        self._values[name] = text
        self._on_set(name, text)
