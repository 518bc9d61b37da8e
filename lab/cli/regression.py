"""`lab regression`: list, show, own; `lab known-issue`: add, list, end."""

from __future__ import annotations

import getpass
from datetime import timedelta

import click
from rich.table import Table
from rich.text import Text

from lab.cli.moments import Length
from lab.cli.opening import open_lab
from lab.cli.render import ago, json_option, output, print_json
from lab.db import regressions
from lab.flights.plain_text import clean
from lab.flights.regression_life import Life
from lab.flights.regression_views import issue_view, regression_view, told_view
from lab.services.regression_life import add_known_issue, check_owner, tell_regression

_LOOK = {
    Life.NEW: ("✗", "bold red"), Life.CONFIRMED: ("✗", "red"), Life.BISECTING: ("◐", "cyan"),
    Life.BLAMED: ("!", "bold yellow"), Life.FIXED: ("✓", "green"), Life.VERIFIED: ("✓", "dim green"),
}  # fmt: skip


@click.group()
def regression() -> None:
    """Regressions of the gated branches: from the first failure to the flights that verify that it is fixed."""


def _life(life: Life) -> Text:
    icon, style = _LOOK[life]
    return Text(f"{icon} {life.value}", style=style)


@regression.command("list")
@click.option("--branch", default="", help="Only of this branch.")
@click.option("--all", "everything", is_flag=True, help="Those that are fixed, too.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@json_option
def list_(branch: str, limit: int, *, everything: bool, as_json: bool) -> None:
    """The open regressions, the newest first."""
    lab = open_lab()
    lives = [] if everything else [life for life in Life if life.open]
    with lab.reads() as session:
        found = regressions.list_regressions(session, branch=branch, lives=lives, limit=limit)
    if as_json:
        print_json([regression_view(one) for one in found])
        return
    if not found:
        output().print("No test has regressed." if everything else "No regression is open.")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("regression", "state", "branch", "test", "since", "owner", "message"):
        table.add_column(column)
    for one in found:
        table.add_row(
            str(one.id), _life(one.life), one.branch, Text(f"{one.job} {one.testid}"), ago(one.since, lab.clock()),
            Text(clean(one.owner)), Text(clean(one.sample)[:80], style="dim"),
        )  # fmt: skip
    output().print(table)


@regression.command()
@click.argument("number", type=click.IntRange(1))
@json_option
def show(number: int, *, as_json: bool) -> None:
    """Regression NUMBER: its life, when its message appeared first, whose it is."""
    lab = open_lab()
    with lab.reads() as session:
        told = tell_regression(session, lab, number)
    if as_json:
        print_json(told_view(told, lab.clock()))
        return
    console, one = output(), told.regression
    console.print(Text.assemble((f"regression {one.id}", "bold"), "  ", _life(one.life), f"  {one.branch}"))
    console.print(f"  {one.job} {one.testid}, {one.owner or 'nobody'} sees to it", markup=False)
    console.print(f"  {clean(one.sample)}", markup=False, style="dim")
    if (first := told.first_seen) is not None:
        console.print(
            f"  this message first appeared in flight {first.flight} ({first.branch}, {first.job}), "
            f"{ago(first.at, lab.clock())}; seen {first.count} times", markup=False,
        )  # fmt: skip
    if one.culprit:
        console.print(f"  culprit {one.culprit} (bisection {one.bisection})")
    for issue in told.issues:
        console.print(
            clean(f"  known: {issue.owner}: {issue.reason} {issue.url} (until {issue.expires:%Y-%m-%d})"), markup=False
        )
    for event in told.events:
        moved = f"{event.old or 'nothing'} → {event.new}" if event.old != event.new else event.new
        flight = f" (flight {event.flight})" if event.flight else ""
        console.print(
            clean(f"  {event.at:%Y-%m-%d %H:%M}  {moved}  {event.actor}: {event.reason}{flight}"), markup=False,
            soft_wrap=True,
        )  # fmt: skip


@regression.command()
@click.argument("number", type=click.IntRange(1))
@click.argument("owner")
@click.option("--reason", default="", help="Why, for the record.")
@click.option("--actor", default=getpass.getuser, show_default="you", help="Who says so.")
def own(number: int, owner: str, reason: str, actor: str) -> None:
    """Say that OWNER (a name or an address; `-` for nobody) sees to regression NUMBER."""
    owner = "" if owner == "-" else owner
    if owner:
        check_owner(owner)
    lab = open_lab()
    with lab.sessions.begin() as session:
        regressions.set_owner(session, number, owner, actor=actor, reason=reason[:2000], now=lab.clock())
    output().print(f"regression {number}: {owner or 'nobody'} sees to it", markup=False)


@click.group("known-issue")
def known_issue() -> None:
    """What people know of: it is shown beside the failure with its owner until it expires, and opens no gate."""


@known_issue.command()
@click.argument("job")
@click.argument("testid", default="*")
@click.option("--text", default="", help="Only failures whose message has this in it.")
@click.option("--owner", required=True, help="Who sees to it: a name or an address.")
@click.option("--reason", required=True, help="What is known.")
@click.option("--url", default="", help="Where more is said.")
@click.option("--for", "length", type=Length(), required=True, help="For so long, e.g. 30d; then it is nobody's again.")
@click.option("--actor", default=getpass.getuser, show_default="you", help="Who says so.")
def add(job: str, testid: str, text: str, owner: str, reason: str, url: str, length: timedelta, actor: str) -> None:
    """Keep that failures of TESTID of JOB (globs) are known."""
    lab = open_lab()
    with lab.sessions.begin() as session:
        number = add_known_issue(
            session, lab, job=job, testid=testid, text=text, owner=owner, reason=reason, url=url, actor=actor,
            expires=lab.clock() + length,
        )  # fmt: skip
    output().print(f"known issue {number} is shown until {lab.clock() + length:%Y-%m-%d %H:%M} UTC")


@known_issue.command("list")
@click.option("--all", "everything", is_flag=True, help="Those that have expired or were ended, too.")
@json_option
def list_issues(*, everything: bool, as_json: bool) -> None:
    """What people know of."""
    lab = open_lab()
    now = lab.clock()
    with lab.reads() as session:
        found = regressions.known_issues(session, None if everything else now)
    if as_json:
        print_json([issue_view(one, now) for one in found])
        return
    for one in found:
        state = "" if one.in_force(now) else "(over) "
        output().print(
            clean(f"{one.id:>4}  {state}{one.job} {one.testid} {one.text}  {one.owner}: {one.reason} {one.url}"),
            markup=False,
        )
    if not found:
        output().print("Nothing is known.")


@known_issue.command("end")
@click.argument("number", type=click.IntRange(1))
def end_issue(number: int) -> None:
    """Known issue NUMBER is over."""
    lab = open_lab()
    with lab.sessions.begin() as session:
        regressions.end_issue(session, number, lab.clock())
    output().print(f"known issue {number} is over")
