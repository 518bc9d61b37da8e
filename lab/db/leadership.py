"""One leader at a time: whoever holds the lock plans; it is gone with the process that held it."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine, text

_ADVISORY_KEY = 0x464C494748544C
"""Any number, but always this one ("FLIGHTL")."""

_CLEANING_KEY = 0x434C4E


@contextlib.contextmanager
def leadership(engine: Engine, home: Path) -> Iterator[bool]:
    """Try to become the leader of this lab; yields whether it worked, and gives the lock back at the end."""
    with _lock(engine, home / "leader.lock", "CAST(:key AS bigint)", {"key": _ADVISORY_KEY}) as got:
        yield got


@contextlib.contextmanager
def only_cleaner(engine: Engine, home: Path, host: str) -> Iterator[bool]:
    """Try to become the only one who cleans `host`: two at once, and one would switch off the next job's machine."""
    keys = {"key": _CLEANING_KEY, "host": host}
    with _lock(engine, home / f"clean-{host}.lock", "CAST(:key AS int), hashtext(:host)", keys) as got:
        yield got


@contextlib.contextmanager
def _lock(engine: Engine, file: Path, key: str, values: dict[str, object]) -> Iterator[bool]:
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            got = bool(connection.scalar(text(f"SELECT pg_try_advisory_lock({key})"), values))
            connection.commit()
            try:
                yield got
            finally:
                if got:
                    connection.scalar(text(f"SELECT pg_advisory_unlock({key})"), values)
                    connection.commit()
        return
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
