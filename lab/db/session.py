"""Engines and sessions for SQLite and PostgreSQL."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Update, and_, create_engine, event, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Session, sessionmaker

from lab.errors import ConfigError

log = logging.getLogger(__name__)

BUSY_TIMEOUT_MS = 30_000
"""How long a writer of SQLite waits for another one."""


def matched(session: Session, statement: Update) -> bool:
    """Execute an UPDATE; whether any row met its conditions. How a change is made only if nobody was quicker."""
    return bool(session.execute(statement).rowcount)  # type: ignore[attr-defined]


def one_of(
    flight: InstrumentedAttribute[int], name: InstrumentedAttribute[str], keys: Collection[tuple[int, str]]
) -> ColumnElement[bool]:
    """Whether these two columns are one of the pairs. SQLite looks lists of pairs up by no index, flights it does."""
    return and_(flight.in_({flight for flight, _ in keys}), tuple_(flight, name).in_(list(keys)))


def upsert(session: Session, table: type[DeclarativeBase]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT into `table` that knows ON CONFLICT, in the words of the session's database."""
    is_postgresql = session.get_bind().dialect.name == "postgresql"
    return postgresql.insert(table) if is_postgresql else sqlite.insert(table)


def insert_unless_there(session: Session, table: type[DeclarativeBase], rows: list[dict[str, object]]) -> None:
    """Insert rows; those whose keys are there already (somebody may be quicker) stay as they are."""
    session.execute(upsert(session, table).on_conflict_do_nothing(), rows)


def make_engine(url: str) -> Engine:
    """An engine for `url` (sqlite:///… or postgresql+psycopg://…); `ConfigError` for anything else."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(
            "LAB_DATABASE_URL is not a database URL",
            hint="e.g. sqlite:////var/lib/lab.db or postgresql+psycopg://lab@localhost/lab",
        ) from error
    match parsed.get_backend_name():
        case "sqlite":
            engine = create_engine(parsed)
            _configure_sqlite(engine)
            return engine
        case "postgresql":
            return create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
        case other:
            raise ConfigError(f"LAB_DATABASE_URL: {other} is not supported", hint="use sqlite or postgresql")


def _configure_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the library must not begin transactions on its own: see `begin`
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        _use_wal(cursor)
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A deferred transaction that turns into a write after somebody else wrote fails at once; taking the write
        # lock at the start waits for it instead.
        readonly = connection.get_execution_options().get("readonly")
        connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")


def _use_wal(cursor: Any) -> None:
    """Have readers and a writer work side by side.

    The file remembers it; of several who find it new, SQLite refuses all but one at once, whatever its timeout says.
    """
    end = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


def make_sessions(engine: Engine) -> sessionmaker[Session]:
    """Sessions that read and write; one unit of work each (`with sessions.begin() as session`)."""
    return sessionmaker(engine, expire_on_commit=False)


def make_read_sessions(engine: Engine) -> sessionmaker[Session]:
    """Sessions that only read and never wait for a writer."""
    return sessionmaker(engine.execution_options(readonly=True), expire_on_commit=False)


def after_commit(session: Session, call: Callable[[], None]) -> None:
    """Run `call` once when this session has committed, and never if it rolls back.

    What it raises is only logged: the rows are written, and a message that is lost costs time, never correctness.
    """

    def send(_session: Session) -> None:
        try:
            call()
        except Exception:
            log.exception("a message was not sent")

    event.listen(session, "after_commit", send, once=True)
