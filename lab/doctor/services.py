"""The database, the broker, and the processes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from queue import Empty
from typing import Final

from kombu.exceptions import KombuError, OperationalError
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from lab.bootstrap import check_database
from lab.broker import make_celery
from lab.context import Lab
from lab.db.leadership import leader_is_there
from lab.db.processes import LEADER, list_processes, living_sites
from lab.db.session import make_engine
from lab.doctor.finding import Finding, error, ok, warning
from lab.errors import ConfigError, LabError
from lab.labfile import load_lab_file
from lab.settings import Settings

TRIGGERS: Final = frozenset({"jobs", "hosts"})
"""The tables whose changes are marked for the leader."""

OLDEST_POSTGRESQL: Final = 13
SKEW_S: Final = 2.0


def check_schema(settings: Settings) -> Iterator[Finding]:
    """The database answers, has this version's schema, and marks what changes."""
    kind = settings.database.partition(":")[0].partition("+")[0]
    if not settings.database_url and not (settings.home / "lab.db").exists():
        yield ok("database", "there is none yet; the first command that needs it makes it")
        return
    try:
        check_database(settings)
    except LabError as problem:
        if isinstance(problem, ConfigError) and not settings.database_url:
            yield warning("database", problem.message, "the next command that needs it brings it there")
        else:
            yield error("database", problem.message, problem.hint or "run `lab db upgrade`")
        return
    engine = make_engine(settings.database)
    try:
        with engine.connect() as connection:
            yield from _look(connection, kind)
    except SQLAlchemyError as problem:
        yield error("database", str(getattr(problem, "orig", problem)).splitlines()[0], "see its log")
    finally:
        engine.dispose()


def _look(connection: Connection, kind: str) -> Iterator[Finding]:
    if kind == "postgresql":
        version = int(str(connection.scalar(text("SHOW server_version_num")))) // 10_000
        marked = set(connection.scalars(text("SELECT tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal")))
        told = f"PostgreSQL {version}"
        if version < OLDEST_POSTGRESQL:
            yield warning("database", f"{told} is older than what is tested", f"use {OLDEST_POSTGRESQL} or later")
        there: datetime = connection.scalar(text("SELECT clock_timestamp()"))
        skew = abs((there - datetime.now(UTC)).total_seconds())
        if skew > SKEW_S:
            yield error("clocks", f"the database's clock is {skew:.0f} s off this machine's", "run NTP on both")
        else:
            yield ok("clocks", f"the database's and this machine's differ by less than {max(skew, 0.1):.1f} s")
    else:
        mode = connection.scalar(text("PRAGMA journal_mode"))
        marked = set(connection.scalars(text("SELECT tbl_name FROM sqlite_master WHERE type = 'trigger'")))
        told = f"SQLite {connection.scalar(text('SELECT sqlite_version()'))}, journal {mode}"
        if mode != "wal":
            yield warning("database", f"{told}: readers wait for writers", "is the lab's home on a network disk?")
    if missing := TRIGGERS - marked:
        yield error(
            "database", f"nothing marks the changes of {', '.join(sorted(missing))}", "restore it from a backup"
        )
    else:
        yield ok("database", f"{told}, schema as it should be")


def check_broker(settings: Settings) -> Iterator[Finding]:
    """A message goes there and comes back, in a queue of its own."""
    kind = settings.broker_url.partition(":")[0] or "folder"
    if not settings.broker_url and not settings.home.is_dir():
        yield ok("broker", "a folder in the lab's home, once that is there")
        return
    body = uuid.uuid4().hex
    try:
        with make_celery(settings, sending=True).connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
            queue = connection.SimpleQueue(f"doctor.{body}")
            try:
                queue.put(body)
                answer = queue.get(timeout=5)
                answer.ack()
            finally:
                queue.queue.delete()
                queue.close()
    except (KombuError, OperationalError, OSError, Empty) as problem:
        told = str(problem).strip() or "a message did not come back within 5 s"
        yield error("broker", f"{kind}: {told}", "is LAB_BROKER_URL right, and the server up?")
        return
    if answer.payload == body:
        yield ok("broker", f"{kind}: a message went there and came back")
    else:
        yield error("broker", f"{kind}: another message came back than was sent", "does somebody else use it?")


def check_processes(lab: Lab) -> Iterator[Finding]:
    """Somebody leads, and each site has a worker; without a broker of their own, commands do both as needed."""
    embedded = not lab.settings.broker_url
    now = lab.clock()
    with lab.reads() as session:
        leaders = [view.name for view in list_processes(session) if view.kind == LEADER and view.alive(now)]
        served = living_sites(session, now)
    if leader_is_there(lab.sessions.kw["bind"], lab.settings.home):
        yield ok("leader", f"{', '.join(leaders) or 'somebody'} leads")
    elif embedded:
        yield ok("leader", "nobody leads now; `lab flight run` and `lab serve` do while they run")
    else:
        yield error("leader", "nobody leads: no job starts", "start `lab leader`, best as a service")
    sites = load_lab_file(lab.settings.file).sites()
    without = [site for site in sites if site not in served]
    if not without:
        yield ok("workers", f"each site has one: {', '.join(sites)}")
    elif embedded:
        yield ok("workers", "none now; `lab flight run` and `lab serve` start one while they run")
    else:
        advice = f"start `lab worker --site {without[0]}` near its hosts, best as a service"
        yield error("workers", f"nobody works for {', '.join(without)}", advice)
