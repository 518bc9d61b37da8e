"""`lab db`: upgrade, revision."""

from __future__ import annotations

import click

from lab.bootstrap import make_home, upgrade_database, write_revision
from lab.cli.render import output
from lab.settings import read_settings


@click.group()
def db() -> None:
    """The database."""


@db.command()
def upgrade() -> None:
    """Bring the database to this version's schema."""
    settings = read_settings()
    make_home(settings.home)
    upgrade_database(settings)
    output().print("the database is at this version's schema")


@db.command()
@click.argument("message")
def revision(message: str) -> None:
    """Write a migration from the difference between the tables and the database (for developers)."""
    settings = read_settings()
    make_home(settings.home)
    output().print(write_revision(settings, message))
