"""`lab doctor`: does this installation work, and what is to be done where it does not?"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.text import Text

from lab.cli.opening import lab_option, settings_with
from lab.cli.render import errors, json_option, output, print_json
from lab.doctor.examine import examine
from lab.doctor.finding import Finding, Level

_LOOK = {Level.OK: ("✓", "green"), Level.WARNING: ("⚠", "bold yellow"), Level.ERROR: ("✗", "bold red")}


@click.command()
@lab_option
@json_option
def doctor(lab_file: Path | None, *, as_json: bool) -> None:
    """Look at everything this lab needs, and say what to do about what is amiss.

    Nothing is changed, and nobody who has a host is disturbed. The exit code is 1 when something does not work.
    """
    found: list[Finding] = []
    with errors().status("looking") as status:
        for name, findings in examine(settings_with(lab_file)):
            status.update(f"looked at {name}")
            found += findings
            if not as_json:
                for one in findings:
                    _show(one)
    if as_json:
        print_json(
            [{"what": one.what, "level": one.level.value, "found": one.found, "advice": one.advice} for one in found]
        )
    bad = [one for one in found if one.level is Level.ERROR]
    sys.exit(1 if bad else 0)


def _show(one: Finding) -> None:
    icon, style = _LOOK[one.level]
    output().print(Text(f"{icon} {one.what:<10}", style=style), Text(one.found), soft_wrap=True)
    if one.advice:
        output().print(Text(f"  {'':<10} → {one.advice}", style="dim"), soft_wrap=True)
