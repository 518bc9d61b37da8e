"""`lab verdict`: show, check, import."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from lab.cli.opening import open_lab
from lab.cli.render import json_option, output, print_json
from lab.db import flights, judging
from lab.errors import ConfigError
from lab.flights.judged_by import JudgedBy
from lab.flights.osstest_check import compare_all, summary
from lab.flights.plain_text import clean
from lab.flights.verdict import Finding, Outcome, Section, Verdict
from lab.osstest_file import read_reports
from lab.policy_file import read_policy
from lab.services.import_reports import import_reports
from lab.services.judge import judge_flight

HELD = 1

TITLES = {
    Section.BLOCKING: ("✗", "bold red", "blocking"),
    Section.INTERMITTENT: ("≈", "yellow", "failing intermittently, not blocking"),
    Section.ALLOWABLE: ("○", "yellow", "allowed, not blocking"),
    Section.NONBLOCKING: ("·", "dim", "not blocking"),
}
_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.group()
def verdict() -> None:
    """What a flight's failures mean: which are regressions, and which do not count."""


@verdict.command()
@click.argument("flight")
@click.option("--baseline", metavar="FLIGHT", help="Compare with what this flight tested.")
@click.option("--that", "that", multiple=True, metavar="TREE=REV", help="Compare with these revisions.")
@click.option("--policy", "policy_file", type=click.Path(path_type=Path, dir_okay=False), help="A file of rules.")
@click.option("--verbose", "-v", is_flag=True, help="Say of what does not block, too, why.")
@json_option
def show(
    flight: str, baseline: str | None, that: tuple[str, ...], policy_file: Path | None, *, verbose: bool, as_json: bool
) -> None:
    """The verdict on FLIGHT (a number, or `latest`). Exit code: 0 it may be pushed, 1 it may not."""
    by = read_policy(policy_file) if policy_file else JudgedBy()
    lab = open_lab()
    with lab.reads() as session:
        number = flights.resolve_flight(session, flight)
        this = judging.revisions_of(session, number)
        if baseline is not None:
            other = flights.resolve_flight(session, baseline)
            versions = judging.revisions_of(session, other)
            if not versions:
                raise ConfigError(f"flight {other} tested no revision of a source tree", hint="name --that TREE=REV")
        else:
            versions = dict(_revision(one) for one in that)
        if not versions:
            raise ConfigError("nothing to compare with", hint="name --baseline FLIGHT or --that TREE=REV")
        found = judge_flight(session, number, this=this, that=versions, policy=by)
    if as_json:
        print_json(found.as_json())
    else:
        print_verdict(found, verbose=verbose)
    sys.exit(0 if found.pushable else HELD)


def _revision(text: str) -> tuple[str, str]:
    tree, equals, revision = text.partition("=")
    if not (tree and equals and revision):
        raise ConfigError(f"{text!r} names no revision", hint="write TREE=REV, e.g. --that xen=4f2c…")
    return tree, revision


def print_verdict(found: Verdict, *, verbose: bool = False) -> None:
    """The findings, section by section, each with its reasons (of what does not block only if `verbose`)."""
    console = output()
    style = {Outcome.PERFECT: "green", Outcome.TOLERABLE: "green"}.get(found.outcome, "bold red")
    console.print(f"[bold]flight {found.flight}[/]  [{style}]{found.headline}[/]")
    for line in found.missing:
        console.print(f"  ✗ {clean(line)}", style="bold red", markup=False)
    for section, (icon, look, title) in TITLES.items():
        if findings := found.of(section):
            console.print(f"\n{title}:", style=look)
            for one in findings:
                console.print(_line(one, icon, look), soft_wrap=True)
                for reason in one.reasons if verbose or section is not Section.NONBLOCKING else ():
                    console.print(f"      {clean(reason)}", style="dim", markup=False, soft_wrap=True)


def _line(one: Finding, icon: str, look: str) -> Text:
    seen = f" in {one.seen_in}" if one.seen_in else ""
    what = f"{one.job}  {one.testid}  {one.status}{seen}"
    return Text.assemble((f"  {icon} ", look), clean(what), "  ", (clean(one.note), look))


@verdict.command()
@_file
@json_option
def check(file: Path, *, as_json: bool) -> None:
    """Judge the flights of a FILE of OSSTest's reports anew, and compare with what was published.

    A case is a failure whose note names a flight that is in the file, too, so that the file decides it. Exit code: 0
    we agree wherever the file decides, 1 we do not.
    """
    reports = read_reports(file)
    result = summary(reports, compare_all(reports))
    if as_json:
        print_json(result)
    else:
        _print_check(result)
    sys.exit(HELD if result["disagreements"] else 0)


def _print_check(result: dict[str, Any]) -> None:
    console = output()
    decided = result["cases"] - result["undecidable"]
    share = f" ({result['agree'] / decided:.1%})" if decided else ""
    console.print(f"[bold]{result['cases']} cases[/] in {result['flights']} flights: agree on {result['agree']}{share}")
    table = Table(box=None, pad_edge=False)
    for title in ("published as", "cases", "agree"):
        table.add_column(title, justify="left" if title.startswith("pub") else "right")
    for name, one in result["by_class"].items():
        table.add_row(name, str(one["cases"]), str(one["agree"]))
    console.print(table)
    others = result["others"]
    console.print(f"undecidable: {result['undecidable']}")
    console.print(f"other failures: {others['failures']}, contradicted: {len(others['contradicted'])}")
    for one in [*result["disagreements"], *others["contradicted"]]:
        published = one["published"]
        console.print(
            clean(f"\n✗ {one['flight']} {one['job']} {one['testid']}: published as {published['kind']} "
                  f"({published['note']}); {one['why']}"), style="red", markup=False,
        )  # fmt: skip


@verdict.command("import")
@_file
@json_option
def import_(file: Path, *, as_json: bool) -> None:
    """Make flights of this lab out of a FILE of OSSTest's reports, to look at them and to judge them."""
    reports = read_reports(file)
    lab = open_lab()
    with lab.sessions.begin() as session:
        added = import_reports(session, reports)
    if as_json:
        print_json({"flights": added})
    else:
        output().print(f"imported {len(added)} flights; `lab flight list` shows them")
