"""Leases and blockages as plain data for JSON: the same words on the command line and in the API."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from lab.hosts.calendar import Blockage
from lab.hosts.leases import PersonLease


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="milliseconds") if moment else None


def _seconds(length: timedelta | None) -> int | None:
    return None if length is None else int(length.total_seconds())


def lease_view(lease: PersonLease) -> dict[str, Any]:
    """One lease; `token` is there while it is active, `until` is when it ends if nobody does anything more."""
    return {
        "lease": lease.id,
        "state": lease.state.value,
        "outcome": lease.outcome.value if lease.outcome else None,
        "host": lease.host,
        "need": lease.need,
        "holder": lease.holder,
        "why": lease.why,
        "begins": _time(lease.begins),
        "ends": _time(lease.ends),
        "until": _time(lease.until),
        "length_s": _seconds(lease.length),
        "preemptable": lease.preemptable,
        "token": lease.fence,
        "waits": lease.waits,
        "expected": _time(lease.expected),
        "notice": _time(lease.notice),
        "notice_for": lease.notice_for,
        "heartbeat_s": _seconds(lease.heartbeat),
        "created": _time(lease.created),
        "started": _time(lease.started),
        "closed": _time(lease.closed),
    }


def change_view(at: datetime, what: str, actor: str, detail: str) -> dict[str, Any]:
    """Something that was done to a lease."""
    return {"at": _time(at), "what": what, "by": actor, "detail": detail}


def blockage_view(blockage: Blockage) -> dict[str, Any]:
    """One blockage; `ends` is null when it lasts until it is removed."""
    return {
        "blockage": blockage.id,
        "host": blockage.host,
        "need": blockage.need,
        "begins": _time(blockage.begins),
        "ends": _time(blockage.ends),
        "why": blockage.why,
        "by": blockage.actor,
    }
