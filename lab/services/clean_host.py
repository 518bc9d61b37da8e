"""Clean a host: power it off, whatever it was doing, and set it free."""

from __future__ import annotations

from lab.context import Lab
from lab.db import flights, hosts
from lab.db.leadership import only_cleaner
from lab.errors import LabError
from lab.services.judge_host import note_power_failure
from lab.services.sites import note_answer


def clean_host(lab: Lab, name: str) -> None:
    """Power off a host in cleaning and free it; a host that refuses is quarantined, unless people have it in hand."""
    with only_cleaner(lab.sessions.kw["bind"], lab.settings.home, name) as alone:
        if alone:
            _clean(lab, name)


def _clean(lab: Lab, name: str) -> None:
    with lab.reads() as session:
        if name not in hosts.cleaning_hosts(session):
            return  # somebody else was quicker
    failure: LabError | None = None
    try:
        lab.machines.power_off(name)
    except LabError as error:
        failure = error
    with lab.sessions.begin() as session:
        note_answer(session, lab, hosts.site_of_host(session, name))
        if failure is not None:
            note_power_failure(session, lab, name, f"could not be powered off: {failure.message}")
        hosts.end_cleaning(session, name)
        flights.add_event(session, kind="host", now=lab.clock(), data={"host": name})
    lab.bell.ring()
