"""`lab tree`: add, import-debian, list."""

from __future__ import annotations

import click
from rich.table import Table

from lab.bootstrap import make_home, make_trees
from lab.cli.render import errors, json_option, output, print_json
from lab.debian_source import import_debian
from lab.settings import read_settings
from lab.vcs import Trees


@click.group()
def tree() -> None:
    """Source trees: what builds are made from."""


def open_trees() -> Trees:
    """The trees of the lab's home."""
    settings = read_settings()
    make_home(settings.home)
    return make_trees(settings)


@tree.command()
@click.argument("name")
@click.argument("source")
def add(name: str, source: str) -> None:
    """Mirror the git repository at SOURCE (a URL or a path) as tree NAME; if it is there, fetch what is new."""
    state = open_trees().add(name, source)
    output().print(f"tree {name}: {len(state.branches)} branches, {state.tags} tags")


@tree.command("import-debian")
@click.argument("name")
@click.argument("suite")
def import_debian_(name: str, suite: str) -> None:
    """Make a commit of Debian's Xen source package of SUITE, as branch debian-SUITE of tree NAME."""
    commit = import_suite(open_trees(), name, suite)
    output().print(f"tree {name}: branch debian-{suite} is {commit[:12]}")


@tree.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """The trees, where they come from, and their branches."""
    states = open_trees().state()
    if as_json:
        print_json(
            [
                {"name": one.name, "origin": one.origin, "branches": list(one.branches), "tags": one.tags}
                for one in states
            ]
        )
        return
    if not states:
        output().print("There is no tree yet. Add one: lab tree import-debian xen bookworm")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("tree", "origin", "tags", "branches"):
        table.add_column(column)
    for one in states:
        shown = ", ".join(one.branches[:6]) + (f" … {len(one.branches) - 6} more" if len(one.branches) > 6 else "")
        table.add_row(one.name, one.origin or "-", str(one.tags), shown)
    output().print(table, markup=False)


def import_suite(trees: Trees, name: str, suite: str) -> str:
    """Import a suite's Xen, with a line of progress per stage."""
    return import_debian(
        trees, name, suite, lambda stage: errors().print(f"tree {name}, Debian {suite}: {stage}", markup=False)
    )
