"""One leader at a time: whoever holds the lock plans; it is gone with the process that held it."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine, text

_ADVISORY_KEY = 0x464C494748544C
"""Any number, but always this one ("FLIGHTL")."""


@contextlib.contextmanager
def leadership(engine: Engine, home: Path) -> Iterator[bool]:
    """Try to become the leader of this lab; yields whether it worked, and gives the lock back at the end."""
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            got = bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _ADVISORY_KEY}))
            connection.commit()
            try:
                yield got
            finally:
                if got:
                    connection.scalar(text("SELECT pg_advisory_unlock(:key)"), {"key": _ADVISORY_KEY})
                    connection.commit()
        return
    with (home / "leader.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
