"""Leases of people: what holds for every calendar and every lab."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lab.errors import ConfigError
from lab.hosts.calendar import Blockage, Entry, check_free, entries, in_the_way, next_free
from lab.hosts.lease_plan import Held, LeasePlan, next_change, plan_leases
from lab.hosts.leases import LeaseRules, LeaseState, Outcome, PersonLease, check_line, how_ended, told
from lab.hosts.model import Health, Host, HostState
from lab.hosts.slots import Limit

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NAMES = ("h1", "h2", "h3")
RULES = LeaseRules(notice=15 * MINUTE)
minutes = st.integers(-60, 120).map(lambda count: NOW + count * MINUTE)
lengths = st.integers(1, 60).map(lambda count: count * MINUTE)


@st.composite
def calendars(draw: st.DrawFn) -> list[Entry]:
    """Promises of one host; they may meet one another, as an operator or an older lab may have left them."""
    found = []
    for number in range(draw(st.integers(0, 6))):
        start = draw(minutes)
        end = draw(st.one_of(st.none(), lengths.map(lambda length, start=start: start + length)))
        kind = draw(st.sampled_from(["lease", "booking", "blockage"]))
        found.append(
            Entry(
                host="h1",
                start=start,
                end=end if kind == "blockage" else end or start + MINUTE,
                kind=kind,
                id=number + 1,
                who="ann",
                why="w",
                preemptable=kind != "blockage" and draw(st.booleans()),
            )
        )
    return found


def clear(calendar: list[Entry], start: datetime, length: timedelta, *, preemptable: bool) -> bool:
    """Minute by minute, the slow and obvious way (all times are whole minutes)."""
    return not any(
        entry.start <= moment and (entry.end is None or moment < entry.end)
        for entry in calendar
        if preemptable or not entry.preemptable
        for moment in (start + count * MINUTE for count in range(length // MINUTE))
    )


@given(calendars(), minutes, lengths, st.booleans())
def test_the_next_free_time_is_the_first_that_is_free(
    calendar: list[Entry], start: datetime, length: timedelta, preemptable: bool
) -> None:
    found = next_free(calendar, "h1", start, length, preemptable=preemptable)
    tried = [start + count * MINUTE for count in range(400)]
    assert found == next((one for one in tried if clear(calendar, one, length, preemptable=preemptable)), None)


@given(calendars(), minutes, lengths, st.booleans())
def test_what_is_refused_names_a_promise_and_a_time_that_would_do(
    calendar: list[Entry], start: datetime, length: timedelta, preemptable: bool
) -> None:
    if clear(calendar, start, length, preemptable=preemptable):
        check_free(calendar, "h1", start, start + length, preemptable=preemptable)
        return
    with pytest.raises(ConfigError) as caught:
        check_free(calendar, "h1", start, start + length, preemptable=preemptable)
    entry = in_the_way(calendar, "h1", start, start + length, preemptable=preemptable)
    assert entry is not None
    assert caught.value.message == entry.told()
    if caught.value.hint.startswith("it is free"):
        moment = datetime.strptime(caught.value.hint[-23:-3], "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC)
        check_free(calendar, "h1", moment, moment + length, preemptable=preemptable)
    else:
        assert next_free(calendar, "h1", start, length, preemptable=preemptable) is None


@st.composite
def lease_lists(draw: st.DrawFn) -> list[PersonLease]:
    """Leases in any state, at most one active on a host."""
    found, taken = [], set()
    for number in range(1, draw(st.integers(0, 8)) + 1):
        state = draw(st.sampled_from([LeaseState.BOOKED, LeaseState.BOOKED, *LeaseState]))
        host = draw(st.sampled_from(NAMES))
        begins, length = draw(st.one_of(st.none(), minutes)), draw(lengths)
        if state is LeaseState.ACTIVE and host in taken:
            state = LeaseState.BOOKED
        if state is LeaseState.ACTIVE:
            taken.add(host)
            begins = begins or NOW
        by_need = state is LeaseState.BOOKED and draw(st.booleans())
        found.append(
            PersonLease(
                id=number,
                holder=draw(st.sampled_from(["ann", "bob"])),
                why="w",
                length=length,
                created=NOW,
                state=state,
                host=None if by_need and begins is None else host,
                need=draw(st.sampled_from(["hvm", "slow or hvm", 'name == "h2"'])) if by_need else "",
                begins=begins,
                started=begins if state is LeaseState.ACTIVE else None,
                ends=None if begins is None else begins + length,
                preemptable=draw(st.booleans()),
                notice=draw(st.one_of(st.none(), minutes)) if state is LeaseState.ACTIVE else None,
            )
        )
    return found


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Host], list[PersonLease], list[Blockage], Limit | None]:
    leases = draw(lease_lists())
    active = {lease.host for lease in leases if lease.state is LeaseState.ACTIVE}
    hosts = [
        Host(
            name=name,
            arch="x86_64",
            flags=frozenset(draw(st.sets(st.sampled_from(["hvm", "slow"])))),
            state=HostState.LEASED if name in active else draw(st.sampled_from(HostState)),
            health=draw(st.sampled_from([Health.GOOD, Health.GOOD, *Health])),
            setup_key=draw(st.sampled_from([None, "k"])),
        )
        for name in draw(st.sampled_from([NAMES, NAMES, NAMES[:2], NAMES[:1]]))
    ]
    blockages = [
        Blockage(id=1, why="w", actor="ian", begins=begins, ends=draw(st.sampled_from([None, begins + 30 * MINUTE])),
                 host=draw(st.sampled_from(NAMES)))
        for begins in draw(st.lists(minutes, max_size=2))
    ]  # fmt: skip
    running = draw(st.sampled_from([None, 1, 2]))
    limit = None if running is None else Limit(hosts=frozenset(NAMES), running=running)
    return hosts, leases, blockages, limit


def planned(
    hosts: list[Host], leases: list[PersonLease], blockages: list[Blockage], limit: Limit | None
) -> LeasePlan:
    held = {"h1": Held(who="job 1.a", back=NOW + 20 * MINUTE)}
    calendar = entries(leases, blockages, hosts, NOW)
    return plan_leases(NOW, leases, hosts, calendar, held=held, limit=limit, rules=RULES)


@given(situations())
def test_every_lease_whose_time_has_come_begins_or_learns_why_not(
    situation: tuple[list[Host], list[PersonLease], list[Blockage], Limit | None],
) -> None:
    hosts, leases, blockages, limit = situation
    plan = planned(hosts, leases, blockages, limit)
    due = {
        lease.id
        for lease in leases
        if lease.state is LeaseState.BOOKED and (lease.begins is None or lease.begins <= NOW)
    }
    assert set(plan.begin) | set(plan.waits) == due
    assert not set(plan.begin) & set(plan.waits)
    assert all(wait.why and wait.why.isprintable() for wait in plan.waits.values())
    assert all(wait.expected is None or wait.expected >= NOW for wait in plan.waits.values())


@given(situations())
def test_only_free_hosts_are_given_and_each_once_and_no_promise_is_broken(
    situation: tuple[list[Host], list[PersonLease], list[Blockage], Limit | None],
) -> None:
    hosts, leases, blockages, limit = situation
    plan = planned(hosts, leases, blockages, limit)
    by_name, by_id = {host.name: host for host in hosts}, {lease.id: lease for lease in leases}
    assert len(set(plan.begin.values())) == len(plan.begin)
    calendar = entries(leases, blockages, hosts, NOW)
    for number, name in plan.begin.items():
        lease, host = by_id[number], by_name[name]
        assert host.state is HostState.FREE
        assert host.health is not Health.RETIRED
        assert name in plan.keep
        if not lease.need:
            assert name == lease.host
        elif lease.begins is None:
            assert host.usable()
        entry = in_the_way(calendar, name, NOW, NOW + MINUTE, preemptable=lease.preemptable, but=number)
        assert entry is None or entry.kind == "booking", "a booking that met it from the first has itself to wait"
    running = {host.name for host in hosts if host.state is not HostState.FREE or host.setup_key is not None}
    if limit is not None:
        assert not plan.begin or len(running | set(plan.begin.values())) <= max(limit.running, len(running))


@given(situations(), st.randoms(use_true_random=False))
def test_the_order_of_the_inputs_does_not_matter(
    situation: tuple[list[Host], list[PersonLease], list[Blockage], Limit | None], chance: random.Random
) -> None:
    hosts, leases, blockages, limit = situation
    plan = planned(hosts, leases, blockages, limit)
    mixed = [list(part) for part in (hosts, leases, blockages)]
    for part in mixed:
        chance.shuffle(part)
    assert planned(*mixed, limit) == plan  # type: ignore[arg-type]


@given(situations())
def test_a_notice_is_never_shorter_than_the_rule_nor_moved_and_only_for_those_who_agreed(
    situation: tuple[list[Host], list[PersonLease], list[Blockage], Limit | None],
) -> None:
    hosts, leases, blockages, limit = situation
    plan = planned(hosts, leases, blockages, limit)
    by_id = {lease.id: lease for lease in leases}
    agreed = {lease.id for lease in leases if lease.state is LeaseState.ACTIVE and lease.preemptable}
    assert set(plan.notices) == agreed
    for number, notice in plan.notices.items():
        if notice is not None:
            assert notice.at == (by_id[number].notice or max(notice.at, NOW + RULES.notice))


@given(situations())
def test_a_host_that_a_due_lease_waits_for_is_kept_from_jobs(
    situation: tuple[list[Host], list[PersonLease], list[Blockage], Limit | None],
) -> None:
    hosts, leases, blockages, limit = situation
    plan = planned(hosts, leases, blockages, limit)
    for lease in leases:
        wait = plan.waits.get(lease.id)
        if wait is not None and "is held by" in wait.why:
            assert wait.host in plan.keep


@given(lease_lists(), minutes, minutes)
def test_what_has_ended_stays_ended_and_nothing_ends_early(
    leases: list[PersonLease], one: datetime, other: datetime
) -> None:
    first, second = sorted((one, other))
    for lease in leases:
        if how_ended(lease, first) is not None:
            assert how_ended(lease, second) is not None
        if lease.ends is not None and first < min(lease.until or lease.ends, lease.ends):
            assert how_ended(lease, first) is None


@given(lease_lists(), minutes)
def test_the_next_change_is_never_missed(leases: list[PersonLease], now: datetime) -> None:
    """Between now and the next change nothing ends or comes due."""
    change = next_change(leases, [], now, RULES)
    assert change is None or change > now
    last = (change or now + timedelta(days=1)) - timedelta(seconds=1)
    assume(last > now)
    for lease in leases:
        assert (how_ended(lease, now) is None) == (how_ended(lease, last) is None)
        if lease.state is LeaseState.BOOKED and lease.begins is not None:
            assert (lease.begins <= now) == (lease.begins <= last)


@given(lengths, st.integers(1, 90), st.integers(0, 200))
def test_a_heartbeat_ends_a_lease_in_silence(length: timedelta, beat: int, passed: int) -> None:
    lease = PersonLease(
        id=1, holder="ann", why="w", length=length, created=NOW, state=LeaseState.ACTIVE, host="h1", begins=NOW,
        ends=NOW + length, heartbeat=beat * MINUTE, heard=NOW,
    )  # fmt: skip
    outcome = how_ended(lease, NOW + passed * MINUTE)
    if passed * MINUTE >= length:
        assert outcome is Outcome.EXPIRED
    else:
        assert outcome is (Outcome.SILENT if passed >= beat else None)
    assert how_ended(replace(lease, heard=NOW + passed * MINUTE), NOW + passed * MINUTE) in (None, Outcome.EXPIRED)


@given(st.text(max_size=40))
def test_a_line_that_is_kept_has_no_control_characters(text: str) -> None:
    try:
        line = check_line("reason", text)
    except ConfigError:
        return
    assert line == line.strip()
    assert line.isprintable()
    assert not set(line) & set("\r\n\x00\x1b\u202e\u2028")


@given(st.integers(0, 10**7))
def test_a_length_is_told_so_that_it_can_be_read_back(seconds: int) -> None:
    units = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
    said = told(timedelta(seconds=seconds))
    assert sum(int(part[:-1]) * units[part[-1]] for part in said.split()) == seconds


def test_nobody_is_promised_a_host_that_is_told_as_blocked() -> None:
    entry = Entry(host="h1", start=NOW, end=None, kind="blockage", id=3, who="ian", why="heat")
    with pytest.raises(ConfigError, match=r"h1 is blocked by ian from .* until further notice") as caught:
        check_free([entry], "h1", NOW, NOW + MINUTE, preemptable=False)
    assert caught.value.hint == "nobody knows when it will be free"


def test_a_promise_that_begins_or_ends_where_another_does_is_not_in_its_way() -> None:
    entry = Entry(host="h1", start=NOW, end=NOW + MINUTE, kind="booking", id=3, who="ann", why="w")
    check_free([entry], "h1", NOW - MINUTE, NOW, preemptable=False)
    check_free([entry], "h1", NOW + MINUTE, NOW + 2 * MINUTE, preemptable=False)
