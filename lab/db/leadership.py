"""One leader at a time: whoever holds the lock plans; it is gone with the process, or the machine, that held it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

import psycopg
from sqlalchemy import Engine, text

log = logging.getLogger(__name__)

LEADER_KEY = 0x464C494748544C
"""Any number, but always this one ("FLIGHTL")."""

_CLEANING_KEY = 0x434C4E

IDLE_S, INTERVAL_S, PROBES = 2, 1, 3
"""TCP keepalives: either side gives up after about five seconds without a sign of the other one's machine."""


class Candidate(Protocol):
    """A process that leads whenever nobody else does."""

    def leads(self) -> bool:
        """Whether this process leads now; tries to when nobody does. Cheap, raises nothing, never waits long.

        Who has led may find that it does not any more: then somebody else may lead by now.
        """

    def close(self) -> None:
        """Lead no more."""


def make_candidate(engine: Engine, home: Path) -> Candidate:
    """A candidate for the lab of this database: its server's lock, or a file beside SQLite."""
    return PostgresCandidate(engine) if engine.dialect.name == "postgresql" else FileCandidate(home)


class PostgresCandidate:
    """An advisory lock, held by a connection of its own: it is free as soon as that connection is gone.

    A process that dies closes it at once; a machine that vanishes is noticed by TCP keepalives, on both sides.
    """

    def __init__(self, engine: Engine) -> None:
        self._url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None
        self._leads = False

    def leads(self) -> bool:
        """Whether this process leads now."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            if self._leads:
                self._connection.execute("SELECT 1")  # the lock lives exactly as long as this session
            else:
                found = self._connection.execute("SELECT pg_try_advisory_lock(%s::bigint)", [LEADER_KEY]).fetchone()
                self._leads = bool(found and found[0])
        except psycopg.Error as error:
            if self._leads:
                log.warning("no longer the leader: the database is away: %s", str(error).strip())
            self._drop()
        return self._leads

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        connection = psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=3,
            application_name="flightline leader",
            keepalives_idle=IDLE_S,
            keepalives_interval=INTERVAL_S,
            keepalives_count=PROBES,
            tcp_user_timeout=5000,
        )
        # The server's side: it frees the lock of a machine that vanished.
        connection.execute(f"SET tcp_keepalives_idle = {IDLE_S:d}")
        connection.execute(f"SET tcp_keepalives_interval = {INTERVAL_S:d}")
        connection.execute(f"SET tcp_keepalives_count = {PROBES:d}")
        connection.execute("SET tcp_user_timeout = 5000")
        return connection

    def close(self) -> None:
        """Lead no more."""
        if self._leads and self._connection is not None:
            with contextlib.suppress(psycopg.Error):  # the lock goes with the connection, but that may take a while
                self._connection.execute("SELECT pg_advisory_unlock(%s::bigint)", [LEADER_KEY])
        self._drop()

    def _drop(self) -> None:
        self._leads = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class FileCandidate:
    """A lock on a file in the lab's home, for the processes of one machine."""

    def __init__(self, home: Path) -> None:
        self._path = home / "leader.lock"
        self._held: IO[str] | None = None

    def leads(self) -> bool:
        """Whether this process leads now."""
        if self._held is None:
            self._held = _flock(self._path)
        return self._held is not None

    def close(self) -> None:
        """Lead no more."""
        if self._held is not None:
            self._held.close()
            self._held = None


def leader_is_there(engine: Engine, home: Path) -> bool:
    """Whether some process leads this lab now. Asks without trying to."""
    if engine.dialect.name == "postgresql":
        held = text(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND classid = :high AND objid = :low"
        )
        with engine.connect() as connection:
            return bool(connection.scalar(held, {"high": LEADER_KEY >> 32, "low": LEADER_KEY & 0xFFFFFFFF}))
    return _is_locked(home / "leader.lock")


@contextlib.contextmanager
def only_cleaner(engine: Engine, home: Path, host: str) -> Iterator[bool]:
    """Try to become the only one who cleans `host`: two at once, and one would switch off the next job's machine."""
    if engine.dialect.name == "postgresql":
        keys = {"key": _CLEANING_KEY, "host": host}
        lock = "CAST(:key AS int), hashtext(:host)"
        with engine.connect() as connection:
            got = bool(connection.scalar(text(f"SELECT pg_try_advisory_lock({lock})"), keys))
            connection.commit()
            try:
                yield got
            finally:
                if got:
                    connection.scalar(text(f"SELECT pg_advisory_unlock({lock})"), keys)
                    connection.commit()
        return
    held = _flock(home / f"clean-{host}.lock")
    try:
        yield held is not None
    finally:
        if held is not None:
            held.close()


def _flock(path: Path) -> IO[str] | None:
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
