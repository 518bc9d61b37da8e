"""How a command gets its lab: settings, options that override them, a database that is ready."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lab.bootstrap import bootstrap, check_database, check_space, make_home, sync_hosts, upgrade_database
from lab.context import Lab
from lab.settings import Settings, read_settings

F = TypeVar("F", bound=Callable[..., Any])


def lab_option(function: F) -> F:
    """`--lab FILE`: another lab.toml than the default one."""
    return click.option(
        "--lab",
        "lab_file",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="LAB_FILE",
        help="The file that describes the lab's hosts (default: lab.toml of the project).",
    )(function)


def settings_with(lab_file: Path | None = None) -> Settings:
    """The settings, with the options of the command line in them."""
    settings = read_settings()
    return settings.model_copy(update={"file": lab_file.absolute()}) if lab_file else settings


def open_lab(settings: Settings | None = None) -> Lab:
    """The lab, for commands that look: a default (SQLite) database is made and upgraded as needed."""
    settings = settings or read_settings()
    make_home(settings.home)
    if settings.database_url:
        check_database(settings)
    else:
        upgrade_database(settings)
    return bootstrap(settings)


def open_working_lab(lab_file: Path | None = None) -> Lab:
    """The lab, for commands that start something: disk space is checked, and the hosts are those of the file."""
    settings = settings_with(lab_file)
    make_home(settings.home)
    check_space(settings)
    lab = open_lab(settings)
    sync_hosts(lab)
    return lab
