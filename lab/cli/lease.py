"""`lab lease`, and what `lab host` does with leases: lease, release, extend, hand-over, power."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.table import Table

from lab.bootstrap import sync_hosts
from lab.cli.moments import Length, Moment
from lab.cli.opening import lab_option, open_lab, settings_with
from lab.cli.render import errors, json_option, output, print_json
from lab.context import Lab
from lab.db import hosts, leases
from lab.db.leadership import leader_is_there
from lab.flights.runvars import Runvars
from lab.hosts.lease_views import change_view, lease_view
from lab.hosts.leases import LeaseState, PersonLease, check_holder, ending, stamp, told
from lab.services.begin_leases import begin_leases
from lab.services.calendar import calendar_file, marks
from lab.services.clean_host import clean_host
from lab.services.expire import expire_leases
from lab.services.extend import extend_lease
from lab.services.hand_over import hand_over
from lab.services.lease import lease_host
from lab.services.power_host import Deed, power_host
from lab.services.release import find_lease, release_lease
from lab.services.run_on_host import run_on_host

F = TypeVar("F", bound=Callable[..., Any])


def person_option(function: F) -> F:
    """`--as PERSON`: nobody is asked to prove it; the lab belongs to those who may run its commands."""
    return click.option(
        "--as", "person", envvar="LAB_PERSON", default=getpass.getuser, help="Who you are (default: the login name)."
    )(function)


def force_option(function: F) -> F:
    """`--force`: do it to another's lease."""
    return click.option("--force", is_flag=True, help="Even if it is another's.")(function)


def open_tended(lab_file: Path | None) -> Lab:
    """The lab; when nobody leads it, what is due about leases is done here and now."""
    lab = open_lab(settings_with(lab_file))
    sync_hosts(lab)
    tend(lab)
    return lab


def tend(lab: Lab) -> bool:
    """If nobody leads, do what a leader would: end and begin leases, make hosts clean; returns whether nobody does."""
    if lab.settings.broker_url or leader_is_there(lab.sessions.kw["bind"], lab.settings.home):
        return False
    with lab.sessions.begin() as session:
        expire_leases(session, lab)
    with lab.reads() as session:
        dirty = hosts.cleaning_hosts(session)
    for name in dirty:
        clean_host(lab, name)
    with lab.sessions.begin() as session:
        begin_leases(session, lab)
    return True


@click.group()
def lease() -> None:
    """Leases: hosts that people have, or have booked. `lab host lease` takes one."""


@lease.command("list")
@click.option("--all", "ended", is_flag=True, help="Those that ended last, too.")
@lab_option
@json_option
def list_(lab_file: Path | None, *, ended: bool, as_json: bool) -> None:
    """Who has or has booked which host, from when until when, and why."""
    lab = open_tended(lab_file)
    with lab.reads() as session:
        found = [*leases.going_leases(session), *(leases.ended_leases(session) if ended else [])]
    if as_json:
        print_json([lease_view(one) for one in found])
        return
    if not found:
        output().print("Nobody has leased a host. `lab host lease NAME --for 2h --why …` does.")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("lease", "host", "holder", "state", "from", "until", "why"):
        table.add_column(column)
    for one in found:
        table.add_row(*[_plain(cell) for cell in _row(one)])
    output().print(table)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _row(one: PersonLease) -> tuple[str, ...]:
    start = one.started or one.begins
    begin = stamp(start) if start else f"soon, {stamp(one.expected)}?" if one.expected else "soon"
    until = one.closed if one.state is LeaseState.ENDED else one.until
    state = (one.outcome.value if one.outcome else one.state.value) + (", preemptable" if one.preemptable else "")
    notes = [one.why, one.waits, f"notice: taken {stamp(one.notice)} for {one.notice_for}" if one.notice else ""]
    return (
        str(one.id), one.host or one.need, one.holder, state, begin, stamp(until) if until else told(one.length),
        "; ".join(note for note in notes if note),
    )  # fmt: skip


def print_lease(one: PersonLease) -> None:
    """A lease in a few lines."""
    where, line = one.host or one.need, ""
    match one.state:
        case LeaseState.ACTIVE:
            line = f"{where} is {one.holder}'s until {stamp(one.until) if one.until else '?'}, token {one.fence}"
        case LeaseState.BOOKED:
            when = f"from {stamp(one.begins)}" if one.begins else "as soon as possible"
            line = f"{where} is booked for {one.holder} {when}, {told(one.length)}"
        case LeaseState.ENDED:
            line = f"{where}, {one.holder}'s: {ending(one)}"
    output().print(f"lease {one.id}: {line}", markup=False, soft_wrap=True)
    output().print(f"  {one.why}", markup=False, soft_wrap=True)
    if one.waits:
        eta = f"; expected {stamp(one.expected)}" if one.expected else ""
        output().print(f"  {one.waits}{eta}", markup=False, soft_wrap=True)
    if one.notice:
        output().print(f"  it will be taken {stamp(one.notice)} for {one.notice_for}", markup=False, style="yellow")


def _hint(lab: Lab, one: PersonLease) -> None:
    if not leader_is_there(lab.sessions.kw["bind"], lab.settings.home) and one.state is not LeaseState.ENDED:
        errors().print("nobody leads this lab now: run `lab serve`, so that leases begin and end on time", style="dim")


@lease.command()
@click.argument("target")
@lab_option
@json_option
def show(target: str, lab_file: Path | None, *, as_json: bool) -> None:
    """A lease, by its number or its host, with its history."""
    lab = open_tended(lab_file)
    with lab.reads() as session:
        one = find_lease(session, target)
        history = leases.lease_history(session, one.id)
    if as_json:
        changes = [change_view(change.at, change.what, change.actor, change.detail) for change in history]
        print_json({**lease_view(one), "history": changes})
        return
    print_lease(one)
    for change in history:
        output().print(f"  {stamp(change.at)}  {change.what} by {change.actor}  {change.detail}", markup=False)


@lease.command()
@click.option("--days", type=click.IntRange(1, 90), default=7, show_default=True)
@click.option("--from", "start", type=Moment(), help="First day (default: today).")
@click.option("--host", "name", help="Only this host.")
@click.option("--ics", is_flag=True, help="Write an iCalendar file instead.")
@lab_option
def calendar(days: int, start: datetime | None, name: str | None, lab_file: Path | None, *, ics: bool) -> None:
    """The calendar of leases, bookings and blockages, host by host."""
    lab = open_tended(lab_file)
    if ics:
        with lab.reads() as session:
            sys.stdout.buffer.write(calendar_file(session, lab, host=name))
        return
    begin = (start or lab.clock()).replace(hour=0, minute=0, second=0, microsecond=0)
    with lab.reads() as session:
        known = [hosts.load_host(session, name).host] if name else hosts.present_hosts(session)
        found = marks(session, lab, begin, begin + timedelta(days=days), host=name)
    for host in sorted({*(one.name for one in known), *(mark.host for mark in found)}):
        output().print(host, style="bold", markup=False)
        mine = [mark for mark in found if mark.host == host and mark.kind != "job"]
        for mark in mine:
            end = stamp(mark.end) if mark.end else "until further notice"
            maybe = "" if mark.firm else " (expected)"
            what = f"{mark.kind}{', preemptable' if mark.preemptable else ''} {mark.number or ''}"
            output().print(f"  {stamp(mark.start)} – {end}  {what}  {mark.who}: {mark.why}{maybe}", markup=False)
        if not mine:
            output().print("  free", style="dim")


@lease.command()
@click.argument("target")
@person_option
@lab_option
def beat(target: str, person: str, lab_file: Path | None) -> None:
    """A sign of life for a lease with a heartbeat."""
    lab = open_tended(lab_file)
    with lab.sessions.begin() as session:
        one = find_lease(session, target)
        check_holder(one, person)
        leases.hear(session, one.id, now=lab.clock())


@click.command("lease")
@click.argument("name", required=False)
@click.option("--for", "length", type=Length(), required=True, help="How long, e.g. 2h.")
@click.option("--why", required=True, help="What for; everybody sees it.")
@click.option("--from", "begins", type=Moment(), help='From when, e.g. "2026-11-26 09:00" (UTC; default: now or soon).')
@click.option("--need", default="", help='Any host that offers this, instead of NAME, e.g. arch == "arm64".')
@click.option("--preemptable", is_flag=True, help="Jobs and others may take it after a notice.")
@click.option("--heartbeat", type=Length(), help="End it when nothing is heard for so long.")
@person_option
@lab_option
@json_option
def lease_(
    name: str | None, lab_file: Path | None, person: str, *, as_json: bool, **asked: Any
) -> None:
    """Lease a host, now or later. When it is busy, it is booked, and begins as soon as it can."""
    lab = open_tended(lab_file)
    with lab.sessions.begin() as session:
        one = lease_host(session, lab, holder=person, host=name, **asked)
    if as_json:
        print_json(lease_view(one))
        return
    print_lease(one)
    _hint(lab, one)


@click.command()
@click.argument("target")
@click.option("--why", default="", help="Why (with --force).")
@person_option
@force_option
@lab_option
def release(target: str, why: str, person: str, lab_file: Path | None, *, force: bool) -> None:
    """Give a host back, or cancel a booking; TARGET is a host or the number of a lease. The host is powered off."""
    lab = open_tended(lab_file)
    with lab.sessions.begin() as session:
        one = find_lease(session, target)
        outcome = release_lease(session, lab, one, actor=person, force=force, why=why)
    tend(lab)
    output().print(f"{one.name} of {one.host or one.need}: {outcome.value}", markup=False)


@click.command()
@click.argument("target")
@click.option("--for", "by", type=Length(), help="By how much, e.g. 1h.")
@click.option("--until", "ends", type=Moment(), help="Until when.")
@person_option
@force_option
@lab_option
def extend(target: str, person: str, lab_file: Path | None, *, force: bool, **asked: Any) -> None:
    """Let a lease end later; TARGET is a host or the number of a lease."""
    lab = open_tended(lab_file)
    with lab.sessions.begin() as session:
        one = find_lease(session, target)
        ends = extend_lease(session, lab, one, actor=person, force=force, **asked)
    output().print(f"{one.name} of {one.host} ends {stamp(ends)}", markup=False)


@click.command("hand-over")
@click.argument("target")
@click.option("--to", required=True, help="Who holds it from now on.")
@click.option("--why", default="")
@person_option
@force_option
@lab_option
def hand_over_(target: str, to: str, why: str, person: str, lab_file: Path | None, *, force: bool) -> None:
    """Make another person the holder, under a new token; TARGET is a host or the number of a lease."""
    lab = open_tended(lab_file)
    with lab.sessions.begin() as session:
        one = find_lease(session, target)
        token = hand_over(session, lab, one, to=to, actor=person, why=why, force=force)
    output().print(f"{one.host} is {to}'s, token {token}", markup=False)


@click.command()
@click.argument("name")
@click.argument("deed", type=click.Choice([deed.value for deed in Deed]))
@click.option("--token", type=int, help="Only under this token.")
@click.option("--image", help="Boot this dom0 image from now on.")
@person_option
@lab_option
def power(name: str, deed: str, token: int | None, image: str | None, person: str, lab_file: Path | None) -> None:
    """Switch a leased host on or off, or cycle it; only its holder may."""
    lab = open_tended(lab_file)
    target = lab.images.boot_target("host", Runvars({"dom0_image": image})) if image else None
    power_host(lab, name, Deed(deed), person=person, token=token, target=target)
    output().print(f"{name}: {'switched' if deed != 'cycle' else 'power'} {deed}", markup=False)


@click.command("run", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--token", type=int, help="Only under this token.")
@person_option
@lab_option
def run_(name: str, command: tuple[str, ...], token: int | None, person: str, lab_file: Path | None) -> None:
    """Run a command in dom0 of a leased host, as root; only its holder may. `lab host run emu0 xl list`.

    Its output and exit code become ours. When dom0 does not answer, `lab host console NAME --attach` is the way in.
    """
    lab = open_tended(lab_file)
    result = run_on_host(lab, name, command, person=person, token=token)
    click.echo(result.stdout, nl=False)
    click.echo(result.stderr, nl=False, err=True)
    sys.exit(result.exit_status)
