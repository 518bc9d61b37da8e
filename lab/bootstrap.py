"""The composition root: the one place that knows every concrete class."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

import testcases
from lab.boot_targets import BuiltImages
from lab.broker import CeleryDispatch
from lab.builds import BuildStore
from lab.context import Bell, Lab
from lab.db import hosts as host_rows
from lab.db.bell import PostgresBell, SocketBell
from lab.db.session import make_engine, make_read_sessions, make_sessions
from lab.errors import ConfigError, InfraError
from lab.flights import recipes
from lab.flights.recipe import all_recipes
from lab.flights.steps import all_steps, load_all
from lab.hosts.drivers import LabMachines
from lab.images import ImageStore
from lab.labfile import load_lab_file
from lab.settings import PROJECT, Settings
from lab.vcs import Trees
from lab.xsm_policy import PolicyFolder


def now() -> datetime:
    """The lab's clock."""
    return datetime.now(UTC)


def make_home(home: Path) -> None:
    """Create the lab's home, for its owner only; `ConfigError` or `InfraError` when that cannot be."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (home / "logs").mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the lab's home {home} cannot be made: {error.strerror}", hint="set LAB_HOME to a folder you may write"
        ) from error


def check_space(settings: Settings) -> None:
    """Raise `InfraError` when too little disk is left to start anything."""
    try:
        free = shutil.disk_usage(settings.home).free >> 20
    except OSError as error:
        raise InfraError(f"the disk of {settings.home} cannot be read: {error.strerror}") from error
    if free < settings.min_free_mib:
        raise InfraError(
            f"only {free} MiB are free in {settings.home}, {settings.min_free_mib} MiB are needed",
            hint="free some space, or set LAB_HOME to a larger disk",
        )


def make_bell(settings: Settings, engine: Engine) -> Bell:
    """The bell that goes with the database."""
    return PostgresBell(engine) if engine.dialect.name == "postgresql" else SocketBell(settings.home)


def load_catalogue() -> None:
    """Import every test case and recipe, and check that each recipe's steps exist."""
    load_all(testcases)
    load_all(recipes)
    steps = all_steps()
    for recipe in all_recipes().values():
        if unknown := {line.step for line in recipe.lines} - steps.keys():
            raise ConfigError(f"recipe {recipe.name} names steps that do not exist: {', '.join(sorted(unknown))}")


def bootstrap(settings: Settings) -> Lab:
    """Build the lab of these settings. Starts nothing, and expects the database to be there (`upgrade_database`)."""
    make_home(settings.home)
    load_catalogue()
    lab_file = load_lab_file(settings.file)
    engine = make_engine(settings.database)
    builds = make_builds(settings)
    reads = make_read_sessions(engine)
    return Lab(
        settings=settings,
        sessions=make_sessions(engine),
        reads=reads,
        clock=now,
        hosts=lab_file.hosts(),
        machines=LabMachines(lab_file, settings.home),
        images=BuiltImages(make_image_store(settings), builds),
        builds=builds,
        bell=make_bell(settings, engine),
        dispatch=CeleryDispatch(settings, reads),
        build_site=lab_file.build_site(),
        limit=lab_file.limit(),
        scheduler=lab_file.scheduler,
        lease_rules=lab_file.lease_rules(),
        health_rules=lab_file.health_rules(),
        starvation=lab_file.starvation_rule(),
        bisection=lab_file.bisection,
        mail=lab_file.mail,
        branches=lab_file.branch,
        coverage=lab_file.coverage,
    )


def make_image_store(settings: Settings) -> ImageStore:
    """The store of built images."""
    return ImageStore(settings.home, settings.manifests)


def make_trees(settings: Settings) -> Trees:
    """The source trees."""
    return Trees(settings.home)


def make_builds(settings: Settings) -> BuildStore:
    """The store of builds from source."""
    policies = PolicyFolder(settings.policies)
    return BuildStore(settings.home, make_trees(settings), make_image_store(settings), policies)


def _alembic_config(engine: Engine) -> Config:
    config = Config()
    config.set_main_option("script_location", str(PROJECT / "alembic"))
    config.attributes["engine"] = engine
    return config


def upgrade_database(settings: Settings) -> None:
    """Bring the database to this version's schema."""
    engine = make_engine(settings.database)
    try:
        command.upgrade(_alembic_config(engine), "head")
    except DatabaseError as error:
        raise _database_error(error) from error
    except CommandError as error:
        raise ConfigError("the database is of a newer version of this program", hint="update the program") from error
    finally:
        engine.dispose()


def check_database(settings: Settings) -> None:
    """Raise `ConfigError` when the database is not at this version's schema."""
    engine = make_engine(settings.database)
    try:
        with engine.connect() as connection:
            have = MigrationContext.configure(connection).get_current_revision()
    except DatabaseError as error:
        raise _database_error(error) from error
    finally:
        engine.dispose()
    want = ScriptDirectory.from_config(_alembic_config(engine)).get_current_head()
    if have != want:
        raise ConfigError("the database is not at this version's schema", hint="run `lab db upgrade`")


def _database_error(error: SQLAlchemyError) -> InfraError:
    reason = str(getattr(error, "orig", error)).strip().splitlines()
    hint = "is LAB_DATABASE_URL right, the server up, and the disk not full?"
    if "disk is full" in str(reason) or "No space left" in str(reason):
        hint = "free some disk space"
    return InfraError(f"the database does not answer: {reason[0] if reason else error}", hint=hint)


def sync_hosts(lab: Lab) -> None:
    """Make the host table hold what the lab's file says."""
    with lab.sessions.begin() as session:
        host_rows.sync_hosts(session, lab.hosts)


def write_revision(settings: Settings, message: str) -> str:
    """Write a migration file from the difference between the tables and the database; returns its path."""
    upgrade_database(settings)
    engine = make_engine(settings.database)
    try:
        scripts = ScriptDirectory.from_config(_alembic_config(engine))
        number = f"{int(scripts.get_current_head() or 0) + 1:04d}"
        script = command.revision(_alembic_config(engine), message=message, autogenerate=True, rev_id=number)
    finally:
        engine.dispose()
    return str(getattr(script, "path", script))
