"""`lab plan` and `lab queue`: who has which host and who will, and who waits, why, and until when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import click
from rich.table import Table
from rich.text import Text

from lab.cli.opening import open_lab
from lab.cli.render import ago, json_option, output, print_json
from lab.db import waits
from lab.db.waits import QueueLine
from lab.flights.model import Wait, Window
from lab.flights.plain_text import clean
from lab.services.show_plan import HostPlan, PlanView, Span, plan_json, queue_json, show_plan

_LOOK = {
    "job": ("█", "green"),
    "lease": ("▓", "magenta"),
    "cleaning": ("~", "cyan"),
    "projected": ("░", "blue"),
    "booking": ("▒", "magenta"),
    "blockage": ("x", "red"),
    "shut": ("!", "red"),
}
"""Sign and colour of each kind; where two meet, the one further down is shown."""

_TAIL = {"█": "▬", "░": "·"}
"""What may still belong to a job, when it takes longer than is expected."""


@click.command()
@click.option("--hours", type=click.FloatRange(0.1, 24 * 31), help="How far ahead (default: as far as it is known).")
@json_option
def plan(hours: float | None, *, as_json: bool) -> None:
    """Hosts × time: who has each host now, what is booked, who is expected next, and what stands against that.

    The end of what runs, and all that is expected, is an estimate: even odds at the end of the bar, nine in ten at the
    end of its tail.
    """
    lab = open_lab()
    with lab.reads() as session:
        view = show_plan(session, lab, ahead=timedelta(hours=hours or 24 * 7))
        first = waits.list_queue(session, limit=10)
    if as_json:
        print_json({**plan_json(view), "queue": [queue_json(line) for line in first]})
        return
    ahead = timedelta(hours=hours) if hours else _known(view)
    names = max((len(row.host.name) for row in view.hosts), default=4)
    output().print(_gantt(view, ahead, max(20, min(100, (output().width - names) // 2))))
    if not view.hosts:
        output().print("The lab has no hosts; add some to lab.toml.")
    shown = {span.kind for row in view.hosts for span in row.spans}
    legend = Text("  ").join(Text(f"{sign} {kind}", style) for kind, (sign, style) in _LOOK.items() if kind in shown)
    output().print(legend)
    _print_tenants(view)
    if view.waiting:
        output().print(f"\n{view.waiting} job{'s' if view.waiting > 1 else ''} waiting; `lab queue` lists them")
        output().print(queue_table(first, view.now))


def _known(view: PlanView) -> timedelta:
    """As far as something is expected, in steps that read well."""
    ends = [span.end.p90 for row in view.hosts for span in row.spans if span.end is not None]
    far = max((end - view.now for end in ends), default=timedelta())
    steps = (timedelta(minutes=minutes) for minutes in (15, 30, 60, 120, 240, 480, 720, 1440, 2880, 10_080))
    return next((step for step in steps if step >= far), timedelta(days=7))


def _gantt(view: PlanView, ahead: timedelta, width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", expand=True)
    table.add_column("host", no_wrap=True, min_width=4)
    table.add_column(_axis(view.now, ahead, width), width=width, no_wrap=True)
    table.add_column("now", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in view.hosts:
        table.add_row(row.host.name, _bar(row, view.now, ahead, width), Text(_said(row, view.now)))
    return table


def _axis(now: datetime, ahead: timedelta, width: int) -> Text:
    """Times of day along the bar, in the reader's zone."""
    written = [" "] * width
    form = "%H:%M" if ahead <= timedelta(days=1) else "%a %H:%M"
    step = max(1, width // max(1, width // 16))
    for column in range(0, width - 8, step):
        moment = (now + ahead * column / width).astimezone()
        label = moment.strftime(form)
        written[column : column + len(label)] = label
    return Text("".join(written))


def _bar(row: HostPlan, now: datetime, ahead: timedelta, width: int) -> Text:
    cells: list[tuple[str, str]] = [("─", "dim")] * width

    def column(moment: datetime | None) -> int:
        return width if moment is None else round((moment - now) / ahead * width)

    for kind, (sign, style) in _LOOK.items():
        for span in (span for span in row.spans if span.kind == kind):
            start, end = max(0, column(span.start.p50)), column(span.end.p50 if span.end else None)
            tail = column(span.end.p90 if span.end else None)
            end = max(end, start + 1)
            for place in range(start, min(width, max(end, tail))):
                cells[place] = (sign if place < end else _TAIL.get(sign, sign), style)
            if kind == "projected" and 0 < start < width:
                cells[start] = ("┆", style)  # else two that follow each other look like one
    bar = Text()
    for sign, style in cells:
        bar.append(sign, style)
    return bar


def _said(row: HostPlan, now: datetime) -> str:
    current = [span for span in row.spans if span.start.p50 <= now and span.kind != "projected"]
    current.sort(key=lambda span: list(_LOOK).index(span.kind))
    words = [_span_words(span, now) for span in current] or [row.host.state.value]
    if not row.host.usable():
        words.append(row.host.health.value)
    return clean("; ".join(words))


def _span_words(span: Span, now: datetime) -> str:
    name = span.who or span.why
    return f"{name}, {_left(span.end, now)}" if span.end else name


def _left(window: Window, now: datetime) -> str:
    """How long something will still take, as a spread."""
    least, most = _length(window.p50 - now), _length(window.p90 - now)
    return f"~{least} left" if least == most else f"~{least} left (up to {most})"


def _length(length: timedelta) -> str:
    minutes = max(0, round(length.total_seconds() / 60))
    if minutes < 1:
        return f"{max(0, round(length.total_seconds()))} s"
    if minutes < 90:
        return f"{minutes} min"
    hours = length.total_seconds() / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} d"


def eta(wait: Wait, now: datetime) -> str:
    """When a job is expected to start, with its spread; empty when nobody can tell."""
    if wait.start is None:
        return ""
    early, late = _length(wait.start.p50 - now), _length(wait.start.p90 - now)
    clock = wait.start.p50.astimezone().strftime("%H:%M" if wait.start.p50 - now < timedelta(hours=20) else "%a %H:%M")
    return f"in ~{early} ({clock})" if early == late else f"in ~{early} ({clock}), at most {late}"


def _print_tenants(view: PlanView) -> None:
    if len(view.tenants) < 2:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("tenant", "waiting", "hosts now", "host time used", "share"):
        table.add_column(column)
    for line in view.tenants:
        used = _length(timedelta(seconds=line.used))
        table.add_row(clean(line.tenant), str(line.waiting), str(line.holding), used, f"{line.share:g}")
    output().print()
    output().print(table)


def queue_table(lines: Sequence[QueueLine], now: datetime) -> Table:
    """Who waits, why, and until when."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    roomy = output().width >= 110
    for column in ("place", "job", "tenant", *(["queued"] if roomy else []), "expected", "why it waits"):
        table.add_column(column, overflow="fold", min_width=24 if column in ("job", "why it waits") else None)
    for line in lines:
        wait = line.wait
        table.add_row(
            str(wait.place) if wait and wait.place else "",
            line.id,
            Text(clean(line.tenant)),
            *([ago(line.queued, now)] if roomy else []),
            eta(wait, now) if wait else "",
            Text(clean(wait.text) if wait else "no leader has looked at it yet"),
        )
    return table


@click.command()
@click.option("--tenant", default="", help="Only this tenant's jobs.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@json_option
def queue(tenant: str, limit: int, *, as_json: bool) -> None:
    """Who waits, why, and when each job is expected to start."""
    lab = open_lab()
    with lab.reads() as session:
        lines = waits.list_queue(session, tenant=tenant, limit=limit + 1)
    if as_json:
        print_json([queue_json(line) for line in lines[:limit]])
        return
    if not lines:
        output().print("Nobody waits.")
        return
    output().print(queue_table(lines[:limit], lab.clock()))
    if len(lines) > limit:
        output().print("there are more: --limit", style="dim")
