"""Look at everything, one part after the other; what one part lacks does not keep the others from being looked at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from lab.bootstrap import bootstrap
from lab.context import Lab
from lab.doctor import gates, hosts, machine, services, settings
from lab.doctor.finding import Finding, Level, error
from lab.errors import LabError
from lab.labfile import load_lab_file
from lab.settings import Settings

Check = Callable[[], Iterable[Finding]]


def examine(given: Settings) -> Iterator[tuple[str, list[Finding]]]:
    """The findings of each check, by its name, as they come."""
    first: dict[str, Check] = {
        "settings": lambda: settings.check_variables(os.environ),
        "lab file": lambda: settings.check_lab_file(given),
        "home and disk": lambda: settings.check_home(given),
        "database": lambda: services.check_schema(given),
        "broker": lambda: services.check_broker(given),
        "KVM": machine.check_kvm,
        "sandbox": machine.check_sandbox,
        "images": lambda: machine.check_images(given),
    }
    bad = set()
    for name, check in first.items():
        found = _looked(name, check)
        if any(one.level is Level.ERROR for one in found):
            bad.add(name)
        yield name, found
    if "lab file" in bad:
        return
    lab_file = load_lab_file(given.file)
    yield "programs", _looked("programs", lambda: machine.check_programs(lab_file))
    yield "memory", _looked("memory", lambda: machine.check_memory(lab_file))
    if "database" in bad or not (given.database_url or (given.home / "lab.db").exists()):
        return
    lab = bootstrap(given)
    later: dict[str, Callable[[Lab], Iterable[Finding]]] = {
        "processes": services.check_processes,
        "hosts": hosts.check_hosts,
        "leftovers": hosts.check_leftovers,
        "branches": gates.check_branches,
        "mail": gates.check_mail,
    }
    for name, look in later.items():
        yield name, _looked(name, lambda look=look: look(lab))  # type: ignore[misc]


def _looked(name: str, check: Check) -> list[Finding]:
    try:
        return list(check())
    except LabError as problem:
        return [error(name, problem.message, problem.hint or "")]
    except Exception as problem:  # noqa: BLE001 - a check that breaks is a finding of its own
        return [error(name, f"the check itself broke: {type(problem).__name__}: {problem}", "please report it")]
