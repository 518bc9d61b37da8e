"""`lab matrix`: list, show. What would run, before it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click
from rich.table import Table
from rich.text import Text

from lab.bootstrap import load_catalogue
from lab.cli.render import json_option, output, print_json
from lab.flights.matrix import FLIGHTS, dump, flight_specs, select
from lab.flights.matrix.flights import REVISIONS
from lab.flights.matrix.table import SMOKE, Build
from lab.flights.model import JobSpec
from lab.flights.recipe import find_recipe

F = TypeVar("F", bound=Callable[..., Any])

_SHOWN_ELSEWHERE: Final = frozenset({"arch", "guest_image", "guest_memory", "all_hostflags"})
"""Runvars that every job has, or that another column tells."""


def matrix_options(function: F) -> F:
    """Which jobs: `--matrix`, `--build` and `--jobs`, for every command that takes a flight's jobs from the matrix."""
    for option in (
        click.option("--jobs", "patterns", multiple=True, help="Only these jobs (names or globs, comma-separated)."),
        click.option(
            "--build",
            type=click.Choice(["packaged", "source"]),
            default="packaged",
            show_default=True,
            help="Where Xen comes from: Debian's packages, or builds of the same versions from source.",
        ),
        click.option("--matrix", default=SMOKE, show_default=True, help=f"The set of jobs: {', '.join(FLIGHTS)}."),
    ):
        function = option(function)
    return function


def chosen_jobs(
    matrix: str, build: Build, patterns: Sequence[str], *, sources: Sequence[str] = tuple(REVISIONS)
) -> tuple[JobSpec, ...]:
    """The jobs that the options of `matrix_options` ask for; `NotFoundError` when they name none."""
    names = [part for text in patterns for part in text.split(",") if part]
    return select(flight_specs(matrix, build=build, sources=sources), names)


@click.group()
def matrix() -> None:
    """The job matrix: which jobs a flight has."""


@matrix.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """The flights that can be asked for by name."""
    found = {name: len(flight_specs(name)) for name in FLIGHTS}
    if as_json:
        print_json([{"name": name, "jobs": jobs} for name, jobs in found.items()])
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("matrix")
    table.add_column("jobs", justify="right")
    for name, jobs in found.items():
        table.add_row(name, str(jobs))
    output().print(table)


@matrix.command()
@matrix_options
@click.option("--plain", is_flag=True, help="One fact a line: to compare two versions of the matrix with diff.")
@json_option
def show(matrix: str, build: Build, patterns: tuple[str, ...], *, plain: bool, as_json: bool) -> None:
    """What would run: each job with its recipe, what its hosts boot, and its runvars. Starts nothing."""
    load_catalogue()
    specs = chosen_jobs(matrix, build, patterns)
    if plain:
        click.echo(dump(specs), nl=False)
        return
    if as_json:
        print_json([{"name": spec.name, "recipe": spec.recipe, "runvars": dict(spec.runvars)} for spec in specs])
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("job", no_wrap=True)
    table.add_column("arch")
    table.add_column("recipe")
    table.add_column("hosts", justify="right")
    table.add_column("runvars", overflow="fold")
    for spec in specs:
        own = {name: value for name, value in spec.runvars.items() if name not in _SHOWN_ELSEWHERE}
        table.add_row(
            spec.name,
            spec.runvars.get("arch", ""),
            spec.recipe,
            str(len(find_recipe(spec.recipe).roles)),
            Text(" ".join(f"{name}={value}" for name, value in own.items())),
        )
    output().print(table)
    output().print(f"{len(specs)} jobs", style="dim")
