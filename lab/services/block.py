"""Block hosts for a time, for everybody, and take a blockage away again."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import hosts, leases
from lab.db import session as db
from lab.errors import ConfigError, NotFoundError
from lab.hosts.calendar import Blockage, entries
from lab.hosts.leases import check_line, check_person, stamp
from lab.hosts.model import Requirement


def block_hosts(
    session: Session,
    lab: Lab,
    *,
    why: str,
    actor: str,
    host: str | None = None,
    need: str = "",
    begins: datetime | None = None,
    ends: datetime | None = None,
) -> Blockage:
    """Promise hosts to nobody: `host` by name, or all that meet `need`; from `begins` (or now) to `ends` (or for ever).

    Jobs that run are not disturbed. Raises `ConfigError` when a time makes no sense or a person is promised one of the
    hosts then.
    """
    now = lab.clock()
    why, actor, begins = check_line("reason", why), check_person(actor), begins or now
    if (host is None) == (not need):
        raise ConfigError("name a host, or say which ones with --need", hint="one of them, not both")
    if ends is not None and ends <= begins:
        raise ConfigError(f"the end {stamp(ends)} is not after the beginning {stamp(begins)}")
    if ends is not None and ends <= now:
        raise ConfigError(f"{stamp(ends)} is over", hint="--to must be in the future")
    if host is not None:
        hosts.load_host(session, host)
    elif not any(Requirement(need).offered_by(one) for one in hosts.present_hosts(session)):
        raise NotFoundError(f"no host matches {need!r}", hint="see `lab host list`")
    blockage = Blockage(id=0, why=why, actor=actor, begins=begins, ends=ends, host=host, need=need)
    leases.lock_calendar(session)
    present = hosts.present_hosts(session)
    covered = {one.name for one in present if blockage.covers(one)}
    for entry in entries(leases.going_leases(session), [], present, now):
        if entry.host in covered and entry.meets(begins, ends):
            raise ConfigError(entry.told(), hint="release it first, or block the host before or after it")
    number = leases.add_blockage(session, blockage, now=now)
    db.after_commit(session, lab.bell.ring)
    return leases.load_blockage(session, number)


def unblock(session: Session, lab: Lab, number: int, *, actor: str) -> Blockage:
    """Take a blockage away; `NotFoundError` when there is none of this number (any more)."""
    blockage = leases.load_blockage(session, number)
    if not leases.remove_blockage(session, number, actor=check_person(actor), now=lab.clock()):
        raise NotFoundError(f"there is no blockage {number} any more", hint="see `lab blockage list`")
    db.after_commit(session, lab.bell.ring)
    return blockage
