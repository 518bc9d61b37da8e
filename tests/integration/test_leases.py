"""Leases of people on real databases: booked, begun, extended, handed over, ended, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from factories import PASSES, Messages, a_host, host_of, later, run_all, spec, start, submit
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from lab.context import Lab
from lab.db import flights, hosts, leases
from lab.db.tables import BlockageRow
from lab.errors import ConfigError, NotFoundError
from lab.hosts.leases import LeaseRules, LeaseState, Outcome, PersonLease
from lab.hosts.model import Health, HostState
from lab.services.begin_leases import begin_leases
from lab.services.block import block_hosts, unblock
from lab.services.clean_host import clean_host
from lab.services.expire import expire_leases
from lab.services.extend import extend_lease
from lab.services.hand_over import hand_over
from lab.services.lease import lease_host
from lab.services.power_host import Deed, power_host
from lab.services.release import find_lease, release_lease

H = timedelta(hours=1)


def lease(lab: Lab, host: str | None = "h1", *, length: timedelta = 2 * H, **more: Any) -> PersonLease:
    with lab.sessions.begin() as session:
        return lease_host(
            session, lab, **{"holder": "ann", "why": "debugging", "host": host, "length": length, **more}
        )


def look(lab: Lab) -> None:
    """What the leader does about leases."""
    with lab.sessions.begin() as session:
        expire_leases(session, lab)
    with lab.sessions.begin() as session:
        begin_leases(session, lab)


def again(lab: Lab, one: PersonLease) -> PersonLease:
    with lab.reads() as session:
        return leases.load_lease(session, one.id)


def release(lab: Lab, one: PersonLease, actor: str = "ann", **more: Any) -> Outcome:
    with lab.sessions.begin() as session:
        return release_lease(session, lab, again(lab, one), actor=actor, **more)


def extend(lab: Lab, one: PersonLease, actor: str = "ann", **more: Any) -> datetime:
    with lab.sessions.begin() as session:
        return extend_lease(session, lab, again(lab, one), actor=actor, **more)


def history(lab: Lab, one: PersonLease) -> list[str]:
    with lab.reads() as session:
        return [f"{change.what} by {change.actor}" for change in leases.lease_history(session, one.id)]


def clean_all(lab: Lab) -> None:
    messages = lab.dispatch
    assert isinstance(messages, Messages)
    for host in messages.cleans:
        clean_host(lab, host)
    messages.cleans.clear()


def test_a_free_host_is_leased_at_once_and_its_power_is_the_holders(lab: Lab) -> None:
    one = lease(lab)
    assert (one.state, one.host, one.holder) == (LeaseState.ACTIVE, "h1", "ann")
    assert one.fence == 1
    assert one.ends is not None
    assert one.started is not None
    assert one.ends - one.started == 2 * H
    assert host_of(lab, "h1").state is HostState.LEASED
    power_host(lab, "h1", Deed.ON, person="ann", token=1)
    assert lab.machines["h1"].power.on
    power_host(lab, "h1", Deed.CYCLE, person="ann")
    assert lab.machines["h1"].power.switched == [True, False, True]
    for person, token, words in (("bob", None, "held by ann"), ("ann", 7, "token 7 of h1 has expired")):
        with pytest.raises(ConfigError, match=words):
            power_host(lab, "h1", Deed.OFF, person=person, token=token)
    with pytest.raises(ConfigError, match="nobody has leased h2"):
        power_host(lab, "h2", Deed.ON, person="ann")
    assert not lab.machines["h2"].power.switched
    assert lab.machines["h1"].power.on
    assert history(lab, one) == ["booked by ann", "begun by lab", "power on by ann", "power cycle by ann"]


def test_a_released_host_is_powered_off_before_anybody_gets_it(lab: Lab) -> None:
    one = lease(lab)
    power_host(lab, "h1", Deed.ON, person="ann")
    waiting = lease(lab, holder="bob")
    assert (waiting.state, waiting.expected) == (LeaseState.BOOKED, one.ends)
    assert "h1 is leased by ann" in waiting.waits
    assert release(lab, one) is Outcome.RELEASED
    look(lab)
    assert again(lab, waiting).state is LeaseState.BOOKED, "the host is not clean yet"
    assert host_of(lab, "h1").state is HostState.CLEANING
    clean_all(lab)
    assert not lab.machines["h1"].power.on
    look(lab)
    assert (again(lab, waiting).state, again(lab, waiting).fence) == (LeaseState.ACTIVE, 2)
    with pytest.raises(ConfigError, match=r"token 1 of h1 has expired|held by bob"):
        power_host(lab, "h1", Deed.ON, person="ann", token=1)
    assert again(lab, one).outcome is Outcome.RELEASED


def test_a_lease_expires_and_its_host_is_made_clean(lab: Lab) -> None:
    one = lease(lab)
    power_host(lab, "h1", Deed.ON, person="ann", token=1)
    look(later(lab, 2 * 3600 - 5))
    assert again(lab, one).state is LeaseState.ACTIVE
    after = later(lab, 2 * 3600 + 1)
    with pytest.raises(ConfigError, match="time of lease 1 is over"):
        power_host(after, "h1", Deed.CYCLE, person="ann", token=1)  # nobody has looked yet, but it is over
    with pytest.raises(ConfigError, match="is over"):
        extend(after, one, by=H)
    look(after)
    assert again(lab, one).outcome is Outcome.EXPIRED
    assert host_of(lab, "h1").state is HostState.CLEANING
    clean_all(lab)
    assert (host_of(lab, "h1").state, lab.machines["h1"].power.on) == (HostState.FREE, False)
    with pytest.raises(ConfigError, match="nobody has leased h1"):
        power_host(after, "h1", Deed.ON, person="ann", token=1)
    with pytest.raises(ConfigError, match="lease 1 has ended: expired"):
        extend(after, one, by=H)
    with pytest.raises(ConfigError, match="has ended"):
        release(after, one)
    assert history(lab, one)[-1] == "expired by lab"


def test_an_end_that_comes_while_power_is_switched_switches_it_off_again(lab: Lab) -> None:
    one = lease(lab)
    power = lab.machines["h1"].power
    switch, messages = power.set, lab.dispatch
    assert isinstance(messages, Messages)

    def slowly(on: bool) -> None:
        release(lab, one)  # in the middle of it
        clean_all(lab)
        assert host_of(lab, "h1").state is HostState.CLEANING, "who cleans must wait until the switching is done"
        switch(on)

    power.set = slowly
    power_host(lab, "h1", Deed.ON, person="ann", token=1)
    power.set = switch
    assert power.on
    assert messages.cleans == ["h1"]
    clean_all(lab)
    assert (power.on, host_of(lab, "h1").state) == (False, HostState.FREE)


def test_a_holder_that_falls_silent_loses_the_host(lab: Lab) -> None:
    one = lease(lab, heartbeat=timedelta(minutes=10))
    look(later(lab, 9 * 60))
    power_host(later(lab, 9 * 60), "h1", Deed.ON, person="ann")  # a sign of life
    look(later(lab, 18 * 60))
    assert again(lab, one).state is LeaseState.ACTIVE
    look(later(lab, 20 * 60))
    assert again(lab, one).outcome is Outcome.SILENT


def test_a_lease_is_extended_until_somebody_elses_begins(lab: Lab) -> None:
    one = lease(lab)
    assert one.ends is not None
    assert extend(lab, one, by=H) == one.ends + H
    lease(lab, holder="bob", begins=one.ends + 2 * H)
    with pytest.raises(ConfigError, match=r"h1 is booked by bob .*lease 2: debugging"):
        extend(lab, one, by=2 * H)
    assert again(lab, one).ends == one.ends + H
    for by, words in ((timedelta(), "more than nothing"), (-H, "more than nothing"), (200 * H, "too far ahead")):
        with pytest.raises(ConfigError, match=words):
            extend(lab, one, by=by)
    with pytest.raises(ConfigError, match="is ann's, not bob's"):
        extend(lab, one, actor="bob", by=H)
    with pytest.raises(ConfigError, match="runs until"):
        extend(lab, one, ends=one.ends - H)


def test_a_lease_that_is_handed_over_has_a_new_token(lab: Lab) -> None:
    one = lease(lab)
    power_host(lab, "h1", Deed.ON, person="ann", token=1)
    with lab.sessions.begin() as session:
        assert hand_over(session, lab, one, to="bob", actor="ann", why="lunch") == 2
    two = again(lab, one)
    assert (two.holder, two.fence, two.ends) == ("bob", 2, one.ends)
    assert lab.machines["h1"].power.on, "the host stays as it is"
    for token in (None, 1, 2):
        with pytest.raises(ConfigError, match="held by bob"):
            power_host(lab, "h1", Deed.OFF, person="ann", token=token)
    with pytest.raises(ConfigError, match="token 1"):
        power_host(lab, "h1", Deed.OFF, person="bob", token=1)
    power_host(lab, "h1", Deed.OFF, person="bob", token=2)
    with lab.reads() as session:
        change = leases.lease_history(session, one.id)[3]
        assert (change.what, change.actor, change.detail) == ("handed over", "ann", "from ann to bob, token 2: lunch")
        held = [hold.holder for hold in leases.holds_between(session, lab.clock() - H, lab.clock() + H)]
    assert held == ["ann", "bob"]
    with lab.sessions.begin() as session, pytest.raises(ConfigError, match="changed by somebody else"):
        hand_over(session, lab, one, to="eve", actor="ann")  # ann's view is stale
    with lab.sessions.begin() as session, pytest.raises(ConfigError, match="is bob's, not ann's"):
        hand_over(session, lab, two, to="eve", actor="ann")


def test_an_operator_may_take_a_host_back_and_has_to_say_why(lab: Lab) -> None:
    one = lease(lab)
    with pytest.raises(ConfigError, match="is ann's, not root's"):
        release(lab, one, actor="root")
    with pytest.raises(ConfigError, match="the reason is empty"):
        release(lab, one, actor="root", force=True)
    release(lab, one, actor="root", force=True, why="fire")
    with lab.reads() as session:
        change = leases.lease_history(session, one.id)[-1]
    assert (change.what, change.actor, change.detail) == ("released", "root", "fire")


def test_a_booking_begins_on_time_or_waits_for_the_job_that_overruns(lab: Lab) -> None:
    noon = lab.clock() + 3 * H
    one = lease(lab, begins=noon)
    assert (one.state, one.host, one.ends) == (LeaseState.BOOKED, "h1", noon + 2 * H)
    number = submit(lab, spec("a", PASSES, all_hostflags='name == "h1"'))
    [(attempt, _token)] = start(lab)
    due = later(lab, 3 * 3600 + 1)
    look(due)
    waits = again(lab, one)
    assert (waits.state, waits.waits) == (LeaseState.BOOKED, f"waiting: h1 is held by job {number}.a")
    with lab.sessions.begin() as session:
        hosts.release_hosts(
            session, attempt, state=HostState.FREE, setups={"h1": "k"}, flight=number, now=lab.clock()
        )
    look(due)
    assert (again(lab, one).state, again(lab, one).ends) == (LeaseState.ACTIVE, noon + 2 * H)
    assert host_of(lab, "h1").setup_key is None, "nobody knows what a person boots"


def test_a_booking_whose_time_passes_is_told_as_missed(lab: Lab) -> None:
    submit(lab, spec("a", PASSES, all_hostflags='name == "h1"'))
    start(lab)
    one = lease(lab, begins=lab.clock() + H)
    look(later(lab, 4 * 3600))
    assert again(lab, one).outcome is Outcome.MISSED
    assert host_of(lab, "h1").state is HostState.LEASED, "the job's hold is untouched"


def test_a_requirement_gets_the_host_that_is_soonest_to_be_had(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(a_host("h1"), a_host("h2"), a_host("arm", "gic", arch="arm64"))
    assert lease(lab, None, need='arch == "x86_64"').host == "h1"
    assert lease(lab, None, need='arch == "x86_64"', length=H).host == "h2"
    third = lease(lab, None, need="hvm")
    assert (third.state, third.host) == (LeaseState.BOOKED, "h2"), "where it is thought to begin"
    assert third.waits.startswith("waiting: h2 is leased by ann")
    assert third.expected == find(lab, "h2").ends, "h2 is back an hour before h1"
    with lab.sessions.begin() as session:
        release_lease(session, lab, find(lab, "h1"), actor="ann")
    clean_all(lab)
    look(lab)
    assert (again(lab, third).state, again(lab, third).host) == (LeaseState.ACTIVE, "h1"), "h1 came back early"
    later_one = lease(lab, None, need="hvm", begins=lab.clock() + H + timedelta(minutes=5), length=H)
    assert later_one.host == "h2"


def find(lab: Lab, target: str) -> PersonLease:
    with lab.reads() as session:
        return find_lease(session, target)


def test_a_lease_is_named_by_its_host_or_its_number(lab: Lab) -> None:
    with pytest.raises(NotFoundError, match="nobody has leased h1"):
        find(lab, "h1")
    with pytest.raises(NotFoundError, match="neither a host nor a lease 'x'"):
        find(lab, "x")
    for number in ("7", "0", "99999999999", "123456789012345"):
        with pytest.raises(NotFoundError):
            find(lab, number)
    one = lease(lab)
    assert find(lab, "h1") == find(lab, "1") == one
    first = lease(lab, "h2", begins=lab.clock() + H)
    assert find(lab, "h2").id == first.id
    lease(lab, "h2", begins=lab.clock() + 5 * H, holder="bob")
    with pytest.raises(ConfigError, match=r"h2 is booked 2 times: 2 .*3 "):
        find(lab, "h2")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"length": timedelta()}, "lease for 0s is too short"),
        ({"length": -H}, "lease for -1h is too short"),
        ({"length": timedelta(days=8)}, "8d is too long: at most 7d"),
        ({"begins": "yesterday"}, "is over"),
        ({"begins": "next year"}, "too far ahead"),
        ({"host": "nosuch"}, "no host 'nosuch'"),
        ({"host": "h1", "need": "hvm"}, "name a host, or say"),
        ({"host": None}, "name a host, or say"),
        ({"host": None, "need": "hvm and"}, "not an expression"),
        ({"host": None, "need": "__import__('os').system('x')"}, "is not allowed"),
        ({"host": None, "need": "gpu"}, "no host matches 'gpu': the nearest is h1, which lacks gpu"),
        ({"why": "  "}, "the reason is empty"),
        ({"why": "a\r\nDTSTART:19700101T000000Z"}, "not one printable line"),
        ({"why": "\x1b[2J"}, "not one printable line"),
        ({"why": "abc\u202edef"}, "not one printable line"),
        ({"why": "x" * 501}, "at most 500 characters"),
        ({"holder": "ann\n"}, None),
        ({"holder": "a b"}, "no person's name"),
        ({"holder": "3.test-xl"}, "no person's name"),
        ({"holder": ""}, "person's name is empty"),
        ({"heartbeat": timedelta(seconds=1)}, "heartbeat"),
        ({"heartbeat": 9 * H}, "heartbeat"),
    ],
)
def test_a_lease_that_makes_no_sense_is_refused_whole(lab: Lab, wrong: dict[str, Any], words: str | None) -> None:
    times = {"yesterday": lab.clock() - 24 * H, "next year": lab.clock() + 400 * 24 * H}
    more = {name: times.get(value, value) if isinstance(value, str) else value for name, value in wrong.items()}
    if words is None:
        assert lease(lab, **more).holder == "ann", "blanks around a name are no part of it"
        return
    with pytest.raises(ConfigError, match=words):
        lease(lab, **more)
    with lab.reads() as session:
        assert leases.going_leases(session) == []
        assert host_of(lab, "h1").state is HostState.FREE
        assert flights.last_event(session) == 0


def test_no_lease_is_made_over_a_blockage_and_none_over_another_lease(lab: Lab) -> None:
    now = lab.clock()
    with lab.sessions.begin() as session:
        blocked = block_hosts(
            session, lab, why="<b>new disk</b>", actor="ian", host="h1", begins=now + H, ends=now + 3 * H
        )
    assert lease(lab, length=H / 2).state is LeaseState.ACTIVE, "it ends before"
    for begins in (None, now + 0.6 * H, now + 2 * H):
        with pytest.raises(ConfigError, match=r"h1 is blocked by ian .*\(blockage 1: <b>new disk</b>\)") as caught:
            lease(lab, length=2 * H, begins=begins)
        assert caught.value.hint.startswith("it is free for so long from ")
        minute = now + 3 * H + timedelta(minutes=1)
        assert f"{minute:%H:%M} UTC" in caught.value.hint
    assert lease(lab, begins=now + 3 * H).state is LeaseState.BOOKED
    with pytest.raises(ConfigError, match="h1 is booked by ann") as caught:
        lease(lab, holder="bob", begins=now + 4 * H)
    assert f"{now + 5 * H + timedelta(minutes=1):%H:%M} UTC" in caught.value.hint
    with lab.sessions.begin() as session:
        unblock(session, lab, blocked.id, actor="ian")
    assert lease(lab, begins=now + H).state is LeaseState.BOOKED
    with lab.sessions.begin() as session, pytest.raises(NotFoundError):
        unblock(session, lab, blocked.id, actor="ian")


def test_a_blockage_without_an_end_and_one_by_requirement(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(a_host("h1"), a_host("arm", "gic", arch="arm64"))
    with lab.sessions.begin() as session:
        block_hosts(session, lab, why="heat", actor="ian", need='arch == "x86_64"')
    for more in ({"host": "h1"}, {"host": None, "need": "hvm"}):
        with pytest.raises(ConfigError, match=r"h1 is blocked by ian .*until further notice") as caught:
            lease(lab, **more)
        assert caught.value.hint == "nobody knows when it will be free"
    assert lease(lab, "arm").state is LeaseState.ACTIVE
    now = lab.clock()
    for more, words in (
        ({"host": "arm"}, "arm is leased by ann"),
        ({"need": 'arch == "arm64"'}, "arm is leased by ann"),
        ({"host": "h1", "begins": now + H, "ends": now + H}, "not after the beginning"),
        ({"host": "h1", "begins": now + H, "ends": now}, "not after the beginning"),
        ({"host": "h1", "begins": now - 2 * H, "ends": now - H}, "is over"),
        ({"host": "nosuch"}, "no host 'nosuch'"),
        ({"need": "gpu"}, "no host matches"),
        ({}, "name a host"),
    ):
        with lab.sessions.begin() as session, pytest.raises(ConfigError, match=words):
            block_hosts(session, lab, why="heat", actor="ian", **more)
    with lab.reads() as session:
        assert len(leases.blockages(session)) == 1


def test_a_blocked_host_is_told_to_a_booking_that_came_first(lab: Lab) -> None:
    """Nobody can make such a pair any more, but an older lab may have one, or a host may get a flag."""
    one = lease(lab, begins=lab.clock() + H)
    with lab.sessions.begin() as session:
        values = {"host": "h1", "need": "", "begins": lab.clock(), "why": "fire", "actor": "i", "created": lab.clock()}
        session.execute(insert(BlockageRow).values(**values))
    look(later(lab, 3700))
    assert (again(lab, one).state, "fire" in again(lab, one).waits) == (LeaseState.BOOKED, True)


def test_what_is_preemptable_makes_way_after_a_notice(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(a_host("h1"))
    one = lease(lab, preemptable=True)
    assert again(lab, one).notice is None
    two = lease(lab, holder="bob")
    told = again(lab, one)
    assert told.notice is not None
    assert timedelta(minutes=14) < told.notice - lab.clock() <= timedelta(minutes=15)
    assert told.notice_for == "bob (lease 2)"
    assert "preemptable lease 1 that has notice" in two.waits
    look(later(lab, 10 * 60))
    assert again(lab, one).notice == told.notice, "the time that was told stands"
    release(lab, two, actor="bob")
    look(lab)
    assert again(lab, one).notice is None, "nobody wants it any more"
    lease(lab, holder="bob")
    with pytest.raises(ConfigError, match=r"h1 is booked by|h1 is leased by"):
        lease(lab, holder="eve", begins=lab.clock() + H, preemptable=True)
    look(later(lab, 16 * 60))
    assert again(lab, one).outcome is Outcome.PREEMPTED
    assert history(lab, one)[2:] == [
        "notice by lab", "notice withdrawn by lab", "notice by lab", "preempted by lab",
    ]  # fmt: skip


def test_a_booking_over_a_preemptable_lease_gives_it_notice_in_time(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(a_host("h1"))
    one = lease(lab, preemptable=True, length=5 * H)
    two = lease(lab, holder="bob", begins=lab.clock() + 2 * H)
    look(later(lab, 3600))
    assert again(lab, one).notice is None
    look(later(lab, 2 * 3600 - 14 * 60))
    assert again(lab, one).notice == pytest.approx(two.begins, abs=timedelta(minutes=2))


def test_the_clock_may_go_back(lab: Lab) -> None:
    one = lease(lab)
    look(later(lab, -7200))
    assert again(lab, one).state is LeaseState.ACTIVE
    power_host(later(lab, -7200), "h1", Deed.ON, person="ann", token=1)
    look(later(lab, 7201))
    assert again(lab, one).outcome is Outcome.EXPIRED
    look(later(lab, -7200))
    assert again(lab, one).state is LeaseState.ENDED, "what has ended never begins again"
    clean_all(lab)
    two = lease(later(lab, -7200))
    assert (two.state, two.fence) == (LeaseState.ACTIVE, 2)


def test_a_leased_host_that_leaves_the_lab_is_nobody_elses(lab: Lab) -> None:
    one = lease(lab)
    waiting = lease(lab, holder="bob", begins=lab.clock() + 3 * H)
    with lab.sessions.begin() as session:
        hosts.sync_hosts(session, [host for host in lab.hosts if host.name != "h1"])
    look(lab)
    assert again(lab, one).state is LeaseState.ACTIVE
    assert find(lab, "h1").id == one.id
    with pytest.raises(NotFoundError, match="no host 'h1'"):
        lease(lab, holder="eve")
    submit(lab, spec("a", PASSES, all_hostflags='name == "h1"'))
    assert start(lab) == []
    assert extend(lab, one, by=H / 2) > lab.clock()
    look(later(lab, 3 * 3600 + 1))
    assert again(lab, one).outcome is Outcome.EXPIRED
    clean_all(lab)
    look(later(lab, 3 * 3600 + 2))
    assert again(lab, waiting).waits == "h1 is not in the lab's file any more"
    assert start(lab) == []


def test_a_person_may_have_a_host_that_jobs_may_not(lab: Lab) -> None:
    with lab.sessions.begin() as session:
        hosts.set_health(session, "h1", Health.QUARANTINED, reason="odd", actor="lab", now=lab.clock())
        hosts.set_health(session, "h2", Health.RETIRED, reason="scrap", actor="ian", now=lab.clock())
    assert lease(lab, why="to find out what is odd").state is LeaseState.ACTIVE
    with pytest.raises(ConfigError, match="h2 is retired: scrap"):
        lease(lab, "h2")
    with pytest.raises(ConfigError, match="out of use: h1 is quarantined, h2 is retired"):
        lease(lab, None, need="hvm")


def test_the_database_refuses_a_second_hold_of_a_host_and_one_of_nobody(lab: Lab) -> None:
    one = lease(lab)
    for booking in (one.id, None):
        with pytest.raises(IntegrityError), lab.sessions.begin() as session:
            hosts.take_host(session, "h1" if booking else "h2", booking=booking, holder="eve", now=lab.clock())


def test_of_two_who_ask_at_once_one_gets_the_host(lab: Lab) -> None:
    begins, results = lab.clock() + H, []
    barrier = threading.Barrier(4)

    def ask(person: str) -> None:
        barrier.wait()
        try:
            results.append(lease(lab, holder=person, begins=begins))
        except ConfigError as error:
            results.append(error)

    threads = [threading.Thread(target=ask, args=(f"p{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(result, PersonLease) for result in results) == 1
    assert sum("is booked by" in str(result) for result in results) == 3


def test_of_two_who_want_it_now_one_begins_and_the_other_waits(lab: Lab) -> None:
    barrier = threading.Barrier(4)

    def ask(person: str) -> None:
        barrier.wait()
        lease(lab, holder=person)

    threads = [threading.Thread(target=ask, args=(f"p{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    look(lab)
    with lab.reads() as session:
        going = leases.going_leases(session)
    assert sorted(one.state.value for one in going) == ["active", "booked", "booked", "booked"]
    assert [one.id for one in sorted(going, key=lambda one: one.expected or one.created)] == [1, 2, 3, 4]


def test_the_rules_are_the_labs(new_lab: Callable[..., Lab]) -> None:
    from dataclasses import replace

    lab = replace(new_lab(), lease_rules=LeaseRules(longest=H, ahead=2 * H, notice=timedelta()))
    with pytest.raises(ConfigError, match="at most 1h"):
        lease(lab)
    with pytest.raises(ConfigError, match="at most 2h"):
        lease(lab, length=H, begins=lab.clock() + 3 * H)


def test_jobs_and_people_take_turns_under_growing_tokens(lab: Lab) -> None:
    number = submit(lab, spec("a", PASSES, all_hostflags='name == "h1"'))
    run_all(lab)
    clean_all(lab)
    one = lease(lab)
    assert (number, one.fence) == (1, 2)
