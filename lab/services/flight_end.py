"""When flights under way are expected to end: as late as the last of their jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import timedelta

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import estimates, hosts, queue, waits
from lab.flights.model import Window
from lab.hosts.durations import ANY_CLASS, host_class


def expected_ends(session: Session, lab: Lab, flights: Collection[int]) -> dict[int, Window]:
    """The expected end of each of these flights; one of which a job waits for nobody knows how long is left out."""
    if not flights:
        return {}
    now = lab.clock()
    history = estimates.load_history(session, lab.scheduler.default_estimate)
    classes = {host.name: host_class(host) for host in hosts.present_hosts(session)}
    ends: dict[int, list[Window | None]] = defaultdict(list)
    for one in queue.load_running(session):
        if one.flight in flights:
            place = next((classes[name] for name in one.hosts.values() if name in classes), ANY_CLASS)
            left = history.left(one.job, one.recipe, place, (now - one.started).total_seconds())
            p50, p90 = (now + timedelta(seconds=seconds) for seconds in (left.p50_s, left.p90_s))
            ends[one.flight].append(Window(p50=p50, p90=p90))
    for flight, end in waits.expected_ends(session, flights):
        ends[flight].append(end)
    found = {}
    for flight, windows in ends.items():
        known = [window for window in windows if window is not None]
        if known and len(known) == len(windows):
            found[flight] = Window(p50=max(one.p50 for one in known), p90=max(one.p90 for one in known))
    return found
